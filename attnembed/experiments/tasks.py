"""The description of a structured task on real data: its data, model and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHAIN_OBJECTIVES", "FLOAT", "Split", "Task", "example_rows", "selecting"]

FLOAT = np.float32
CHAIN_OBJECTIVES = ("nll", "ssvm", "pseudolikelihood", "marginal")


@dataclass(frozen=True)
class Split:
    """Data for training, for selection and for the reported score, and what a figure needs to show examples.

    Where a task has two populations, `validation` and `test` are of the new one, which training never shows, and
    `known` holds the validation and the test data of the other.
    """

    train: Any
    validation: Any
    test: Any
    names: tuple[str, ...] = ()
    known: tuple[Any, Any] | None = None
    seen: tuple[int, ...] = ()  # examples of the test that training has, too, in another annotation

    def populations(self) -> dict[str, tuple[Any, Any]]:
        """Validation and test data by population; empty where there is only one."""
        return {} if self.known is None else {"known": self.known, "new": (self.validation, self.test)}


@dataclass(frozen=True)
class Task:
    """A data set, a model for it and its scores.

    Attributes
    ----------
    load : ``load(path, split)``; a split is a fold for letters, and otherwise the seed that draws the validation part
    make_model : ``make_model(split, rng)``, from random numbers alone
    measure : ``measure(model, data, split)`` -> scores by name, the first of which selects
    starts_at_zero : whether a new network gives U = 0, so that there is no norm to give W before training
    baselines : by title, ``baseline(network alone, data, split, path)`` -> what takes no chain or grid to reach, or
        what the data allow at most; under the names of ``measure``
    """

    name: str
    load: Callable[[str, int], Split]
    make_model: Callable[[Split, np.random.Generator], Any]
    measure: Callable[[Any, Any, Split], dict[str, float]]
    objectives: tuple[str, ...]
    batch_size: int
    subset: int = 500  # sequences or images for online scaling
    ratio: float = 2.5  # n_U / n_W of offline scaling
    shares: tuple[float, float] = (0.7, 0.15)  # of all epochs, for stages 1 and 2
    # Ratio of the step of W to that of the network in stages: a matrix of K^2 numbers takes larger steps.
    stage_rate: float = 20.0
    starts_at_zero: bool = False
    baselines: Mapping[str, Callable[[Any, Any, Split, str], dict[str, float]]] = field(default_factory=dict)

    def score(self, model: Any, data: Any, split: Split) -> float:
        """The score that selects epochs, step sizes and arms."""
        return selecting(self.measure(model, data, split))


def selecting(scores: Mapping[str, float]) -> float:
    """The score of a task that is used for selection, the first one."""
    return next(iter(scores.values()))


def example_rows(data: Any, count: int = 5) -> NDArray[np.intp]:
    """The test examples whose predictions are kept, evenly spread because neighbours may be the same word."""
    return np.linspace(0, len(data) - 1, min(count, len(data))).astype(np.intp)
