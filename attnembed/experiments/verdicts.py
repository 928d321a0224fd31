"""Tables of the comparison on real data, in Markdown and as numbers, and the verdict on scaling."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attnembed._typing import Floats
from attnembed.compare import standard_error
from attnembed.experiments.arms import ARMS, SCALED, Row, row_of
from attnembed.experiments.plan import MULTIPLIERS, Entry, Study
from attnembed.experiments.registry import is_number
from attnembed.results import Status

__all__ = [
    "Entries",
    "Verdict",
    "answer_of",
    "baselines_markdown",
    "baselines_of",
    "best_arm",
    "markdown",
    "numbers_of",
    "once_markdown",
    "sweep_markdown",
    "verdict",
]

FEWEST_SPLITS = 3  # needed for a verdict

Entries = Mapping[Row, Entry]


@dataclass(frozen=True)
class Verdict:
    """The verdict on whether scaling brings joint training to the level of training in stages.

    Differences are taken within each split, in points (hundredths). ``answer`` is "yes" if the mean of scaled minus
    staged is above minus one standard error, "no" if it is below minus two, and "not decidable" in between. It is "no
    verdict" if none can be given, for the ``reason``: a quick run, or fewer than `FEWEST_SPLITS` splits. ``naive`` is
    the mean of plain joint minus staged training.
    """

    answer: str
    arm: str
    difference: float
    standard_error: float
    naive: float
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.answer}: {self.reason}"
        return (
            f"{self.answer}: {ARMS[self.arm].title} is {self.difference:+.2f} +- {self.standard_error:.2f} points from "
            f"stages, plain joint {self.naive:+.2f}"
        )


def verdict(entries: Entries, objective: str, *, quick: bool = False) -> Verdict:
    """The verdict on the scaled arm that is better on validation data."""
    arm = best_arm(entries, SCALED, objective)
    staged = entries[Row("stage", objective)].scores()
    difference = 100 * (entries[Row(arm, objective)].scores() - staged)
    naive = float(100 * (entries[Row("joint", objective)].scores() - staged).mean())
    answer, reason = answer_of(difference, quick=quick)
    return Verdict(answer, arm, float(difference.mean()), standard_error(difference), naive, reason)


def best_arm(entries: Entries, arms: Sequence[str], objective: str) -> str:
    """Of some arms, the one that is best on validation data."""
    return max(arms, key=lambda name: entries[row_of(name, objective)].scores("validation").mean())


def answer_of(difference: Floats, *, quick: bool = False) -> tuple[str, str]:
    """Whether a difference over the splits is no loss, and where nothing can be said the reason, as in `Verdict`."""
    n, mean, error = difference.size, float(difference.mean()), standard_error(difference)
    reason = "quick run" if quick else f"{_counted(n)}, fewer than {FEWEST_SPLITS}" if n < FEWEST_SPLITS else ""
    if reason:
        return "no verdict", reason
    if mean >= -error:
        return "yes", ""
    return "no" if mean < -2 * error else "not decidable", ""


def _counted(n: int) -> str:
    return "one repetition" if n == 1 else f"{n} repetitions"


# --- tables -----------------------------------------------------------------------------------------------------


def markdown(title: str, study: Study, entries: Entries, *, quick: bool = False) -> str:
    """Table of mean +- standard error in points, a row per arm, a column per objective and score; no +- for one run."""
    names = list(entries[Row("unary", "unary")].records[0]["test"])
    columns = [(objective, name) for objective in study.objectives for name in names]
    rows = [
        f"**{title}{', quick run' if quick else ''}**: {_repeated(study)}, {study.epochs} epochs, step sizes "
        f"{', '.join(f'{size:g}' for size in study.step_sizes)}",
        "",
        "| arm | " + " | ".join(f"{objective}, {name}" for objective, name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for arm in ("unary", "stage", *study.joint):
        shown = [_points(entries[row_of(arm, objective)].summary(name)) for objective, name in columns]
        rows.append(f"| {ARMS[arm].title} | " + " | ".join(shown) + " |")
    if all(name in study.joint for name in SCALED):
        rows.append("")
        rows += [f"- {objective}: {verdict(entries, objective, quick=quick)}" for objective in study.objectives]
    if baselines := baselines_markdown(baselines_of(entries)):
        rows += ["", baselines.rstrip()]
    failed = [text for row, entry in entries.items() for text in _failures(row, entry)]
    if failed:
        rows += ["", *failed]
    return "\n".join(rows) + "\n"


def baselines_of(entries: Entries) -> dict[str, dict[str, dict[str, float]]]:
    """By title: mean and standard error over the splits of what takes no chain or grid, or bounds every result."""
    entry = entries[Row("unary", "unary")]
    return {
        title: {
            score: replace(
                entry, records=tuple({"test": record["baselines"][title]} for record in entry.records)
            ).summary(score)
            for score in scores
        }
        for title, scores in entry.records[0].get("baselines", {}).items()
    }


def baselines_markdown(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """One line for each baseline or ceiling, to stand below its table."""
    lines = [
        f"- {title}: {', '.join(f'{score} {_points(summary)}' for score, summary in scores.items())}"
        for title, scores in found.items()
    ]
    return "\n".join(lines) + "\n" if lines else ""


def _failures(row: Row, entry: Entry) -> Iterator[str]:
    """The failed repetitions; their scores are from the last complete epoch."""
    for k, record in enumerate(entry.records, start=1):
        if "status" in record and not Status(record["status"]).ok:
            yield f"- {ARMS[row.arm].title}, {row.objective}: repetition {k} failed ({record['status']})"


def _repeated(study: Study) -> str:
    n, splits = len(study.repetitions), len({split for split, _ in study.repetitions})
    return _counted(n) + (f" (means over the seeds of {splits} splits)" if splits < n else "")


def _points(summary: Mapping[str, float]) -> str:
    error = summary["standard_error"]
    return f"{100 * summary['mean']:.2f}" + (f" +- {100 * error:.2f}" if is_number(error) else "")


def _plain(summary: Mapping[str, float]) -> dict[str, float | None]:
    """A summary for JSON, without an unknown standard error."""
    return {name: value if is_number(value) else None for name, value in summary.items()}


def numbers_of(study: Study, entries: Entries, *, quick: bool) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for (arm, objective), entry in entries.items():
        name = "unary" if arm == "unary" else f"{objective}.{arm}"
        out[name] = {score: _plain(entry.summary(score)) for score in entry.records[0]["test"]}
        out[name]["step_size"] = entry.step_size
        out[name]["test_scores"] = entry.scores().tolist()
    if baselines := baselines_of(entries):
        out["baselines"] = {title: {s: _plain(v) for s, v in scores.items()} for title, scores in baselines.items()}
    if all(name in study.joint for name in SCALED):
        out["verdict"] = {objective: str(verdict(entries, objective, quick=quick)) for objective in study.objectives}
    return out


def sweep_markdown(
    scores: Mapping[Row, Sequence[float]], title: str, once: Collection[Row] = (), *, quick: bool = False
) -> str:
    """The table of a sweep over c; rows of ``once`` are those that one training for all c serves."""
    rows = [f"**{title}{', quick run' if quick else ''}**: test score in points against c, one repetition", ""]
    rows.append("| objective, arm | " + " | ".join(f"c = {c:g}" for c in MULTIPLIERS) + " | spread |")
    rows.append("|---" * (len(MULTIPLIERS) + 2) + "|")
    for (arm, objective), values in scores.items():
        points = " | ".join(f"{100 * value:.2f}" for value in values)
        rows.append(f"| {objective}, {ARMS[arm].title} | {points} | {100 * np.ptp(values):.2f} |")
    return "\n".join([*rows, *once_markdown(once)]) + "\n"


def once_markdown(rows: Iterable[Row]) -> list[str]:
    """The note below a sweep on the rows that one training serves."""
    names = [f"{objective}, {ARMS[arm].title}" for arm, objective in rows]
    return ["", f"Trained once for all c, of which training keeps no trace: {'; '.join(names)}"] if names else []
