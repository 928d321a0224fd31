"""Every example runs, saves its figure, and returns three numbers that say what it claims."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import attnembed as ae
from tools.notebooks import from_script

pytestmark = pytest.mark.usefixtures("plain_layout")

FOLDER = Path(__file__).parents[1] / "examples"
Numbers = dict[str, float]
EXPECTED: dict[str, Callable[[Numbers], bool]] = {
    "01_one_step": lambda x: (
        abs(x["measured slope"] / x["predicted slope"] - 1) < 0.1 and 0.01 < x["largest error / bound"] <= 1
    ),
    "02_bound_against_error": lambda x: (
        abs(x["exponent of the error in the step size"] - 1) < 1e-6
        and abs(x["exponent of the error in the scale"] - 1) < 0.05
        and 0.2 < x["largest error / bound"] <= 1
    ),
    "03_selection_in_motion": lambda x: (
        x["Spearman(p . E_s, |Delta_s|) at the end"] > 0.8
        and x["largest attention in a sequence, mean at the start"] < 0.2
        and x["largest attention in a sequence, mean at the end"] > 0.7
    ),
    "04_log_time": lambda x: (
        x["angle at t = 10000 (degrees)"] > 5
        and abs(x["exponent of the angle in log t"] + 1) < 0.06
        and abs(x["t (L - L*) / ||p_mm||^2"] - 1) < 1e-3
    ),
    "05_max_margin_in_the_plane": lambda x: (
        0 <= x["KKT residual of the certificate"] < 1e-12
        and x["largest angle of a flow to p_mm (degrees)"] < 1
        and x["largest difference of a multiplier"] < 1e-3
    ),
    "06_when_selection_fails": lambda x: (
        x["promised below step"] < 505 < x["fails from step"] < 758 < 2526 < x["fails up to step"] < 3790
    ),
    "07_closed_forms_against_width": lambda x: (
        abs(x["exponent of the error of ||p_mm||^2"] + 0.5) < 0.15
        and abs(x["exponent of the error of the slope"] + 0.5) < 0.15
        and abs(x["||p_mm||^2 / closed form, mean at the largest d"] - 1) < 0.01
    ),
    "08_your_own_reviews": lambda x: (
        x["accuracy on held-out reviews"] > 0.85
        and x["Spearman(E_s . v, alpha_s)"] > 0.95
        and x["Spearman(p . E_s, |Delta_s|)"] > 0.85
    ),
    "09_chain_crf_by_hand": lambda x: (
        0 <= x["largest error of log Z and the marginals"] < 1e-12
        and x["days on which Viterbi is right"] == 7
        and 1 < x["largest deviation of the samples (standard errors)"] < 4
    ),
    "10_relative_scale": lambda x: (
        x["spread of the accuracy over c, joint"] > 0.05
        and 0 <= x["spread of the accuracy over c, online"] < 0.02
        and x["accuracy of online at its worst c, minus stage"] > -0.02
    ),
    "11_your_own_lemma": lambda x: (
        0.05 < x["best ratio of the true bound"] <= 1
        and x["ratio of the counterexample"] > 1
        and x["sequences in the counterexample"] <= 3
    ),
    "12_basins_in_the_plane": lambda x: (
        x["locally optimal selections"] == 3
        and x["share of starts that end in one"] > 0.99
        and x["largest relative distance of a flow from its asymptote"] < 1e-6
    ),
    "13_three_geometries": lambda x: (
        0.995 < x["least share of the own margin that a flow reaches"] <= 1 + 1e-9
        and x["largest share that a flow of another geometry reaches"] < 0.96
        and x["degrees between the nearest two directions"] > 10
    ),
    "14_normalised_steps": lambda x: (
        x["largest error of a predicted contraction below the limit"] < 1e-5
        and 0.01 < x["shortfall 5 % above the limit"] < 0.2
        and abs(x["contraction of Polyak's step where it is stable"] - np.exp(-1)) < 1e-9
    ),
}


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(name: str, numbers: Numbers, folder: Path) -> None:
    """Three finite numbers as expected, and a figure with something in it; an animation moves."""
    assert len(numbers) == 3
    assert all(isinstance(value, float) and np.isfinite(value) for value in numbers.values()), numbers
    assert EXPECTED[name](numbers), numbers
    (figure,) = [path for path in folder.iterdir() if path.stem == name and path.suffix in (".png", ".gif")]
    with Image.open(figure) as image:
        assert min(image.size) > 200
        assert len(image.getcolors(image.width * image.height) or ()) > 20
        assert getattr(image, "n_frames", 1) > 4 or figure.suffix == ".png"


def test_every_example_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(EXPECTED)


# These take a second or more even so.
HEAVY = {"02_bound_against_error", "03_selection_in_motion", "07_closed_forms_against_width", "10_relative_scale"}
HEAVY |= {"11_your_own_lemma"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in HEAVY)) for n in EXPECTED])
def test_example(name: str, tmp_path: Path) -> None:
    check(name, load(name).main(tmp_path / "new", quick=True, rng=0), tmp_path / "new")


# Half a minute each; a notebook runs the second of them whole.
LONG = {"07_closed_forms_against_width", "10_relative_scale"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=getattr(pytest.mark, "thorough" if n in LONG else "slow")) for n in EXPECTED]
)
def test_example_at_full_size(name: str, tmp_path: Path) -> None:
    check(name, load(name).main(tmp_path, rng=1), tmp_path)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_is_short_and_in_cells(name: str) -> None:
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert source.count("\n") < 100
    assert source.startswith("# %% [markdown]\n# # ")
    assert len(re.findall(r"^# %%", source, flags=re.MULTILINE)) >= 5


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_opens_as_a_notebook(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells run one after another, and the last one calls main as a kernel would, with no options of its own."""
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    cells = from_script((FOLDER / f"{name}.py").read_text(encoding="utf-8"), f"results/{name}.png")
    *before, last = ["".join(cell["source"]) for cell in cells[:-1] if cell["cell_type"] == "code"]
    scope: dict[str, Any] = {"__name__": "__main__"}
    for source in before:
        exec(compile(source, name, "exec"), scope)
    assert callable(scope["main"])
    calls: list[dict[str, Any]] = []
    scope["main"] = lambda **options: calls.append(options) or {"number": 1.0}
    exec(compile(last, name, "exec"), scope)
    assert calls in ([{}], [{"path": ""}])


def test_the_gallery_has_a_line_for_every_example() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\w+)\]\((?:\w+)\.py\) \|", page, flags=re.MULTILINE) == sorted(EXPECTED)


def test_the_course_quotes_the_gallery_and_claims_that_exist() -> None:
    gallery = (FOLDER / "README.md").read_text(encoding="utf-8")
    course = (FOLDER.parent / "docs" / "course.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d \|.*\| \[(\w+)\].*\|.*\| (.*) \| `(.*)` \|$", course, flags=re.MULTILINE)
    assert len(rows) == 5
    ids = {entry.id for entry in ae.claims()}
    for script, number, id in rows:
        (line,) = [line for line in gallery.splitlines() if line.startswith(f"| [{script}]")]
        assert number in line
        assert id in ids


def test_reviews_of_the_user(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("stars,text\n" + '5,"Warm, and witty."\n1,"Dull, and so long."\n' * 30, encoding="utf-8")
    numbers = load("08_your_own_reviews").main(tmp_path, path=str(file))
    assert numbers["accuracy on held-out reviews"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"mine.csv", "08_your_own_reviews.png"}
