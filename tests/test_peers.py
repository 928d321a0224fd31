"""The comparison with peers: what it asks of this package is right, and its page has every reason once."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import attnembed as ae
from benchmarks import agreement, letters
from benchmarks.agreement import PARTS, Problem, Reason, ask, distance, markdown, part

PAGE = (Path(__file__).parents[1] / "docs" / "peers.md").read_text(encoding="utf-8")


def rows_of(name: str) -> list[list[str]]:
    """The rows of a part: seven cells for an answer that differs, three for a problem on which packages agree."""
    text = (
        PAGE.split("<!-- agreement: begin -->")[1]
        .split("<!-- agreement: end -->")[0]
        .split(f"### {name.capitalize()}\n")[1]
        .split("\n### ")[0]
    )
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| problem |")]
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]


@pytest.mark.parametrize("name", PARTS)
def test_this_package_has_the_right_value_or_a_reason(name: str) -> None:
    problems, reasons = part(name)
    rows = [row for problem in problems for row in ask(name, problem, reasons, ["attnembed"])]
    assert rows
    for row in rows:
        assert row["status"] in ("agrees", "differs", "not installed"), row
        assert row["status"] != "not installed" or row["value"] == "pycrfsuite"  # at whose weights one problem asks


@pytest.mark.parametrize("name", PARTS)
def test_three_peers_and_every_reason_belongs_to_an_answer(name: str) -> None:
    problems, reasons = part(name)
    asked = {(problem.name, package) for problem in problems for package in problem.answers}
    assert set(reasons) <= asked
    assert len({package.split(",")[0] for _, package in asked} - {"attnembed"}) >= 3
    assert len({problem.name for problem in problems}) == len(problems)


@pytest.mark.parametrize("name", PARTS)
def test_the_page_and_the_suite_have_the_same_rows(name: str) -> None:
    """The tables of a part: what differs, one row a reason with a version, and what agrees, one row a problem."""
    problems, reasons = part(name)
    rows = rows_of(name)
    differs = {(row[0], row[2].rpartition(" ")[0]): row for row in rows if len(row) == 7}
    assert set(differs) == set(reasons)
    for key, row in differs.items():
        assert re.fullmatch(r"\d[\w.]*", row[2].rpartition(" ")[2]), f"no version: {row[2]}"
        assert row[5:] == list(reasons[key])
    agreed = [row[0] for row in rows if len(row) == 3]
    assert len(differs) + len(agreed) == len(rows)
    assert len(set(agreed)) == len(agreed)
    assert {*agreed, *(problem for problem, _ in differs)} == {problem.name for problem in problems}


def test_nothing_on_the_page_is_unexplained_or_missing() -> None:
    assert "unexplained" not in PAGE.split("<!-- agreement: begin -->")[1]
    assert "not installed" not in PAGE


def test_statuses() -> None:
    def missing() -> float:
        raise ModuleNotFoundError("No module named 'peer'", name="peer")

    def broken() -> float:
        raise ValueError("no")

    answers = {"attnembed": lambda: 2.0, "a": lambda: 2.5, "b": lambda: 3.0, "c": missing, "d": broken}
    problem = Problem("p", 2.0, "hand", answers)
    rows = list(ask("part", problem, {("p", "a"): Reason("why", "advice")}))
    assert [row["status"] for row in rows] == ["agrees", "differs", "unexplained", "not installed", "unexplained"]
    assert [row["value"] for row in rows[-2:]] == ["peer", "raises ValueError"]


def test_a_row_without_a_reason_and_a_missing_package_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> float:
        raise ModuleNotFoundError("No module named 'peer'", name="peer")

    problem = Problem("p", 2.0, "hand", {"a": lambda: 2.5, "b": missing})
    monkeypatch.setattr(agreement, "part", lambda name: ([problem], {}))
    page = markdown(list(ask("part", problem, {})))
    assert "| p | 2, hand | a  | 2.5 | 2e-01 | unexplained |  |" in page
    assert "b: not installed" in page


@pytest.mark.parametrize(
    ("value", "right", "expected"),
    [
        (1.5, 1.0, 0.5),
        (np.array([10.0, 21.0]), np.array([10.0, 20.0]), 0.05),
        (np.array([1.0]), np.array([1.0, 2.0]), np.inf),
        (float("nan"), 1.0, np.inf),
        ("none", np.zeros(2), np.inf),
        ("none", "none", 0.0),
        (["a"], ["a"], 0.0),
        (["a"], ["b"], np.inf),
    ],
)
def test_distance(value: object, right: object, expected: float) -> None:
    assert distance(value, right) == pytest.approx(expected)


def test_a_lenet_of_torch_has_the_likelihoods_of_its_copy() -> None:
    pytest.importorskip("torch", reason="a peer: pip install attnembed[bench]")
    pytest.importorskip("torchcrf", reason="a peer: pip install attnembed[bench]")
    setting = letters.Setting(None, 1)
    there = letters.Torch(setting, letters.OURS)
    here, copied = setting.start.parameters(), there.as_attnembed(np.float32).parameters()
    assert all(np.array_equal(copied[name], here[name]) for name in here)
    rng = np.random.default_rng(0)
    lengths = (1, 4, 7)
    words = [(rng.random((n, 128)) < 0.3).astype(np.float32) for n in lengths]
    found = letters.carried_over(there, ae.ChainDataset(words, [rng.integers(0, 26, n) for n in lengths]))
    assert found["gap"] < 1e-10
    assert (found["other_labelings"], found["n"]) == (0, 3)


def test_the_page_has_a_row_per_training_of_letters() -> None:
    lines = PAGE.split("<!-- letters: begin -->")[1].split("<!-- letters: end -->")[0].splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith(("| attnembed", "| PyTorch"))]
    assert len(rows) == 4
    gaps = [float(row[5]) for row in rows if row[0].startswith("| PyTorch")]
    assert len(gaps) == 2
    assert max(gaps) < 1e-10
