"""Arms on equal budgets: which runs a budget consists of, which step size an arm takes, and what a failed run does."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import attnembed as ae
from attnembed.compare import Budget, Trial, standard_error
from attnembed.errors import InputError, RunFailedError
from attnembed.results import Status

DATA = ae.make_chain_dataset(20, 4, 3, 5, rng=0)


def make_model(rng: np.random.Generator) -> ae.ChainCRF:
    return ae.ChainCRF(ae.mlp(5, (4,), 3, rng=rng), rng.normal(size=(3, 3)))


def compare(arms: dict[str, dict[str, Any]], **options: Any) -> Any:
    return ae.compare_arms(arms, make_model, DATA, DATA, DATA, n_epochs=1, **options)


def test_every_arm_has_the_same_runs_whatever_it_scores() -> None:
    budget = Budget(tuple("abcdefghij"), (0.1, 1.0), ("first", "second", "third"), n_tuning=2)
    rng = np.random.default_rng(0)
    scores = {trial: rng.random() for trial in budget.tuning()}
    assert len(scores) == 10 * 2 * 2
    chosen = budget.choose(scores.__getitem__)
    runs = {*budget.tuning(), *budget.others(chosen)}
    assert Counter(trial.arm for trial in runs) == dict.fromkeys(budget.arms, 5)
    for arm, trials in chosen.items():
        assert [trial.repetition for trial in trials] == ["first", "second", "third"]
        assert set(trials) <= runs
        first, second = budget.repetitions[:2]
        totals = {size: scores[Trial(arm, size, first)] + scores[Trial(arm, size, second)] for size in (0.1, 1.0)}
        assert {trial.step_size for trial in trials} == {max(totals, key=totals.__getitem__)}


def test_of_equal_step_sizes_the_first_is_taken() -> None:
    assert Budget(("a",), (3.0, 1.0, 2.0), (0,)).choose(lambda trial: 0.5)["a"] == (Trial("a", 3.0, 0),)


def test_the_standard_error_of_one_value_is_unknown() -> None:
    assert math.isnan(standard_error(np.array([0.3])))
    values = [0.25, 0.5, 1.0]  # mean 7/12: squared deviations 16/144, 1/144, 25/144
    assert standard_error(np.array(values)) == pytest.approx(math.sqrt(42 / 144 / 2 / 3), rel=1e-15)


def test_a_number_of_repetitions_stands_for_the_first_seeds() -> None:
    number, seeds = compare({"joint": {}}, repetitions=2), compare({"joint": {}}, repetitions=(0, 1))
    assert number.seeds == seeds.seeds == (0, 1)
    assert number["joint"].test_scores.tolist() == seeds["joint"].test_scores.tolist()
    assert compare({"joint": {}}, repetitions=[3]).seeds == (3,)


def test_seeds_is_the_old_name_of_repetitions() -> None:
    with pytest.warns(DeprecationWarning, match=r"`seeds` of compare_arms is deprecated .* use `repetitions`"):
        assert compare({"joint": {}}, seeds=(1,)).seeds == (1,)


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, (-1,), "two"])
def test_repetitions_are_checked(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"^`repetitions` must"):
        compare({"joint": {}}, repetitions=wrong)


def test_an_arm_that_fails_at_one_step_size_takes_another() -> None:
    huge = 1e300
    with np.errstate(all="ignore"):
        table = compare({"joint": {}}, step_sizes=(huge, 1e-3), optimizer=ae.SGD(step_size=1.0))
        assert table["joint"].step_size == 1e-3
        with pytest.raises(RunFailedError, match=r"arm 'joint' failed: .*; try smaller step sizes"):
            compare({"joint": {}}, step_sizes=(huge,), optimizer=ae.SGD(step_size=1.0))


def test_a_run_that_fails_late_is_not_chosen_for_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The better step size loses where its run did not stay finite after a good epoch."""
    sizes = (1e-3, 0.1)
    better = compare({"joint": {}}, step_sizes=sizes)["joint"].step_size

    def failing(*args: Any, optimizer: ae.Adam, **options: Any) -> Any:
        result = ae.train_structured(*args, optimizer=optimizer, **options)
        return replace(result, status=Status.NOT_FINITE) if optimizer.step_size == better else result

    monkeypatch.setattr("attnembed.compare.train_structured", failing)
    (other,) = set(sizes) - {better}
    assert compare({"joint": {}}, step_sizes=sizes)["joint"].step_size == other
