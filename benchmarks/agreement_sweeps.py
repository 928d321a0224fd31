"""Executors: one sweep through each of them, and a function whose keyword an executor takes for its own."""

from __future__ import annotations

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
def pebble() -> Iterator[Executor]:
    from pebble import ThreadPool

    with ThreadPool(1) as pool:
        yield _Threads(pool)


class _Threads(Executor):
    """pebble's threads, whose ``schedule`` takes arguments as a list."""

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


def sent(make: Callable[[], Any]) -> Callable[[], Any]:
    def answer() -> Any:
        with make() as executor:
            return executor.submit(keyed, key=1, timeout=2).result(60)

    return answer


def _both(key: int, timeout: int, rng: np.random.Generator) -> list[int]:
    return keyed(key, timeout)


def own_keywords() -> Any:
    """The two as parameters of a sweep."""
    with ThreadPoolExecutor(1) as executor:
        return ae.sweep(_both, {"key": [1], "timeout": [2]}, executor=executor, rng=0).values[0]


EXECUTORS = {"loky": loky, "distributed": dask, "Pebble, threads in a wrapper": pebble}
VALUES, KEYWORDS = "a sweep of x * x through the executor", "submit(f, key=1, timeout=2), f returning both"

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
            "attnembed": own_keywords,
            "loky": sent(loky),
            "distributed": sent(dask),
            "Pebble, ProcessPool": sent(pebble_processes),
        },
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
}
