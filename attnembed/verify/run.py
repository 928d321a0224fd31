"""Measuring claims: `verify` runs them, a `Report` holds their verdicts."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnembed._files import versions
from attnembed._progress import Progress
from attnembed._validation import RNGLike, check_items, shown
from attnembed.errors import InputError, InputTypeError
from attnembed.results import to_plain
from attnembed.verify.evidence import Evidence, by_construction
from attnembed.verify.registry import EVERY, Claim, claims

__all__ = ["LOOSE", "VERDICTS", "ClaimResult", "Report", "hypothesis_name", "verify"]

VERDICTS = {
    "passed": "the hypotheses hold on the instance, the measured value is within its limit, and the negative control "
    "is not",
    "failed": "the measured value exceeds its limit, or the measurement raised an error",
    "blind": "the negative control was not caught: the same measurement, where the statement does not apply, stayed "
    "within its limit too, so that it cannot tell right from wrong",
    "vacuous": "a hypothesis does not hold on the instance, so that the statement was not tested",
}
LOOSE = 1e-3  # a bound that is met by more than this factor says little


@dataclass(frozen=True)
class ClaimResult:
    """A claim's verdict on its instance.

    Attributes
    ----------
    passed : the hypotheses hold and ``measured`` <= ``bound``
    bound : the limit of ``measured``; ``kind`` says whether it is a "bound" or a "tolerance"
    ratio : measured / bound, the tightness of a bound; NaN for a tolerance
    control_failed : the negative control exceeded its bound, as it must
    hypotheses : for each hypothesis that was measured, whether it holds
    unmeasured : the declared hypotheses that were not measured, those aside that hold by construction
    error : what the measurement raised, if it did
    note : a remark of the measurement
    """

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
    kind: str = "bound"
    control_bound: float = math.nan
    error: str = ""
    unmeasured: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One word: passed, failed, blind (the negative control was not caught) or vacuous (a hypothesis fails)."""
        if not self.error and not all(self.hypotheses.values()):
            return "vacuous"
        return "failed" if not self.passed else "passed" if self.control_failed else "blind"

    @property
    def reason(self) -> str:
        """Why the verdict is not "passed", in a sentence without its full stop; empty if it is."""
        if self.error:
            return self.error
        broken = [name for name, holds in self.hypotheses.items() if not holds]
        if broken:
            return f"hypothesis fails: {'; '.join(broken)}"
        if not self.passed:
            if not math.isfinite(self.measured):
                return f"measured {self.measured} is not finite"
            relation = "exceeds" if self.measured > self.bound else "is not within"
            return f"measured {self.measured:.4g} {relation} the {self.kind} {self.bound:.4g}"
        if not self.control_failed:
            return f"the negative control, {self.control:.4g}, does not exceed {self.control_bound:.4g}"
        return ""

    @property
    def loose(self) -> bool:
        """Whether ``measured`` stays so far below a bound that passing says little of it."""
        return self.verdict == "passed" and self.kind == "bound" and self.ratio < LOOSE


@dataclass(frozen=True)
class Report:
    """All verdicts of one run, with its seed and versions."""

    results: tuple[ClaimResult, ...]
    seed: int
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every claim passed and every negative control failed; a claim that is vacuous has not passed."""
        return bool(self.results) and all(result.verdict == "passed" for result in self.results)

    @property
    def n_passed(self) -> int:
        """How many claims passed, with their negative controls caught."""
        return sum(result.verdict == "passed" for result in self.results)

    def __str__(self) -> str:
        width = max([len("claim"), *(len(result.id) for result in self.results)])
        lines = [
            f"{'claim':<{width}}  {'measured':>10}  {'bound':>10}  {'ratio':>9}  {'control':>10}  verdict  seconds"
        ]
        for result in self.results:
            exact = result.kind == "tolerance"
            bound = f"{'~' if exact else ''}{result.bound:.3e}"
            ratio = "-" if exact else f"{result.ratio:.2e}"
            lines.append(
                f"{result.id:<{width}}  {result.measured:>10.3e}  {bound:>10}  {ratio:>9}  "
                f"{result.control:>10.3e}  {result.verdict:<7}  {result.seconds:>7.2f}"
            )
            if result.reason:
                lines.append(f"{'':<{width}}  {' '.join(result.reason.split())}")
            if result.unmeasured and not result.error:
                lines.append(f"{'':<{width}}  hypothesis not measured: {'; '.join(result.unmeasured)}")
        if any(result.kind == "tolerance" for result in self.results):
            lines.append("~: a tolerance, for what rounding or finite time leaves; no ratio")
        loose = [result.id for result in self.results if result.loose]
        if loose:
            lines.append(f"loose, measured below {LOOSE:g} of the bound: {', '.join(loose)}")
        seen = {result.verdict for result in self.results} - {"passed"}
        lines += [f"{verdict}: {meaning}" for verdict, meaning in VERDICTS.items() if verdict in seen]
        total = sum(result.seconds for result in self.results)
        lines.append(
            f"{self.n_passed} of {len(self.results)} claims hold, with their negative controls caught, in {total:.1f} s"
        )
        return "\n".join(lines)

    def to_json(self) -> str:
        """The report as JSON text: ``results`` (a list), ``passed``, ``seed`` and ``versions``."""
        return json.dumps(to_plain(self.to_dict()), indent=2)

    def to_dict(self) -> dict[str, object]:
        """The report as plain values; the ratio of a tolerance is None."""
        return {
            "passed": self.passed,
            "seed": self.seed,
            "versions": self.versions,
            "results": [_plain(result) for result in self.results],
        }


def _plain(result: ClaimResult) -> dict[str, Any]:
    ratio = None if result.kind == "tolerance" else to_plain(result.ratio)
    return {**to_plain(result), "ratio": ratio, "verdict": result.verdict, "reason": result.reason}


def verify(
    subject: str | Iterable[Claim] = EVERY, *, ids: str | Iterable[str] | None = None, rng: RNGLike = 0
) -> Report:
    """Measure the claims of a subject, or only those named by ``ids``, and their negative controls.

    ``subject`` may also be the claims themselves. An id may leave out its subject where no other claim has its name.
    Each claim has a generator of its own, made from the seed and the claim's id: the numbers of a claim do not depend
    on which others run. A claim that raises has failed; the others are measured all the same.

    Raises
    ------
    InputError
        for a subject or an id that is not registered, an id that several claims share, and where nothing is named.

    >>> report = verify(ids=["attention/gradient-factors"], rng=0)
    >>> report.passed, report.results[0].control_failed
    (True, True)
    """
    given = _given(subject)
    selected = given if ids is None else _named(given, ids, subject)
    seed = _seed(rng)
    results = []
    with Progress("claims", total=len(selected)) as progress:
        for k, entry in enumerate(selected):
            progress.update(k, entry.id)
            results.append(_run(entry, np.random.default_rng([seed, zlib.crc32(entry.id.encode())])))
    return Report(tuple(results), seed, versions())


def _given(subject: Any) -> tuple[Claim, ...]:
    if isinstance(subject, str):
        return claims(subject)
    entries = (
        (subject,)
        if isinstance(subject, Claim)
        else tuple(check_items("subject", subject, "claims, or the name of a subject"))
    )
    if not all(isinstance(entry, Claim) for entry in entries):
        raise InputTypeError("subject", "must be a text or claims", got=type(subject).__name__)
    if not entries:
        raise InputError("subject", "must name at least one claim", got="none")
    return entries


def _named(given: tuple[Claim, ...], ids: Any, subject: Any) -> tuple[Claim, ...]:
    """The claims that ``ids`` name, each once, in this order."""
    wanted = [ids] if isinstance(ids, str) else check_items("ids", ids, "texts")
    if not all(isinstance(id, str) for id in wanted):
        raise InputTypeError("ids", "must be texts", got=shown(ids))
    if not wanted:
        raise InputError("ids", "must name at least one claim", got="none", hint="see `attnembed list`")
    found = []
    for id in wanted:
        fitting = [entry for entry in given if id == entry.id] or [entry for entry in given if id == entry.short_id]
        if len(fitting) > 1:
            got, several = repr(id), ", ".join(entry.id for entry in fitting)
            raise InputError("ids", "must name one claim each", got=got, hint=f"use one of {several}")
        if not fitting:
            elsewhere = [entry.id for entry in claims() if id in (entry.id, entry.short_id)]
            if elsewhere and isinstance(subject, str):
                got = f"{id!r}, which is {elsewhere[0]}" if id != elsewhere[0] else repr(id)
                raise InputError("ids", f"must name claims of the subject {subject!r}", got=got)
            raise InputError("ids", "must name registered claims", got=repr(id), hint="see `attnembed list`")
        found += fitting
    return tuple({entry.id: entry for entry in found}.values())


def _seed(rng: Any) -> int:
    if isinstance(rng, np.random.Generator) or rng is None:
        return int(np.random.default_rng(rng).integers(2**32))
    if isinstance(rng, bool) or not isinstance(rng, (int, np.integer)):
        raise InputTypeError("rng", "must be a non-negative int, a numpy.random.Generator or None", got=repr(rng))
    if rng < 0:
        raise InputError("rng", "must be a non-negative int, a numpy.random.Generator or None", got=rng)
    return int(rng)


def _run(entry: Claim, rng: np.random.Generator) -> ClaimResult:
    start, error = time.perf_counter(), ""
    evidence: Any = None
    try:
        evidence = entry.measure(rng)
    except (Exception, SystemExit) as raised:  # a claim that cannot be measured has failed, and the others still count
        error = _told(raised)
    if not error and not isinstance(evidence, Evidence):
        error = f"the measurement must return Evidence; got {type(evidence).__name__}"
    if error:
        evidence = Evidence(measured=math.nan, bound=math.nan, control=math.nan)
    limit, measured = evidence.limit, evidence.measured
    control_bound = limit if evidence.control_bound is None else evidence.control_bound
    return ClaimResult(
        id=entry.id,
        statement=entry.statement,
        passed=bool(not error and all(evidence.held.values()) and math.isfinite(measured) and measured <= limit),
        measured=measured,
        bound=limit,
        ratio=math.nan if evidence.bound is None else _ratio(measured, limit),
        control=evidence.control,
        control_failed=bool(evidence.control > control_bound),
        hypotheses=evidence.held,
        seconds=time.perf_counter() - start,
        note=evidence.note,
        kind="tolerance" if evidence.bound is None else "bound",
        control_bound=control_bound,
        error=error,
        unmeasured=_unmeasured(entry, evidence.held, bool(error)),
    )


def hypothesis_name(text: str) -> str:
    """The words of a hypothesis, without the quantity that is measured: what stands before the first ": "."""
    return text.partition(": ")[0]


def _unmeasured(entry: Claim, held: Iterable[str], failed: bool) -> tuple[str, ...]:
    """The hypotheses declared but not measured; where the claim raised, nothing holds by construction either."""
    names = {hypothesis_name(text) for text in held} | set(held)
    left = [text for text in entry.hypotheses if failed or not isinstance(text, by_construction)]
    return tuple(str(text) for text in left if text not in names)


def _ratio(measured: float, bound: float) -> float:
    """measured / bound; NaN for a bound below zero, to which no measurement is near or far."""
    if bound > 0:
        return measured / bound
    if bound == 0 and not math.isnan(measured):
        return 0.0 if measured == 0 else math.copysign(math.inf, measured)
    return math.nan


def _told(error: BaseException) -> str:
    """The class and the message of an error, in one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # a class without a text
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
