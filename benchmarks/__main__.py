"""Run the benchmarks: python -m benchmarks [--suite NAME] [--against PATH] [--quick] [--json FILE] [--docs]."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
from pathlib import Path

from benchmarks.runner import Row, machine, markdown, measure_against, progress, refresh, write_json

SUITES = ("start", "tiny", "passes", "scaling", "flow", "margin", "chain", "long", "network", "text")
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
        text = table(found)
        if options.docs and hasattr(module, "draw"):
            text += f"\n{module.draw(found, page.parent / 'figures')}"
        print(text, flush=True)
        if options.docs:
            refresh(page, suite, f"{machine()}\n\n{text}")
            progress(f"{suite}: wrote {page.name}")
    if options.json:
        write_json(options.json, rows)


if __name__ == "__main__":
    main()
