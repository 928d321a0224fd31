"""The measurement of a claim: a number, its limit, the negative control, and the hypotheses on the instance."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnembed._validation import check_items
from attnembed.attention.theory.hypotheses import Hypothesis
from attnembed.errors import InputError, InputTypeError

__all__ = ["Evidence", "Hypotheses", "by_construction", "largest"]

Hypotheses = Mapping[str, "bool | Hypothesis"] | Iterable[Hypothesis]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measurement of a claim on one instance, where it holds if ``measured`` <= ``bound`` (or ``tolerance``).

    Parameters
    ----------
    measured : smaller is better; NaN and infinity fail
    control : the same measurement where the statement does not apply (a wrong formula, a broken hypothesis); it must
        exceed the limit, or the measurement cannot tell right from wrong
    bound : the limit, if it is part of the statement; then the ratio measured / bound is informative
    tolerance : the limit, if the statement is an equality, a sign or a limit, to allow for rounding or finite time;
        there is no ratio. Exactly one of ``bound`` and ``tolerance`` is given
    control_bound : the value that ``control`` must exceed (default: the limit)
    hypotheses : whether each hypothesis holds on the instance: ``{text: bool}``, ``{text: Hypothesis}``, or the
        `Hypothesis` objects of a prediction, as in ``hypotheses=prediction.hypotheses``
    note : a remark, shown with the numbers

    Raises
    ------
    InputError
        unless exactly one of ``bound`` and ``tolerance`` is given.
    InputTypeError
        for a value that is not a real number, or hypotheses in another form.

    >>> Evidence(measured=0.5, bound=1.0, control=2.0, hypotheses={"eta beta < 2": True}).limit
    1.0
    """

    measured: float
    control: float
    bound: float | None = None
    tolerance: float | None = None
    control_bound: float | None = None
    hypotheses: Hypotheses = ()
    note: str = ""

    def __post_init__(self) -> None:
        if (self.bound is None) == (self.tolerance is None):
            got = "neither" if self.bound is None else "both"
            raise InputError("bound", "or else `tolerance` must be given", got=got, hint="give exactly one of the two")
        for name in ("measured", "control", "bound", "tolerance", "control_bound"):
            value = getattr(self, name)
            if value is not None or name in ("measured", "control"):
                object.__setattr__(self, name, _number(name, value))
        object.__setattr__(self, "hypotheses", _held(self.hypotheses))
        if not isinstance(self.note, str):
            raise InputTypeError("note", "must be text", got=type(self.note).__name__)

    @property
    def limit(self) -> float:
        """``bound`` or ``tolerance``, whichever was given."""
        limit = self.tolerance if self.bound is None else self.bound
        assert limit is not None
        return limit

    @property
    def held(self) -> dict[str, bool]:
        """Whether each hypothesis, by its text, holds on the instance."""
        assert isinstance(self.hypotheses, Mapping)
        return {name: bool(holds) for name, holds in self.hypotheses.items()}


def largest(*values: Any) -> float:
    """The largest of some numbers, or of those of an iterable; NaN if one is NaN, which ``max`` would lose.

    >>> max(0.0, math.nan), largest(0.0, math.nan)
    (0.0, nan)
    """
    numbers = [float(value) for value in (values if len(values) > 1 else values[0])]
    return math.nan if any(map(math.isnan, numbers)) else max(numbers)


def _number(name: str, value: Any) -> float:
    """A real number, NaN and infinity included, as a float."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:  # an int or a fraction beyond the range of floats
            return math.inf if operator.gt(value, 0) else -math.inf
    if isinstance(value, np.bool_):
        return float(value)
    raise InputTypeError(name, "must be a real number", got=_kind(value))


def _held(hypotheses: Any) -> dict[str, bool]:
    if isinstance(hypotheses, Hypothesis):
        hypotheses = (hypotheses,)
    if isinstance(hypotheses, Mapping):
        pairs = list(hypotheses.items())
    elif isinstance(hypotheses, Iterable) and not isinstance(hypotheses, (str, bytes)):
        pairs = [(getattr(entry, "name", None), entry) for entry in check_items("hypotheses", hypotheses, "hypotheses")]
    else:
        pairs = [(None, hypotheses)]
    found: dict[str, bool] = {}
    for name, entry in pairs:
        if not isinstance(name, str) or not isinstance(entry, (bool, np.bool_, Hypothesis)):
            hint = "use {text: bool}, or the `hypotheses` of a prediction"
            raise InputTypeError("hypotheses", "must say which hypotheses hold", got=_kind(entry), hint=hint)
        if name in found:
            raise InputError("hypotheses", "must name each hypothesis once", got=f"{name!r} twice")
        found[name] = entry.holds if isinstance(entry, Hypothesis) else bool(entry)
    return found


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}{f' of shape {shape}' if shape else ''}"


class by_construction(str):
    """A hypothesis that need not be measured, because the instances satisfy it by construction: text and ``code``.

    ``code`` quotes the line that ensures it, which must occur in the module of the claim, so that it cannot go stale.

    >>> even = by_construction("n is even", code="n = 2 * int(rng.integers(1, 6))")
    >>> even, even.code
    ('n is even', 'n = 2 * int(rng.integers(1, 6))')
    """

    __slots__ = ("code",)
    code: str

    def __new__(cls, text: str, *, code: str) -> by_construction:
        """The text of a hypothesis, and the code that ensures it."""
        for name, value in (("text", text), ("code", code)):
            if not isinstance(value, str) or not value.strip():
                raise InputTypeError(name, "must be text that is not empty", got=repr(value))
        made = super().__new__(cls, text)
        made.code = code
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str]]:  # for copies and pickles
        return (str(self),), {"code": self.code}
