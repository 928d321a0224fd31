"""Evaluation of a function over a grid of parameters, in parallel, with a seed per cell and a store of results."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attnembed._cells import (
    Cell,
    Function,
    Grid,
    Task,
    claim,
    fresh_seed,
    function_key,
    function_name,
    grid_cells,
    known_records,
    line_of,
    open_store,
    plain,
    root_seed,
    tasks,
)
from attnembed._files import PathLike
from attnembed._progress import Progress
from attnembed._store import LineStore
from attnembed._validation import RNGLike, as_path, check_choice, check_flag, check_integer
from attnembed._workers import WorkersGoneError, check_executor, check_sendable, interrupts_deferred
from attnembed._workers import own_processes as _processes
from attnembed._workers import run_all as _run_all
from attnembed.errors import InputError, InputTypeError
from attnembed.results import Result, Status
from attnembed.threads import get_threads

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CellResult", "SweepResult", "sweep"]

_WINDOW = 1.0  # seconds of cells that a power cut may lose
_MOST_LINES = 7  # in a figure
_REPEATS = ("repeat", "repetition", "seed")  # parameters over which a figure takes means


@dataclass(frozen=True, eq=False)
class CellResult:
    """One cell: ``value`` is the return value of the function, or None with ``error`` and ``traceback`` if it failed.

    ``function(**cell, rng=np.random.default_rng(seed))`` repeats it.
    """

    cell: Cell
    seed: int
    value: Any
    error: str | None
    traceback: str | None
    seconds: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SweepResult(Result):
    """The finished cells, in the order of the grid; ``success`` if all are finished and none failed.

    Attributes
    ----------
    cells : the parameters of each cell
    values : return value of the function, None where it failed
    seeds : the seed of each cell
    seconds : duration of each cell
    errors : the cells that failed, each a `CellResult` with ``error`` (one line) and ``traceback``
    """

    cells: tuple[Cell, ...]
    values: tuple[Any, ...]
    seeds: tuple[int, ...]
    seconds: tuple[float, ...]
    errors: tuple[CellResult, ...]

    def table(self) -> dict[str, list[Any]]:
        """One list per parameter, and one per key of the values, or ``value`` if they are not dicts.

        All lists have the length of ``cells``, with None for missing entries. A key of the values that is also a
        parameter becomes ``value.KEY``.
        """
        parameters = list(dict.fromkeys(itertools.chain.from_iterable(self.cells)))
        rows = [value if isinstance(value, dict) else {"value": value} for value in self.values]
        keys = dict.fromkeys(key for row in rows for key, item in row.items() if item is not None or key != "value")
        columns = {name: [cell.get(name) for cell in self.cells] for name in parameters}
        return columns | {
            f"value.{key}" if key in columns else key: [row.get(key) for row in rows] for key in keys or ("value",)
        }

    def plot(self, ax: Axes | None = None, *, value: str | None = None) -> Axes:
        """Draw means of a value against the first parameter of numbers, a line for each value of another parameter.

        A mean is over all other parameters, and always over one called repeat, repetition or seed; its bar is one
        standard error. ``value`` names a column of numbers of
        `table`, by default the first that is no parameter, or else the seconds. Draws on new axes if none are given;
        returns the axes. Raises InputError for another ``value``.
        """
        from attnembed import figures

        parameters = list(dict.fromkeys(itertools.chain.from_iterable(self.cells)))
        columns = {"seconds": list(self.seconds), **self.table()}
        numbers = [name for name, column in columns.items() if _are_numbers(column)]
        swept = [name for name in parameters if len(_distinct(columns[name])) > 1]
        drawn = [name for name in (*columns, "seconds") if name in numbers and name not in parameters][1:]
        chosen = drawn[0] if value is None else check_choice("value", value, drawn)
        along = next((name for name in swept if name in numbers and name not in _REPEATS), "")
        lines = [
            name for name in swept if name not in (along, *_REPEATS) and len(_distinct(columns[name])) <= _MOST_LINES
        ]
        return figures.plot_means(
            columns[along] if along else range(len(self.cells)),
            [np.nan if number is None else number for number in columns[chosen]],
            [f"{name} = {item}" for name in lines[:1] for item in columns[name]] or [""] * len(self.cells),
            xlabel=along or "cell",
            ylabel=chosen,
            ax=ax,
        )

    def __repr__(self) -> str:
        return f"SweepResult({self.status.value}: {self.message})"


def _are_numbers(column: Sequence[Any]) -> bool:
    known = [item for item in column if item is not None]
    return bool(known) and all(isinstance(item, (int, float)) for item in known)


def _distinct(column: Sequence[Any]) -> set[str]:
    return set(map(repr, column))


def sweep(
    function: Function,
    grid: Grid,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    store: PathLike | None = None,
    key: str | None = None,
    retry_failed: bool = True,
    max_pending: int = 256,
    callback: Callable[[CellResult], bool | None] | None = None,
    rng: RNGLike = None,
) -> SweepResult:
    """Call ``function(**cell, rng=generator)`` for every cell of a grid, in parallel.

    Parameters
    ----------
    function : returns None, a number, text, or a list or dict of such; NumPy scalars and arrays of up to 10,000 entries
        are converted. Any other return value, and any exception, is recorded as the error of that cell
    grid : name -> values, of which the product is taken, with the last name varying fastest; or cells, each a mapping,
        possibly from a generator. Cells reach the function as plain Python values; none may be repeated
    executor : any `concurrent.futures.Executor`; it is not shut down. By default new processes are started, with one
        BLAS thread each (unless the environment says otherwise), and ended with the sweep: ``function`` must then be
        defined at the top level of a module, and a script needs ``if __name__ == "__main__":``
    workers : number of those processes; by default `attnembed.threads.get_threads`
    store : file that keeps the results, see below
    key : text that identifies the function instead of its content; change it after every change of the function
    retry_failed : whether to retry cells stored as failed
    max_pending : number of cells submitted to the executor at a time, >= 1; the rest of the grid is generated later
    callback : called in this process with each new `CellResult`, once it is stored; ends the sweep by returning True
    rng : an int, or a Generator, from which one number is drawn

    The seed of a cell is the first 63 bits of the SHA-256 of ``[rng, cell]``, written as JSON with sorted names. It
    depends on nothing else: more values, another order or another executor do not change the result of a cell. 1 and
    1.0 are different values.

    The store holds JSON lines in ASCII. The first, ``{"attnembed_sweep": 2, "function": NAME, "key": KEY, "rng":
    INT}``, identifies the sweep. Every other line is a finished cell: ``cell``, ``seed``, either ``value`` or
    ``error`` and ``traceback``, ``seconds``, ``versions`` and ``digest``, which reveals a damaged line. A line is
    appended in one write before the cell counts as done, and is on disk within a second (with a ``callback``, before
    that is called): a killed process loses nothing that it has written, a power cut the cells of the last second. Run
    again with the same store, function and rng, a sweep reuses the stored cells (without rng, the stored rng, too) and
    computes the missing ones; of several lines about a cell the last one counts. A last line torn by a crash is removed
    and its cell computed again. The store of another function or rng, or one in use, is rejected. Versions are
    recorded, not compared.

    Functions are the same if they have the same content: instructions, defaults, variables of an enclosing function,
    the arguments of a partial one, the state of an object, and the functions and values that they use from their own
    and other modules; installed packages, and imports inside a function, count by name. ``KEY`` is a digest of this
    content. Instructions differ between versions of Python. To continue after a change that does not affect the stored
    cells, pass the key of the store.

    A failed cell does not stop the others. Ctrl-C returns at once with `Status.INTERRUPTED`, and the death of a worker
    with `Status.FAILED`; in both cases the finished cells are in the result and in the store, and the running ones are
    lost. Cells that a generator has not yet produced are not in the result, even if stored.

    Raises
    ------
    InputError
        for a grid, executor or option that cannot be used, and for a function that cannot be identified for a store.
    DataFileError
        for a store that belongs to another sweep, is in use or damaged, or cannot be written.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> def mean(n, scale, rng):
    ...     return scale * rng.standard_normal(n).mean()
    >>> with ThreadPoolExecutor(2) as threads:
    ...     result = sweep(mean, {"n": [10, 1000], "scale": [0.0, 1.0]}, executor=threads, rng=0)
    >>> result
    SweepResult(reached_end: 4 cells done)
    >>> result.cells[1], result.values[0] == result.values[2] == 0
    ({'n': 10, 'scale': 1.0}, True)
    >>> result.table()["n"]
    [10, 10, 1000, 1000]
    """
    _check_arguments(function, executor, workers, callback)
    max_pending = check_integer("max_pending", max_pending, minimum=1)
    check_flag("retry_failed", retry_failed)
    seed = root_seed(rng)
    cells, total = grid_cells(grid)
    check_sendable(function, executor, function_name(function))
    store = None if store is None else as_path("store", store)
    key = function_key(function, key, stored=store is not None)

    done: dict[int, CellResult] = {}
    known: dict[str, dict[str, Any]] = {}
    todo: Iterator[Task] = iter(())
    end = Status.REACHED_END, ""
    try:
        with ExitStack() as stack:
            log, root = None, fresh_seed() if seed is None else seed
            if store is not None:
                log = stack.enter_context(open_store(store))
                root = claim(log, function_name(function), key, seed)
                known = known_records(log, root, retry_failed=retry_failed)
            progress = stack.enter_context(Progress("sweep", total=total))
            if executor is None:
                executor = stack.enter_context(_processes(get_threads() if workers is None else workers))
            todo = tasks(function, cells, root)
            fresh = failed = 0
            missing = _missing(function, todo, known, done, progress)
            batches = stack.enter_context(closing(_run_all(executor, _run, missing, max_pending)))
            for batch in batches:
                lines = [(task, _received(executor, task, result, error)) for task, result, error in batch]
                results = [_result(task, json.loads(line)) for task, line in lines]
                with interrupts_deferred() if log is not None else nullcontext():  # every stored cell is in the result
                    if log is not None:
                        _write(log, lines, at_once=callback is not None)
                    done.update({task.index: result for (task, _), result in zip(lines, results)})
                stop = [callback(result) for result in results] if callback is not None else []
                fresh, failed = fresh + len(results), failed + sum(result.error is not None for result in results)
                progress.update(fresh, f"{failed} failed" if failed else "")
                if any(stop):
                    raise _StoppedError
    except KeyboardInterrupt:
        end = Status.INTERRUPTED, "interrupted"
    except _StoppedError:
        end = Status.STOPPED, "stopped by the callback"
    except WorkersGoneError as error:
        end = Status.FAILED, _gone(error)
    if known and total is not None:  # the store may hold later cells; a generator of cells is not advanced
        done.update({task.index: _result(task, known[task.text]) for task in todo if task.text in known})
    return _summary(end, [done[index] for index in sorted(done)], kept=store is not None)


def _check_arguments(function: Any, executor: Any, workers: Any, callback: Any) -> None:
    if not callable(function):
        raise InputTypeError("function", "must be callable", got=type(function).__name__)
    if executor is not None:
        check_executor(executor)
    if workers is not None:
        check_integer("workers", workers, minimum=1)
        if executor is not None:
            raise InputError("workers", "belongs to the default executor", hint="leave executor or workers")
    if callback is not None and not callable(callback):
        raise InputTypeError("callback", "must be a function", got=type(callback).__name__)


class _StoppedError(Exception):
    """The callback has stopped the sweep, which does not wait for running cells."""


def _result(task: Task, record: Mapping[str, Any]) -> CellResult:
    return CellResult(
        cell=task.cell,
        seed=task.seed,
        value=record.get("value"),
        error=record.get("error"),
        traceback=record.get("traceback"),
        seconds=record["seconds"],
    )


def _summary(end: tuple[Status, str], results: list[CellResult], *, kept: bool) -> SweepResult:
    status, message = end
    errors = tuple(result for result in results if result.error is not None)
    count = f"{len(results)} cells done"
    if status is Status.REACHED_END:
        message = count
    else:
        message += f"; {count}" + ("; run it again to continue from the store" if kept else "")
    if errors:
        message += f", {len(errors)} of them failed: {errors[0].error} in {errors[0].cell}"
        message += " and more" if len(errors) > 1 else ""
        status = Status.FAILED if status is Status.REACHED_END else status
    return SweepResult(
        status=status,
        message=message,
        cells=tuple(result.cell for result in results),
        values=tuple(result.value for result in results),
        seeds=tuple(result.seed for result in results),
        seconds=tuple(result.seconds for result in results),
        errors=errors,
    )


# --- the work ----------------------------------------------------------------------------------------------------


def _missing(
    function: Function,
    todo: Iterator[Task],
    known: dict[str, dict[str, Any]],
    done: dict[int, CellResult],
    progress: Progress,
) -> Iterator[tuple[Task, tuple[Function, str, int]]]:
    """The cells to compute; stored ones are passed to ``done``."""
    for task in todo:
        if task.text not in known:
            yield task, (function, task.text, task.seed)
        else:
            done[task.index] = _result(task, known.pop(task.text))
            if progress.total is not None:
                progress.total -= 1  # the time left counts only cells still to be computed


def _write(log: LineStore, lines: Sequence[tuple[Task, str]], *, at_once: bool) -> None:
    """Append the lines of cells to the store, synced at once or a moment later."""
    for _, line in lines:
        log.append(line)
    if at_once:
        log.sync()
    else:
        log.sync_within(_WINDOW)


def _received(executor: Executor, task: Task, result: Any, error: BaseException | None) -> str:
    """The line of a cell returned by the executor."""
    if error is not None:  # something that the executor could not send
        return line_of(task.text, task.seed, time.perf_counter(), error)
    if not isinstance(result, str):
        got = f"{type(result).__name__} values from {type(executor).__module__}.{type(executor).__qualname__}"
        raise InputTypeError("executor", "must return the function's result", got=got)
    return result


def _gone(error: WorkersGoneError) -> str:
    advice = "was one killed, out of memory, or unable to import the function?"
    return f"the workers are gone ({error}) while cells such as {error.job.text} ran; {advice}"


def _run(function: Function, text: str, seed: int) -> str:
    """In a worker: compute a cell; returns its line of the store."""
    began = time.perf_counter()
    try:
        value = function(**json.loads(text), rng=np.random.default_rng(seed))
        return line_of(text, seed, began, None, plain(value))
    except (Exception, SystemExit) as error:
        return line_of(text, seed, began, error)
