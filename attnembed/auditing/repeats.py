"""Repeated items, across parts and under different labels."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Ints
from attnembed.auditing.record import Fact
from attnembed.results import Record

__all__ = ["Repeats", "numbered", "repeat_facts"]


def numbered(items: Iterable[Hashable]) -> NDArray[np.intp]:
    """The number of each item, the same for equal ones, in the order of their first appearance.

    >>> numbered("abac").tolist()
    [0, 1, 0, 2]
    """
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(item, len(index)) for item in items], dtype=np.intp)


@dataclass(frozen=True, eq=False, repr=False)
class Repeats(Record):
    """Items by number, with the part and the label of each, all (n,).

    >>> items = Repeats(numbered("aabbc"), np.array([0, 0, 0, 1, 1]), np.array([1, 2, 1, 1, 1]))
    >>> items.repeated.tolist(), items.across.tolist(), items.contradictory.tolist()
    ([True, True, True, True, False], [False, False, True, True, False], [True, True, False, False, False])
    """

    number: Ints
    part: Ints
    label: Ints

    def _several(self, values: Ints) -> NDArray[np.bool_]:
        """Whether items equal to this one have more than one of the values."""
        pairs = np.unique(np.stack([self.number, values]), axis=1)
        return np.asarray(np.bincount(pairs[0], minlength=int(self.number.max()) + 1)[self.number] > 1)

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """Items that occur more than once."""
        return np.asarray(np.bincount(self.number)[self.number] > 1)

    @property
    def across(self) -> NDArray[np.bool_]:
        """Items that also occur in another part."""
        return self._several(self.part)

    @property
    def contradictory(self) -> NDArray[np.bool_]:
        """Items that also occur with another label."""
        return self._several(self.label)

    def distinct(self, chosen: NDArray[np.bool_]) -> int:
        """The number of distinct items among the chosen ones."""
        return int(np.unique(self.number[chosen]).size)


def repeat_facts(what: str, repeats: Repeats, parts: Sequence[str], label: str = "label") -> list[Fact]:
    """Duplicates within and across the parts, and contradictions, for items called ``what``."""
    n = repeats.number.size
    facts = [Fact("duplicates", f"{what} that occur more than once", int(repeats.repeated.sum()), n)]
    if len(parts) > 1:
        facts.append(Fact("duplicates", f"{what} that another part has, too", int(repeats.across.sum()), n))
    if len(parts) == 2:
        test = repeats.part == 1
        found = int((repeats.across & test).sum())
        facts.append(
            Fact("duplicates", f"{what} of the {parts[1]} part that the {parts[0]} part has", found, int(test.sum()))
        )
    wrong = repeats.contradictory
    distinct = int(repeats.number.max()) + 1
    facts.append(
        Fact("contradictions", f"different {what} with more than one {label}", repeats.distinct(wrong), distinct)
    )
    facts.append(Fact("contradictions", f"{what} among these", int(wrong.sum()), n))
    return facts
