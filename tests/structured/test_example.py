"""The demonstration of the relative scale, in its quick form."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "06_relative_scale.py"


def test_relative_scale(tmp_path):
    spec = importlib.util.spec_from_file_location("relative_scale", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    numbers = module.main(tmp_path, quick=True, rng=0)
    assert (tmp_path / "relative_scale.png").stat().st_size > 10_000
    assert numbers["online spread"] < 0.03
    assert numbers["joint spread"] > 3 * numbers["online spread"]
    assert min(numbers["online"]) > numbers["stage"] - 0.02
