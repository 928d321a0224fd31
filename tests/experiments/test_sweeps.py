"""Grids of synthetic experiments: what they measure, how values are written, and what the command line makes of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnembed.__main__ import main
from attnembed._identity import fingerprint
from attnembed.errors import DataFileError, InputError
from attnembed.experiments.sweeps import (
    GRID_EXPERIMENTS,
    margin_cell,
    one_step_cell,
    parse_values,
    run_sweep,
    selection_cell,
    sweep_grid,
)
from attnembed.plotting import new_figure, plot_heatmap
from attnembed.sweeping import sweep

pytestmark = pytest.mark.usefixtures("plain_layout")

SIZES: dict[str, Any] = {"n": 40, "T": 4, "V": 12, "scale": 1.0}


@contextmanager
def threads_for_processes(workers: int) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(workers) as pool:
        yield pool


@pytest.fixture(autouse=True)
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["attnembed.sweeping"], "_processes", threads_for_processes)


def mean(cell: Any, key: str, repeats: int = 5, **parameters: Any) -> float:
    seeds = np.random.SeedSequence(0).spawn(repeats)
    return float(np.mean([cell(**SIZES | parameters, rng=np.random.default_rng(seed))[key] for seed in seeds]))


# --- cells -------------------------------------------------------------------------------------------------------


def test_repeats_is_the_old_name_of_repetitions() -> None:
    with pytest.warns(DeprecationWarning, match=r"`repeats` of sweep_grid is deprecated .* use `repetitions`"):
        assert sweep_grid("margin", ["d=8"], repeats=3)[1]["repeat"] == range(3)  # type: ignore[call-arg]


def test_one_step_follows_the_lemma() -> None:
    wide, narrow = (mean(one_step_cell, "error", eta=100.0, d=d) for d in (1600, 100))
    assert 2 < narrow / wide < 8, "the error falls like d^-1/2"
    assert wide < mean(one_step_cell, "bound", eta=100.0, d=1600)
    assert abs(mean(one_step_cell, "slope", eta=100.0, d=1600) - 1) < 0.05
    # The negative control: a step that is too small does not align.
    assert (
        mean(one_step_cell, "alignment", eta=100.0, d=400)
        > 0.95
        > 0.6
        > mean(one_step_cell, "alignment", eta=0.1, d=400)
    )


def test_selection_needs_a_step() -> None:
    assert mean(selection_cell, "predictive", eta=60.0, d=64, repeats=2) == 1
    assert mean(selection_cell, "predictive", eta=0.01, d=64, repeats=2) < 0.7


def test_selection_can_fail_between_small_and_large_steps() -> None:
    """The top tokens are the predictive ones there, and half of the sequences select others."""
    rng = np.random.default_rng(11)
    outcome = selection_cell(eta=180.0, d=64, n=60, T=8, V=24, scale=1.0, rng=rng)
    assert outcome["selected"] == outcome["predictive"] == 0.5
    assert outcome["attention"] < 1e-50
    assert outcome["status"] == "reached_end"


def test_the_margin_program_needs_width() -> None:
    assert mean(margin_cell, "separable", eta=60.0, d=64) == 1
    assert mean(margin_cell, "separable", eta=60.0, d=2) == 0 == mean(margin_cell, "margin", eta=60.0, d=2)
    one, ten = (mean(margin_cell, "margin", eta=1e-9, d=64, scale=scale) for scale in (1.0, 10.0))
    assert abs(one / ten - 1) < 1e-6, "without a step the margin is a multiple of the scale"


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("eta=0.1,1,10", [0.1, 1.0, 10.0]),
        (
            "eta=0.01:100:9",
            [0.01, 0.0316227766017, 0.1, 0.316227766017, 1.0, 3.16227766017, 10.0, 31.6227766017, 100.0],
        ),
        ("eta=1:100:3,5,10", [1.0, 10.0, 100.0, 5.0]),
        ("d=64", [64]),
        ("d=2:16:4,1e3", [2, 4, 8, 16, 1000]),
        ("T=2:4:9", [2, 3, 4]),
    ],
)
def test_values(text: str, values: list[float]) -> None:
    assert repr(parse_values(text)) == repr((text[: text.index("=")], values))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("speed=1", "must be one of 'eta', 'd', 'n', 'T', 'V', 'scale'; got 'speed'"),
        ("eta", "must give numbers; got 'eta'; write eta=VALUES, with values such as 1,10 or 1:100:3"),
        ("eta=", "must give numbers"),
        ("eta=1,,2", "must give numbers"),
        ("eta=1:2", "must give numbers"),
        ("eta=1:2:x", "must give numbers"),
        ("eta=1:2:3:4", "must give numbers"),
        ("eta=0:1:5", "must give eta from 1e-12"),
        ("eta=1:2:0", "must ask for 1 to 10000 values; got 1:2:0"),
        ("eta=1:2:100001", "must ask for 1 to 10000 values"),
        ("eta=-1", "must give eta from 1e-12 to 1e+12; got -1"),
        ("eta=nan", "must give eta from"),
        ("eta=1:inf:3", "must give eta from"),
        ("d=0", "must give d from 1 to 1e+06"),
        ("d=1.5", "must give whole numbers for d; got 1.5"),
    ],
)
def test_values_that_are_none(text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_values(text)
    assert problem in str(caught.value)


# --- whole sweeps ------------------------------------------------------------------------------------------------


def test_a_sweep_prints_writes_and_goes_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store, out = tmp_path / "cells.jsonl", tmp_path / "out"
    arguments = ["sweep", "margin", "--quick", "--out", str(out), "--store", str(store), "--seed", "3", "--over"]
    assert main([*arguments, "d=4,32", "eta=1,60", "--repetitions", "2"]) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["d", "eta", "separable", "margin"]
    assert [row[:2] for row in rows[1:5]] == [["4", "1"], ["4", "60"], ["32", "1"], ["32", "60"]]
    assert all("+-" in row for row in rows[1:5])
    content = json.loads((out / "sweep-margin-quick.json").read_text())
    assert (content["seed"], content["quick"], len(content["cells"]["margin"])) == (3, True, 8)
    assert content["parameters"]["V"] == [24]
    assert (out / "sweep-margin-quick.png").read_bytes().startswith(b"\x89PNG")

    # Another order, and a parameter at its default: the same cells.
    lines = store.read_text()
    assert main([*arguments, "eta=60,1", "d=32,4", "n=40", "--repetitions", "2"]) == 0
    assert store.read_text() == lines
    assert main([*arguments, "eta=60", "d=32", "--repetitions", "3"]) == 0
    assert len(store.read_text().splitlines()) == len(lines.splitlines()) + 1
    capsys.readouterr()
    arguments[8] = "4"
    assert main([*arguments, "eta=60"]) == 2
    assert capsys.readouterr().err.endswith("belongs to the rng 3, not 4; use another store\n")


def test_damage_in_the_store_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = tmp_path / "cells.jsonl"
    arguments = [
        "sweep",
        "margin",
        "--quick",
        "--over",
        "d=4,32",
        "--store",
        str(store),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 0
    capsys.readouterr()
    header, first, second = store.read_text().splitlines()
    for value in (7, None, {"separable": 1.0, "margin": "large"}):
        damaged = json.dumps({**json.loads(second), "value": value})
        store.write_text("\n".join([header, first, damaged, ""]))
        assert main(arguments) == 2
        message = f"attnembed: error: {store}, line 3: is not a cell of this sweep, or is damaged\n"
        assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize("value", [7, None, {"separable": 1.0}, {"separable": 1.0, "margin": True}, [0.0, 1.0]])
def test_values_of_another_version_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, value: Any) -> None:
    store = tmp_path / "cells.jsonl"
    key = fingerprint(margin_cell)[:16]
    _, grid = sweep_grid("margin", ["d=4"], quick=True)
    with ThreadPoolExecutor(1) as pool:
        sweep(lambda rng, **cell: value, grid, executor=pool, store=store, key=key, rng=0)
    store.write_text(store.read_text().replace(f'"function": "{__name__}.', f'"function": "{margin_cell.__module__}.'))
    assert main(["sweep", "margin", "--quick", "--over", "d=4", "--store", str(store), "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert f"{store}: must hold numbers named separable, margin for the cell " in err
    assert os.listdir(tmp_path) == ["cells.jsonl"]


def test_failed_cells_are_named_and_the_exit_code_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["sweep", "margin", "--quick", "--over", "n=40,41", "d=8,16", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "4 cells done, 2 of them failed: attnembed.errors.InputError: `n_samples` must be even" in out
    rows = [line.split() for line in out.splitlines()[1:5]]
    assert [row[-1] == "failed" for row in rows] == [False, False, True, True]
    errors = json.loads((tmp_path / "sweep-margin-quick.json").read_text())["errors"]
    assert [error["cell"]["n"] for error in errors] == [41, 41]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["dance", "--over", "d=1"],
            "argument EXPERIMENT: must be one of 'margin', 'one-step', 'selection'; got 'dance'",
        ),
        (["margin"], "--over"),
        (["margin", "--over", "d=1", "d=2"], "`--over` must name each parameter once, at least one; got d=1 d=2"),
        (["margin", "--over", "d=1", "--repetitions", "0"], "argument --repetitions: must be at least 1; got 0"),
        (["margin", "--over", "d=1", "--workers", "0"], "argument --workers: must be at least 1; got 0"),
        (["margin", "--over", "d=1", "--seed", "-1"], "argument --seed: must be at least 0; got -1"),
        (["margin", "--over", "d=1", "--store", "/dev/null"], "/dev/null: is not a regular file"),
        (
            ["margin", "--over", "d=1", "speed=1"],
            "argument --over: must be one of 'eta', 'd', 'n', 'T', 'V', 'scale'; got",
        ),
        (["margin", "--over", ""], "argument --over: must be one of 'eta', 'd', 'n', 'T', 'V', 'scale'; got ''"),
        (["margin", "--over", "d=1", "--store", ""], "argument --store: must name a file or folder; got ''"),
        (["margin", "--over", "d=1000000"], "`--over` must keep V x d at most 20000000; got 44 x 1000000"),
        (["margin", "--over", "n=4,10000", "T=2:90000:2"], "must keep n x T at most 20000000; got 10000 x 90000"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], words: str
) -> None:
    try:
        code = main(["sweep", *arguments, "--out", str(tmp_path)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert (code, captured.out, len(captured.err.splitlines())) == (2, "", 1)
    assert words in captured.err


def test_the_folder_is_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFileError, match="cannot be created"):
        run_sweep("margin", ["d=8"], out=tmp_path / "file", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_an_unfinished_sweep_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **options: Any) -> Iterator[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["attnembed.sweeping"], "_run_all", interrupted)
    assert main(["sweep", "margin", "--over", "d=8", "--store", str(tmp_path / "s"), "--out", str(tmp_path)]) == 2
    message = "attnembed: error: interrupted; 0 cells done; run it again to continue from the store\n"
    assert capsys.readouterr() == ("", message)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("name", GRID_EXPERIMENTS)
def test_one_parameter_gives_lines_and_one_value_a_point(name: str, tmp_path: Path) -> None:
    for over in (["eta=5,50"], ["eta=5"])[: 1 + (name == "margin")]:
        outcome = run_sweep(name, [*over, "d=8"], quick=True, out=tmp_path, workers=2)
        assert outcome.result.success
        assert all(path.exists() for path in outcome.files)


# --- the heat map ------------------------------------------------------------------------------------------------


def test_a_heat_map_shows_every_value_and_what_is_missing() -> None:
    values = np.arange(14.0).reshape(2, 7)
    values[1, 3] = np.nan
    figure, axes = new_figure()
    ax = plot_heatmap(axes[0, 0], np.geomspace(0.01, 1e6, 7), [20, 1000], values, label="share")
    tiles = ax.collections[0].get_array()
    assert tiles.shape == (2, 7)
    assert tiles.mask.sum() == 1
    assert tiles[0, 6] == 6
    figure.draw_without_rendering()
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.01", "4.64", "2154", "1e+06"]
    assert list(ax.get_xticks()) == [0.5, 2.5, 4.5, 6.5]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["20", "1000"]
    assert figure.axes[1].get_ylabel() == "share"
