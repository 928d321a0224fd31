"""The old name of `attnembed.integration` and `attnembed.clocks`, which keeps working for one release."""

from __future__ import annotations

from typing import Any

from attnembed import clocks, integration
from attnembed._deprecation import warn_deprecated

_NEW = {"integrate": "follow"}
_NAMES = ("CLOCKS", "Clock", "FlowField", "FlowPoint", "Trajectory", "integrate", "log_time_of")


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = _NEW.get(name, name)
    home = clocks if hasattr(clocks, new) else integration
    warn_deprecated(f"attnembed.flow.{name}", f"{home.__name__}.{new}")
    return getattr(home, new)
