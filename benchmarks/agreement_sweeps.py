"""Executors: one sweep through each of them, functions with a keyword that an executor intercepts, an exception.

mpi4py starts its worker by MPI: where the user is root, Open MPI wants PRTE_ALLOW_RUN_AS_ROOT and
PRTE_ALLOW_RUN_AS_ROOT_CONFIRM set to 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

import attnembed as ae
from benchmarks.agreement import Problem, Reason, Reasons

CELLS = 6


def cell(x: int, rng: np.random.Generator) -> int:
    return x * x


def keyed(key: int, timeout: int = 0) -> list[int]:
    return [key, timeout]


def reserved(resource_dict: int) -> int:
    return resource_dict


def failing() -> None:
    raise KeyError("a", 3)


@contextmanager
def loky() -> Iterator[Executor]:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as executor:
        yield executor


@contextmanager
def dask() -> Iterator[Executor]:
    from distributed import Client

    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        yield client.get_executor()


@contextmanager
def mpi() -> Iterator[Executor]:
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(1) as executor:
        yield executor


@contextmanager
def parsl() -> Iterator[Executor]:
    from parsl.concurrent import ParslPoolExecutor
    from parsl.config import Config
    from parsl.executors import ThreadPoolExecutor as Threads

    with tempfile.TemporaryDirectory() as folder:
        config = Config(executors=[Threads(max_threads=1)], run_dir=folder, initialize_logging=False)
        with ParslPoolExecutor(config) as executor:
            yield executor


@contextmanager
def executorlib() -> Iterator[Executor]:
    from executorlib import SingleNodeExecutor

    with SingleNodeExecutor(max_workers=1) as executor:
        yield executor


@contextmanager
def pebble() -> Iterator[Executor]:
    from pebble import ThreadPool

    with ThreadPool(1) as pool:
        yield _Threads(pool)


class _Threads(Executor):
    """The threads of pebble, whose ``schedule`` takes arguments as a list."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = self.pool.schedule(function, args=args, kwargs=options)
        return future


@contextmanager
def pebble_processes() -> Iterator[Any]:
    from pebble import ProcessPool

    with ProcessPool(1) as pool:
        yield pool


def swept(make: Callable[[], Any]) -> Callable[[], Any]:
    def answer() -> Any:
        with make() as executor:
            result = ae.sweep(cell, {"x": list(range(CELLS))}, executor=executor, rng=0)
        return np.array(result.values)

    return answer


def sent(make: Callable[[], Any], function: Callable[..., Any], **options: Any) -> Callable[[], Any]:
    def answer() -> Any:
        with make() as executor:
            return executor.submit(function, **options).result(60)

    return answer


def failed(make: Callable[[], Any]) -> Callable[[], str]:
    """The exception that the caller of ``result`` sees."""

    def answer() -> str:
        with make() as executor:
            error = executor.submit(failing).exception(60)
        return f"{type(error).__name__}{error.args}"

    return answer


def _both(key: int, timeout: int, rng: np.random.Generator) -> list[int]:
    return keyed(key, timeout)


def _one(resource_dict: int, rng: np.random.Generator) -> int:
    return reserved(resource_dict)


def own(cell: Callable[..., Any], **options: Any) -> Callable[[], Any]:
    """The keywords as parameters of a sweep with a single value each."""

    grid = {name: [value] for name, value in options.items()}

    def answer() -> Any:
        with ThreadPoolExecutor(1) as executor:
            return ae.sweep(cell, grid, executor=executor, rng=0).values[0]

    return answer


def _fails(x: int, rng: np.random.Generator) -> None:
    failing()


def own_failure() -> Any:
    with ThreadPoolExecutor(1) as executor:
        result = ae.sweep(_fails, {"x": [0]}, executor=executor, rng=0)
    return f"{result.status.value}: {result.errors[0].error}"


EXECUTORS = {
    "loky": loky,
    "distributed": dask,
    "mpi4py": mpi,
    "parsl": parsl,
    "executorlib": executorlib,
    "Pebble, threads in a wrapper": pebble,
}
PROCESSES = {**{k: v for k, v in EXECUTORS.items() if "Pebble" not in k}, "Pebble, ProcessPool": pebble_processes}
VALUES, KEYWORDS = "a sweep of x * x through the executor", "submit(f, key=1, timeout=2), f returning both"
RESERVED, FAILURE = "submit(f, resource_dict=7), f returning it", 'f raises KeyError("a", 3)'

PROBLEMS = [
    Problem(
        VALUES,
        np.arange(CELLS) ** 2,
        "arithmetic",
        {"attnembed": swept(lambda: ThreadPoolExecutor(1)), **{name: swept(make) for name, make in EXECUTORS.items()}},
    ),
    Problem(
        KEYWORDS,
        [1, 2],
        "the standard library's submit",
        {
            "attnembed": own(_both, key=1, timeout=2),
            **{name: sent(make, keyed, key=1, timeout=2) for name, make in PROCESSES.items()},
        },
    ),
    Problem(
        RESERVED,
        7,
        "the standard library's submit",
        {
            "attnembed": own(_one, resource_dict=7),
            **{name: sent(make, reserved, resource_dict=7) for name, make in EXECUTORS.items()},
        },
    ),
    Problem(
        FAILURE,
        "KeyError('a', 3)",
        "the standard library's exception()",
        {"attnembed": own_failure, **{name: failed(make) for name, make in EXECUTORS.items()}},
    ),
]


REASONS: Reasons = {
    (KEYWORDS, "distributed"): Reason(
        "the executor of Client.get_executor keeps key, priority, retries and the like for the scheduler; the function "
        "never sees them, and the same key twice returns the first call's result",
        "pass such values by position, or rename the parameter; a sweep may use any name",
    ),
    (KEYWORDS, "Pebble, ProcessPool"): Reason(
        "submit(function, timeout, /, ...) wants a timeout of its own in second place, and has no default for it",
        "wrap it in an Executor whose submit calls submit(function, None, *args, **options)",
    ),
    (RESERVED, "executorlib"): Reason(
        "resource_dict is a parameter of its own submit (cores, folder), and functions that have one are refused",
        "rename the parameter; a sweep may use any name",
    ),
    (FAILURE, "attnembed"): Reason(
        "by choice: a cell that fails does not end a sweep; the result has its error as text, with the traceback",
        "look at success and errors of the result",
    ),
}
