"""Measurement of claims: `verify` measures each on many instances, and a `Report` holds the verdicts."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnembed._files import versions
from attnembed._progress import Progress
from attnembed._validation import RNGLike, check_integer, check_items
from attnembed._workers import own_processes, run_all
from attnembed.errors import InputError, InputTypeError
from attnembed.evidence.files import claims_file, load_claims
from attnembed.evidence.instances import draw_problem
from attnembed.evidence.measurement import Evidence, by_construction
from attnembed.evidence.registry import EVERY, Claim, claims, named_claims
from attnembed.evidence.verdict import LOOSE, VERDICTS, ClaimResult, Report

__all__ = ["LOOSE", "VERDICTS", "ClaimResult", "Report", "hypothesis_name", "verify"]

_PER_JOB = 4  # instances per job of a worker process


def verify(
    subject: str | Claim | Iterable[Claim] = EVERY,
    *,
    ids: str | Iterable[str] | None = None,
    instances: int = 20,
    rng: RNGLike = 0,
    workers: int = 1,
) -> Report:
    """Measure the claims of a subject, or only those named by ``ids``, and their negative controls.

    Parameters
    ----------
    subject : a subject, "all", or the claims themselves
    ids : an id may leave out its subject if no other claim has its name
    instances : number of random instances per claim. An instance on which a hypothesis does not hold is skipped, and
        a claim whose instances are all skipped is vacuous; the negative control must be caught on at least one
    rng : the seed of the first instance, from which those of the others are derived. The generator of an instance
        depends only on its seed and the id of the claim, not on which others run: the worst instance of a result can
        be measured again by ``verify(ids=result.id, instances=1, rng=result.instance)``
    workers : number of processes that share the work; a program that uses more than one must be guarded by
        ``if __name__ == "__main__":``

    A claim that raises has failed; the others are still measured.

    Raises
    ------
    InputError
        for a subject or an id that is not registered, an ambiguous id, or an empty selection.

    >>> report = verify(ids=["attention/gradient-factors"], instances=3, rng=0)
    >>> result = report.results[0]
    >>> report.passed, result.control_failed, result.held, result.verdict
    (True, True, 3, 'passed')
    """
    given = _given(subject)
    selected = given if ids is None else named_claims("ids", ids, given, subject if isinstance(subject, str) else "")
    check_integer("instances", instances, minimum=1)
    check_integer("workers", workers, minimum=1)
    seed = _seed(rng)
    seeds = instance_seeds(seed, instances)
    found: dict[str, dict[int, Measured]] = {entry.id: {} for entry in selected}
    with Progress("claims", total=len(selected) * instances) as progress:
        done = 0
        for id, outcomes in _measured(selected, seeds, workers):
            found[id].update((outcome.seed, outcome) for outcome in outcomes)
            done += len(outcomes)
            progress.update(done, id)
    results = [_summary(entry, [found[entry.id][one] for one in seeds]) for entry in selected]
    return Report(tuple(results), seed, versions())


def instance_seeds(seed: int, instances: int) -> list[int]:
    """The seeds of the instances: the given one, then others derived from it, all different."""
    seeds = {seed: None}
    k = 0
    while len(seeds) < instances:
        k += 1
        seeds.setdefault(int(np.random.SeedSequence([seed, k]).generate_state(1)[0]))
    return list(seeds)


@dataclass(frozen=True)
class Measured:
    """The measurement of a claim on the instance of a seed, or the error raised there, or why there is none."""

    seed: int
    evidence: Evidence | None
    seconds: float
    error: str = ""
    absent: str = ""

    @property
    def skipped(self) -> bool:
        """Whether nothing was tested: a hypothesis does not hold, or there is no instance."""
        return bool(self.absent) or (self.evidence is not None and not all(self.evidence.held.values()))

    @property
    def holds(self) -> bool:
        """Whether the statement was tested and is true."""
        found = self.evidence
        return bool(
            found is not None and not self.skipped and math.isfinite(found.measured) and found.measured <= found.limit
        )

    @property
    def caught(self) -> bool:
        """Whether the negative control exceeds its bound."""
        return self.evidence is not None and not self.skipped and self.evidence.control > self.control_bound

    @property
    def control_bound(self) -> float:
        """The value that the negative control must exceed."""
        if self.evidence is None:
            return math.nan
        return self.evidence.limit if self.evidence.control_bound is None else self.evidence.control_bound

    @property
    def badness(self) -> tuple[bool, bool, float]:
        """Sort key of the instances, largest for the worst: errors, violations, then the excess."""
        if self.evidence is None or self.skipped:
            return bool(self.error), False, -math.inf
        excess = _ratio(self.evidence.measured, self.evidence.limit)
        if math.isnan(excess):  # the ratio to a limit below zero means nothing
            excess = self.evidence.measured - self.evidence.limit
        return False, not self.holds, math.inf if math.isnan(excess) else excess


def _measured(selected: Iterable[Claim], seeds: list[int], workers: int) -> Iterator[tuple[str, list[Measured]]]:
    """The measurements of the claims as they arrive: made here, or in other processes that can find the claim."""
    here: list[Claim] = []
    elsewhere: list[Claim] = []
    for entry in selected:
        (elsewhere if workers > 1 and _found_again(entry) else here).append(entry)
    if elsewhere:
        jobs = [
            (entry.id, (entry.id, claims_file(entry), seeds[k : k + _PER_JOB]))
            for k in range(0, len(seeds), _PER_JOB)
            for entry in elsewhere
        ]
        with own_processes(min(workers, len(jobs))) as pool:
            for batch in run_all(pool, _measure_by_id, jobs, max_pending=2 * workers):
                for outcome in batch:
                    if outcome.error is not None:
                        raise outcome.error
                    yield outcome.job, outcome.result
    for entry in here:
        for seed in seeds:
            yield entry.id, [_measure(entry, seed)]


def _found_again(entry: Claim) -> bool:
    """Whether another process finds this claim by its id, in the package or in its file."""
    registered = any(entry is other for other in claims())
    own = getattr(entry.measure, "__module__", "").startswith("attnembed.")
    return registered and (own or claims_file(entry) is not None)


def _measure_by_id(id: str, file: str | None, seeds: list[int]) -> list[Measured]:
    entries = claims() if file is None else load_claims(file)
    entry = next(entry for entry in entries if entry.id == id)
    return [_measure(entry, seed) for seed in seeds]


def _measure(entry: Claim, seed: int) -> Measured:
    start = time.perf_counter()
    rng = np.random.default_rng([seed, zlib.crc32(entry.id.encode())])
    evidence: Any = None
    error = absent = ""
    try:
        if entry.takes_problem:
            problem = draw_problem(entry.problems, int(rng.integers(2**32)))
            if problem is None:
                absent = "the strategy draws nothing within its hypotheses; let it make them hold by construction"
            else:
                evidence = entry.measure(problem)
        else:
            evidence = entry.measure(rng)
    except (Exception, SystemExit) as raised:  # a claim that cannot be measured has failed; the others still count
        error = _told(raised)
    if not error and not absent and not isinstance(evidence, Evidence):
        error = (
            f"the measurement must return Evidence; got {type(evidence).__name__}; end it with return ae.Evidence(...)"
        )
    return Measured(
        seed, None if error or absent else evidence, time.perf_counter() - start, error=error, absent=absent
    )


def _summary(entry: Claim, outcomes: list[Measured]) -> ClaimResult:
    """The verdict over all instances, with the numbers of the worst one."""
    worst = max(outcomes, key=lambda outcome: outcome.badness)
    tested = [outcome for outcome in outcomes if not outcome.skipped]
    caught = [outcome for outcome in outcomes if outcome.caught]
    control = worst if worst.caught or not caught else caught[0]
    evidence = worst.evidence or _NOTHING
    ratios = [_evidence_ratio(outcome.evidence) for outcome in tested if outcome.holds]
    return ClaimResult(
        id=entry.id,
        statement=entry.statement,
        passed=bool(tested) and all(outcome.holds for outcome in tested),
        measured=evidence.measured,
        bound=evidence.limit,
        ratio=_evidence_ratio(evidence),
        control=(control.evidence or _NOTHING).control,
        control_failed=bool(caught),
        hypotheses=evidence.held,
        seconds=sum(outcome.seconds for outcome in outcomes),
        note=worst.absent or evidence.note,
        kind="tolerance" if evidence.bound is None else "bound",
        control_bound=control.control_bound,
        error=worst.error,
        unmeasured=_unmeasured(entry, evidence.held, bool(worst.error)),
        instances=len(outcomes),
        held=sum(outcome.holds for outcome in outcomes),
        skipped=len(outcomes) - len(tested),
        caught=len(caught),
        best_ratio=max((ratio for ratio in ratios if not math.isnan(ratio)), default=math.nan),
        instance=worst.seed,
    )


_NOTHING = Evidence(measured=math.nan, bound=math.nan, control=math.nan)


def _evidence_ratio(evidence: Evidence | None) -> float:
    if evidence is None or evidence.bound is None:
        return math.nan
    return _ratio(evidence.measured, evidence.bound)


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


def _seed(rng: Any) -> int:
    if isinstance(rng, np.random.Generator) or rng is None:
        return int(np.random.default_rng(rng).integers(2**32))
    if isinstance(rng, bool) or not isinstance(rng, (int, np.integer)):
        raise InputTypeError("rng", "must be a non-negative int, a numpy.random.Generator or None", got=repr(rng))
    if rng < 0:
        raise InputError("rng", "must be a non-negative int, a numpy.random.Generator or None", got=rng)
    return int(rng)


def hypothesis_name(text: str) -> str:
    """The words of a hypothesis before the first ": ", without the measured quantity."""
    return text.partition(": ")[0]


def _unmeasured(entry: Claim, held: Iterable[str], failed: bool) -> tuple[str, ...]:
    """The hypotheses declared but not measured; if the claim raised, nothing holds by construction either."""
    names = {hypothesis_name(text) for text in held} | set(held)
    left = [text for text in entry.hypotheses if failed or not isinstance(text, by_construction)]
    return tuple(str(text) for text in left if text not in names)


def _ratio(measured: float, bound: float) -> float:
    """measured / bound; NaN for a bound below zero, where the ratio means nothing."""
    if bound > 0:
        return measured / bound
    if bound == 0 and not math.isnan(measured):
        return 0.0 if measured == 0 else math.copysign(math.inf, measured)
    return math.nan


def _told(error: BaseException) -> str:
    """The class and the message of an error, in one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception without a text
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
