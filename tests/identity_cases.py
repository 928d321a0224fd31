"""Objects that have an identity; `python -m tests.identity_cases` prints it for each, in a process of its own."""

from __future__ import annotations

import collections
import datetime
import functools
import json
import operator
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp

import attnembed as ae
from attnembed._identity import fingerprint
from attnembed.optim import SGD, Adam, Cosine
from attnembed.structured.metrics import letter_accuracy

FACTOR = 3.0


def scaled(c: Any) -> Callable[..., Any]:
    return lambda x, rng: c * x


def even(n: int) -> bool:
    return n == 0 or odd(n - 1)


def odd(n: int) -> bool:
    return n != 0 and even(n - 1)


def uses_globals(x: float) -> float:
    return FACTOR * Power(2)(x) + np.sin(x) + even(3)


class Power:
    """Callable, with a method that the call needs, and a cache that does not count."""

    base: float = 1.0

    def __init__(self, exponent: Any) -> None:
        self.exponent = exponent

    def __call__(self, x: float) -> Any:
        return super().__hash__() and self.raised(x)

    def raised(self, x: float) -> Any:
        return (self.base * x) ** self.exponent

    @functools.cached_property
    def table(self) -> Any:
        return np.arange(5.0) ** self.exponent


@dataclass(frozen=True)
class Options:
    rate: float = 0.5
    names: frozenset[str] = frozenset({"a", "b", "c", "d"})
    more: dict[str, int] = field(default_factory=lambda: {"x": 1})

    def __call__(self, name: str) -> bool:
        return name in {"alpha", "beta", "gamma", *self.names}


def cases() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    chains, grids = ae.make_chain_dataset(rng=0), ae.make_grid_dataset(rng=0)
    return {
        "none, numbers, text": [None, True, 1, 1.5, 1j, "text \ud800", b"bytes", 2**200, float("nan"), ...],
        "containers": {"a": [1, (2, {3})], 1: frozenset("abcdef"), None: MappingProxyType({"x": 1})},
        "ordered": [collections.OrderedDict(a=1, b=2), collections.Counter("abca"), collections.deque([1, 2])],
        "arrays": [rng.standard_normal((3, 4)), np.arange(4, dtype="i1"), np.array(["a", "bcd"]), np.zeros((0, 3))],
        "odd arrays": [
            np.array([1, None], dtype=object),
            np.array([(1, 2.0)], dtype=[("a", "i2"), ("b", "f8")]),
            np.array(["2020-01-01"], dtype="M8[D]"),
            np.ma.masked_array([1, 2], [True, False]),
            np.longdouble(1) / 3,
            np.dtype("f4"),
        ],
        "sparse": [kind(np.eye(3)) for kind in (sp.csr_array, sp.csc_matrix, sp.coo_array, sp.dok_array, sp.bsr_array)],
        "generators": [np.random.default_rng(3), np.random.RandomState(3), np.random.default_rng(4).normal],
        "functions": [scaled(np.arange(3)), even, uses_globals, len, str.upper, np.sin, np.linalg.norm],
        "wrapped": [
            functools.partial(scaled, np.zeros(10_000)),
            functools.lru_cache(even),
            operator.itemgetter(2),
            np.vectorize(scaled(2)),
        ],
        "objects": [Power(2), Power(2).raised, Options(), Options, re.compile("a+"), datetime.date(2020, 1, 1)],
        "attention": [ae.make_balanced_dataset(rng=0), ae.AttentionModel.random(5, 4, rng=0)],
        "structured": [
            chains,
            grids,
            ae.ChainCRF(ae.mlp(4, [8], 3, rng=0), np.eye(3)),
            ae.GridCRF(ae.conv_net(1, [2], rng=0), np.eye(2)),
            ae.lenet(rng=0),
        ],
        "training": [Adam(step_size=0.1, multipliers={"E": 2.0, "p": 1.0}), SGD(step_size=1), Cosine, letter_accuracy],
    }


if __name__ == "__main__":
    json.dump({name: fingerprint(value) for name, value in cases().items()}, sys.stdout)
