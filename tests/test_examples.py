"""Every example runs, saves its figure, and ends with numbers that say what it claims."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXPECTED: dict[str, Callable[[dict[str, Any]], bool]] = {
    "01_one_step": lambda x: (
        abs(x["measured slope"] / x["predicted slope"] - 1) < 0.1 and 0.01 < x["largest error / bound"] <= 1
    ),
    "02_selection": lambda x: (
        x["angle at the end (degrees)"] < 5 < x["angle at t = 100 (degrees)"]
        and abs(x["t (L - L*) / ||p_mm||^2"] - 1) < 0.01
    ),
    "03_when_selection_fails": lambda x: (
        x["promised below step"] < 505 < x["fails from step"] < 758 < 2526 < x["fails up to step"] < 3790
    ),
    "04_relative_scale": lambda x: (
        x["joint spread"] > 3 * x["online spread"]
        and x["online spread"] < 0.03
        and min(x["online"]) > x["stage"] - 0.02
    ),
}


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str, tmp_path: Path) -> None:
    example = load(name)
    numbers = example.main(tmp_path, quick=True, rng=0)
    assert EXPECTED[name](numbers), numbers
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_example_at_full_size(name: str, tmp_path: Path) -> None:
    assert EXPECTED[name](load(name).main(tmp_path, rng=1))
