"""The old name of `attnembed.integration` and `attnembed.clocks`, which keeps working for one release."""

from __future__ import annotations

from attnembed._deprecation import moved

__getattr__ = moved(
    __name__,
    {
        **dict.fromkeys(("CLOCKS", "Clock", "FlowField", "log_time_of"), "attnembed.clocks"),
        **dict.fromkeys(("FlowPoint", "Trajectory"), "attnembed.integration"),
        "integrate": "attnembed.integration:follow",
    },
)
