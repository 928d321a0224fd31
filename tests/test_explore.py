"""The pages to explore: what is embedded, and what a browser makes of it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnembed import _arguments
from attnembed.__main__ import main
from attnembed._arguments import _pages
from attnembed.errors import InputError
from attnembed.explore import PAGES, render, save_page
from attnembed.explore.document import Panel, document, rounded

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium to drive the pages")


def embedded(page: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(found)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: render(name, quick=True, rng=0) for name in PAGES}


def drawn(path: Path, places: str, picture: Path | None = None) -> str:
    """The elements of the page as its script has made them, where its sliders stand at ``places``."""
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}"]
    command += ["--window-size=1000,1000", "--virtual-time-budget=2000"]
    if picture is not None:
        run = [*command, f"--screenshot={picture}", f"file://{path}#{places}"]
        subprocess.run(run, check=True, capture_output=True, timeout=60)
    run = [*command, "--dump-dom", f"file://{path}#{places}"]
    return subprocess.run(run, check=True, capture_output=True, text=True, timeout=60).stdout


def drive(path: Path, places: str, picture: Path | None = None) -> str:
    """The sentence that the page reads its state with, where its sliders stand at ``places``."""
    (sentence,) = re.findall(r'<p id="reading" role="status">(.*?)</p>', drawn(path, places, picture), re.S)
    return html.unescape(sentence)


def test_numbers_are_short_and_json() -> None:
    assert rounded([1 / 3, -2.0, np.inf], 3) == [0.333, -2, None]
    assert json.dumps(rounded(np.float32(1e-20))) == "1e-20"


def test_a_page_is_one_file_that_asks_for_nothing() -> None:
    page = document("A < B", ["p & q"], [Panel("plane", "c > d")], {"text": "</script><b>"}, "basins")
    assert "<h1>A &lt; B</h1>" in page
    assert "<p>p &amp; q</p>" in page
    assert embedded(page) == {"text": "</script><b>"}
    assert not re.findall(r'\b(?:src|href)=|url\("?http|fetch\(|import\(', page)


def test_pages_have_one_list_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(_pages()) == list(PAGES)
    monkeypatch.setattr(_arguments, "declared", lambda *given: None)  # no sources to read
    assert list(_pages()) == list(PAGES)


def test_the_command_refuses_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explore", "attention"])
    assert "must be one of 'selection', 'basins', 'scaling'; got 'attention'" in capsys.readouterr().err


def test_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="`name` must be one of"):
        render("attention")


@pytest.mark.slow
def test_pages_are_small_and_reproducible(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        assert len(page.encode()) < 3e6
        assert "quick version" in page
        assert render(name, quick=True, rng=0) == page
        assert render(name, quick=True, rng=1) != page


@pytest.mark.slow
def test_the_numbers_are_those_of_the_subject(pages: dict[str, str]) -> None:
    selection = embedded(pages["selection"])
    for run in selection["runs"]:
        for shares in run["attention"]:
            assert np.abs([sum(one) - 1 for one in shares]).max() < 0.01
    large, small = selection["runs"][-2], selection["runs"][0]
    assert large["selected"] == large["n"] > small["selected"]
    basins = embedded(pages["basins"])
    assert {one["token"] for one in basins["optima"]} == {0, 2, 4}
    for k, path in zip(np.ravel(basins["ends"]), basins["paths"]):
        assert k == -1 or path["attention"][-1][k] > 0.9
    scaling = embedded(pages["scaling"])
    at_one = [arm["score"][-1][scaling["start"]] for arm in scaling["arms"]]
    assert scaling["factors"][scaling["start"]] == 1
    assert at_one[1] > at_one[0]  # W a hundred times too large: online scaling is ahead after a few epochs


@pytest.mark.slow
@needs_browser
def test_sliders_move_the_pages(pages: dict[str, str], tmp_path: Path) -> None:
    for name, page in pages.items():
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
    data = embedded(pages["selection"])
    for step in (0, len(data["runs"]) - 1):
        run, picture = data["runs"][step], tmp_path / f"selection-{step}.png"
        said = drive(tmp_path / "selection.html", f"step={step}&time=5", picture)
        assert said.startswith(f"{run['selected']} of {run['n']} sequences")
        assert picture.stat().st_size > 10_000
    basins = embedded(pages["basins"])
    said = drive(tmp_path / "basins.html", "x=0&y=4")
    assert f"selects token {basins['optima'][basins['ends'][4][0]]['token']}," in said
    elements = drawn(tmp_path / "basins.html", "x=0&y=4")
    for name, value in (("x", basins["ticks"][0]), ("y", basins["ticks"][4])):
        assert f'<label for="{name}">' in elements  # a reader of the screen hears what the slider is, and its value
        assert f'id="{name}" aria-valuetext="{value:g}"' in elements
    scaling = embedded(pages["scaling"])
    said = drive(tmp_path / "scaling.html", "factor=0&epoch=1")
    assert said.startswith("After epoch 2, joint: ")
    percent = float(said.split()[4])
    assert abs(percent - scaling["arms"][0]["score"][1][0]) <= 0.051


@pytest.mark.slow
def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "page.html"
    assert main(["explore", "basins", "--quick", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert save_page("basins", out, quick=True) == out
    assert list(out.parent.iterdir()) == [out]
