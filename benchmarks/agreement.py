"""The same small problems through this package and its peers, beside a right value that none of them computed.

A part is a module ``agreement_NAME`` with PROBLEMS and REASONS. A problem has a right value, where it is from, and a
function per package that gives that package's answer. Each row tells how far the answer is from the right value; a row
that differs must have a reason, under the name of its problem and its package. docs/peers.md is made of them.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attnembed import __version__
from benchmarks.runner import Row, progress

PAGE = Path(__file__).parents[1] / "docs" / "peers.md"
PARTS = ("chains", "grids", "margins", "flows", "chunks", "text", "sweeps")
OWN = "attnembed"


@dataclass(frozen=True)
class Problem:
    """One question. ``answers`` is by package, as on PyPI, and after a comma what of it; ``by``: whose the value is."""

    name: str
    right: Any
    by: str
    answers: Mapping[str, Callable[[], Any]]
    tolerance: float = 1e-9


class Reason(NamedTuple):
    """Why an answer differs, and what to do when comparing."""

    why: str
    advice: str


Reasons = Mapping[tuple[str, str], Reason]  # by the names of problem and package


def part(name: str) -> tuple[Sequence[Problem], Reasons]:
    """The problems of a part, and the reasons for what differs."""
    module = importlib.import_module(f"benchmarks.agreement_{name}")
    return module.PROBLEMS, module.REASONS


def run(quick: bool) -> list[Row]:
    """All parts; ``quick`` makes no difference, as the problems are small."""
    rows: list[Row] = []
    for name in PARTS:
        progress(f"agreement: {name}")
        problems, reasons = part(name)
        for problem in problems:
            rows += ask(name, problem, reasons)
    return rows


def ask(part_name: str, problem: Problem, reasons: Reasons, packages: Sequence[str] | None = None) -> Iterator[Row]:
    """A row per package (of ``packages``, where given): value, status, distance from the right value."""
    for package, answer in problem.answers.items():
        if packages is not None and package.split(",")[0] not in packages:
            continue
        row: Row = {"part": part_name, "problem": problem.name, "package": package, "right": show(problem.right)}
        row["by"], row["version"] = problem.by, version(package)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = answer()
        except ImportError as error:
            yield row | {"status": "not installed", "value": str(error.name or error)}
            continue
        except Exception as error:  # whatever a package raises is its answer
            value = f"raises {type(error).__name__}"
        gap = distance(value, problem.right)
        status = "agrees" if gap <= problem.tolerance else "differs"
        if status == "differs" and (problem.name, package) not in reasons:
            status = "unexplained"
        yield row | {"value": show(value), "distance": gap, "status": status}


def distance(value: Any, right: Any) -> float:
    """max |value - right| / max(1, |right|); inf where they are of another kind or shape, 0 for equal texts."""
    texts = isinstance(value, str) or isinstance(right, str)
    if texts or np.asarray(right).dtype.kind not in "biuf" or np.asarray(value).dtype.kind not in "biuf":
        return 0.0 if type(value) is type(right) and value == right else float("inf")
    a, b = np.asarray(value, dtype=float), np.asarray(right, dtype=float)
    if a.shape != b.shape:
        return float("inf")
    gap = float(np.max(np.abs(a - b), initial=0.0) / max(1.0, float(np.max(np.abs(b), initial=0.0))))
    return gap if np.isfinite(gap) else float("inf")


def show(value: Any) -> str:
    """A value in one short line; of a matrix the first row."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], list):
            return f"({show(value[0])}, ...)"
        return "(" + ", ".join(show(item) for item in value) + ")"
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.12g}"
    return str(value)


def version(package: str) -> str:
    """The version of a package that is installed, of the one before the comma."""
    if package.split(",")[0] == OWN:
        return __version__
    try:
        return metadata.version(package.split(",")[0])
    except metadata.PackageNotFoundError:
        return ""


def markdown(rows: Sequence[Row]) -> str:
    """What differs with its reason, then what agrees, part by part; the missing packages in one line each."""
    lines = []
    for name in dict.fromkeys(row["part"] for row in rows):
        here = [row for row in rows if row["part"] == name]
        _, reasons = part(name)
        lines += [f"### {name.capitalize()}", ""]
        lines += ["| problem | right value, by | package | answer | distance | why | when comparing |"]
        lines += ["|---|---|---|---|---|---|---|"]
        differing = {(row["problem"], row["package"]): row for row in here if row["status"] == "differs"}
        for key, reason in reasons.items():
            row = differing.pop(key, None)
            if row is not None:
                cells = [key[0], f"{row['right']}, {row['by']}", f"{key[1]} {row['version']}", row["value"]]
                lines.append("| " + " | ".join([*cells, f"{row['distance']:.0e}", *reason]) + " |")
        unexplained = [row for row in here if row["status"] == "unexplained"]
        for row in unexplained:
            cells = [row["problem"], f"{row['right']}, {row['by']}", f"{row['package']} {row['version']}", row["value"]]
            lines.append("| " + " | ".join([*cells, f"{row['distance']:.0e}", "unexplained", ""]) + " |")
        lines += ["", "| problem | right value, by | agree, with the largest distance |", "|---|---|---|"]
        for problem in dict.fromkeys(row["problem"] for row in here):
            same = [row for row in here if row["problem"] == problem and row["status"] == "agrees"]
            if same:
                names = ", ".join(f"{row['package']} {row['version']}" for row in same)
                worst = max(row["distance"] for row in same)
                lines.append(f"| {problem} | {same[0]['right']}, {same[0]['by']} | {names} ({worst:.0e}) |")
        lines.append("")
    missing = {row["package"] for row in rows if row["status"] == "not installed"}
    lines += [f"{package}: not installed\n" for package in sorted(missing)]
    return "\n".join(lines)
