"""The training loop: epochs, history, best epoch, stopping, Ctrl-C and checkpoints.

A subject supplies a `Trainee`: the arrays being trained, and one epoch on them. Nothing here knows their meaning.
"""

from __future__ import annotations

import math
import numbers
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnembed._checkpoint import Checkpoint
from attnembed._files import PathLike
from attnembed._notebook import Curve, history_curves
from attnembed._progress import Progress
from attnembed._typing import Floats, Ints
from attnembed._validation import RNGLike, as_rng, check_callable, check_integer, freeze, shown
from attnembed.errors import InputError, InputTypeError
from attnembed.optim import OptimizerState
from attnembed.results import Record, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "EpochState",
    "FitOptions",
    "Fitted",
    "HasHistory",
    "NotFiniteError",
    "Trainee",
    "as_score",
    "check_metric",
    "fit",
]

Row = dict[str, float]
End = tuple[Status, str]
T = TypeVar("T", bound="Trainee")

# The first columns of every history; those of the subject follow.
COLUMNS: list[tuple[str, type]] = [
    ("epoch", np.int64),
    ("seconds", np.float64),
    ("loss", np.float64),
    ("validation_score", np.float64),
]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class EpochState(Record):
    """Argument of a callback after an epoch: its row of the history, to which each subject adds its own columns."""

    epoch: int
    seconds: float
    loss: float
    validation_score: float


class FitOptions(TypedDict, total=False):
    """The options common to all training functions, those of `fit`."""

    n_epochs: int
    batch_size: int | None
    patience: int | None
    checkpoint: PathLike | None
    checkpoint_every: int
    resume: bool
    rng: RNGLike


class HasHistory:
    """Mixin of the results of training: the figures of their ``history``."""

    history: np.recarray[Any, Any]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss and the validation score, if there is one, over the epochs.

        Draws on new axes if none are given; returns the axes.
        """
        from attnembed import figures

        return figures.plot_history(self.history, ax=ax)

    def _curves(self) -> list[Curve]:
        return history_curves(self.history)


class NotFiniteError(ArithmeticError):
    """The parameters have left the floating-point range."""


class Trainee(ABC):
    """The part of the loop that a subject supplies.

    Attributes
    ----------
    n_samples : number of samples per epoch
    arrays : everything trained, by name; the same objects throughout, changed in place
    state : of the optimiser
    columns : the history's columns after `COLUMNS`
    has_start : whether the history has a row for the start, before the first epoch
    score : name of ``validation_score`` on the progress line
    """

    columns: ClassVar[list[tuple[str, type]]]
    has_start: ClassVar[bool] = False
    n_samples: int
    arrays: dict[str, Floats]
    state: OptimizerState
    score: str = "score"

    @abstractmethod
    def epoch(self, number: int, batches: Iterator[Ints]) -> Row:
        """Train once on all batches of sample numbers; returns the columns of the history in order, from ``loss`` on.

        Raises `NotFiniteError` if the result cannot be used. ``number`` counts from 0.
        """

    @abstractmethod
    def kept(self) -> Mapping[str, Floats]:
        """The arrays copied for the best epoch, from which its model is built."""

    @abstractmethod
    def view(self, record: Mapping[str, Any]) -> EpochState:
        """The argument of the callback; ``record`` is the last row of the history."""

    def start(self) -> Row:
        """The row for the start, if there is one."""
        raise NotImplementedError

    def rank(self, row: Mapping[str, float]) -> tuple[float, ...]:
        """Sort key of an epoch; larger is better."""
        return (row["validation_score"],)

    def numbers(self) -> dict[str, float]:
        """Everything else that a later epoch depends on."""
        return {}

    def expect(self, history: NDArray[Any]) -> None:  # noqa: B027 (nothing to do for most)
        """Prepare for the arrays of a checkpoint with this history, or reject it with an InputError."""

    def take_up(self, numbers: Mapping[str, float]) -> None:  # noqa: B027 (as above)
        """Continue from the checkpoint whose arrays are now in place."""


@dataclass(frozen=True, eq=False, repr=False)
class Fitted(Record, Generic[T]):
    """The outcome of a training run; ``kept`` holds the arrays of the best epoch."""

    trainee: T
    status: Status
    message: str
    history: np.recarray[Any, Any]
    best_epoch: int
    kept: dict[str, Floats]


def fit(
    make: Callable[[np.random.Generator], T],
    identity: Mapping[str, object],
    *,
    n_epochs: int,
    batch_size: int | None,
    validated: bool,
    patience: int | None,
    callback: Callable[[Any], object] | None,
    checkpoint: PathLike | None,
    checkpoint_every: int,
    resume: bool,
    rng: RNGLike,
) -> Fitted[T]:
    """Train until the epochs are done, the callback stops it, patience ends, or Ctrl-C is pressed.

    Parameters
    ----------
    make : function that creates the trainee; it may draw from the generator, whose state a checkpoint restores first
    identity : everything that determines the run, by argument name; a checkpoint must have the same
    validated : whether there is a ``validation_score``, and with it a best epoch; else the last is the best
    """
    _check_options(n_epochs, batch_size, validated, patience, callback, checkpoint, checkpoint_every, resume)
    generator, store = as_rng(rng), None
    if checkpoint is not None:
        store = Checkpoint(checkpoint, identity, generator)
        if resume:
            generator = store.find(generator, seeded=rng is not None)
    log = Log(make(generator), validated)
    trainee = log.trainee
    numbers = store.restore(log, generator, n_epochs) if store is not None and store.found else None

    with Progress("training", total=n_epochs) as progress, _deferred_interrupt() as interrupted:
        try:
            if numbers is not None:
                trainee.take_up(numbers)
            elif trainee.has_start:
                log.record(trainee.start())
            written = log.done
            while (end := _ending(log, n_epochs, patience, interrupted())) is None:
                log.whole = False
                log.record(trainee.epoch(log.done, _batches(trainee.n_samples, batch_size, generator)))
                progress.update(log.done, log.note() if progress.active else "")
                if store is not None and log.done % checkpoint_every == 0:
                    store.write(log, generator)
                    written = log.done
                if callback is not None and callback(trainee.view(log.last())):
                    end = Status.STOPPED, f"stopped by the callback after epoch {log.epoch}"
                    break
            if store is not None and (written < log.done or not store.found):
                store.write(log, generator)
        except NotFiniteError:
            end = Status.NOT_FINITE, f"not finite in epoch {log.epoch + 1}; use a smaller step_size or a warm-up"
        except KeyboardInterrupt:
            if interrupted():
                raise  # pressed twice: do not wait
            place = f"after epoch {log.epoch}" if log.whole else f"in epoch {log.epoch + 1}"
            end = Status.INTERRUPTED, f"interrupted {place}"
            if store is not None and log.whole:
                store.write(log, generator)
        if interrupted() and end[0] is not Status.NOT_FINITE:
            end = Status.INTERRUPTED, f"interrupted after epoch {log.epoch}"
    if end[0] is Status.INTERRUPTED and store is not None:
        end = end[0], f"{end[1]}; run it again to continue from the checkpoint"
    if not validated and log.whole and end[0] is not Status.NOT_FINITE:
        log.keep()
    return Fitted(trainee, *end, log.history().view(np.recarray), log.best_epoch, log.best)


def _check_options(
    n_epochs: object,
    batch_size: object,
    validated: bool,
    patience: object,
    callback: object,
    checkpoint: object,
    checkpoint_every: object,
    resume: object,
) -> None:
    check_integer("n_epochs", n_epochs, minimum=1)
    check_integer("checkpoint_every", checkpoint_every, minimum=1)
    if batch_size is not None:
        check_integer("batch_size", batch_size, minimum=1)
    if patience is not None:
        check_integer("patience", patience, minimum=1)
        if not validated:
            raise InputError("patience", "needs validation data to watch", hint="pass `validation`")
    if callback is not None:
        check_callable("callback", callback)
    if not isinstance(checkpoint, (str, os.PathLike, type(None))):
        raise InputTypeError("checkpoint", "must be the path of a file", got=type(checkpoint).__name__)
    if not isinstance(resume, (bool, np.bool_)):
        raise InputTypeError("resume", "must be True or False", got=shown(resume))


def check_metric(value: Any) -> Any:
    """A named metric, or a function of a model and validation data; accuracy by default."""
    if value is None:
        return "accuracy"
    if not callable(value) and not (isinstance(value, str) and value in ("accuracy", "loss")):
        expected = "must be 'accuracy', 'loss' or a function of a model and the validation data"
        raise InputError("metric", expected, got=shown(value))
    return value


def as_score(value: Any) -> float:
    """The return value of a metric, as a number."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, numbers.Real):
        raise InputTypeError("metric", "must return a number", got=shown(value))
    return float(value)


def _ending(log: Log[Any], n_epochs: int, patience: int | None, interrupted: bool) -> End | None:
    """The reason to end before the next epoch, or None."""
    if patience is not None and log.epoch - log.best_epoch >= patience:
        return Status.STOPPED, f"stopped by patience after epoch {log.epoch}; epoch {log.best_epoch} is the best"
    if log.done >= n_epochs:
        return Status.REACHED_END, f"trained for {n_epochs} epochs"
    return (Status.INTERRUPTED, "") if interrupted else None


def _batches(n_samples: int, batch_size: int | None, rng: np.random.Generator) -> Iterator[Ints]:
    """All sample numbers in random order, in batches; nothing is drawn before the first batch is requested."""
    order = rng.permutation(n_samples)
    size = n_samples if batch_size is None else batch_size
    for start in range(0, n_samples, size):
        yield order[start : start + size]


class Log(Generic[T]):
    """The history of a trainee, and a copy of its best arrays so far."""

    def __init__(self, trainee: T, validated: bool):
        self.trainee, self.validated = trainee, validated
        self.dtype = np.dtype(COLUMNS + trainee.columns)
        self.names = self.dtype.names[2:] if self.dtype.names else ()
        self.rows: list[tuple[float, ...]] = []
        self.epoch = -1  # number of the last row
        self.done = -1 if trainee.has_start else 0  # number of completed epochs
        self.best = {name: array.copy() for name, array in trainee.kept().items()}
        self.best_epoch = 0 if trainee.has_start else -1
        self.best_rank: tuple[float, ...] | None = None
        self.whole = True
        self.began = time.monotonic()

    def record(self, row: Row) -> None:
        """Append a row for the current arrays, and copy them if they are the best."""
        if not math.isfinite(row["loss"]):
            raise NotFiniteError
        self.epoch += 1
        self.done += 1
        self.rows.append((self.epoch, time.monotonic() - self.began, *row.values()))
        self.whole = True
        if self.validated:
            rank = self.trainee.rank(row)
            if self.best_rank is None or rank > self.best_rank or math.isnan(self.best_rank[0]) > math.isnan(rank[0]):
                self.best_rank = rank
                self.keep()

    def go_on(self, rows: list[tuple[float, ...]], best_epoch: int) -> None:
        """Restore the rows of a checkpoint."""
        self.rows, self.best_epoch = rows, best_epoch
        self.done += len(rows)
        self.epoch += len(rows)
        self.began -= rows[-1][1]
        if self.validated:
            self.best_rank = self.trainee.rank(dict(zip(self.names, rows[best_epoch][2:])))

    def keep(self) -> None:
        """Keep the current arrays as the best."""
        self.best_epoch = self.epoch
        for name, array in self.trainee.kept().items():
            np.copyto(self.best[name], array, casting="no")

    def last(self) -> dict[str, Any]:
        return dict(zip(("epoch", "seconds", *self.names), self.rows[-1]))

    def note(self) -> str:
        row = self.last()
        score = f"  validation {self.trainee.score} {row['validation_score']:.4f}" if self.validated else ""
        return f"loss {row['loss']:.4g}{score}"

    def history(self) -> NDArray[Any]:
        return freeze(np.array(self.rows, dtype=self.dtype))


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a flag that is checked between epochs; a second one raises at once.

    Only with Python's own handler in place: in the main thread, and not if other code handles the signal.
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
