"""The hypotheses of a statement, each with its measured value, and the base class of all predictions.

A violated hypothesis is not an error. The prediction is returned all the same, and says which hypothesis fails and by
how much.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from attnembed.results import Record, to_plain

__all__ = ["Hypothesis", "Prediction"]


_RELATIONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Hypothesis:
    """One inequality that a statement assumes: ``measured`` ``relation`` ``required``.

    >>> print(Hypothesis("p is zero", 0.3, "<=", 0.0))
    fails: p is zero (measured 0.3, required <= 0, off by 0.3)
    """

    name: str
    measured: float
    relation: str
    required: float

    @property
    def holds(self) -> bool:
        """Whether the inequality is true; never for NaN."""
        return bool(_RELATIONS[self.relation](self.measured, self.required))

    @property
    def slack(self) -> float:
        """The amount by which it holds (positive) or fails (negative)."""
        difference = self.required - self.measured
        return float(difference if self.relation.startswith("<") else -difference)

    def __str__(self) -> str:
        text = f"measured {self.measured:.4g}, required {self.relation} {self.required:.4g}"
        if self.holds:
            return f"holds: {self.name} ({text})"
        if self.slack == 0:
            off = ", on the boundary"
        else:
            off = f", off by {-self.slack:.3g}" if self.slack == self.slack else ""
        return f"fails: {self.name} ({text}{off})"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Prediction(Record):
    """Base class of all predictions: the predicted quantities and the ``hypotheses`` on which they rest."""

    hypotheses: tuple[Hypothesis, ...]

    @property
    def holds(self) -> bool:
        """Whether every hypothesis holds, so that the statement applies."""
        return all(hypothesis.holds for hypothesis in self.hypotheses)

    @property
    def failures(self) -> tuple[Hypothesis, ...]:
        """The hypotheses that fail."""
        return tuple(hypothesis for hypothesis in self.hypotheses if not hypothesis.holds)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON; each hypothesis with its truth value."""
        plain: dict[str, Any] = to_plain(self)
        for entry, hypothesis in zip(plain["hypotheses"], self.hypotheses):
            entry["holds"] = hypothesis.holds
        return plain | {"holds": self.holds}

    def __str__(self) -> str:
        verdict = "applies" if self.holds else "does not apply"
        return "\n  ".join([f"{type(self).__name__} {verdict}", *map(str, self.hypotheses)])
