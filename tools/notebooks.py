"""Notebooks from pages and scripts: ``python -m tools.notebooks`` writes examples/notebooks.

A page becomes cells of text and of Python, block by block; a script becomes a cell per ``# %%``. The notebooks hold no
outputs, so that their results always come from the installed version.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "notebooks"
SOURCES = {
    "tutorial": "docs/tutorial.md",
    "your-own-lemma": "docs/your-own-lemma.md",
    "scaling": "examples/10_relative_scale.py",
}


def from_page(text: str, folder: str) -> list[dict[str, Any]]:
    """Cells of a Markdown page in ``folder``, with its links adjusted."""
    cells = []
    for part in re.split(r"^(```python\n.*?^```\n)", text, flags=re.MULTILINE | re.DOTALL):
        if part.startswith("```python\n"):
            cells.append(_cell("code", part.removeprefix("```python\n").removesuffix("```\n")))
        elif part.strip():
            cells.append(_cell("markdown", re.sub(r"\]\((?!https?:|#)", f"](../../{folder}/", part)))
    return cells


def from_script(text: str, figure: str) -> list[dict[str, Any]]:
    """Cells of a script in the percent format, and a last one that shows its figure."""
    cells = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        if title.strip() == "[markdown]":
            cells.append(_cell("markdown", re.sub(r"^# ?", "", body, flags=re.MULTILINE)))
            continue
        if title.strip():
            cells.append(_cell("markdown", f"## {title.strip()}"))
        cells.append(_cell("code", body))
    return [*cells, _cell("code", f'from IPython.display import Image\n\nImage("{figure}")')]


def _cell(kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": text.strip("\n").splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def notebook(name: str) -> str:
    """The JSON text of a notebook (format 4.5)."""
    source = Path(SOURCES[name])
    text = (ROOT / source).read_text(encoding="utf-8")
    cells = from_page(text, "docs") if source.suffix == ".md" else from_script(text, f"results/{source.stem}.png")
    content = {
        "cells": [cell | {"id": f"cell-{k}"} for k, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all notebooks."""
    FOLDER.mkdir(exist_ok=True)
    for name in SOURCES:
        (FOLDER / f"{name}.ipynb").write_text(notebook(name), encoding="utf-8")


if __name__ == "__main__":
    main()
