"""The verdicts on claims: one `ClaimResult` per claim, over all its instances, and the `Report` of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnembed._notebook import table
from attnembed.results import Shown, to_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LOOSE", "VERDICTS", "ClaimResult", "Report", "cells"]

VERDICTS = {
    "passed": "on every instance on which the hypotheses hold the measured value is within its limit, and on one of "
    "them at least the negative control is not",
    "failed": "the measured value exceeds its limit on an instance, or the measurement raised an error",
    "blind": "the negative control was caught on no instance: the same measurement, where the statement does not "
    "apply, stayed within its limit too, so that it cannot tell right from wrong",
    "vacuous": "a hypothesis does not hold on any instance, so that the statement was not tested",
}
LOOSE = 1e-3  # a bound exceeding its measurement by more than this factor says little


@dataclass(frozen=True)
class ClaimResult(Shown):
    """A claim's verdict over its instances; the numbers are those of the worst one.

    Attributes
    ----------
    passed : the hypotheses hold on some instance, and ``measured`` <= ``bound`` wherever they do
    measured, bound : from the instance that comes nearest to its limit, or exceeds it most; ``kind`` says whether the
        limit is a "bound" or a "tolerance"
    ratio : measured / bound of that instance, the worst one; NaN for a tolerance
    control, control_bound : from that instance, or from one on which the negative control was caught if not there
    control_failed : the negative control exceeded its bound, as it must, on at least one instance
    hypotheses : for each measured hypothesis, whether it holds on that instance
    unmeasured : the declared hypotheses that were not measured, except those that hold by construction
    error : the error raised by the measurement, if any
    note : a remark from the measurement
    instances : number of instances: ``held`` + ``skipped`` + failures
    held : number of instances on which the statement holds
    skipped : number of instances on which a hypothesis does not hold, so that nothing was tested
    caught : number of instances on which the negative control was caught
    best_ratio : the largest ratio among those on which the statement holds, a measure of how tight the bound is
    instance : seed of the worst instance; ``attnembed verify --ids ID --instance SEED`` measures it again
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
    instances: int = 1
    held: int = 0
    skipped: int = 0
    caught: int = 0
    best_ratio: float = math.nan
    instance: int = 0

    @property
    def verdict(self) -> str:
        """One word: passed, failed, blind (no negative control was caught) or vacuous (a hypothesis always fails)."""
        if self.skipped == self.instances:
            return "vacuous"
        return "failed" if not self.passed else "passed" if self.control_failed else "blind"

    @property
    def reason(self) -> str:
        """The reason why the verdict is not "passed", as a sentence without full stop; empty if it is."""
        if self.verdict == "passed":
            return ""
        if self.verdict == "blind":
            return f"the negative control, {self.control:.4g}, does not exceed {self.control_bound:.4g}"
        if self.verdict == "vacuous":
            broken = "; ".join(name for name, holds in self.hypotheses.items() if not holds)
            return f"hypothesis fails: {broken}" if broken else self.note
        if self.error:
            return self.error
        if not math.isfinite(self.measured):
            return f"measured {self.measured} is not finite"
        relation = "exceeds" if self.measured > self.bound else "is not within"
        return f"measured {self.measured:.4g} {relation} the {self.kind} {self.bound:.4g}"

    @property
    def counts(self) -> str:
        """The numbers of instances on which the statement holds, fails and is not tested, and the worst one."""
        failed = self.instances - self.held - self.skipped
        parts = [f"holds on {self.held} of {_counted(self.instances, 'instance')}"]
        parts += [f"fails on {failed}"] if failed else []
        parts += [f"{self.skipped} skipped, where a hypothesis fails"] if self.skipped else []
        measured = self.held + failed
        parts += [f"control caught on {self.caught} of {measured}"] if 0 < self.caught < measured else []
        return "; ".join(parts)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the measured value and the control as shares of their limits.

        Draws on new axes if none are given; returns the axes.
        """
        from attnembed import figures

        return figures.plot_limits([self.id], _shares_of_limits([self]), xlabel=_SHARE, ax=ax)

    @property
    def loose(self) -> bool:
        """Whether ``measured`` stays so far below a bound on every instance that passing says little."""
        return self.verdict == "passed" and self.kind == "bound" and self.best_ratio < LOOSE


_CELLS = ("measured", "bound", "ratio", "control", "held")


def cells(result: ClaimResult, *, number: str = ".3g", ratio: str = ".3g", none: str = "–") -> dict[str, str]:
    """The numbers of a claim as every table shows them: ~ marks a tolerance, which has no ratio.

    ``number`` and ``ratio`` are formats, and ``none`` stands for a ratio that is none.
    """
    exact = result.kind == "tolerance"
    texts = (
        f"{result.measured:{number}}",
        f"{'~' if exact else ''}{result.bound:{number}}",
        none if exact else f"{result.ratio:{ratio}}",
        f"{result.control:{number}}",
        f"{result.held}/{result.instances}",
    )
    return dict(zip(_CELLS, texts))


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


@dataclass(frozen=True)
class Report:
    """All verdicts of one run, with its seed and versions."""

    results: tuple[ClaimResult, ...]
    seed: int
    versions: dict[str, str]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the measured values and the controls as shares of their limits, a row per claim.

        Draws on new axes if none are given; returns the axes.
        """
        from attnembed import figures

        names = [result.id for result in self.results]
        return figures.plot_limits(names, _shares_of_limits(self.results), xlabel=_SHARE, ax=ax)

    def _repr_html_(self) -> str:
        rows = [(result.id, result.verdict, *cells(result).values()) for result in self.results]
        return table(("claim", "verdict", *_CELLS), rows, str(self).splitlines()[-1])

    @property
    def passed(self) -> bool:
        """Whether every claim passed and every negative control failed; a claim that is vacuous has not passed."""
        return bool(self.results) and all(result.verdict == "passed" for result in self.results)

    @property
    def n_passed(self) -> int:
        """The number of claims that passed, with their negative controls caught."""
        return sum(result.verdict == "passed" for result in self.results)

    def __str__(self) -> str:
        width = max([len("claim"), *(len(result.id) for result in self.results)])
        lines = [
            f"{'claim':<{width}}  {'measured':>10}  {'bound':>10}  {'ratio':>9}  {'control':>10}  {'held':>7}  "
            "verdict  seconds"
        ]
        for result in self.results:
            shown = cells(result, number=".3e", ratio=".2e", none="-")
            lines.append(
                f"{result.id:<{width}}  {shown['measured']:>10}  {shown['bound']:>10}  {shown['ratio']:>9}  "
                f"{shown['control']:>10}  {shown['held']:>7}  {result.verdict:<7}  {result.seconds:>7.2f}"
            )
            lines += [f"{'':<{width}}  {text}" for text in _remarks(result)]
        if any(result.kind == "tolerance" for result in self.results):
            lines.append("~: a tolerance, for rounding or finite time; no ratio")
        loose = [result.id for result in self.results if result.loose]
        if loose:
            lines.append(f"loose, measured below {LOOSE:g} of the bound: {', '.join(loose)}")
        seen = {result.verdict for result in self.results} - {"passed"}
        lines += [f"{verdict}: {meaning}" for verdict, meaning in VERDICTS.items() if verdict in seen]
        total = sum(result.seconds for result in self.results)
        most = max((result.instances for result in self.results), default=0)
        on = f" on {_counted(most, 'instance')} each" if most > 1 else ""
        lines.append(
            f"{self.n_passed} of {len(self.results)} claims hold{on}, with their negative controls caught, "
            f"in {total:.1f} s over all processes"
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


_SHARE = "share of the limit (log)"


def _shares_of_limits(results: Iterable[ClaimResult]) -> dict[str, list[float]]:
    """What was measured, and the negative control, as shares of their limits; nothing is no share of any limit."""

    def share(value: float, limit: float) -> float:
        return value / limit if limit > 0 else 0.0 if value <= limit else math.inf

    return {
        "measured": [share(result.measured, result.bound) for result in results],
        "negative control": [share(result.control, result.control_bound) for result in results],
    }


def _remarks(result: ClaimResult) -> list[str]:
    """The lines below the row of a claim."""
    lines = []
    if result.reason:
        where = f" (--instance {result.instance})" if result.instances > 1 and result.verdict == "failed" else ""
        lines.append(f"{' '.join(result.reason.split())}{where}")
    if (result.skipped and result.verdict != "vacuous") or result.held < result.instances > 1:
        lines.append(result.counts)
    if result.unmeasured and not result.error:
        lines.append(f"hypothesis not measured: {'; '.join(result.unmeasured)}")
    return lines


def _plain(result: ClaimResult) -> dict[str, Any]:
    plain = {**to_plain(result), "verdict": result.verdict, "reason": result.reason}
    if result.kind == "tolerance":
        plain |= {"ratio": None, "best_ratio": None}
    return plain
