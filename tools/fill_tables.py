"""Put the tables of held-out words into the documentation: python tools/fill_tables.py results/ocr-words.json.

Between the marks `begin NAME` and `end NAME` of a page stands what a run has measured, and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnembed.experiments.words import page, verdict_page

DOCS = Path(__file__).parents[1] / "docs"
PLACES = {"ocr-words": ("structured-protocol.md", page), "ocr-words verdicts": ("structured-results.md", verdict_page)}


def filled(text: str, mark: str, content: str) -> str:
    """The page with this content between the marks.

    >>> filled("a\\n<!-- begin x -->\\nold\\n<!-- end x -->\\nb\\n", "x", "new")
    'a\\n<!-- begin x -->\\nnew\\n<!-- end x -->\\nb\\n'
    """
    begin, end = f"<!-- begin {mark} -->\n", f"<!-- end {mark} -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"no place for {mark}")
    return f"{before}{begin}{content.rstrip()}\n{end}{after}"


def measured(numbers: Mapping[str, Any], mark: str) -> str:
    """The tables of a mark, from the numbers of a run."""
    return PLACES[mark][1](numbers).replace("+-", "\u00b1")


def main(path: str) -> None:
    """Fill in every place that a JSON file of ``reproduce ocr --split words`` has tables for."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if found.get("data_name") != "ocr-words" or found.get("quick"):
        raise SystemExit(f"{path}: is not the JSON file of a full run of reproduce ocr --split words")
    for mark, (name, _) in PLACES.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        (DOCS / name).write_text(filled(text, mark, measured(found["numbers"], mark)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
