"""Work in other threads and processes: executors, our own processes, and the signals that end them."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeVar

from attnembed.errors import InputError, InputTypeError

Job = TypeVar("Job")

_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "ATTNEMBED_THREADS",
)
_METHODS = ("add_done_callback", "cancel", "cancelled", "exception", "result")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Outcome(NamedTuple, Generic[Job]):
    """The outcome of a job: the value of the function, or the error reported by the executor."""

    job: Job
    result: Any
    error: BaseException | None


class WorkersGoneError(Exception):
    """The executor accepts no more work; ``job`` is one that it had."""

    def __init__(self, error: BaseException, job: Any) -> None:
        super().__init__(" ".join(str(error).split()) or type(error).__name__)
        self.job = job


def run_all(
    pool: Executor, function: Callable[..., Any], jobs: Iterable[tuple[Job, tuple[Any, ...]]], max_pending: int
) -> Generator[list[Outcome[Job]], None, None]:
    """Call the function with the arguments of every job, and yield batches of outcomes as they arrive.

    At most ``max_pending`` jobs are submitted at a time. Finished jobs are yielded before any exception is raised; the
    others are cancelled when the generator ends.
    """
    waiting: dict[Future[Any], Job] = {}
    finished: SimpleQueue[Future[Any]] = SimpleQueue()

    def collect(least: int) -> Iterator[list[Outcome[Job]]]:
        """The finished jobs, after waiting for ``least`` jobs."""
        batch: list[Outcome[Job]] = []
        end: BaseException | None = None
        while least > 0 or not finished.empty():
            future = finished.get()
            least -= 1
            job = waiting.pop(future)
            error = CancelledError("cancelled") if future.cancelled() else future.exception()
            if isinstance(error, KeyboardInterrupt):
                end = error
            elif isinstance(error, (BrokenExecutor, CancelledError)):
                end = end or WorkersGoneError(error, job)
            else:
                batch.append(Outcome(job, None if error else future.result(), error))
        if batch:
            yield batch
        if end is not None:
            raise end

    first = True
    try:
        for job, arguments in jobs:
            try:
                future = pool.submit(function, *arguments)
            except (BrokenExecutor, RuntimeError) as error:
                yield from collect(0)
                raise WorkersGoneError(error, job) from error
            if first:
                _check_future(future, pool)
                first = False
            waiting[future] = job
            with _interrupts_blocked():  # a future's lock would stay taken, and whoever ends it wait for ever
                future.add_done_callback(finished.put)
            yield from collect(int(len(waiting) >= max_pending))
        while waiting:
            yield from collect(1)
    finally:
        for future in waiting:
            with suppress(Exception):  # not every kind of future can be cancelled, and some raise
                future.cancel()


# --- executors ---------------------------------------------------------------------------------------------------


def check_executor(executor: Any) -> None:
    """Raise unless it accepts work like an executor of `concurrent.futures`: ``submit(function, *arguments)``."""
    submit = getattr(executor, "submit", None)
    if not callable(submit):
        raise InputTypeError("executor", "must be a concurrent.futures.Executor", got=type(executor).__name__)
    try:
        signature = inspect.signature(submit)
    except (TypeError, ValueError):  # compiled functions have no signature
        return
    parameters = signature.parameters.values()
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.VAR_POSITIONAL not in kinds or sum(kind in _POSITIONAL for kind in kinds) > 1:
        got = f"{_type_name(executor)}, which has submit({', '.join(parameter.name for parameter in parameters)})"
        raise InputTypeError(
            "executor", "must have submit(function, *arguments), as concurrent.futures has it", got=got
        )


def _check_future(future: Any, executor: Any) -> None:
    missing = [name for name in _METHODS if not callable(getattr(future, name, None))]
    if missing:
        with suppress(Exception):
            future.cancel()
        got = f"{_type_name(executor)}, which returns a {_type_name(future)} without {', '.join(missing)}"
        raise InputTypeError("executor", "must return futures as concurrent.futures does", got=got)


def _type_name(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def check_sendable(function: Callable[..., Any], executor: Executor | None, name: str) -> None:
    """Raise if the function cannot reach the processes of ``executor`` (None: our own), before they fail on it."""
    if executor is not None and not isinstance(executor, ProcessPoolExecutor):
        return
    hint = "or use a ThreadPoolExecutor"
    try:
        content = bytes(ForkingPickler.dumps(function))
    except Exception as error:  # pickling runs the user's code
        raise InputError(
            "function", "must be defined at the top level of a module to reach other processes", got=name, hint=hint
        ) from error
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork":
        return  # forked processes are copies of this one
    main = sys.modules["__main__"]
    if getattr(getattr(main, "__spec__", None), "name", None) is not None:
        return
    file = getattr(main, "__file__", None)
    if file is None and b"__main__" in content:
        got = f"{name}, defined at a prompt, in a notebook or with -c"
        raise InputError("function", "must be in a file that new processes can import", got=got, hint=hint)
    if file is not None and not Path(file).exists():
        got = f"a program without a file ({file})"
        raise InputError("executor", "can start new processes only from a program in a file", got=got, hint=hint[3:])


# --- processes ---------------------------------------------------------------------------------------------------


@contextmanager
def own_processes(workers: int) -> Iterator[Executor]:
    """Freshly started processes, unaffected by threads and locks of this one; killed if the work ends early."""
    pool = _Processes(workers, mp_context=get_context("spawn"), initializer=_begin_worker)
    added = {name: "1" for name in _ONE_THREAD if name not in os.environ}
    os.environ.update(added)  # BLAS reads these when a worker imports NumPy
    try:
        yield pool
    except BaseException:
        for process in list(pool._processes.values()):
            process.kill()
        with suppress(RuntimeError):  # interrupted while its thread was starting, which then cannot be joined
            pool.shutdown(cancel_futures=True)
        raise
    else:
        pool.shutdown()
    finally:
        for name in added:
            os.environ.pop(name, None)


class _Processes(ProcessPoolExecutor):
    """Processes that Ctrl-C, which reaches the whole group, does not end during their imports."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with _interrupts_blocked():  # processes are started here, and inherit the blocked signals
            return super().submit(fn, *args, **kwargs)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End a worker whose parent was killed, which would otherwise wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# --- signals -----------------------------------------------------------------------------------------------------


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Call the current handler of Ctrl-C, which some steps defer."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:  # ignored, as in background jobs
        raise KeyboardInterrupt


@contextmanager
def interrupted_by(*names: str) -> Iterator[None]:
    """Let the named signals, such as "SIGTERM", end the block as Ctrl-C does.

    Only in the main thread, and only where Python's default is in place: a signal that is ignored (nohup) or handled
    elsewhere is left alone.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in numbers:
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, signal.SIG_DFL)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Defer Ctrl-C, and the signals of `interrupted_by`, to the end of a step that must not be split."""
    came: list[int] = []
    ours = (signal.default_int_handler, _interrupt)
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in ours:
                before[number] = signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
