"""The notebooks are those of their pages and scripts, hold no outputs, and run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.notebooks import FOLDER, SOURCES, from_page, from_script, notebook


@pytest.mark.parametrize("name", SOURCES)
def test_notebooks_are_up_to_date_and_without_outputs(name: str) -> None:
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert text == notebook(name), "stale: python -m tools.notebooks"
    cells = json.loads(text)["cells"]
    assert sum(cell["cell_type"] == "code" for cell in cells) >= 3
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_nothing_else_lies_beside_them() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.suffix == ".ipynb"} == {f"{name}.ipynb" for name in SOURCES}


def test_links_and_blocks_of_pages() -> None:
    text, code = from_page("See [x](y.md) and [z](https://z).\n\n```python\na = 1\n```\n", "docs")
    assert text["source"] == ["See [x](../../docs/y.md) and [z](https://z)."]
    assert (code["cell_type"], code["source"]) == ("code", ["a = 1"])


def test_cells_of_scripts() -> None:
    cells = from_script("# %% [markdown]\n# # T\n#\n# text\n\n# %%\na = 1\n\n# %% Then\nb = 2\n", "f.png")
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code", "markdown", "code", "code"]
    assert "".join(cells[0]["source"]) == "# T\n\ntext"
    assert cells[2]["source"] == ["## Then"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's own packages
@pytest.mark.parametrize("name", SOURCES)
def test_notebooks_run_in_a_kernel(name: str, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason='no kernel: pip install "attnembed[dev]"')
    client = pytest.importorskip("nbclient", reason='no kernel: pip install "attnembed[dev]"')
    book = nbformat.reads(notebook(name), as_version=4)
    nbformat.validate(book)
    client.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    assert shown
    assert not any(out.output_type == "error" for out in shown)
