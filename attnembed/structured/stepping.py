"""The parameters of a deep structured model in training, and the steps on them: the trainee of `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Floats, Ints
from attnembed.errors import InputError
from attnembed.fit import EpochState, NotFiniteError, Row, Trainee
from attnembed.optim import Adam, Optimizer, OptimizerState, Schedule, scheduled_step_size
from attnembed.pending import PendingRows, distinct
from attnembed.structured.networks import table_of
from attnembed.structured.scaling import (
    WIDEST,
    OfflineScaling,
    OnlineScaling,
    Parametrisation,
    best_pairwise_factor,
    fixed_subset,
    fold,
    output_names,
)
from attnembed.structured.stages import Plan, Stage
from attnembed.structured.storage import NETWORK
from attnembed.structured.theory import component_norms

__all__ = ["COLUMNS", "Scaling", "Stepper", "StructuredState"]

Scaling = OnlineScaling | OfflineScaling | None

# The columns of the history specific to structured models.
COLUMNS = ("unary_scale", "pairwise_scale", "unary_norm", "pairwise_norm", "ratio", "stage")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StructuredState(EpochState):
    """Argument of a callback of `train_structured` after each epoch: a row of the history, and the model."""

    unary_scale: float
    pairwise_scale: float
    unary_norm: float
    pairwise_norm: float
    ratio: float
    stage: int
    model: Any


class Stepper(Trainee):
    """Parameters and optimiser of one training run, and the steps on them."""

    columns: ClassVar[list[tuple[str, type]]] = [(name, int if name == "stage" else float) for name in COLUMNS]
    has_start = False

    def __init__(
        self,
        model: Any,
        data: Any,
        plan: Plan,
        scaling: Scaling,
        optimizer: Optimizer,
        schedule: Schedule | None,
        stage_unary_norm: float | None,
        validation: Any,
        score: Callable[[Any], float],
        rng: np.random.Generator,
    ) -> None:
        self.data, self.plan, self.scaling, self.n_samples = data, plan, scaling, len(data)
        self.optimizer, self.schedule, self.stage_unary_norm = optimizer, schedule, stage_unary_norm
        self.validation, self.score_of = validation, score
        subset_seed = int(rng.integers(2**62))
        if isinstance(scaling, OfflineScaling) and scaling.multiplier is not None:
            model = replace(model, pairwise_scale=scaling.multiplier)
        self.template = model
        self.arrays: dict[str, Floats] = model.parameters()
        self.parametrisation = Parametrisation(scaling)
        size = scaling.subset if isinstance(scaling, OnlineScaling) else 500
        self.subset = fixed_subset(data, size, subset_seed)
        self.parametrisation.observe(model.unary_scale * model.unary(self.subset))
        self.folded = 1.0
        self.steps = 0
        self.table = self._table()
        self.state = self._fresh_state(plan.at(0)[1])
        self.last = self._snapshot()

    # --- the interface of a trainee ---

    def kept(self) -> Mapping[str, Floats]:
        kept: dict[str, Floats] = self.last.parameters()
        return kept

    def view(self, record: Mapping[str, Any]) -> StructuredState:
        return StructuredState(**record, model=self._snapshot())

    def numbers(self) -> dict[str, float]:
        norm = {} if self.parametrisation.ratio is None else {"unary_norm": self.parametrisation.unary_norm}
        return {"steps": self.steps, "folded": self.folded, **norm}

    def expect(self, history: NDArray[Any]) -> None:
        found = history["stage"].tolist()
        if found != [self.plan.at(epoch)[0] for epoch in range(len(found))]:
            counts = tuple(found.count(number) for number in range(len(self.plan.stages)))
            raise InputError(
                "stage_epochs",
                f"must begin like that of the checkpoint, which has {counts} epochs of the stages behind it",
                got=tuple(stage.epochs for stage in self.plan.stages),
            )
        self.state = self._fresh_state(self.plan.at(len(found) - 1)[1])

    def take_up(self, numbers: Mapping[str, float]) -> None:
        self.steps, self.folded = int(numbers["steps"]), numbers["folded"]
        self.parametrisation.unary_norm = numbers.get("unary_norm", np.nan)
        self.last = self._snapshot()

    @np.errstate(over="ignore", invalid="ignore")
    def epoch(self, number: int, batches: Iterator[Ints]) -> Row:
        index, stage, before = self.plan.at(number)
        online = self.scaling if isinstance(self.scaling, OnlineScaling) and "pairwise" in stage.names else None
        if before == 0:
            self._enter(index, stage, online)
        total = 0.0
        # The output of a frozen network is computed once per epoch, not once per batch and pass.
        known = None if stage.trains_network else self._model().unary(self.data)
        pending = self._pending(stage)
        try:
            for chosen in batches:
                total += self._step(stage, chosen, known, pending) * len(chosen)
        finally:
            if pending is not None:
                pending.settle()
        unary = self._model().unary(self.subset)  # scaling changes W alone
        if online is not None and (before + 1) % online.period == 0:
            self._rescale(stage, unary, online.low, online.high, online.least_ratio if index == 0 else None)
        return self._row(index, total / self.n_samples, unary)

    def _row(self, index: int, loss: float, unary: Floats) -> Row:
        model = self._snapshot()
        n_u, n_w = model.component_norms(unary)
        if not (np.isfinite(n_u) and np.isfinite(n_w)):
            raise NotFiniteError
        score = np.nan if self.validation is None else self.score_of(model)
        self.last = model
        return {
            "loss": loss,
            "validation_score": score,
            "unary_scale": model.unary_scale,
            "pairwise_scale": model.pairwise_scale * self.folded,
            "unary_norm": n_u,
            "pairwise_norm": n_w,
            "ratio": n_u / n_w if n_w > 0 else np.inf,
            "stage": index,
        }

    # --- the steps ---

    def _fresh_state(self, stage: Stage) -> OptimizerState:
        # Moments of one objective mean nothing to the next stage; Adam's corrections count from the start of the stage.
        return self.optimizer.init({name: self.arrays[name] for name in stage.names})

    def _model(self) -> Any:
        """The model at the current parameters, sharing the network's arrays."""
        return self.parametrisation.apply(self.template.at(self.arrays))

    def _snapshot(self) -> Any:
        """The model at a copy of the current parameters."""
        return self.parametrisation.apply(
            self.template.with_parameters({name: value.copy() for name, value in self.arrays.items()})
        )

    def _enter(self, index: int, stage: Stage, online: OnlineScaling | None) -> None:
        """The preparation of a stage, before its first epoch."""
        if index == 1 and self.stage_unary_norm is not None:
            model = self._model()
            n_u = component_norms(model.unary_scale * model.unary(self.subset), np.zeros((1, 1)))[0]
            fold(self.arrays, output_names(self.template), self.stage_unary_norm / n_u)
        self.state = self._fresh_state(stage)
        if online is None:
            return
        unary = self._model().unary(self.subset)
        if index == 0:
            self._even_out(stage, unary, online.least_ratio)
            self._rescale(stage, unary, -WIDEST, 0.0)
        else:
            self._rescale(stage, unary, -WIDEST, WIDEST)

    def _table(self) -> str | None:
        """The parameter whose rows the inputs name, if it has the steps of `pending`: Adam, and ids in its range."""
        name, x = table_of(self.template.network.layer), self.data.inputs
        if name is None or type(self.optimizer) is not Adam or x.dtype.kind not in "iu" or not x.size:
            return None
        return NETWORK + name if x.min() >= 0 and x.max() < len(self.arrays[NETWORK + name]) else None

    def _pending(self, stage: Stage) -> PendingRows | None:
        if self.table is None or self.table not in stage.names or not isinstance(self.optimizer, Adam):
            return None
        return PendingRows(self.optimizer, self.state, self.table, self.arrays[self.table])

    def _step(self, stage: Stage, chosen: Ints, known: Floats | None, pending: PendingRows | None) -> float:
        rate = scheduled_step_size(self.optimizer, self.schedule, self.steps)
        batch, arrays, state = self.data.subset(chosen), self.arrays, self.state
        taken = None if pending is None else pending.take(distinct(batch.inputs, len(pending.parameter)), rate)
        if pending is not None and taken is not None:
            batch = batch.with_inputs(pending.places(batch.inputs))
            arrays, state = pending.instead(arrays, taken)
        unary = None if known is None else known[self.data.rows(chosen)]
        model = self.parametrisation.apply(self.template.at(arrays))
        loss, grads, unary = model.pass_through(batch, stage.objective, unary)
        named = grads.to_dict()
        named["pairwise"] = self.parametrisation.pull_back(named["pairwise"])
        if not np.isfinite(loss):
            raise NotFiniteError
        trained = {name: np.asarray(named[name], dtype=arrays[name].dtype) for name in stage.names}
        self.optimizer.update(arrays, trained, state, rate)
        if pending is not None and taken is not None:
            pending.put(taken, state.step, rate)
        self.parametrisation.observe(float(self.arrays["unary_scale"]) * unary)
        self.steps += 1
        if not all(np.isfinite(self.arrays[name]).all() for name in self.template.pairwise_names):
            raise NotFiniteError  # the model rejects such a matrix; the network's arrays show up in the next loss
        return float(loss)

    def _even_out(self, stage: Stage, unary: Floats, ratio: float) -> None:
        """Give W the norm n_W = n_U / ratio, before training.

        With ``pairwise_scale`` folded in, the rest of the run is the same to the last bit whatever the multiplier was.
        """
        model = self._model()
        n_u, n_w = component_norms(model.unary_scale * unary, model.pairwise, model.allowed_pairs)
        if not (n_u > 0 and n_w > 0 and model.pairwise_scale != 0):
            return
        if "pairwise_scale" in stage.names:
            self._fold(n_u / n_w / ratio / abs(model.pairwise_scale))
        else:
            self.arrays["pairwise_scale"][...] = 1.0
            self._fold(n_u / n_w / ratio * np.sign(model.pairwise_scale))

    def _rescale(self, stage: Stage, unary: Floats, low: float, high: float, least_ratio: float | None = None) -> None:
        model = self._model()
        if least_ratio is not None:
            n_u, n_w = model.component_norms(unary)
            room = np.log2(n_u / n_w / least_ratio) if n_u > 0 and n_w > 0 else 0.0
            if room < 0:
                self._fold(2.0**room)
                model = self._model()
            high = min(high, max(room, 0.0))
        factor = best_pairwise_factor(model, self.subset, stage.objective, unary=unary, low=low, high=high).factor
        if "pairwise_scale" not in stage.names and model.pairwise_scale != 0:
            # The whole scale goes into W: a factor of W also multiplies its steps (`effective_step_size`).
            factor *= model.pairwise_scale
            self.arrays["pairwise_scale"][...] = 1.0
        self._fold(factor)

    def _fold(self, factor: float) -> None:
        fold(self.arrays, self.template.pairwise_names, factor, self.optimizer, self.state)
        self.folded *= factor
