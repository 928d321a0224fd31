"""Comparison of arms on equal budgets: each tries the same step sizes in the same repetitions and uses the best.

`Budget` lists the runs, each a `Trial`; the caller makes them. `compare_arms` trains structured models one after
another; the experiments on real data pass theirs to `attnembed.sweeping`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from attnembed._deprecation import renamed
from attnembed._typing import Floats
from attnembed._validation import (
    check_callable,
    check_choice,
    check_integer,
    check_integers,
    check_items,
    check_mapping,
    check_positive,
    freeze,
)
from attnembed.errors import InputError, InputTypeError, RunFailedError
from attnembed.fit import check_metric
from attnembed.optim import Adam, Optimizer, check_optimizer
from attnembed.results import Record, uninterrupted
from attnembed.structured.base import StructuredModel
from attnembed.structured.training import Metric, StructuredResult, score_of, train_structured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Arm", "Budget", "Comparison", "Trial", "compare_arms", "standard_error"]

Model = TypeVar("Model", bound=StructuredModel[Any])
A = TypeVar("A", bound=Hashable)
R = TypeVar("R", bound=Hashable)


def standard_error(values: Floats) -> float:
    """Standard error of the mean, as in `scipy.stats.sem`; NaN for one value.

    >>> standard_error(np.array([1.0, 2.0, 3.0])) == 1 / 3**0.5
    True
    """
    return float(np.std(values, ddof=1) / np.sqrt(values.size)) if values.size > 1 else np.nan


# --- the budget -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial(Generic[A, R]):
    """One run of a comparison: an arm at a step size, in one repetition."""

    arm: A
    step_size: float
    repetition: R


@dataclass(frozen=True)
class Budget(Generic[A, R]):
    """The runs allowed to every arm.

    Attributes
    ----------
    arms, step_sizes, repetitions : every arm is tried at every step size in the first ``n_tuning`` repetitions, and
        runs in the others at the one with the best mean score in those (the first, on ties)

    >>> budget = Budget(("a", "b"), (0.1, 1.0), (0, 1))
    >>> len(budget.tuning())
    4
    >>> chosen = budget.choose(lambda trial: trial.step_size if trial.arm == "a" else -trial.step_size)
    >>> chosen["a"]
    (Trial(arm='a', step_size=1.0, repetition=0), Trial(arm='a', step_size=1.0, repetition=1))
    >>> budget.others(chosen)
    (Trial(arm='a', step_size=1.0, repetition=1), Trial(arm='b', step_size=0.1, repetition=1))
    """

    arms: tuple[A, ...]
    step_sizes: tuple[float, ...]
    repetitions: tuple[R, ...]
    n_tuning: int = 1

    def tuning(self) -> tuple[Trial[A, R], ...]:
        """The runs by which the step sizes are chosen."""
        return tuple(
            Trial(arm, size, repetition)
            for repetition in self.repetitions[: self.n_tuning]
            for size in self.step_sizes
            for arm in self.arms
        )

    def choose(self, score: Callable[[Trial[A, R]], float]) -> dict[A, tuple[Trial[A, R], ...]]:
        """The runs of each arm at its step size, one per repetition, chosen by the scores of the `tuning` runs."""

        def chosen(arm: A) -> float:
            first = self.repetitions[: self.n_tuning]
            means = [np.mean([score(Trial(arm, size, repetition)) for repetition in first]) for size in self.step_sizes]
            return max(zip(self.step_sizes, means), key=lambda pair: pair[1])[0]

        sizes = {arm: chosen(arm) for arm in self.arms}
        return {arm: tuple(Trial(arm, sizes[arm], one) for one in self.repetitions) for arm in self.arms}

    def others(self, chosen: Mapping[A, tuple[Trial[A, R], ...]]) -> tuple[Trial[A, R], ...]:
        """The remaining runs once the step sizes are chosen, in the other repetitions."""
        return tuple(trial for repetition in list(zip(*chosen.values()))[self.n_tuning :] for trial in repetition)


# --- structured models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Arm(Record):
    """One arm of a comparison: test scores (repetitions,) at the step size with the best mean validation score."""

    name: str
    step_size: float
    validation_score: float
    test_scores: Floats
    results: tuple[StructuredResult[Any], ...]

    @property
    def mean(self) -> float:
        """Mean test score over the repetitions."""
        return float(self.test_scores.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; NaN for one repetition."""
        return standard_error(self.test_scores)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Record):
    """The arms of a comparison and their common budget; ``seeds`` holds the seed of each repetition."""

    arms: tuple[Arm, ...]
    n_epochs: int
    step_sizes: tuple[float, ...]
    seeds: tuple[int, ...]

    def __getitem__(self, name: str) -> Arm:
        found = {arm.name: arm for arm in self.arms}
        return found[check_choice("name", name, found)]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the test scores of every arm, their means and one standard error.

        Draws on new axes if none are given; returns the axes.
        """
        from attnembed import figures

        scores = [arm.test_scores for arm in self.arms]
        return figures.plot_arm_scores(
            [arm.name for arm in self.arms], scores, [arm.standard_error for arm in self.arms], ax=ax
        )

    def __str__(self) -> str:
        width = max(len(arm.name) for arm in self.arms)
        lines = [f"{'arm':<{width}}  {'test':>7}  {'+-':>6}  {'step size':>9}"]
        for arm in self.arms:
            error = f"{arm.standard_error:.4f}" if len(arm.test_scores) > 1 else "-"
            lines.append(f"{arm.name:<{width}}  {arm.mean:>7.4f}  {error:>6}  {arm.step_size:>9.2g}")
        runs = len(self.step_sizes) * len(self.seeds)
        bars = "; +-: standard error over repetitions" if len(self.seeds) > 1 else ""
        return "\n".join([*lines, f"{self.n_epochs} epochs, {runs} runs per arm{bars}"])


@renamed(seeds="repetitions")
def compare_arms(
    arms: Mapping[str, Mapping[str, Any]],
    make_model: Callable[[np.random.Generator], Model],
    data: Any,
    validation: Any,
    test: Any,
    *,
    n_epochs: int,
    step_sizes: Sequence[float] = (1e-3,),
    repetitions: int | Sequence[int] = 1,
    batch_size: int | None = 20,
    optimizer: Optimizer | None = None,
    metric: Metric = "accuracy",
) -> Comparison:
    """Train every arm with the same budget: epochs, step sizes, seeds, batches, initial models and selection rule.

    Parameters
    ----------
    arms : options of `train_structured` by name; the budget itself cannot be an option of one arm. An arm may have
        "prepare", a function that changes the initial model (to use a multiplier, say)
    make_model : function that creates the initial model from a generator; the same for all arms in one repetition
    data, validation, test : training data; data for selecting epoch and step size; data for the reported score
    step_sizes : tried for every arm; the one with the best validation score, averaged over repetitions, is reported.
        A step size at which a run fails is not chosen
    repetitions : number of runs of each arm at each step size, with the seeds 0, 1, ...; or the seeds themselves

    Raises
    ------
    InputError
        if an arm names an option that belongs to the budget.
    RunFailedError
        if an arm fails at every step size, for example because its parameters do not stay finite.

    >>> from attnembed.structured.data import make_chain_dataset
    >>> from attnembed.structured.model import ChainCRF
    >>> from attnembed.structured.networks import mlp
    >>> data = make_chain_dataset(30, 4, 3, 5, rng=0)
    >>> make = lambda rng: ChainCRF(mlp(5, (4,), 3, rng=rng), rng.normal(size=(3, 3)))
    >>> table = compare_arms({"joint": {}, "stage": {"strategy": "stage"}}, make, data, data, data, n_epochs=3)
    >>> 0 <= table["joint"].mean <= 1
    True
    """
    metric = check_metric(metric)
    shared: dict[str, Any] = {
        "n_epochs": check_integer("n_epochs", n_epochs, minimum=1),
        "batch_size": batch_size,
        "validation": validation,
        "metric": metric,
    }
    check_callable("make_model", make_model)
    step_sizes = tuple(check_positive("step_sizes", size) for size in check_items("step_sizes", step_sizes, "numbers"))
    seeds = _seeds(repetitions)
    if validation is None:
        raise InputTypeError("validation", "must be a data set: the step size is chosen on it", got="None")
    _check_arms(arms, {*shared, "optimizer", "rng", "patience", "checkpoint", "checkpoint_every", "resume"})
    for name, choices in (("arms", arms), ("step_sizes", step_sizes), ("repetitions", seeds)):
        if len(choices) == 0:
            raise InputError(name, "must not be empty", hint="give at least one")
    base = Adam(step_size=1e-3) if optimizer is None else check_optimizer("optimizer", optimizer)

    def train(trial: Trial[str, int]) -> StructuredResult[Any]:
        options = {key: value for key, value in arms[trial.arm].items() if key != "prepare"}
        start = make_model(np.random.default_rng([trial.repetition, 0]))
        result = train_structured(
            arms[trial.arm].get("prepare", lambda model: model)(start),
            data,
            optimizer=replace(base, step_size=trial.step_size),
            rng=np.random.default_rng([trial.repetition, 1]),
            **shared,
            **options,
        )
        return uninterrupted(result)  # a shorter run has another budget

    out = []
    for name, options in arms.items():  # one after another, so that the models of other step sizes are freed
        budget = Budget((name,), step_sizes, seeds, n_tuning=len(seeds))
        results = {trial: train(trial) for trial in budget.tuning()}
        scores = {trial: _selecting(result) for trial, result in results.items()}
        trials = budget.choose(scores.__getitem__)[name]
        best = tuple(results[trial] for trial in trials)
        for result in best:
            if not result.success:
                raise RunFailedError(f"arm {name!r}", result.message, hint="try smaller step sizes")
        tests = [score_of(metric, result.model, test, options.get("objective", "nll")) for result in best]
        validation_score = float(np.mean([scores[trial] for trial in trials]))
        out.append(Arm(name, trials[0].step_size, validation_score, freeze(np.array(tests)), best))
    return Comparison(tuple(out), n_epochs, step_sizes, seeds)


def _selecting(result: StructuredResult[Any]) -> float:
    """The best validation score of a run; -inf for a failed one."""
    return float(np.max(result.history.validation_score, initial=-np.inf)) if result.success else -np.inf


def _seeds(repetitions: Any) -> tuple[int, ...]:
    if isinstance(repetitions, (int, np.integer)) and not isinstance(repetitions, bool):
        return tuple(range(check_integer("repetitions", repetitions, minimum=1)))
    return check_integers("repetitions", repetitions, minimum=0)


def _check_arms(arms: Any, reserved: set[str]) -> None:
    check_mapping("arms", arms, "names to options")
    for name, options in arms.items():
        if not isinstance(options, Mapping):
            expected = "must hold the options of each arm as a dict"
            raise InputTypeError("arms", expected, got=f"{type(options).__name__} for {name!r}")
        taken = sorted(reserved & set(options))
        if taken:
            raise InputError("arms", "must leave the budget alone", got=f"{', '.join(taken)} in {name!r}")
