"""Read-only arrays that stay read-only: copies and pickles of NumPy arrays come back writable."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from attnembed._sparse import is_sparse
from attnembed._validation import freeze

__all__ = ["KeepsFrozen"]


class KeepsFrozen:
    """Mixin for frozen objects that hold arrays: results of `copy` and `pickle` are frozen as well.

    Values of `functools.cached_property` are dropped and computed again from the new arrays. Arrays in attributes, and
    in lists, tuples and dicts of them, are frozen; other objects are left to themselves.

    >>> import copy, dataclasses
    >>> @dataclasses.dataclass(frozen=True, eq=False)
    ... class Points(KeepsFrozen):
    ...     x: np.ndarray
    >>> copy.deepcopy(Points(freeze(np.zeros(2)))).x.flags.writeable
    False
    """

    def __getstate__(self) -> dict[str, Any]:
        kinds = type(self).__mro__
        cached = {name for kind in kinds for name, value in vars(kind).items() if isinstance(value, cached_property)}
        return {name: value for name, value in vars(self).items() if name not in cached}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for value in state.values():
            _freeze_within(value)
        vars(self).update(state)


def _freeze_within(value: Any) -> None:
    if isinstance(value, np.ndarray):
        freeze(value)
    elif is_sparse(value):
        for part in vars(value).values():
            _freeze_within(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _freeze_within(part)
    elif isinstance(value, dict):
        _freeze_within(list(value.values()))
