"""The registry of claims: each theorem as a statement with hypotheses, a measurement, a limit and a negative control.

A claim is a function of a random generator, or of a problem that the package draws, that returns `Evidence`. Smaller
is better: a claim holds on an instance if its hypotheses do and ``measured`` is at most its bound (or tolerance).
Its *negative control* is the same measurement on a variant that the theorem does not cover (a wrong formula, a broken
hypothesis); it must exceed that limit, or the measurement cannot tell right from wrong.

The registry is open: any module may declare claims under its own subject.
"""

from __future__ import annotations

import importlib
import inspect
import linecache
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from attnembed._declared import CLAIM_MODULES
from attnembed._validation import RNGLike, check_choice, check_items, shown
from attnembed.errors import InputError, InputTypeError
from attnembed.evidence.instances import problem_parameter
from attnembed.evidence.measurement import Evidence, by_construction

__all__ = ["Claim", "Evidence", "by_construction", "claim", "claims"]

# Importing these modules registers their claims.
_MODULES = CLAIM_MODULES
SUBJECTS = tuple(_MODULES)
EVERY = "all"

_PACKAGE = Path(__file__).parents[1]

_ID = re.compile(r"[^\W\d_][\w-]*(/\w[\w.+-]*)+")

Measure = Callable[[np.random.Generator], Evidence] | Callable[[Any], Evidence]


@dataclass(frozen=True)
class Claim:
    """A registered statement; ``derivation`` is a page under docs/, ``control`` describes the negative control."""

    id: str
    subject: str
    statement: str
    tex: str
    reference: str
    hypotheses: tuple[str, ...]
    control: str
    derivation: str
    measure: Measure = field(repr=False)

    def __str__(self) -> str:
        return self.id

    @property
    def short_id(self) -> str:
        """The id without its subject."""
        return self.id.partition("/")[2]

    @property
    def takes_problem(self) -> bool:
        """Whether the claim takes a `Problem` drawn for it instead of a generator."""
        return problem_parameter(self.measure)[0]

    @property
    def problems(self) -> Any:
        """The Hypothesis strategy of the problems; None for `problems()` of `attnembed.testing`."""
        return problem_parameter(self.measure)[1]

    def check(self, rng: RNGLike = 0, *, instances: int = 20) -> None:
        """Measure the claim, and raise AssertionError with the full report unless it passes.

        For tests: ``@pytest.mark.parametrize("claim", ae.claims("mine"), ids=str)``.

        >>> claims("attention")[1].check(rng=0, instances=2)
        """
        from attnembed.evidence.run import verify

        report = verify([self], instances=instances, rng=rng)
        if not report.passed:
            story = [self.statement, *(f"hypothesis: {text}" for text in self.hypotheses), f"control: {self.control}"]
            raise AssertionError("\n".join([f"{self.id} {report.results[0].verdict}", *story, str(report)]))


_registry: dict[str, Claim] = {}


def claim(
    id: str,
    *,
    statement: str,
    control: str,
    hypotheses: tuple[str, ...] = (),
    tex: str = "",
    reference: str = "",
    derivation: str = "",
) -> Callable[[Measure], Measure]:
    """Decorator that declares a statement as a claim, so that `claims` lists it and `verify` measures it.

    The function takes a `numpy.random.Generator`, draws an instance with it, and returns `Evidence`. Or it takes a
    ``problem`` drawn for it: annotated as `attnembed.testing.Problem`, any problem of the attention model; annotated
    as ``Annotated[Problem, strategy]``, one drawn by the Hypothesis strategy.

    Parameters
    ----------
    id : "SUBJECT/NAME", as in "mine/step-never-hurts", with your own subject
    statement : the claim, as a sentence without its full stop
    control : description of the negative control
    hypotheses : the assumptions of the statement, in the same words as in the evidence; a measured quantity after a
        colon is left out ("p_0 is zero" stands for "p_0 is zero: ||p_0||"). Assumptions that all instances satisfy
        are `by_construction`
    tex, reference, derivation : formula, source, and page under docs/; optional

    Raises
    ------
    InputError
        for an id that is taken or has no subject, or one of the package, and for an empty statement or control.
    InputTypeError
        for a text of another type, and for a function that cannot be called with a generator or is annotated to return
        anything but `Evidence`.

    >>> @claim("readme/square", statement="a square is not negative", control="a cube")
    ... def square(rng):
    ...     x = rng.standard_normal(100)
    ...     return Evidence(measured=max(-(x**2)), tolerance=0.0, control=max(-(x**3)))
    >>> claims("readme")[0].check(rng=0, instances=3)
    """
    _check_id(id)
    texts = {"statement": statement, "control": control, "tex": tex, "reference": reference, "derivation": derivation}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InputTypeError(name, "must be text", got=type(text).__name__)
        if not text.strip() and name in ("statement", "control"):
            raise InputError(name, "must not be empty", hint=f"say what the {name} of {id} is")
    _check_hypotheses(hypotheses)

    def register(measure: Measure) -> Measure:
        _check_measure(id, measure)
        subject = id.partition("/")[0]
        if subject in SUBJECTS and not _is_own(measure, subject):
            hint = f"use a subject of your own, as in 'mine/{id.partition('/')[2]}'"
            raise InputError("id", "must not use a subject of the package", got=repr(id), hint=hint)
        taken = _registry.get(id)
        if taken is not None and not _declared_again(taken.measure, measure):
            raise InputError("id", "must be unique among the claims", got=f"{id!r}, {_declared_at(taken.measure)}")
        for hypothesis in hypotheses:
            _check_code(hypothesis, measure)
        _registry[id] = Claim(id, subject, statement, tex, reference, tuple(hypotheses), control, derivation, measure)
        return measure

    return register


def claims(subject: str = EVERY) -> tuple[Claim, ...]:
    """The registered claims of a subject, or of "all": those of the package in the order of the theory, then others.

    >>> claims("attention")[0].id
    'attention/gradients-exact'
    """
    subjects = tuple(dict.fromkeys((*SUBJECTS, *(entry.subject for entry in _registry.values()))))
    check_choice("subject", subject, (*subjects, EVERY))
    wanted = subjects if subject == EVERY else (subject,)
    for name in wanted:
        if name in _MODULES:
            importlib.import_module(_MODULES[name])
    return tuple(entry for name in wanted for entry in _registry.values() if entry.subject == name)


def named_claims(name: str, ids: Any, given: Sequence[Claim], subject: str = "") -> tuple[Claim, ...]:
    """The ``given`` claims named by ``ids``, each once, in this order; ``name`` is their name in errors.

    An id may leave out its subject if no other claim has its name. ``subject`` is the name of the given claims.
    """
    wanted = [ids] if isinstance(ids, str) else check_items(name, ids, "texts")
    if not all(isinstance(id, str) for id in wanted):
        raise InputTypeError(name, "must be texts", got=shown(ids))
    if not wanted:
        raise InputError(name, "must name at least one claim", got="none", hint="see `attnembed list`")
    found: dict[str, Claim] = {}
    for id in wanted:
        fitting = [entry for entry in given if id == entry.id] or [entry for entry in given if id == entry.short_id]
        if len(fitting) > 1:
            several = ", ".join(entry.id for entry in fitting)
            raise InputError(name, "must name one claim each", got=repr(id), hint=f"use one of {several}")
        if not fitting:
            elsewhere = [entry.id for entry in claims() if id in (entry.id, entry.short_id)]
            if elsewhere and subject:
                got = f"{id!r}, which is {elsewhere[0]}" if id != elsewhere[0] else repr(id)
                raise InputError(name, f"must name claims of {subject!r}", got=got, hint="or leave the subject out")
            raise InputError(name, "must name registered claims", got=repr(id), hint="see `attnembed list`")
        found[fitting[0].id] = fitting[0]
    return tuple(found.values())


@contextmanager
def unchanged_on_error() -> Iterator[None]:
    """Restore the registry if the block raises."""
    before = dict(_registry)
    try:
        yield
    except BaseException:
        _registry.clear()
        _registry.update(before)
        raise


# --- checks of a declaration ----------------------------------------------------------------------------------------


def _check_id(id: Any) -> None:
    if not isinstance(id, str):
        raise InputTypeError("id", "must be text", got=type(id).__name__)
    if not _ID.fullmatch(id):
        hint = "use letters, digits and hyphens, as in 'mine/step-never-hurts'"
        raise InputError("id", "must be SUBJECT/NAME", got=repr(id), hint=hint)
    if id.partition("/")[0] == EVERY:
        raise InputError("id", f"must not have the subject {EVERY!r}, which means every claim", got=repr(id))


def _check_hypotheses(hypotheses: Any) -> None:
    if not isinstance(hypotheses, (tuple, list)) or not all(isinstance(text, str) for text in hypotheses):
        hint = "use ('...',) for a single one"
        raise InputTypeError("hypotheses", "must be a tuple of texts", got=repr(hypotheses), hint=hint)
    if not all(text.strip() for text in hypotheses):
        raise InputError("hypotheses", "must not hold an empty text", got=repr(tuple(hypotheses)))
    twice = [text for k, text in enumerate(hypotheses) if text in hypotheses[:k]]
    if twice:
        raise InputError("hypotheses", "must name each hypothesis once", got=f"{twice[0]!r} twice")


def _check_measure(id: str, measure: Any) -> None:
    if not callable(measure):
        hint = "use @claim(...) above a function"
        raise InputTypeError("measure", f"of {id} must be a function", got=type(measure).__name__, hint=hint)
    try:
        signature = inspect.signature(measure)
    except (TypeError, ValueError):  # built-in functions without one
        return
    try:
        signature.bind(None)
    except TypeError as error:
        got = f"{getattr(measure, '__name__', 'it')}{signature}"
        hint = "give it one parameter, rng or problem"
        raise InputTypeError("measure", f"of {id} must take a generator or a problem", got=got, hint=hint) from error
    returned = _returned(measure)
    if isinstance(returned, type) and returned is not Any and not _may_be_evidence(returned):
        got = f"a function that returns {'None' if returned is type(None) else returned.__name__}"
        raise InputTypeError("measure", f"of {id} must return Evidence", got=got)


def _may_be_evidence(returned: type) -> bool:
    return issubclass(returned, Evidence) or issubclass(Evidence, returned)


def _returned(measure: Measure) -> Any:
    """The annotated return type of a function; `Any` without one, or for one that only a type checker can read."""
    try:
        return get_type_hints(measure).get("return", Any)
    except Exception:
        return Any


def _check_code(hypothesis: str, measure: Measure) -> None:
    """Raise unless the code quoted by a hypothesis occurs in the file of the claim, if that can be read."""
    if isinstance(hypothesis, by_construction) and _lines(measure) and not _lines_with(hypothesis.code, measure):
        hint = "quote a line exactly as in the file of the claim"
        raise InputError("code", f"must be what makes {str(hypothesis)!r} true", got=repr(hypothesis.code), hint=hint)


def place(measure: Measure, code: str = "") -> str:
    """FILE:LINE of a function, or of the first line in or after it that contains ``code``; "" without source."""
    if not _lines(measure):
        return ""
    start = measure.__code__.co_firstlineno
    if code:
        found = _lines_with(code, measure)
        start = next((k for k in found if k >= start), found[0] if found else start)
    path = Path(measure.__code__.co_filename)
    inside = path.relative_to(_PACKAGE).as_posix() if path.is_relative_to(_PACKAGE) else path.name
    return f"{inside}:{start}"


def _lines(measure: Any) -> list[str]:
    """The lines of the file that defines a function; none if they cannot be read."""
    code = getattr(measure, "__code__", None)
    return linecache.getlines(code.co_filename, getattr(measure, "__globals__", None)) if code is not None else []


def _lines_with(code: str, measure: Measure) -> list[int]:
    """The numbers of the lines that contain ``code``, except those that quote it."""
    lines = enumerate(_lines(measure), start=1)
    return [k for k, line in lines if code in line and "code=" not in line]


def _is_own(measure: Measure, subject: str) -> bool:
    """Whether a function comes from the package's own module for the subject."""
    module = getattr(measure, "__module__", "")
    return module == _MODULES[subject] or module.startswith(f"{_MODULES[subject]}.")


def _declared_again(old: Measure, new: Measure) -> bool:
    """Whether the same declaration has run again, as when a module is reloaded or a notebook cell run twice.

    The name is then rebound in the same place, and the old function is out of reach. A second declaration in the same
    file, by copy and paste or in a factory, is another claim.
    """
    codes = getattr(old, "__code__", None), getattr(new, "__code__", None)
    if None in codes or "<" in new.__qualname__ or old.__qualname__ != new.__qualname__:
        return False
    first, second = ((code.co_filename, code.co_firstlineno) for code in codes if code is not None)
    same_namespace = getattr(old, "__globals__", None) is getattr(new, "__globals__", 0)
    if first == second and not first[0].startswith("<"):
        return True  # one line of one file, loaded under another name
    return same_namespace and (first == second or first[0] != second[0])


def _declared_at(measure: Measure) -> str:
    where = place(measure)
    return f"declared at {where}" if where else "which is declared already"
