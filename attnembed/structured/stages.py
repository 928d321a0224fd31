"""The plan of a training run: the parameters, objective and rates of each epoch.

- joint: every parameter from the start, with the structured objective.
- stage: (1) the network alone with the objective "unary"; (2) the pairwise part with the structured objective, the
  network frozen; (3) everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from attnembed._validation import check_choice, check_integer, check_positive, shown
from attnembed.errors import InputError, InputTypeError
from attnembed.optim import Optimizer
from attnembed.structured.base import StructuredModel
from attnembed.structured.storage import NETWORK

__all__ = ["Plan", "Stage", "make_plan", "with_rates"]

SCALES = ("unary_scale", "pairwise_scale")


@dataclass(frozen=True)
class Stage:
    """A run of epochs with one objective, and the names of the trained parameters."""

    objective: str
    names: tuple[str, ...]
    epochs: int

    @property
    def trains_network(self) -> bool:
        """Whether the network changes."""
        return any(name.startswith(NETWORK) for name in self.names)


@dataclass(frozen=True)
class Plan:
    """The stages of a training, one after the other."""

    stages: tuple[Stage, ...]

    def at(self, epoch: int) -> tuple[int, Stage, int]:
        """The stage of an epoch: its number, the stage, and the number of its earlier epochs."""
        ends = list(accumulate(stage.epochs for stage in self.stages))
        number = next((i for i, end in enumerate(ends) if epoch < end), len(ends) - 1)
        return number, self.stages[number], epoch - (ends[number] - self.stages[number].epochs)


def make_plan(
    model: StructuredModel[Any],
    strategy: str,
    objective: str,
    n_epochs: int,
    stage_epochs: tuple[int, int, int] | None,
    learned_scales: Sequence[str],
) -> Plan:
    """The plan described by these options of `train_structured`."""
    check_integer("n_epochs", n_epochs, minimum=1)
    if isinstance(learned_scales, str) or not isinstance(learned_scales, Sequence):
        raise InputTypeError("learned_scales", "must be a sequence of names", got=shown(learned_scales))
    for name in learned_scales:
        check_choice("learned_scales", name, SCALES)
    network = tuple(NETWORK + name for name in model.network.params)
    structured = (*model.pairwise_names, *learned_scales)
    if check_choice("strategy", strategy, ("joint", "stage")) == "joint":
        if stage_epochs is not None:
            raise InputError("stage_epochs", "belongs to strategy 'stage'")
        return Plan((Stage(objective, network + structured, n_epochs),))
    first, second, third = _stage_epochs(n_epochs, stage_epochs)
    return Plan(
        (
            Stage("unary", network, first),
            Stage(objective, structured, second),
            Stage(objective, network + structured, third),
        )
    )


def _stage_epochs(n_epochs: int, stage_epochs: tuple[int, int, int] | None) -> tuple[int, int, int]:
    third = n_epochs // 3
    if stage_epochs is None:
        return n_epochs - 2 * third, third, third
    expected = f"must be three numbers >= 0 that sum to n_epochs = {n_epochs}"
    if not isinstance(stage_epochs, Sequence) or isinstance(stage_epochs, str):
        raise InputTypeError("stage_epochs", expected, got=shown(stage_epochs))
    epochs = [check_integer("stage_epochs", number, minimum=0) for number in stage_epochs]
    if len(epochs) != 3 or sum(epochs) != n_epochs:
        raise InputError("stage_epochs", expected, got=tuple(epochs))
    return epochs[0], epochs[1], epochs[2]


def with_rates(optimizer: Optimizer, model: StructuredModel[Any], rates: Mapping[str, float] | None) -> Optimizer:
    """The optimiser with its step size multiplied, per component, by the factors in ``rates``."""
    if rates is None:
        return optimizer
    if not isinstance(rates, Mapping):
        raise InputTypeError("rates", "must be a dict from components to factors", got=shown(rates))
    multipliers = dict(optimizer.multipliers)
    for component, factor in rates.items():
        check_choice("rates", component, ("network", "pairwise", *SCALES))
        check_positive(f"rates[{component!r}]", factor, zero_ok=True)
        parts = {"network": [NETWORK + n for n in model.network.params], "pairwise": model.pairwise_names}
        names = parts.get(component, [component])
        multipliers |= {name: factor * optimizer.multipliers.get(name, 1.0) for name in names}
    return replace(optimizer, multipliers=multipliers)
