"""Training of deep structured models, in stages or jointly, with or without scaling: what `fit` needs to know of them.

`stages` has the strategies, `scaling` the scalings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnembed._deprecation import accepts, moved, warn_deprecated
from attnembed._files import PathLike
from attnembed._notebook import Curve, history_curves
from attnembed._typing import Floats, Ints
from attnembed._validation import RNGLike, check_positive
from attnembed.errors import InputError, InputTypeError
from attnembed.fit import EpochState, NotFiniteError, Row, Trainee, as_score, check_metric, fit
from attnembed.optim import (
    Adam,
    Optimizer,
    OptimizerState,
    Schedule,
    check_optimizer,
    check_schedule,
    scheduled_step_size,
)
from attnembed.results import Result, to_plain
from attnembed.structured.model import StructuredModel
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
from attnembed.structured.stages import Plan, Stage, make_plan, with_rates
from attnembed.structured.theory import component_norms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["StructuredResult", "StructuredState", "train_structured"]

Model = TypeVar("Model", bound=StructuredModel[Any])
Metric = Literal["accuracy", "loss"] | Callable[[Any, Any], float]
Scaling = OnlineScaling | OfflineScaling | None


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


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StructuredResult(Result, Generic[Model]):
    """A trained model.

    Attributes
    ----------
    model : of the epoch with the best validation score; without validation data that of the last epoch
    last_model : that of the last epoch
    history : record array, one row per epoch from 0; read a column as ``history.loss`` or ``history["loss"]``
        ``epoch``; ``seconds`` since the start; ``loss``: mean of the stage's objective over the batches;
        ``validation_score``: the metric (NaN without validation);
        ``unary_scale``, ``pairwise_scale``: the scales, the factors that online scaling folded into W included;
        ``unary_norm``, ``pairwise_norm``: component norms of the scaled potentials (`theory.component_norms`);
        ``ratio`` of the two; ``stage``: 0, 1, 2 (joint training has stage 0 only)
    best_epoch : the epoch of ``model``
    """

    model: Model
    last_model: Model
    history: np.recarray[Any, Any]
    best_epoch: int

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, the history as one list per column, without the models."""
        columns = {name: to_plain(self.history[name]) for name in self.history.dtype.names}
        plain = {"status": self.status, "message": self.message, "success": self.success, "best_epoch": self.best_epoch}
        return {name: to_plain(value) for name, value in {**plain, "history": columns}.items()}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss and the validation score, if there is one, over the epochs.

        On new axes where none are given; returns the axes.
        """
        from attnembed import plotting

        return plotting.plot_history(self.history, ax=ax)

    def _curves(self) -> list[Curve]:
        return history_curves(self.history)


def train_structured(
    model: Model,
    data: Any,
    *,
    strategy: Literal["joint", "stage"] = "joint",
    objective: str | None = None,
    scaling: OnlineScaling | OfflineScaling | None = None,
    n_epochs: int = 30,
    batch_size: int | None = 20,
    optimizer: Optimizer | None = None,
    rates: Mapping[str, float] | None = None,
    schedule: Schedule | None = None,
    learned_scales: Sequence[str] = (),
    stage_epochs: tuple[int, int, int] | None = None,
    stage_unary_norm: float | None = None,
    validation: Any = None,
    metric: Metric = "accuracy",
    patience: int | None = None,
    callback: Callable[[StructuredState], object] | None = None,
    checkpoint: PathLike | None = None,
    checkpoint_every: int = 1,
    resume: bool = True,
    rng: RNGLike = None,
) -> StructuredResult[Model]:
    """Train a `ChainCRF` or a `GridCRF`.

    Parameters
    ----------
    strategy, objective, scaling : see the module's text, `objectives` and `scaling`; by default the objective is "nll"
        on chains and "mean_field" on grids
    n_epochs : in total, over all stages
    batch_size : sequences or images per step; None takes all of them
    optimizer : `optim.Adam` or `optim.SGD`; Adam(step_size=1e-3) by default
    rates : factors of the step size by component: "network", "pairwise", "unary_scale", "pairwise_scale"
    schedule : multiplier of the step size as a function of the number of steps taken (`optim.Cosine`, ...)
    learned_scales : train "unary_scale", "pairwise_scale" as parameters
    stage_epochs : epochs of the three stages, summing to ``n_epochs``; thirds by default
    stage_unary_norm : after stage 1, rescale the network's last layer so that n_U has this value. Cross-entropy drives
        n_U far above the margin Delta <= 1 of "ssvm", and stage 2 would have nothing to learn
    validation, metric : data and what "best" means on them: "accuracy", "loss" (the score is minus the objective), or
        ``metric(model, validation)``, larger is better
    patience : stop after so many epochs without a better validation score
    callback : called with a `StructuredState` after each epoch; training stops if it returns something true
    checkpoint : file written every ``checkpoint_every`` epochs and at the end. Where it exists and ``resume`` is true
        the run continues from it, and ends where an unbroken run would have ended, bit for bit; ``n_epochs`` (with
        the plan of the epochs behind) and ``patience`` may differ, all else must be the same
    rng : order of the batches, subset for online scaling; None takes over that of the checkpoint

    Ctrl-C ends the epoch, writes the checkpoint and returns with `Status.INTERRUPTED`; a second one raises at once.

    Returns
    -------
    StructuredResult
        ``status`` REACHED_END, STOPPED (callback or patience), INTERRUPTED (by the keyboard) or NOT_FINITE (the loss
        or a parameter overflowed; the model is that of the last whole epoch).

    Raises
    ------
    InputError
        for an option out of its range, or a checkpoint of another run.
    DataFileError
        for a checkpoint that cannot be read or written.

    >>> from attnembed.structured.data import make_chain_dataset
    >>> from attnembed.structured.model import ChainCRF
    >>> from attnembed.structured.networks import mlp
    >>> data = make_chain_dataset(50, 5, 3, 4, rng=0)
    >>> result = train_structured(ChainCRF(mlp(4, (8,), 3, rng=1), np.zeros((3, 3))), data, n_epochs=3, rng=2)
    >>> result.success, bool(result.history.loss[-1] < result.history.loss[0])
    (True, True)
    """
    _check_inputs(model, data, validation, scaling, metric)
    objective = model.objective_name(objective)
    plan = make_plan(model, strategy, objective, n_epochs, stage_epochs, learned_scales)
    optimizer = Adam(step_size=1e-3) if optimizer is None else check_optimizer("optimizer", optimizer)
    optimizer = with_rates(optimizer, model, rates)
    schedule = check_schedule("schedule", schedule)
    metric = check_metric(metric)
    if stage_unary_norm is not None:
        stage_unary_norm = check_positive("stage_unary_norm", stage_unary_norm)

    def make(rng: np.random.Generator) -> _Stepper:
        return _Stepper(
            model,
            data,
            plan=plan,
            scaling=scaling,
            optimizer=optimizer,
            schedule=schedule,
            stage_unary_norm=stage_unary_norm,
            validation=validation,
            score=lambda trained: score_of(metric, trained, validation, objective),
            rng=rng,
        )

    fitted = fit(
        make,
        {
            "model": model,
            "data": data,
            "strategy": strategy,
            "objective": objective,
            "scaling": scaling,
            "batch_size": batch_size,
            "optimizer": optimizer,
            "schedule": schedule,
            "learned_scales": tuple(learned_scales),
            "stage_unary_norm": stage_unary_norm,
            "validation": validation,
            "metric": metric,
        },
        n_epochs=n_epochs,
        batch_size=batch_size,
        validated=validation is not None,
        patience=patience,
        callback=_new_callback(callback),
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        resume=resume,
        rng=rng,
    )
    last: Model = fitted.trainee.last
    return StructuredResult(
        status=fitted.status,
        message=fitted.message,
        model=last if validation is None else model.with_parameters(fitted.kept),
        last_model=last,
        history=fitted.history,
        best_epoch=fitted.best_epoch if validation is not None else len(fitted.history) - 1,
    )


def _check_inputs(model: Any, data: Any, validation: Any, scaling: Any, metric: Any) -> None:
    if not isinstance(model, StructuredModel):
        raise InputTypeError("model", "must be a ChainCRF or a GridCRF", got=type(model).__name__)
    model.check_data("data", data, labelled=True)
    if validation is not None:
        model.check_data("validation", validation, labelled=isinstance(metric, str))
    if not (scaling is None or isinstance(scaling, (OnlineScaling, OfflineScaling))):
        raise InputTypeError(
            "scaling", "must be None, an OnlineScaling or an OfflineScaling", got=type(scaling).__name__
        )
    if isinstance(scaling, OnlineScaling) and not isinstance(scaling.subset, (int, np.integer)):
        model.check_data("subset", scaling.subset, labelled=True)


def score_of(metric: Metric, model: Any, validation: Any, objective: str) -> float:
    """The score that a metric gives a model on held-out data; larger is better."""
    if not isinstance(metric, str):
        return as_score(metric(model, validation))
    return float(model.accuracy(validation) if metric == "accuracy" else -model.loss(validation, objective))


def _new_callback(callback: Any) -> Any:
    """A callback that takes one state; one that takes (epoch, model, record), as they once did, is wrapped."""
    if not accepts(callback, 3) or accepts(callback, 1):
        return callback
    warn_deprecated("a callback(epoch, model, record) of train_structured", "callback(state)", level=4)

    def wrapped(state: StructuredState) -> object:
        record = {name: getattr(state, name) for name in ("loss", "validation_score", *_OWN)}
        return callback(state.epoch, state.model, record)

    return wrapped


_OWN = ("unary_scale", "pairwise_scale", "unary_norm", "pairwise_norm", "ratio", "stage")


class _Stepper(Trainee):
    """Parameters and optimiser of one training, and the steps on them."""

    columns: ClassVar[list[tuple[str, type]]] = [(name, int if name == "stage" else float) for name in _OWN]
    has_start = False

    def __init__(
        self,
        model: Any,
        data: Any,
        *,
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
        self.state = self._fresh_state(plan.at(0)[1])
        self.last = self._snapshot()

    # --- what the loop asks for ---

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
        # A frozen network's output is computed once for the epoch, not once per batch and pass.
        known = None if stage.trains_network else self._model().unary(self.data)
        for chosen in batches:
            total += self._step(stage, chosen, known) * len(chosen)
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
        # Moments of one stage's objective mean nothing to the next, and Adam's corrections count from its own start.
        return self.optimizer.init({name: self.arrays[name] for name in stage.names})

    def _model(self) -> Any:
        """The model at the present parameters, sharing the network's arrays."""
        return self.parametrisation.apply(self.template.with_parameters(self.arrays))

    def _snapshot(self) -> Any:
        """The model at a copy of the present parameters."""
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

    def _step(self, stage: Stage, chosen: Ints, known: Floats | None) -> float:
        batch = self.data.subset(chosen)
        unary = None if known is None else known[self.data.rows(chosen)]
        loss, grads, unary = self._model().pass_through(batch, stage.objective, unary)
        named = grads.to_dict()
        named["pairwise"] = self.parametrisation.pull_back(named["pairwise"])
        if not np.isfinite(loss):
            raise NotFiniteError
        rate = scheduled_step_size(self.optimizer, self.schedule, self.steps)
        trained = {name: np.asarray(named[name], dtype=self.arrays[name].dtype) for name in stage.names}
        self.optimizer.update(self.arrays, trained, self.state, rate)
        self.parametrisation.observe(float(self.arrays["unary_scale"]) * unary)
        self.steps += 1
        if not all(np.isfinite(self.arrays[name]).all() for name in self.template.pairwise_names):
            raise NotFiniteError  # the model refuses such a matrix; the network's arrays show in the next loss
        return float(loss)

    def _even_out(self, stage: Stage, unary: Floats, ratio: float) -> None:
        """Give W the norm n_W = n_U / ratio, before training.

        With ``pairwise_scale`` folded, what follows is the same to the last bit whatever the multiplier was.
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
            # The whole scale goes into W: what multiplies W also multiplies its steps (`effective_step_size`).
            factor *= model.pairwise_scale
            self.arrays["pairwise_scale"][...] = 1.0
        self._fold(factor)

    def _fold(self, factor: float) -> None:
        fold(self.arrays, self.template.pairwise_names, factor, self.optimizer, self.state)
        self.folded *= factor


__getattr__ = moved(__name__, dict.fromkeys(("Arm", "Comparison", "compare_arms"), "attnembed.compare"))
