"""Run the benchmarks: python -m benchmarks [--suite NAME] [--against PATH] [--quick] [--json FILE] [--docs]."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
from pathlib import Path

from benchmarks.runner import Row, machine, markdown, measure_against, progress, refresh, write_json

SUITES = ("start", "tiny", "passes", "flow", "margin", "chain", "long", "network", "text")
ON_REQUEST = ("agreement", "chunking", "letters")  # minutes, and no times to compare: run only where they are named
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--suite",
        action="append",
        choices=(*SUITES, *ON_REQUEST),
        help=f"may be repeated; default: {', '.join(SUITES)}",
    )
    parser.add_argument(
        "--against", type=Path, metavar="PATH", help="another checkout whose package is measured in the same rounds"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds, a minute or two")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows and the machine")
    parser.add_argument("--docs", action="store_true", help="refresh the tables and figures of the page")
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTNEMBED_DATA"), help="folder of real data")
    options = parser.parse_args()

    if options.against is not None:
        measure_against(options.against)
    print(machine() + "\n")
    rows: list[Row] = []
    for suite in options.suite or SUITES:
        try:
            module = importlib.import_module(f"benchmarks.{suite}")
        except ModuleNotFoundError as error:
            if error.name != f"benchmarks.{suite}":
                raise
            print(f"**{suite}**: this version has no such benchmark\n")
            continue
        arguments = {"data": options.data} if "data" in inspect.signature(module.run).parameters else {}
        found = module.run(options.quick, **arguments)
        rows += found
        table, page = getattr(module, "markdown", markdown), getattr(module, "PAGE", PAGE)
        text = table([row for row in found if "axis" not in row])
        if any("axis" in row for row in found):
            text += "\n" + scaling(found, PAGE.parent / "figures" / f"{suite}-scaling.png" if options.docs else None)
        print(text, flush=True)
        if options.docs:
            refresh(page, suite, f"{machine()}\n\n{text}")
            progress(f"{suite}: wrote {page.name}")
    if options.json:
        write_json(options.json, rows)


def scaling(rows: list[Row], figure: Path | None) -> str:
    """The slopes of log time against log size, as a table, and as a figure if a file is given."""
    import numpy as np

    lines = ["| time against | size from | to | ms from | to | slope |", "|---|---|---|---|---|---|"]
    series = {}
    for axis in dict.fromkeys(row["axis"] for row in rows if "axis" in row):
        points = sorted((row["x"], row["median"]) for row in rows if row.get("axis") == axis and "median" in row)
        x, y = np.array(points).T
        series[axis] = (x, y)
        slope = np.polyfit(np.log(x), np.log(y), 1)[0]
        name = "nonzero counts (n)" if axis == "n" else f"V d (by {axis})"
        lines.append(f"| {name} | {x[0]:.3g} | {x[-1]:.3g} | {1e3 * y[0]:.3g} | {1e3 * y[-1]:.3g} | {slope:.2f} |")
    if figure is not None:
        from attnembed.plotting import new_figure, plot_line, style

        with style():
            canvas, axes = new_figure(panel=(5.6, 4.0))
            ax = axes[0, 0]
            for k, (axis, (x, y)) in enumerate(series.items()):
                label = "nonzero counts, n varied" if axis == "n" else f"V d, {axis} varied"
                plot_line(ax, x, 1e3 * y, label, index=k, marker="o")
            ax.set(xscale="log", yscale="log", xlabel="size (log)", ylabel="median of the repetitions, ms (log)")
            ax.legend()
            canvas.savefig(figure, dpi=150)
        lines.append(f"\n![Time against size, both axes logarithmic](figures/{figure.name})")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
