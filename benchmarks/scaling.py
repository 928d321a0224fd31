"""Scaling of `passes`: the time of attnembed alone on one thread against the size of the problem."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.passes import make_problem, textbook
from benchmarks.runner import Row, compare, progress

NAMES = {"n": "nonzero counts, n varied", "V": "V d, V varied", "d": "V d, d varied"}


def run(quick: bool) -> list[Row]:
    """Time against n, V and d, with the others fixed and small; two decades each."""
    steps = 3 if quick else 5
    lines = {
        "n": [(int(n), 64, 2000, 16) for n in np.geomspace(1500, 150_000, steps)],
        "V": [(1000, 64, int(V), 256) for V in np.geomspace(1000, 100_000, steps)],
        "d": [(1000, 64, 5000, int(d)) for d in np.geomspace(32, 3200, steps)],
    }
    rows = []
    for axis, sizes in lines.items():
        for size in sizes:
            problem = make_problem(*size)
            case = f"in {axis}: n={size[0]}, T={size[1]}, V={size[2]}, d={size[3]}, {problem['data'].size} nonzero"
            progress(f"scaling: {case}")
            with tempfile.TemporaryDirectory() as folder:
                own = {"attnembed": "benchmarks.passes:attnembed_pass"}
                reference = textbook(problem, 1)()
                found = compare("scaling", case, problem, reference, own, own="attnembed", folder=Path(folder))
            found[0] |= {"axis": axis, "x": problem["data"].size if axis == "n" else size[2] * size[3]}
            rows += found
    return rows


def _series(rows: Sequence[Row]) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """For each axis: sizes, median times, and their least and greatest (2, k), in milliseconds."""
    for axis in dict.fromkeys(row["axis"] for row in rows):
        found = sorted((row["x"], row["median"], row["min"], row["max"]) for row in rows if row["axis"] == axis)
        x, median, least, most = np.array(found).T
        yield axis, x, 1e3 * median, 1e3 * np.array([least, most])


def markdown(rows: Sequence[Row]) -> str:
    """The ends of every line, with the slope of log time against log size, as a table."""
    lines = ["| time against | size from | to | ms from | to | slope |", "|---|---|---|---|---|---|"]
    for axis, x, y, _ in _series(rows):
        slope = np.polyfit(np.log(x), np.log(y), 1)[0]
        lines.append(f"| {NAMES[axis]} | {x[0]:.3g} | {x[-1]:.3g} | {y[0]:.3g} | {y[-1]:.3g} | {slope:.2f} |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], folder: Path) -> str:
    """Save the figure; returns the line that shows it."""
    from attnembed.plotting import COLOURS, new_figure, plot_line, style

    with style():
        figure, axes = new_figure(panel=(5.8, 4.2))
        ax = axes[0, 0]
        for k, (axis, x, y, ends) in enumerate(_series(rows)):
            plot_line(ax, x, y, NAMES[axis], index=k, marker="o")
            ax.errorbar(x, y, np.abs(ends - y), fmt="none", color=COLOURS[k], capsize=3)
        ax.set(xscale="log", yscale="log", xlabel="size: nonzero counts, or V d (log)", ylabel="ms per pass (log)")
        ax.set_title("one thread; medians of the rounds, bars: least and greatest", fontsize=11)
        ax.legend()
        figure.savefig(folder / "passes-scaling.png", dpi=150)
    return "![Time against size, both axes logarithmic](figures/passes-scaling.png)"
