"""The registry of claims: a theorem as a statement, its hypotheses, a measurement, a bound and a negative control.

A claim is a function of a random generator that returns `Evidence`. Smaller is better: a claim passes when its
hypotheses hold on the instance and ``measured <= bound``. Its *negative control* is the same measurement on a variant
that the theorem does not cover (a wrong formula, a broken hypothesis); it must exceed its bound, or the measurement
could not have told right from wrong.
"""

from __future__ import annotations

import importlib
import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from attnembed._files import versions
from attnembed._progress import Progress
from attnembed._validation import RNGLike, check_choice
from attnembed.errors import InputError, InputTypeError
from attnembed.results import to_plain

__all__ = ["Claim", "ClaimResult", "Evidence", "Report", "claim", "claims", "verify"]

# Importing these modules registers their claims.
_MODULES = {"attention": "attnembed.verify.attention", "structured": "attnembed.verify.structured"}
SUBJECTS = tuple(_MODULES)


@dataclass(frozen=True)
class Evidence:
    """What a claim measured on its instance, and what its negative control measured.

    ``control_bound`` defaults to ``bound``. ``hypotheses`` says for each hypothesis whether it holds on the instance.
    """

    measured: float
    bound: float
    control: float
    control_bound: float | None = None
    hypotheses: Mapping[str, bool] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A registered statement; ``derivation`` is a page under docs/, ``control`` says what the negative control is."""

    id: str
    subject: str
    statement: str
    tex: str
    reference: str
    hypotheses: tuple[str, ...]
    control: str
    derivation: str
    measure: Callable[[np.random.Generator], Evidence] = field(repr=False)


@dataclass(frozen=True)
class ClaimResult:
    """A claim's verdict. ``control_failed`` is True when the negative control exceeded its bound, as it must."""

    id: str
    statement: str
    passed: bool
    measured: float
    bound: float
    ratio: float
    control: float
    control_failed: bool
    hypotheses: dict[str, bool]
    seconds: float
    note: str = ""

    @property
    def verdict(self) -> str:
        """One word: passed, failed, or blind (the negative control was not caught)."""
        return "failed" if not self.passed else "passed" if self.control_failed else "blind"


@dataclass(frozen=True)
class Report:
    """All verdicts of one run, with its seed and versions."""

    results: tuple[ClaimResult, ...]
    seed: int
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every claim passed and every negative control failed."""
        return all(result.passed and result.control_failed for result in self.results)

    def __str__(self) -> str:
        width = max([len("claim"), *(len(result.id) for result in self.results)])
        lines = [
            f"{'claim':<{width}}  {'measured':>10}  {'bound':>10}  {'ratio':>9}  {'control':>10}  verdict  seconds"
        ]
        for result in self.results:
            lines.append(
                f"{result.id:<{width}}  {result.measured:>10.3e}  {result.bound:>10.3e}  {result.ratio:>9.2e}  "
                f"{result.control:>10.3e}  {result.verdict:<7}  {result.seconds:>7.2f}"
            )
            if result.note and not result.passed:
                lines.append(f"{'':<{width}}  {result.note}")
        good = sum(result.passed and result.control_failed for result in self.results)
        total = sum(result.seconds for result in self.results)
        lines.append(
            f"{good} of {len(self.results)} claims hold, with their negative controls caught, in {total:.1f} s"
        )
        return "\n".join(lines)

    def to_json(self) -> str:
        """The report as JSON text: ``results`` (a list), ``passed``, ``seed`` and ``versions``."""
        return json.dumps(to_plain(self.to_dict()), indent=2)

    def to_dict(self) -> dict[str, object]:
        """The report as plain values."""
        return {
            "passed": self.passed,
            "seed": self.seed,
            "versions": self.versions,
            "results": [{**to_plain(result), "verdict": result.verdict} for result in self.results],
        }


_registry: dict[str, Claim] = {}


def claim(
    id: str,
    *,
    statement: str,
    tex: str,
    reference: str,
    control: str,
    derivation: str,
    hypotheses: tuple[str, ...] = (),
) -> Callable[[Callable[[np.random.Generator], Evidence]], Callable[[np.random.Generator], Evidence]]:
    """Register a measuring function as a claim; its subject is the first part of ``id``, as in "attention/one-step"."""

    def register(measure: Callable[[np.random.Generator], Evidence]) -> Callable[[np.random.Generator], Evidence]:
        if id in _registry and _registry[id].measure.__qualname__ != measure.__qualname__:
            raise InputError("id", "must be unique among the claims", got=id)
        subject = check_choice("subject", id.split("/")[0], SUBJECTS)
        _registry[id] = Claim(id, subject, statement, tex, reference, hypotheses, control, derivation, measure)
        return measure

    return register


def claims(subject: str = "all") -> tuple[Claim, ...]:
    """The registered claims of a subject ("attention", "structured" or "all"), in the order of the theory.

    >>> claims("attention")[0].id
    'attention/gradients-exact'
    """
    check_choice("subject", subject, (*SUBJECTS, "all"))
    wanted = [name for name in _MODULES if subject in ("all", name)]
    for name in wanted:
        importlib.import_module(_MODULES[name])
    return tuple(entry for name in wanted for entry in _registry.values() if entry.subject == name)


def verify(subject: str = "all", *, ids: Iterable[str] | None = None, rng: RNGLike = 0) -> Report:
    """Measure the claims of a subject, or only those named by ``ids``, and their negative controls.

    Each claim has a generator of its own, made from the seed and the claim's id: the numbers of a claim do not depend
    on which others run.

    >>> report = verify(ids=["attention/gradient-factors"], rng=0)
    >>> report.passed, report.results[0].control_failed
    (True, True)
    """
    selected = claims(subject)
    if ids is not None:
        wanted = [ids] if isinstance(ids, str) else list(ids)
        known = {entry.id: entry for entry in selected}
        short = {entry.id.split("/")[1]: entry for entry in selected}
        for id in wanted:
            if id not in known and id not in short:
                raise InputError("ids", "must name registered claims", got=repr(id), hint="see `attnembed list`")
        selected = tuple({entry.id: entry for entry in (known.get(id) or short[id] for id in wanted)}.values())
    seed = _seed(rng)
    results = []
    with Progress("claims", total=len(selected)) as progress:
        for k, entry in enumerate(selected):
            progress.update(k, entry.id)
            results.append(_run(entry, np.random.default_rng([seed, zlib.crc32(entry.id.encode())])))
    return Report(tuple(results), seed, versions())


def _seed(rng: RNGLike) -> int:
    if isinstance(rng, np.random.Generator) or rng is None:
        return int(np.random.default_rng(rng).integers(2**32))
    if isinstance(rng, bool) or not isinstance(rng, (int, np.integer)) or rng < 0:
        raise InputTypeError("rng", "must be a non-negative int, a numpy.random.Generator or None", got=repr(rng))
    return int(rng)


def _run(entry: Claim, rng: np.random.Generator) -> ClaimResult:
    start = time.perf_counter()
    try:
        evidence = entry.measure(rng)
    except Exception as error:  # a claim that cannot be measured is a failed claim, and the others still count
        evidence = Evidence(math.nan, math.nan, math.nan, note=f"{type(error).__name__}: {error}")
    measured, bound, control = (float(x) for x in (evidence.measured, evidence.bound, evidence.control))
    control_bound = bound if evidence.control_bound is None else float(evidence.control_bound)
    broken = [name for name, holds in evidence.hypotheses.items() if not holds]
    note = evidence.note or (f"hypothesis fails: {', '.join(broken)}" if broken else "")
    return ClaimResult(
        id=entry.id,
        statement=entry.statement,
        passed=bool(not broken and math.isfinite(measured) and measured <= bound),
        measured=measured,
        bound=bound,
        ratio=measured / bound if bound else (0.0 if measured == 0 else math.inf),
        control=control,
        control_failed=bool(control > control_bound),
        hypotheses={name: bool(holds) for name, holds in evidence.hypotheses.items()},
        seconds=time.perf_counter() - start,
        note=note,
    )
