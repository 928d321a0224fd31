"""A function over a grid of parameters, in parallel, with seeds that belong to the cells and a store of results."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import math
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from typing import Any

import numpy as np

from attnembed._files import PathLike, versions
from attnembed._progress import Progress
from attnembed._store import LineStore
from attnembed._validation import RNGLike, as_rng, check_integer
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.results import Result, Status
from attnembed.threads import get_threads

__all__ = ["CellResult", "SweepResult", "sweep"]

Cell = dict[str, Any]
Function = Callable[..., Any]
Grid = Mapping[str, Iterable[Any]] | Iterable[Mapping[str, Any]]

_KIND, _VERSION = "attnembed_sweep", 1
_SEEDS = 2**63  # seeds of 63 bits fit the integers of every reader of JSON
_LARGEST_ARRAY = 10_000
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "ATTNEMBED_THREADS",
)


@dataclass(frozen=True, eq=False)
class CellResult:
    """One cell: ``value`` is what the function returned, or None with ``error`` and ``traceback`` where it failed.

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
    """The cells that are done, in the order of the grid; ``success`` if that is all of them and none failed.

    Attributes
    ----------
    cells : the parameters of each cell
    values : what the function returned, None where it failed
    seeds : the seed of each cell
    seconds : how long each cell took
    errors : the cells that failed, each a `CellResult` with ``error`` (one line) and ``traceback``
    """

    cells: tuple[Cell, ...]
    values: tuple[Any, ...]
    seeds: tuple[int, ...]
    seconds: tuple[float, ...]
    errors: tuple[CellResult, ...]

    def table(self) -> dict[str, list[Any]]:
        """One list per parameter, and one per key of the values, or ``value`` where they are not dicts.

        All lists are as long as ``cells``, with None where there is nothing. A key of the values that is also a
        parameter becomes ``value.KEY``.
        """
        parameters = list(dict.fromkeys(itertools.chain.from_iterable(self.cells)))
        rows = [value if isinstance(value, dict) else {"value": value} for value in self.values]
        keys = dict.fromkeys(key for row in rows for key, item in row.items() if item is not None or key != "value")
        columns = {name: [cell.get(name) for cell in self.cells] for name in parameters}
        return columns | {
            f"value.{key}" if key in columns else key: [row.get(key) for row in rows] for key in keys or ("value",)
        }

    def __repr__(self) -> str:
        return f"SweepResult({self.status.value}: {self.message})"


def sweep(
    function: Function,
    grid: Grid,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    store: PathLike | None = None,
    retry_failed: bool = True,
    max_pending: int = 256,
    callback: Callable[[CellResult], bool | None] | None = None,
    rng: RNGLike = None,
) -> SweepResult:
    """Call ``function(**cell, rng=generator)`` for every cell of a grid, in parallel.

    Parameters
    ----------
    function : returns None, a number, text, or a list or dict of such; NumPy scalars and arrays of up to 10,000 entries
        are converted. Anything else that it returns or raises is recorded as the error of that cell
    grid : name -> values, of which the product is taken, the last name varying fastest; or cells, each a mapping, which
        may come from a generator. Cells reach the function as plain Python values; none may come twice
    executor : any `concurrent.futures.Executor`; it is not shut down. By default new processes are started, with one
        BLAS thread each (unless the environment says otherwise) and ended with the sweep: ``function`` must then be
        defined at the top of a module, and a script needs ``if __name__ == "__main__":``
    workers : number of those processes; by default `attnembed.threads.get_threads`
    store : file to keep the results in, see below
    retry_failed : whether cells that the store holds as failed are tried again
    max_pending : cells handed to the executor at a time, >= 1; the rest of the grid is not yet made
    callback : called in this process with each new `CellResult`, once it is stored; ends the sweep by returning True
    rng : an int, or a Generator, of which one number is drawn

    A cell's seed is the first 63 bits of the SHA-256 of ``[rng, cell]``, written as JSON with sorted names. It depends
    on nothing else: neither more values nor another order or executor change what a cell gives. 1 and 1.0 are different
    values.

    The store holds JSON lines in ASCII. The first, ``{"attnembed_sweep": 1, "function": NAME, "rng": INT}``, says what
    the file belongs to. Every other line is a finished cell: ``cell``, ``seed``, either ``value`` or ``error`` and
    ``traceback``, ``seconds`` and ``versions``; NaN and infinities are written as Python's `json` writes them. A line
    is appended in one write and is on the disk before the cell counts as done. Run again with the same store, function
    and rng, a sweep takes over what is there (without rng, the rng, too) and computes what is missing; of several
    lines about a cell the last one counts. A last line that a crash has torn is removed, its cell is computed again.
    The store of another function or rng, or one in use, is refused. Versions are noted, not compared.

    A cell that fails does not stop the others. Ctrl-C returns at once with `Status.INTERRUPTED`, and the death of a
    worker with `Status.FAILED`; in both cases the cells that are done are in the result and in the store, and those
    that were running are lost.

    Raises
    ------
    InputError
        for a grid, executor or option that cannot be used.
    DataFileError
        for a store that belongs to another sweep, is in use, damaged or cannot be written.

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
    if not callable(function):
        raise InputTypeError("function", "must be callable", got=type(function).__name__)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise InputTypeError("executor", "must be a concurrent.futures.Executor", got=type(executor).__name__)
    if workers is not None:
        check_integer("workers", workers, minimum=1)
        if executor is not None:
            raise InputError("workers", "belongs to the default executor", hint="leave executor or workers")
    max_pending = check_integer("max_pending", max_pending, minimum=1)
    if callback is not None and not callable(callback):
        raise InputTypeError("callback", "must be a function", got=type(callback).__name__)
    seed = _root_seed(rng)
    cells, total = _cells(grid)
    if isinstance(executor, ProcessPoolExecutor) or executor is None:
        _check_picklable(function)

    done: dict[int, CellResult] = {}
    end = Status.REACHED_END, ""
    try:
        with ExitStack() as stack:
            log, root = None, _fresh_seed() if seed is None else seed
            if store is not None:
                log = stack.enter_context(LineStore(store, kind=_KIND, version=_VERSION))
                root = _claim(log, _name(function), seed)
            known = {} if log is None else _known(log, root)
            progress = stack.enter_context(Progress("sweep", total=total))
            pool = executor or stack.enter_context(_processes(get_threads() if workers is None else workers))

            def missing() -> Iterator[_Task]:
                """The cells to compute; those of the store are passed to ``done`` on the way."""
                for task in _tasks(function, cells, root):
                    record = known.get(task.key)
                    if record is None or (retry_failed and "error" in record):
                        yield task
                    else:
                        done[task.index] = _result(task, record)
                        if progress.total is not None:
                            progress.total -= 1  # the time left is that of the cells still to be computed

            fresh = failed = 0
            for batch in _run_all(pool, function, missing(), max_pending):
                if log is not None:
                    for _, line in batch:
                        log.append(line)
                    log.sync()
                stop = False
                for task, line in batch:
                    result = done[task.index] = _result(task, json.loads(line))
                    fresh, failed = fresh + 1, failed + (result.error is not None)
                    stop |= callback is not None and bool(callback(result))
                progress.update(fresh, f"{failed} failed" if failed else "")
                if stop:
                    raise _EndedError(Status.STOPPED, "stopped by the callback")
    except KeyboardInterrupt:
        end = Status.INTERRUPTED, "interrupted"
    except _EndedError as error:
        end = error.status, str(error)
    return _summary(end, [done[index] for index in sorted(done)], kept=store is not None)


class _EndedError(Exception):
    """The sweep ends before the grid does."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, eq=False)
class _Task:
    """A cell on its way: its place in the grid, its JSON, which is its identity, and its seed."""

    index: int
    cell: Cell
    key: str
    seed: int


# --- the grid ----------------------------------------------------------------------------------------------------


def _cells(grid: Grid) -> tuple[Iterable[Mapping[str, Any]], int | None]:
    """The cells, and how many there are where that can be known."""
    if isinstance(grid, Mapping):
        if not grid:
            raise InputError("grid", "must name at least one parameter")
        axes = {}
        for name, values in grid.items():
            if isinstance(values, (str, bytes, Mapping)) or not np.iterable(values):
                raise InputTypeError("grid", f"must give a sequence of values for {name!r}", got=repr(values))
            axes[name] = list(values)
            if not axes[name]:
                raise InputError("grid", f"must give at least one value for {name!r}")
        product = (dict(zip(axes, values)) for values in itertools.product(*axes.values()))
        return product, math.prod(map(len, axes.values()))
    if isinstance(grid, (str, bytes)) or not isinstance(grid, Iterable):
        raise InputTypeError("grid", "must be a mapping of names to values, or cells", got=type(grid).__name__)
    return grid, len(grid) if isinstance(grid, Sized) else None


def _tasks(function: Function, cells: Iterable[Mapping[str, Any]], root: int) -> Iterator[_Task]:
    seen: set[str] = set()
    for index, given in enumerate(cells):
        if not isinstance(given, Mapping):
            raise InputTypeError("grid", "must hold mappings of names to values", got=f"{given!r} at {index}")
        try:
            cell = _plain(dict(given))
            key = json.dumps(cell, sort_keys=True)
        except (InputError, ValueError, RecursionError) as error:
            reason = error.expected if isinstance(error, InputError) else str(error)
            raise InputTypeError("grid", "must hold numbers and text", got=f"cell {index}: {reason}") from error
        if "rng" in cell:
            raise InputError("grid", "must not name a parameter 'rng'", hint="each cell is given its own generator")
        if key in seen:
            raise InputError("grid", "must not hold a cell twice", got=key)
        seen.add(key)
        if index == 0:
            _check_signature(function, cell)
        yield _Task(index, cell, key, _cell_seed(root, key))
    if not seen:
        raise InputError("grid", "must hold at least one cell")


def _plain(value: Any) -> Any:
    """Numbers, text, lists and dicts, without NumPy; InputError for what is none of them."""
    if isinstance(value, np.ndarray) and value.size > _LARGEST_ARRAY:
        raise InputError("value", f"an array of {value.size} entries is too large; return a summary")
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _plain(item) for name, item in value.items()}
    what = "dicts whose keys are not text" if isinstance(value, dict) else f"{type(value).__name__} values"
    raise InputError("value", f"{what} cannot be kept; numbers, text, lists and dicts of them can")


# --- seeds -------------------------------------------------------------------------------------------------------


def _root_seed(rng: RNGLike) -> int | None:
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(_SEEDS))
    as_rng(rng)  # complains of what is neither
    return None if rng is None else int(rng)


def _fresh_seed() -> int:
    return int(np.random.default_rng().integers(_SEEDS))


def _cell_seed(root: int, key: str) -> int:
    """Seeds by hashing: they need no order of the cells."""
    return int.from_bytes(hashlib.sha256(f"[{root}, {key}]".encode()).digest()[:8]) >> 1


# --- the store ---------------------------------------------------------------------------------------------------


def _claim(log: LineStore, name: str, seed: int | None) -> int:
    """The rng of the store; DataFileError if the store belongs to another sweep."""
    if log.header is None:
        log.begin(function=name, rng=_fresh_seed() if seed is None else seed)
    header: dict[str, Any] = log.header or {}
    root = header.get("rng")
    if isinstance(root, bool) or not isinstance(root, int) or root < 0:
        raise DataFileError(log.path, "does not say its rng", line=1)
    for what, theirs, ours in (("function", header.get("function"), name), ("rng", root, seed)):
        if ours is not None and theirs != ours:
            raise DataFileError(log.path, f"belongs to the {what} {theirs}, not {ours}; use another store", line=1)
    return root


def _known(log: LineStore, root: int) -> dict[str, dict[str, Any]]:
    """The records by cell, the last one of each."""
    known = {}
    for number, record in enumerate(log.records, start=2):
        try:
            key = json.dumps(record.get("cell"), sort_keys=True)
        except RecursionError:
            key = ""
        outcome = record.keys() & {"value", "error", "traceback"}
        texts = all(isinstance(record[name], str) for name in outcome - {"value"})
        timed = isinstance(record.get("seconds"), (int, float))
        whole = outcome in ({"value"}, {"error", "traceback"}) and texts and timed
        if not whole or record.get("seed") != _cell_seed(root, key):
            raise DataFileError(log.path, "is not a cell of this sweep", line=number)
        known[key] = record
    return known


def _result(task: _Task, record: Mapping[str, Any]) -> CellResult:
    return CellResult(
        cell=task.cell,
        seed=task.seed,
        value=record.get("value"),
        error=record.get("error"),
        traceback=record.get("traceback"),
        seconds=record["seconds"],
    )


def _name(function: Any) -> str:
    """The same in every process: the name of a function, with the arguments that a partial one has."""
    if isinstance(function, functools.partial):
        arguments = [repr(value) for value in function.args]
        arguments += [f"{name}={value!r}" for name, value in function.keywords.items()]
        return f"{_name(function.func)}({', '.join(arguments)})"
    if dataclasses.is_dataclass(function):
        return f"{type(function).__module__}.{function!r}"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


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


def _run_all(
    pool: Executor, function: Function, tasks: Iterator[_Task], max_pending: int
) -> Iterator[list[tuple[_Task, str]]]:
    """Batches of cells as they are finished, each with its line of the store."""
    waiting: dict[Future[str], _Task] = {}
    finished: SimpleQueue[Future[str]] = SimpleQueue()

    def collect(least: int) -> Iterator[list[tuple[_Task, str]]]:
        """What is finished, after waiting for ``least`` cells."""
        batch, broken = [], None
        while least > 0 or not finished.empty():
            future = finished.get()
            least -= 1
            task = waiting.pop(future)
            error = CancelledError("cancelled") if future.cancelled() else future.exception()
            if error is None:
                batch.append((task, future.result()))
            elif isinstance(error, KeyboardInterrupt):
                raise error
            elif isinstance(error, (BrokenExecutor, CancelledError)):
                broken = broken or _broken(error, task)
            else:  # what the executor could not send there or back
                batch.append((task, _line(task.key, task.seed, time.perf_counter(), error)))
        if batch:
            yield batch
        if broken is not None:
            raise broken

    try:
        for task in tasks:
            try:
                future = pool.submit(_run, function, task.key, task.seed)
            except (BrokenExecutor, RuntimeError) as error:
                yield from collect(0)
                raise _broken(error, task) from error
            waiting[future] = task
            future.add_done_callback(finished.put)
            yield from collect(int(len(waiting) >= max_pending))
        while waiting:
            yield from collect(1)
    finally:
        for future in waiting:
            future.cancel()


def _broken(error: BaseException, task: _Task) -> _EndedError:
    advice = "was one killed, out of memory, or unable to import the function?"
    reason = " ".join(str(error).split()) or type(error).__name__
    return _EndedError(Status.FAILED, f"the workers are gone ({reason}) while cells such as {task.key} ran; {advice}")


def _run(function: Function, key: str, seed: int) -> str:
    """In a worker: compute a cell; returns its line of the store."""
    began = time.perf_counter()
    try:
        value = function(**json.loads(key), rng=np.random.default_rng(seed))
        return _line(key, seed, began, None, _plain(value))
    except (Exception, SystemExit) as error:
        return _line(key, seed, began, error)


def _line(key: str, seed: int, began: float, error: BaseException | None, value: Any = None) -> str:
    outcome: dict[str, Any] = {"value": value}
    if error is not None:
        below = error.__traceback__.tb_next if error.__traceback__ else None  # without the line of _run
        outcome = {
            "error": " ".join(traceback.format_exception_only(error)[-1].split()),
            "traceback": "".join(traceback.format_exception(type(error), error, below)),
        }
    seconds = round(time.perf_counter() - began, 6)
    record = {"cell": json.loads(key), "seed": seed, **outcome, "seconds": seconds, "versions": versions()}
    return json.dumps(record)


def _check_signature(function: Function, cell: Cell) -> None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # compiled functions do not tell
        return
    try:
        signature.bind(**cell, rng=None)
    except TypeError as error:
        hint = f"it is called with {', '.join(f'{name}=' for name in (*cell, 'rng'))}"
        raise InputError("function", "must accept the cells and rng", got=str(error), hint=hint) from error


def _check_picklable(function: Function) -> None:
    try:
        ForkingPickler.dumps(function)
    except Exception as error:  # pickling runs the code of others
        expected, hint = (
            "must be defined at the top of a module to reach other processes",
            "or use a ThreadPoolExecutor",
        )
        raise InputError("function", expected, got=_name(function), hint=hint) from error


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes started afresh, so that threads and locks of this one do not matter; killed if the sweep ends early."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_worker)
    added = {name: "1" for name in _ONE_THREAD if name not in os.environ}
    os.environ.update(added)  # BLAS reads these when a worker imports NumPy
    try:
        yield pool
    except BaseException:
        for process in list(pool._processes.values()):
            process.kill()
        with suppress(RuntimeError):  # interrupted while its thread was being started, which then cannot be joined
            pool.shutdown(cancel_futures=True)
        raise
    else:
        pool.shutdown()
    finally:
        for name in added:
            os.environ.pop(name, None)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
