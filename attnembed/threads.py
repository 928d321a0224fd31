"""The number of threads used by large products.

The products are split between Python threads: the compiled loops of NumPy and SciPy release the interpreter lock. The
number is, in this order, the argument of `set_threads`, the environment variable ``ATTNEMBED_THREADS``, or the number
of cores available to the process. Small problems use one thread in any case. See docs/performance.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from attnembed._validation import check_integer
from attnembed.errors import InputError

__all__ = ["get_threads", "set_threads"]

T = TypeVar("T")

_VARIABLE = "ATTNEMBED_THREADS"
_chosen: int | None = None


def set_threads(n: int | None) -> None:
    """Use at most n >= 1 threads from now on; None returns to ``ATTNEMBED_THREADS`` or the number of cores.

    This counts the threads of attnembed's own products. BLAS, used for small dense products and factorisations, keeps
    its own setting (for example ``OPENBLAS_NUM_THREADS``, read when NumPy is imported).

    >>> set_threads(1)
    >>> get_threads()
    1
    >>> set_threads(None)
    """
    global _chosen
    _chosen = None if n is None else check_integer("n", n, minimum=1)


def get_threads() -> int:
    """The largest number of threads for a product, >= 1."""
    if _chosen is not None:
        return _chosen
    text = os.environ.get(_VARIABLE, "").strip()
    if not text:
        return _cores()
    if not text.isdigit() or int(text) < 1:
        raise InputError(_VARIABLE, "must be an integer of at least 1", got=repr(text))
    return int(text)


def share(task: Callable[[slice], T], parts: Sequence[slice]) -> list[T]:
    """The results of the task on the parts, each on its own thread, the first on the caller's.

    Tasks never wait for each other, so callers on several threads can share the pool.
    """
    if len(parts) == 1:
        return [task(parts[0])]
    others = [_pool(len(parts) - 1).submit(task, part) for part in parts[1:]]
    return [task(parts[0]), *(other.result() for other in others)]


@cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="attnembed")


if hasattr(os, "register_at_fork"):  # a forked child inherits the pool but none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
