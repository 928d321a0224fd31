"""Training E, p and v: gradient descent, SGD and Adam, with validation, early stopping and resumable checkpoints.

The loop works on raw arrays. The gradient in E has rank two, E <- E + eta (A v^T + B p^T): plain descent applies it in
place without forming it; Adam and momentum need it dense and share one buffer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import get_blas_funcs

from attnembed._files import read_npz, replacing
from attnembed._progress import Progress
from attnembed._validation import RNGLike, as_rng, check_choice, check_integer, check_positive, freeze
from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.model import AttentionModel
from attnembed.attention.passes import TokenSums, token_sums
from attnembed.attention.products import embedding_product, embedding_transpose_product, rank_two, two_columns
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.optim import SGD, Adam, Constant, Optimizer, Schedule, state_arrays, state_from_arrays
from attnembed.results import Record, Result, Status, to_plain

__all__ = ["TrainResult", "TrainState", "split_dataset", "train"]

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Method = Literal["adam", "sgd", "gd"]
Monitor = Literal["accuracy", "loss"]

PARAMETERS = ("E", "p", "v")
HISTORY = np.dtype(
    [
        ("epoch", np.int64),
        ("loss", np.float64),
        ("validation_loss", np.float64),
        ("validation_accuracy", np.float64),
        ("seconds", np.float64),
    ]
)
DEFAULT_STEP_SIZE = {"adam": 0.01, "sgd": 1.0, "gd": 1.0}


@dataclass(frozen=True, eq=False, repr=False)
class TrainState(Record):
    """What a callback of `train` receives after each epoch.

    ``E``, ``p`` and ``v`` are read-only views of the arrays being trained: copy what must outlive the call. The
    validation figures are NaN where there is no validation set.
    """

    epoch: int
    loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    E: Floats
    p: Floats
    v: Floats


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TrainResult(Result):
    """A trained model and how it came about.

    Attributes
    ----------
    model : the best by validation (the earliest, on ties) where there is a validation set, else the last
    history : record array, one row per epoch from 0, the start: ``epoch``, ``loss`` on the training set,
        ``validation_loss`` and ``validation_accuracy`` (NaN without validation), ``seconds`` since the start.
        Read a column as ``history.loss`` or ``history["loss"]``.
    best_epoch : the epoch of ``model``
    """

    model: AttentionModel
    history: np.recarray[Any, Any]
    best_epoch: int

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, the history as one list per column."""
        columns = {name: self.history[name] for name in self.history.dtype.names}
        return {**super().to_dict(), "history": to_plain(columns)}


def split_dataset(data: TokenDataset, share: float, *, rng: RNGLike = None) -> tuple[TokenDataset, TokenDataset]:
    """Split off a share in (0, 1) of each class at random: (rest, part), both in the order of ``data``.

    Raises
    ------
    InputError
        if a class is too small to be in both.

    >>> data = TokenDataset.from_tokens([[0], [1], [2], [3], [4]], [1, 1, 1, -1, -1])
    >>> [half.labels for half in split_dataset(data, 0.4, rng=0)]
    [array([ 1.,  1., -1.]), array([ 1., -1.])]
    """
    check_data(data)
    _check_share("share", share)
    rng = as_rng(rng)
    inside = np.zeros(data.n_samples, dtype=bool)
    for sign in (1.0, -1.0):
        rows = np.flatnonzero(data.labels == sign)
        if rows.size < 2:
            raise InputError("data", "must have two sequences of each class to split", got=f"{rows.size} of {sign:+g}")
        inside[rng.permutation(rows)[: min(max(round(share * rows.size), 1), rows.size - 1)]] = True
    return _subset(data, np.flatnonzero(~inside)), _subset(data, np.flatnonzero(inside))


def train(
    model: AttentionModel,
    data: TokenDataset,
    *,
    params: Sequence[str] = ("E", "p"),
    method: Method | Optimizer = "adam",
    step_size: float | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    epochs: int = 100,
    batch_size: int | None = None,
    schedule: Schedule = Constant(),  # noqa: B008 (frozen)
    validation: TokenDataset | float | None = None,
    monitor: Monitor = "accuracy",
    patience: int | None = None,
    callback: Callable[[TrainState], bool | None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    resume: bool = True,
    rng: RNGLike = None,
) -> TrainResult:
    """Minimise the mean logistic loss over the chosen parameters.

    Parameters
    ----------
    params : which of "E", "p" and "v" to train; the others stay as they are
    method : "adam", "sgd" (momentum, minibatches) or "gd" (plain, full batch); or an `optim.Optimizer`, which then
        carries every option of the update, also step sizes per parameter
    step_size : eta > 0; by default 0.01 for Adam and 1 for the others
    momentum : in [0, 1), for "sgd"
    weight_decay : >= 0, decoupled (see `optim.Optimizer`)
    epochs : passes over the data
    batch_size : sequences per step, drawn without replacement; None takes all of them, one step an epoch
    schedule : multiplier of the step size as a function of the number of steps taken (`optim.Cosine`, ...)
    validation : another data set, or a share in (0, 1) to split off ``data`` per class
    monitor : "accuracy" (ties broken by the loss) or "loss", on the validation set: what "best" means
    patience : stop after so many epochs without a better one
    callback : called with a `TrainState` after each epoch; stops the training by returning True
    checkpoint : file written every ``checkpoint_every`` epochs and at the end. Where it exists and ``resume`` is true
        the run continues from it, to the bit as if it had not been interrupted (with the same number of threads);
        ``epochs`` and ``patience`` may differ, all else must be the same
    rng : for the split and the order of the minibatches

    Ctrl-C ends the epoch, writes the checkpoint and returns with `Status.INTERRUPTED`; a second one raises at once.
    A loss that is not finite ends the training with `Status.NOT_FINITE`.

    Raises
    ------
    InputError
        for an option out of its range, or a checkpoint of another run.
    DataFileError
        for a checkpoint that cannot be read or written.

    >>> from attnembed.attention.data import make_balanced_dataset
    >>> data = make_balanced_dataset(n_samples=40, length=4, n_irrelevant=10, rng=0)
    >>> result = train(AttentionModel.random(14, 8, rng=0), data, step_size=0.1, epochs=30, rng=0)
    >>> result.success, result.model.accuracy(data), bool(result.history.loss[-1] < 0.1)
    (True, 1.0, True)
    """
    model._check(data)
    names = _check_params(params)
    optimizer = _make_optimizer(method, step_size, momentum, weight_decay)
    epochs = check_integer("epochs", epochs, minimum=1)
    checkpoint_every = check_integer("checkpoint_every", checkpoint_every, minimum=1)
    check_choice("monitor", monitor, get_args(Monitor))
    if batch_size is not None:
        batch_size = check_integer("batch_size", batch_size, minimum=1)
        if method == "gd":
            raise InputError("batch_size", "must be None for 'gd'", got=batch_size, hint="use method='sgd'")
    if patience is not None:
        patience = check_integer("patience", patience, minimum=1)
        if validation is None:
            raise InputError("patience", "needs a validation set", hint="pass validation=0.1")
    if isinstance(validation, TokenDataset):
        model._check(validation)
    elif validation is not None:
        _check_share("validation", validation)
    for name, function in (("schedule", schedule), ("callback", callback)):
        if function is not None and not callable(function):
            raise InputTypeError(name, "must be a function", got=type(function).__name__)

    generator, store = as_rng(rng), None
    if checkpoint is not None:
        seed = None if rng is None else _rng_text(generator)  # without a seed, that of the checkpoint is taken over
        fingerprint = _fingerprint(
            model, data, validation, names, optimizer, batch_size, _describe(schedule), monitor, seed
        )
        store = _Store(checkpoint, fingerprint, _rng_text(generator))
        if resume:
            store.find(generator)
    if validation is not None and not isinstance(validation, TokenDataset):
        data, validation = split_dataset(data, validation, rng=generator)

    descent = _Descent(model, names, optimizer, schedule)
    log = _Log(descent, validation, monitor)
    if store is not None and store.found:
        store.restore(descent, log, generator)
        if log.epoch > epochs:
            raise InputError("epochs", f"must be at least the {log.epoch} of the checkpoint", got=epochs)

    with Progress("training", total=epochs) as progress, _deferred_interrupt() as interrupted:

        def ending() -> tuple[Status, str] | None:
            if patience is not None and log.epoch - log.best_epoch >= patience:
                return Status.STOPPED, f"stopped early after {log.epoch} epochs; epoch {log.best_epoch} is the best"
            if log.epoch >= epochs:
                return Status.REACHED_END, f"trained for {epochs} epochs"
            if interrupted():
                advice = "" if store is None else "; run it again to continue from the checkpoint"
                return Status.INTERRUPTED, f"interrupted after {log.epoch} epochs{advice}"
            return None

        try:
            sums = descent.sums(data)
            if not log.rows:
                log.record(sums)
            while (end := ending()) is None:
                sums = descent.epoch(data, sums, batch_size, generator)
                log.record(sums)
                progress.update(log.epoch, log.note)
                if callback is not None and callback(log.state()):
                    end = Status.STOPPED, f"stopped by the callback after {log.epoch} epochs"
                    break
                if store is not None and log.epoch % checkpoint_every == 0 and log.epoch < epochs:
                    store.write(descent, log, generator)
            if store is not None:
                store.write(descent, log, generator)
        except _NotFiniteError:
            end = Status.NOT_FINITE, f"not finite in epoch {log.epoch + 1}; use a smaller step_size or a warm-up"

    if validation is None and end[0] is not Status.NOT_FINITE:
        log.keep()
    return TrainResult(
        status=end[0],
        message=end[1],
        model=model.replace(**log.best),
        history=log.history(),
        best_epoch=log.best_epoch,
    )


class _NotFiniteError(Exception):
    """The parameters have left the range of floating point."""


class _Descent:
    """The arrays being trained and the steps on them; no model object is made per step."""

    def __init__(self, model: AttentionModel, names: tuple[str, ...], optimizer: Optimizer, schedule: Schedule):
        self.arrays: dict[str, Floats] = {name: np.array(getattr(model, name)) for name in PARAMETERS}
        self.trained = {name: self.arrays[name] for name in names}
        self.optimizer, self.schedule = optimizer, schedule
        self.state = optimizer.init(self.trained)
        # Without slots a step only adds the gradient: that in E is then never formed.
        self.gradient_E = np.empty_like(self.arrays["E"]) if "E" in names and optimizer.slots else None
        self.gemm = get_blas_funcs("gemm", (self.arrays["E"],))

    @np.errstate(all="ignore")
    def sums(self, data: TokenDataset) -> TokenSums:
        """Loss, outputs and the factors A, B at the present parameters."""
        E, p, v = (self.arrays[name] for name in PARAMETERS)
        u, g = embedding_product(E, two_columns(p, v).T).T.astype(np.float64)
        if not np.isfinite(np.ptp(u) + np.ptp(g)):
            raise _NotFiniteError
        return token_sums(data, u, g)

    def epoch(self, data: TokenDataset, sums: TokenSums, batch_size: int | None, rng: np.random.Generator) -> TokenSums:
        """One pass over the data, from and to the sums over all of it."""
        if batch_size is None or batch_size >= data.n_samples:
            self.step(sums)
        else:
            order = rng.permutation(data.n_samples)
            for k in range(0, order.size, batch_size):
                self.step(self.sums(_subset(data, np.sort(order[k : k + batch_size]))))
        return self.sums(data)

    @np.errstate(all="ignore")
    def step(self, sums: TokenSums) -> None:
        """theta <- theta - eta grad: grad_E = -(A v^T + B p^T), grad_p = -E^T B, grad_v = -E^T A."""
        E, p, v = (self.arrays[name] for name in PARAMETERS)
        factors, directions = two_columns(sums.A, sums.B).astype(E.dtype, copy=False), two_columns(v, p).T
        eta = self.optimizer.step_size * self.schedule(self.state.step)
        grads: dict[str, Floats] = {}
        if "p" in self.trained or "v" in self.trained:
            grad_v, grad_p = -embedding_transpose_product(E, factors)
            grads = {name: gradient for name, gradient in (("p", grad_p), ("v", grad_v)) if name in self.trained}
        if "E" in self.trained and self.gradient_E is not None:
            grads["E"] = rank_two(-factors, directions, self.gradient_E)
        elif "E" in self.trained:
            # BLAS sees E^T (d, V), which is in its order, and adds the product to it.
            rate, keep = self.optimizer.rates("E", eta)
            self.gemm(rate, directions.T, factors.T, keep, E.T, overwrite_c=True)
        self.optimizer.update(self.trained, grads, self.state, eta)


class _Log:
    """The history, and a copy of the best parameters so far."""

    def __init__(self, descent: _Descent, validation: TokenDataset | None, monitor: str):
        self.descent, self.validation, self.monitor = descent, validation, monitor
        self.rows: list[tuple[int, float, float, float, float]] = []
        self.best = {name: array.copy() for name, array in descent.trained.items()}
        self.best_epoch = 0
        self.began = time.monotonic()

    @property
    def epoch(self) -> int:
        return len(self.rows) - 1

    @property
    def note(self) -> str:
        _, loss, _, accuracy, _ = self.rows[-1]
        return f"loss {loss:.4f}" + ("" if self.validation is None else f"  validation accuracy {accuracy:.4f}")

    def record(self, sums: TokenSums) -> None:
        """Append a row for the present parameters, and copy them if they are the best."""
        held_loss = accuracy = np.nan
        if self.validation is not None:
            held = self.descent.sums(self.validation)
            held_loss, accuracy = held.loss, float(np.mean(self.validation.labels * held.output > 0))
        self.rows.append((len(self.rows), sums.loss, held_loss, accuracy, time.monotonic() - self.began))
        if self.validation is not None and self._rank(self.epoch) > self._rank(self.best_epoch):
            self.keep()

    def keep(self) -> None:
        """Make the present parameters the best."""
        self.best_epoch = self.epoch
        for name, array in self.descent.trained.items():
            np.copyto(self.best[name], array)

    def _rank(self, epoch: int) -> tuple[float, float]:
        _, _, loss, accuracy, _ = self.rows[epoch]
        return (accuracy if self.monitor == "accuracy" else 0.0), -loss

    def state(self) -> TrainState:
        E, p, v = (freeze(self.descent.arrays[name].view()) for name in PARAMETERS)
        return TrainState(*self.rows[-1], E, p, v)

    def history(self) -> np.recarray[Any, Any]:
        table = np.array(self.rows, dtype=HISTORY).view(np.recarray)
        freeze(table)
        return table


class _Store:
    """The checkpoint file: everything that the rest of the run depends on, without pickle."""

    def __init__(self, path: str | os.PathLike[str], fingerprint: str, rng_start: str):
        self.path, self.fingerprint, self.rng_start = path, fingerprint, rng_start
        self.found = False

    def find(self, rng: np.random.Generator) -> None:
        """Where the file exists, check that it belongs to this run and put the generator where that began."""
        if os.path.exists(self.path):
            header = read_npz(self.path, ("fingerprint", "rng_start"))
            if str(header["fingerprint"]) != self.fingerprint:
                raise InputError(
                    "checkpoint",
                    "must come from the same model, data, options and rng",
                    got=f"that of another run in {os.fspath(self.path)}",
                    hint="use another file, or resume=False to replace it",
                )
            self.found, self.rng_start = True, str(header["rng_start"])
            self._set(rng, self.rng_start)

    def restore(self, descent: _Descent, log: _Log, rng: np.random.Generator) -> None:
        """Continue where the file was written."""
        state, parameters = state_arrays(descent.state), self._parameters(descent, log)
        arrays = read_npz(self.path, ("rng", "history", "best_epoch", *parameters, *state))
        try:
            descent.state = state_from_arrays(arrays, descent.state)
            for name, target in parameters.items():
                np.copyto(target, arrays[name])
            if arrays["history"].dtype != HISTORY:
                raise TypeError("another table")
            log.rows = arrays["history"].tolist()
            log.best_epoch = int(arrays["best_epoch"])
            log.began -= log.rows[-1][-1]
        except (InputError, ValueError, TypeError, IndexError) as error:
            raise DataFileError(self.path, "is not a checkpoint of this training") from error
        self._set(rng, str(arrays["rng"]))

    def write(self, descent: _Descent, log: _Log, rng: np.random.Generator) -> None:
        """Replace the file by the present state."""
        arrays: dict[str, Any] = {
            "fingerprint": np.array(self.fingerprint),
            "rng_start": np.array(self.rng_start),
            "rng": np.array(_rng_text(rng)),
            "history": log.history().view(np.ndarray),
            "best_epoch": np.array(log.best_epoch),
            **self._parameters(descent, log),
            **state_arrays(descent.state),
        }
        with replacing(self.path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **arrays)  # digits of floats hardly compress, and trying would outlast the epochs

    @staticmethod
    def _parameters(descent: _Descent, log: _Log) -> dict[str, Floats]:
        return {**descent.trained, **{f"best.{name}": array for name, array in log.best.items()}}

    def _set(self, rng: np.random.Generator, text: str) -> None:
        try:
            rng.bit_generator.state = json.loads(text)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise DataFileError(self.path, "holds the state of another kind of random generator") from error


def _rng_text(rng: np.random.Generator) -> str:
    return json.dumps(to_plain(dict(rng.bit_generator.state)))


def _fingerprint(*parts: Any) -> str:
    """A digest of everything that decides the course of a run: arrays by their bytes, options by their repr."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, AttentionModel):
            arrays = [part.E, part.p, part.v]
        elif isinstance(part, TokenDataset):
            arrays = [part.counts.data, part.counts.indices, part.counts.indptr, part.labels]
        else:
            arrays = [np.array(repr(part))]
        for array in arrays:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _describe(schedule: Schedule) -> str:
    """The same in every process: the options of a schedule of `optim`, the name of any other function."""
    if dataclasses.is_dataclass(schedule):
        return repr(schedule)
    return f"{schedule.__module__}.{getattr(schedule, '__qualname__', type(schedule).__qualname__)}"


def _subset(data: TokenDataset, rows: Ints) -> TokenDataset:
    """Some sequences of a data set that has been checked; one class is enough for a minibatch."""
    return TokenDataset._trusted(data.counts[rows], data.labels[rows], data.vocab)


def _check_share(name: str, value: float) -> None:
    if check_positive(name, value) >= 1:
        raise InputError(name, "must lie between 0 and 1", got=value)


def _check_params(params: Sequence[str]) -> tuple[str, ...]:
    names = tuple(params)
    if not names or len(set(names)) < len(names) or not set(names) <= set(PARAMETERS):
        raise InputError("params", "must name some of 'E', 'p', 'v', each once", got=names)
    return names


def _make_optimizer(
    method: Method | Optimizer, step_size: float | None, momentum: float, weight_decay: float
) -> Optimizer:
    if isinstance(method, Optimizer):
        if step_size is not None or momentum or weight_decay:
            raise InputError("method", "carries its own options", hint="leave step_size, momentum and weight_decay")
        return method
    check_choice("method", method, get_args(Method))
    if momentum and method != "sgd":
        raise InputError("momentum", "belongs to method='sgd'", got=f"method={method!r}")
    eta = DEFAULT_STEP_SIZE[method] if step_size is None else step_size
    if method == "adam":
        return Adam(step_size=eta, weight_decay=weight_decay)
    return SGD(step_size=eta, momentum=momentum, weight_decay=weight_decay)


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a flag that is read between epochs; a second one raises at once.

    Only where Python's own handler is in place: in the main thread, and not where someone else handles the signal.
    """
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
