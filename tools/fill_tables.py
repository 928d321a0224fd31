"""Put the tables of a run on real data into the documentation: python tools/fill_tables.py results/ocr-words.json.

Also ocr.json, chunking.json and segmentation.json; their tables are in the Markdown file beside them. Between the
marks `begin NAME` and `end NAME` of a page stands what a run has measured, and nothing else. A row of the table of
verdicts is found by its first cell.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from attnembed.experiments.words import page, verdict_page

DOCS = Path(__file__).parents[1] / "docs"
PLACES = {
    "ocr-words": "structured-protocol.md",
    "ocr-words verdicts": "structured-results.md",
    "ocr": "structured-protocol.md",
    "chunking": "structured-protocol.md",
    "segmentation": "structured-protocol.md",
}
ROWS = {
    "ocr": {"large training set": "letters, large", "small training set": "letters, small"},
    "chunking": {"CoNLL-2000": "chunks"},
    "segmentation": {"horses": "horses"},
}
_COLUMNS = ("nll", "ssvm", "pseudolikelihood", "marginal")


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


def row(label: str, verdicts: Mapping[str, str]) -> str:
    """The row of the table of verdicts; the likelihood of a grid is its mean-field bound.

    >>> row("chunks", {"nll": "yes: joint is +0.10 +- 0.08 points from stages, plain joint -0.45"})
    '| chunks | yes: +0.10 ± 0.08 (-0.45) |  |  |  |'
    """
    cells = []
    for name in _COLUMNS:
        bound = name == "nll" and "mean_field" in verdicts
        text = verdicts.get("mean_field" if bound else name, "")
        said = re.fullmatch(r"([a-z ]+): .* is (\S+ \+- \S+) points from stages, plain joint (\S+)", text)
        if text and not said:
            raise SystemExit(f"{name}: is not a verdict: {text}")
        note = ", with the mean-field bound" if bound else ""
        cells.append(f"{said[1]}: {said[2]} ({said[3]}){note}".replace("+-", "±") if said else "")
    return f"| {' | '.join([label, *cells])} |"


def with_row(text: str, line: str) -> str:
    """The page with this line in place of that with the same first cell; only lines of verdicts are looked at.

    >>> with_row("| a | no |\\n| a | yes: 1 |\\n", "| a | no: 2 |")
    '| a | no |\\n| a | no: 2 |\\n'
    """
    label = re.escape(line.split(" | ")[0])
    text, count = re.subn(rf"^{label} \| (?:yes|no|not decidable): .*$", lambda _: line, text, flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"{count} rows for {line.split(' | ')[0]}")
    return text


def main(path: str) -> None:
    """Fill in every place that the JSON file of a full run has tables for."""
    source = Path(path)
    found = json.loads(source.read_text(encoding="utf-8"))
    name, numbers = found.get("data_name"), found.get("numbers")
    if name not in PLACES or found.get("quick"):
        raise SystemExit(f"{path}: is not the JSON file of a full run of reproduce ocr, chunking or segmentation")
    contents = {name: page(numbers), f"{name} verdicts": verdict_page(numbers)} if name == "ocr-words" else {}
    contents = contents or {name: source.with_suffix(".md").read_text(encoding="utf-8")}
    for mark, content in contents.items():
        edited = DOCS / PLACES[mark]
        text = filled(edited.read_text(encoding="utf-8"), mark, content.replace("+-", "\u00b1"))
        edited.write_text(text, encoding="utf-8")
    for title, label in ROWS.get(name, {}).items():
        edited = DOCS / PLACES["ocr-words verdicts"]
        text = with_row(edited.read_text(encoding="utf-8"), row(label, numbers[title]["verdict"]))
        edited.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
