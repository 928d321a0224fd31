"""Comparison of several ways to train one structured model, on equal budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

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
from attnembed.errors import InputError, InputTypeError
from attnembed.fit import check_metric
from attnembed.optim import Adam, Optimizer, check_optimizer
from attnembed.results import Record, uninterrupted
from attnembed.structured.base import StructuredModel
from attnembed.structured.training import Metric, StructuredResult, score_of, train_structured

__all__ = ["Arm", "Comparison", "compare_arms", "standard_error"]

Model = TypeVar("Model", bound=StructuredModel[Any])


def standard_error(values: Floats) -> float:
    """Of the mean, as `scipy.stats.sem`; NaN for one value.

    >>> standard_error(np.array([1.0, 2.0, 3.0])) == 1 / 3**0.5
    True
    """
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else np.nan


@dataclass(frozen=True, eq=False, repr=False)
class Arm(Record):
    """One arm of a comparison: test scores (seeds,) at the step size with the best mean validation score."""

    name: str
    step_size: float
    validation_score: float
    test_scores: Floats
    results: tuple[StructuredResult[Any], ...]

    @property
    def mean(self) -> float:
        """Mean test score over the seeds."""
        return float(self.test_scores.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; NaN for one seed."""
        return standard_error(self.test_scores)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Record):
    """The arms of a comparison and the budget that all of them had."""

    arms: tuple[Arm, ...]
    n_epochs: int
    step_sizes: tuple[float, ...]
    seeds: tuple[int, ...]

    def __getitem__(self, name: str) -> Arm:
        found = {arm.name: arm for arm in self.arms}
        return found[check_choice("name", name, found)]

    def __str__(self) -> str:
        width = max(len(arm.name) for arm in self.arms)
        lines = [f"{'arm':<{width}}  {'test':>7}  {'+-':>6}  {'step size':>9}"]
        lines += [
            f"{arm.name:<{width}}  {arm.mean:>7.4f}  {arm.standard_error:>6.4f}  {arm.step_size:>9.2g}"
            for arm in self.arms
        ]
        runs = len(self.step_sizes) * len(self.seeds)
        return "\n".join([*lines, f"{self.n_epochs} epochs, {runs} runs per arm"])


def compare_arms(
    arms: Mapping[str, Mapping[str, Any]],
    make_model: Callable[[np.random.Generator], Model],
    data: Any,
    validation: Any,
    test: Any,
    *,
    n_epochs: int,
    step_sizes: Sequence[float] = (1e-3,),
    seeds: Sequence[int] = (0,),
    batch_size: int | None = 20,
    optimizer: Optimizer | None = None,
    metric: Metric = "accuracy",
) -> Comparison:
    """Train every arm with the same budget: epochs, step sizes, seeds, batches, initial models, selection rule.

    Parameters
    ----------
    arms : options of `train_structured` by name; the budget itself cannot be an option of one arm. An arm may have
        "prepare", a function that changes the initial model (for a multiplier, say)
    make_model : the initial model from a generator; the same for all arms with one seed
    data, validation, test : training data; data for selecting epoch and step size; data for the reported score
    step_sizes : tried for every arm; the one with the best validation score, averaged over seeds, is reported

    Raises
    ------
    InputError
        if an arm names an option that belongs to the budget.

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
    budget = {
        "n_epochs": check_integer("n_epochs", n_epochs, minimum=1),
        "batch_size": batch_size,
        "validation": validation,
        "metric": metric,
    }
    check_callable("make_model", make_model)
    check_mapping("arms", arms, "names to options")
    step_sizes = tuple(check_positive("step_sizes", size) for size in check_items("step_sizes", step_sizes, "numbers"))
    seeds = check_integers("seeds", seeds, minimum=0)
    if validation is None:
        raise InputTypeError("validation", "must be a data set: the step size is chosen on it", got="None")
    reserved = {*budget, "optimizer", "rng", "patience", "checkpoint", "checkpoint_every", "resume"}
    for name, options in arms.items():
        if not isinstance(options, Mapping):
            expected = "must hold the options of each arm as a dict"
            raise InputTypeError("arms", expected, got=f"{type(options).__name__} for {name!r}")
        taken = sorted(reserved & set(options))
        if taken:
            raise InputError("arms", "must leave the budget alone", got=f"{', '.join(taken)} in {name!r}")
    for name, choices in (("arms", arms), ("step_sizes", step_sizes), ("seeds", seeds)):
        if len(choices) == 0:
            raise InputError(name, "must not be empty", hint="give at least one")
    base = Adam(step_size=1e-3) if optimizer is None else check_optimizer("optimizer", optimizer)
    out = []
    for name, options in arms.items():
        rest = {key: value for key, value in options.items() if key != "prepare"}
        prepare = options.get("prepare", lambda model: model)
        tried = []
        for step_size in step_sizes:
            results = []
            for seed in seeds:
                result = train_structured(
                    prepare(make_model(np.random.default_rng([seed, 0]))),
                    data,
                    optimizer=replace(base, step_size=step_size),
                    rng=np.random.default_rng([seed, 1]),
                    **budget,
                    **rest,
                )
                results.append(uninterrupted(result))  # a shorter run has another budget
            selected = float(np.mean([np.max(r.history.validation_score, initial=-np.inf) for r in results]))
            tried.append((selected, step_size, tuple(results)))
        selected, step_size, best = max(tried, key=lambda entry: entry[0])
        scores = [score_of(metric, r.model, test, rest.get("objective", "nll")) for r in best]
        out.append(Arm(name, step_size, selected, freeze(np.array(scores)), best))
    return Comparison(tuple(out), n_epochs, tuple(step_sizes), tuple(seeds))
