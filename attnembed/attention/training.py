"""Training E, p and v by gradient descent, SGD or Adam: the attention model as a trainee of `fit`.

The steps work on raw arrays. The gradient in E has rank two, E <- E + eta (A v^T + B p^T): plain descent applies it in
place without forming it; Adam and momentum need it dense and share one buffer.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, ParamSpec, Unpack

import numpy as np
from scipy.linalg.blas import get_blas_funcs

from attnembed._deprecation import renamed, warn_deprecated
from attnembed._options import with_options
from attnembed._typing import Floats, Ints
from attnembed._validation import check_share, freeze, shown
from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.model import AttentionModel
from attnembed.attention.passes import TokenSums, token_outputs, token_sums, uniform_sums
from attnembed.attention.products import embedding_product, embedding_transpose_product, rank_two, two_columns
from attnembed.attention.splitting import split_dataset
from attnembed.errors import InputError, InputTypeError
from attnembed.fit import EpochState, FitOptions, HasHistory, NotFiniteError, Row, Trainee, as_score, check_metric, fit
from attnembed.losses import Loss, check_loss, logistic
from attnembed.optim import (
    SGD,
    Adam,
    Optimizer,
    Schedule,
    check_optimizer,
    check_schedule,
    scheduled_step_size,
)
from attnembed.results import Result, to_plain

__all__ = ["TrainResult", "TrainState", "split_dataset", "train"]

Metric = Literal["accuracy", "loss"] | Callable[[AttentionModel, TokenDataset], float]

PARAMETERS = ("E", "p", "v")
P = ParamSpec("P")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TrainState(EpochState):
    """Argument of a callback of `train`, after each epoch: a row of the history and the parameters.

    ``E``, ``p`` and ``v`` are read-only views of the arrays being trained: copy what must outlive the call. The
    validation figures are NaN where there is no validation set.
    """

    validation_loss: float
    validation_accuracy: float
    E: Floats
    p: Floats
    v: Floats

    @property
    def model(self) -> AttentionModel:
        """A copy of the model after this epoch."""
        return AttentionModel(self.E, self.p, self.v)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TrainResult(HasHistory, Result):
    """A trained model and its history.

    Attributes
    ----------
    model : the best by validation (the earliest, on ties) where there is a validation set, else the last
    history : record array, one row per epoch from 0, the start: ``epoch``, ``seconds`` since the start, ``loss`` on the
        training set, ``validation_score`` (the metric, larger is better), ``validation_loss`` and
        ``validation_accuracy`` (the three are NaN without validation). Read a column as ``history.loss`` or
        ``history["loss"]``.
    best_epoch : the epoch of ``model``
    """

    model: AttentionModel
    history: np.recarray[Any, Any]
    best_epoch: int

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, the history as one list per column."""
        columns = {name: self.history[name] for name in self.history.dtype.names}
        return {**super().to_dict(), "history": to_plain(columns)}


def _with_old_options(function: Callable[P, TrainResult]) -> Callable[P, TrainResult]:
    """Let `train` accept ``method``, ``step_size``, ``momentum`` and ``weight_decay``, now options of an optimizer."""

    @functools.wraps(function)
    def accepting(*args: P.args, **kwargs: P.kwargs) -> TrainResult:
        old: dict[str, Any] = {name: kwargs.pop(name) for name in ("method", *_OLD_OPTIONS) if name in kwargs}
        if old:
            if kwargs.get("optimizer") is not None:
                raise InputError("optimizer", "carries its own options", hint=f"leave {', '.join(old)}")
            kwargs["optimizer"], advice = _old_optimizer(**old, batch_size=kwargs.get("batch_size"))
            warn_deprecated(f"`{'`, `'.join(old)}` of train", f"`optimizer={advice}`", level=4)
        return function(*args, **kwargs)

    return accepting


@renamed(epochs="n_epochs", monitor="metric")
@_with_old_options
@with_options(
    FitOptions,
    n_epochs=100,
    batch_size=None,
    patience=None,
    checkpoint=None,
    checkpoint_every=10,
    resume=True,
    rng=None,
)
def train(
    model: AttentionModel,
    data: TokenDataset,
    *,
    params: Sequence[str] = ("E", "p"),
    loss: Loss | str = logistic,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    validation: TokenDataset | float | None = None,
    metric: Metric = "accuracy",
    callback: Callable[[TrainState], object] | None = None,
    **options: Unpack[FitOptions],
) -> TrainResult:
    """Minimise the mean loss, logistic by default, over the chosen parameters.

    Parameters
    ----------
    params : which of "E", "p" and "v" to train; the others stay as they are
    loss : a `losses.Loss`, or the name of one; also the loss of the history and of ``metric="loss"``
    optimizer : `optim.Adam` or `optim.SGD`, with the step size and, where wanted, one per parameter;
        Adam(step_size=0.01) by default
    n_epochs : passes over the data
    batch_size : sequences per step, drawn without replacement; None takes all of them, one step per epoch
    schedule : multiplier of the step size as a function of the number of steps taken (`optim.Cosine`, ...)
    validation : another data set, or a share in (0, 1) to split off ``data`` per class
    metric : what "best" means on the validation set: "accuracy" (ties broken by the loss), "loss" (the score is minus
        the loss), or ``metric(model, validation)``, larger is better
    patience : stop after this many epochs without improvement
    callback : called with a `TrainState` after each epoch; training stops if it returns a true value
    checkpoint : file written every ``checkpoint_every`` epochs and at the end. Where it exists and ``resume`` is true
        the run continues from it, bit for bit as if uninterrupted (with the same number of threads);
        ``n_epochs`` and ``patience`` may differ, everything else must be the same
    rng : for the split and the order of the minibatches; None uses that of the checkpoint

    Ctrl-C ends the epoch, writes the checkpoint and returns with `Status.INTERRUPTED`; a second one raises at once.
    A loss that is not finite ends the training with `Status.NOT_FINITE`.

    Raises
    ------
    InputError
        for an option out of range, or a checkpoint of another run.
    DataFileError
        for a checkpoint that cannot be read or written.

    >>> from attnembed.attention.data import make_balanced_dataset
    >>> data = make_balanced_dataset(n_samples=40, length=4, n_irrelevant=10, rng=0)
    >>> model = AttentionModel.random(14, 8, rng=0)
    >>> result = train(model, data, optimizer=Adam(step_size=0.1), n_epochs=30, rng=0)
    >>> result.success, result.model.accuracy(data), bool(result.history.loss[-1] < 0.1)
    (True, 1.0, True)
    """
    if not isinstance(model, AttentionModel):
        raise InputTypeError("model", "must be an AttentionModel", got=type(model).__name__)
    check_data(data, model.vocab_size)
    names, kind, batch_size = _check_params(params), check_loss(loss), options["batch_size"]
    optimizer = Adam(step_size=0.01) if optimizer is None else check_optimizer("optimizer", optimizer)
    schedule, metric = check_schedule("schedule", schedule), check_metric(metric)
    _check_validation(validation, model.vocab_size)

    def make(rng: np.random.Generator) -> _Descent:
        rest, held = data, validation
        if held is not None and not isinstance(held, TokenDataset):
            rest, held = split_dataset(data, held, rng=rng)
        return _Descent(model, rest, held, names, optimizer, schedule, batch_size, metric, kind)

    fitted = fit(
        make,
        {
            "model": model,
            "data": data,
            "validation": validation,
            "params": names,
            "optimizer": optimizer,
            "batch_size": batch_size,
            "schedule": schedule,
            "metric": metric,
            # Only for other losses: a checkpoint older than this option is one of the logistic loss.
            **({} if kind is logistic else {"loss": kind}),
        },
        validated=validation is not None,
        callback=callback,
        **options,
    )
    return TrainResult(
        status=fitted.status,
        message=fitted.message,
        model=model.replace(**fitted.kept),
        history=fitted.history,
        best_epoch=fitted.best_epoch,
    )


class _Descent(Trainee):
    """The arrays being trained and the steps on them; no model object is made per step."""

    columns: ClassVar[list[tuple[str, type]]] = [("validation_loss", np.float64), ("validation_accuracy", np.float64)]
    has_start = True

    def __init__(
        self,
        model: AttentionModel,
        data: TokenDataset,
        validation: TokenDataset | None,
        names: tuple[str, ...],
        optimizer: Optimizer,
        schedule: Schedule | None,
        batch_size: int | None,
        metric: Metric,
        loss: Loss = logistic,
    ):
        self.loss = loss
        self.model, self.data, self.validation, self.metric = model, data, validation, metric
        self.parameters: dict[str, Floats] = {name: np.array(getattr(model, name)) for name in PARAMETERS}
        self.arrays = {name: self.parameters[name] for name in names}
        self.optimizer, self.schedule = optimizer, schedule
        self.state = optimizer.init(self.arrays)
        self.n_samples = data.n_samples
        self.in_one_step = batch_size is None or batch_size >= data.n_samples
        self.score = metric if isinstance(metric, str) and metric == "accuracy" else "score"
        # Without slots a step only adds the gradient, so that in E is never formed.
        self.gradient_E = np.empty_like(self.parameters["E"]) if "E" in names and optimizer.slots else None
        self.gemm = get_blas_funcs("gemm", (self.parameters["E"],))
        self.sums: TokenSums | None = None  # over all data, at the present parameters
        self.is_uniform = "p" not in names and not self.parameters["p"].any()

    def start(self) -> Row:
        return self._row()

    def take_up(self, numbers: Mapping[str, float]) -> None:
        self.sums = self._sums(self.data, *self._factors())

    def epoch(self, number: int, batches: Iterator[Ints]) -> Row:
        if self.in_one_step and self.sums is not None:
            self._step(self.sums)
        else:
            for batch in batches:
                self._step(self._sums(self.data.subset(np.sort(batch)), *self._factors()))
        return self._row()

    def kept(self) -> Mapping[str, Floats]:
        return self.arrays

    def rank(self, row: Mapping[str, float]) -> tuple[float, ...]:
        score = row["validation_score"]
        return (score, -row["validation_loss"]) if self.score == "accuracy" else (score,)

    def view(self, record: Mapping[str, Any]) -> TrainState:
        E, p, v = (freeze(self.parameters[name].view()) for name in PARAMETERS)
        return TrainState(**record, E=E, p=p, v=v)

    def _row(self) -> Row:
        """The losses at the present parameters; keeps the sums for the next step."""
        loss = accuracy = score = np.nan
        u, g = self._factors()
        self.sums = sums = self._sums(self.data, u, g)
        if self.validation is not None:
            with np.errstate(all="ignore"):
                loss, output = token_outputs(self.validation, u, g, self.loss)
            accuracy = float(np.mean(self.validation.labels * output > 0))
            if isinstance(self.metric, str):
                score = accuracy if self.metric == "accuracy" else -loss
            else:
                score = as_score(self.metric(self.model.replace(**self.arrays), self.validation))
        return {"loss": sums.loss, "validation_score": score, "validation_loss": loss, "validation_accuracy": accuracy}

    @np.errstate(all="ignore")
    def _factors(self) -> tuple[Floats, Floats]:
        """The scores E p and the values E v, (V,) each."""
        E, p, v = (self.parameters[name] for name in PARAMETERS)
        u, g = embedding_product(E, two_columns(p, v).T).T.astype(np.float64)
        if not np.isfinite(np.ptp(u) + np.ptp(g)):
            raise NotFiniteError
        return u, g

    @np.errstate(all="ignore")
    def _sums(self, data: TokenDataset, u: Floats, g: Floats) -> TokenSums:
        """Loss, outputs and the factors A, B at the present parameters."""
        # Without scores B is needed for the gradient in p alone.
        return uniform_sums(data, g, self.loss) if self.is_uniform else token_sums(data, u, g, self.loss)

    @np.errstate(all="ignore")
    def _step(self, sums: TokenSums) -> None:
        """theta <- theta - eta grad: grad_E = -(A v^T + B p^T), grad_p = -E^T B, grad_v = -E^T A."""
        E, p, v = (self.parameters[name] for name in PARAMETERS)
        factors, directions = two_columns(sums.A, sums.B).astype(E.dtype, copy=False), two_columns(v, p).T
        eta = scheduled_step_size(self.optimizer, self.schedule, self.state.step)
        grads: dict[str, Floats] = {}
        if "p" in self.arrays or "v" in self.arrays:
            grad_v, grad_p = -embedding_transpose_product(E, factors)
            grads = {name: gradient for name, gradient in (("p", grad_p), ("v", grad_v)) if name in self.arrays}
        if "E" in self.arrays and self.gradient_E is not None:
            grads["E"] = rank_two(-factors, directions, self.gradient_E)
        elif "E" in self.arrays:
            # BLAS sees E^T (d, V), which is in its order, and adds the product to it.
            rate, keep = self.optimizer.rates("E", eta)
            self.gemm(rate, directions.T, factors.T, keep, E.T, overwrite_c=True)
        self.optimizer.update(self.arrays, grads, self.state, eta)


def _check_validation(validation: object, vocab_size: int) -> None:
    if isinstance(validation, TokenDataset):
        check_data(validation, vocab_size, "validation")
    elif validation is not None:
        if not isinstance(validation, numbers.Real):
            got = type(validation).__name__
            raise InputTypeError("validation", "must be a TokenDataset, or a share between 0 and 1", got=got)
        check_share("validation", validation, closed="neither")


def _check_params(params: Sequence[str]) -> tuple[str, ...]:
    expected = "must name some of 'E', 'p', 'v', each once"
    try:
        names = tuple(params)
    except TypeError as error:
        raise InputTypeError("params", expected, got=shown(params)) from error
    if not names or not all(names.count(name) == 1 and name in PARAMETERS for name in names):
        raise InputError("params", expected, got=shown(names))
    return names


# --- the old spelling of an optimizer ----------------------------------------------------------------------------

_OLD_OPTIONS = ("step_size", "momentum", "weight_decay")


def _old_optimizer(
    method: Any = "adam",
    step_size: float | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    batch_size: Any = None,
) -> tuple[Optimizer, str]:
    """The optimizer that these options name, and its current spelling."""
    if isinstance(method, Optimizer):
        if step_size is not None or momentum or weight_decay:
            raise InputError("method", "carries its own options", hint="leave step_size, momentum and weight_decay")
        return method, f"{type(method).__name__}(...)"
    if method not in ("adam", "sgd", "gd"):
        got = repr(method) if isinstance(method, (str, type)) else f"an object of type {type(method).__name__}"
        hint = "pass optimizer=attnembed.Adam(step_size=0.01) or attnembed.SGD(step_size=1.0)"
        raise InputError("method", "must be 'adam', 'sgd', 'gd' or an optimizer", got=got, hint=hint)
    if momentum and method != "sgd":
        raise InputError("momentum", "belongs to method='sgd'", got=f"method={method!r}")
    if batch_size is not None and method == "gd":
        raise InputError("batch_size", "must be None for 'gd'", got=batch_size, hint="use optimizer=SGD(...)")
    eta = (0.01 if method == "adam" else 1.0) if step_size is None else step_size
    options: dict[str, Any] = {
        name: value for name, value in (("momentum", momentum), ("weight_decay", weight_decay)) if value
    }
    kind: type[Optimizer] = Adam if method == "adam" else SGD
    shown = "".join(f", {name}={value!r}" for name, value in options.items())
    return kind(step_size=eta, **options), f"{kind.__name__}(step_size={eta!r}{shown})"
