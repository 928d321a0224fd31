"""Training deep structured models, in stages or jointly, with or without scaling.

The strategies are in `stages`, the scalings in `scaling`, the steps in `stepping`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, Unpack, cast

import numpy as np

from attnembed._deprecation import accepts, moved, warn_deprecated
from attnembed._options import with_options
from attnembed._validation import check_positive
from attnembed.errors import InputTypeError
from attnembed.fit import FitOptions, HasHistory, as_score, check_metric, fit
from attnembed.optim import Adam, Optimizer, Schedule, check_optimizer, check_schedule
from attnembed.results import Result, to_plain
from attnembed.structured.base import StructuredModel
from attnembed.structured.scaling import OfflineScaling, OnlineScaling
from attnembed.structured.stages import make_plan, with_rates
from attnembed.structured.stepping import COLUMNS, Stepper, StructuredState

__all__ = ["StructuredResult", "StructuredState", "train_structured"]

Model = TypeVar("Model", bound=StructuredModel[Any])
Metric = Literal["accuracy", "loss"] | Callable[[Any, Any], float]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StructuredResult(HasHistory, Result, Generic[Model]):
    """A trained model and its history.

    Attributes
    ----------
    model : from the epoch with the best validation score, or the last epoch without validation data
    last_model : from the last epoch
    history : record array, one row per epoch from 0; read a column as ``history.loss`` or ``history["loss"]``
        ``epoch``; ``seconds`` since the start; ``loss``: mean of the stage's objective over the batches;
        ``validation_score``: the metric (NaN without validation);
        ``unary_scale``, ``pairwise_scale``: the scales, including the factors that online scaling folded into W;
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


class StructuredOptions(FitOptions, total=False):
    """The keyword options of `train_structured`, for the loop, the components and the stages."""

    rates: Mapping[str, float] | None
    learned_scales: Sequence[str]
    stage_epochs: tuple[int, int, int] | None
    stage_unary_norm: float | None


@with_options(
    StructuredOptions,
    rates=None,
    learned_scales=(),
    stage_epochs=None,
    stage_unary_norm=None,
    n_epochs=30,
    batch_size=20,
    patience=None,
    checkpoint=None,
    checkpoint_every=1,
    resume=True,
    rng=None,
)
def train_structured(
    model: Model,
    data: Any,
    *,
    strategy: Literal["joint", "stage"] = "joint",
    objective: str | None = None,
    scaling: OnlineScaling | OfflineScaling | None = None,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    validation: Any = None,
    metric: Metric = "accuracy",
    callback: Callable[[StructuredState], object] | None = None,
    **options: Unpack[StructuredOptions],
) -> StructuredResult[Model]:
    """Train a `ChainCRF` or a `GridCRF`.

    Parameters
    ----------
    strategy, objective, scaling : see `stages`, `objectives` and `scaling`; by default the objective is "nll" on chains
        and "mean_field" on grids
    n_epochs : in total, over all stages
    batch_size : sequences or images per step; None takes all of them
    optimizer : `optim.Adam` or `optim.SGD`; Adam(step_size=1e-3) by default
    rates : factors of the step size by component: "network", "pairwise", "unary_scale", "pairwise_scale"
    schedule : multiplier of the step size as a function of the number of steps taken (`optim.Cosine`, ...)
    learned_scales : scales to train as parameters, "unary_scale" or "pairwise_scale" or both
    stage_epochs : epochs of the three stages, summing to ``n_epochs``; thirds by default
    stage_unary_norm : after stage 1, rescale the network's last layer so that n_U has this value. Cross-entropy drives
        n_U far above the margin Delta <= 1 of "ssvm", which would leave stage 2 nothing to learn
    validation, metric : data and what "best" means on them: "accuracy", "loss" (the score is minus the objective), or
        ``metric(model, validation)``, larger is better
    patience : stop after this many epochs without a better validation score
    callback : called with a `StructuredState` after each epoch; training stops if it returns a true value
    checkpoint : file written every ``checkpoint_every`` epochs and at the end. Where it exists and ``resume`` is true
        the run continues from it, and ends where an uninterrupted run would have ended, bit for bit; ``n_epochs``
        (with the same plan of past epochs) and ``patience`` may differ, everything else must be the same
    rng : for the order of the batches and the subset for online scaling; None uses that of the checkpoint

    Ctrl-C ends the epoch, writes the checkpoint and returns with `Status.INTERRUPTED`; a second one raises at once.

    Returns
    -------
    StructuredResult
        ``status`` REACHED_END, STOPPED (callback or patience), INTERRUPTED (by the keyboard) or NOT_FINITE (the loss
        or a parameter overflowed; the model is from the last complete epoch).

    Raises
    ------
    InputError
        for an option out of range, or a checkpoint of another run.
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
    objective, learned_scales = model.objective_name(objective), options["learned_scales"]
    plan = make_plan(model, strategy, objective, options["n_epochs"], options["stage_epochs"], learned_scales)
    optimizer = Adam(step_size=1e-3) if optimizer is None else check_optimizer("optimizer", optimizer)
    optimizer = with_rates(optimizer, model, options["rates"])
    schedule, metric = check_schedule("schedule", schedule), check_metric(metric)
    stage_unary_norm = options["stage_unary_norm"]
    if stage_unary_norm is not None:
        stage_unary_norm = check_positive("stage_unary_norm", stage_unary_norm)

    def score(trained: Model) -> float:
        return score_of(metric, trained, validation, objective)

    def make(rng: np.random.Generator) -> Stepper:
        return Stepper(model, data, plan, scaling, optimizer, schedule, stage_unary_norm, validation, score, rng)

    identity = {
        "model": model,
        "data": data,
        "strategy": strategy,
        "objective": objective,
        "scaling": scaling,
        "batch_size": options["batch_size"],
        "optimizer": optimizer,
        "schedule": schedule,
        "learned_scales": tuple(learned_scales),
        "stage_unary_norm": stage_unary_norm,
        "validation": validation,
        "metric": metric,
    }
    loop = cast(FitOptions, {name: options[name] for name in FitOptions.__annotations__})  # type: ignore[literal-required]
    fitted = fit(make, identity, validated=validation is not None, callback=_new_callback(callback), **loop)
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
    """A callback of one state; a callback(epoch, model, record), the old form, is wrapped."""
    if not accepts(callback, 3) or accepts(callback, 1):
        return callback
    warn_deprecated("a callback(epoch, model, record) of train_structured", "callback(state)", level=4)

    def wrapped(state: StructuredState) -> object:
        record = {name: getattr(state, name) for name in ("loss", "validation_score", *COLUMNS)}
        return callback(state.epoch, state.model, record)

    return wrapped


__getattr__ = moved(__name__, dict.fromkeys(("Arm", "Comparison", "compare_arms"), "attnembed.compare"))
