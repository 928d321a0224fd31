"""Hypothesis strategies for well-posed problems: shapes, token ids, labels and numbers are all drawn."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionProblem:
    """Embeddings E (V, d), p (d,), v (d,), sequences of token ids and labels in {-1, +1}, both present."""

    E: Array
    p: Array
    v: Array
    tokens: list[list[int]]
    labels: list[int]

    @property
    def counts(self) -> Array:
        """Dense count matrix n_is (n, V)."""
        counts = np.zeros((len(self.tokens), len(self.E)))
        for row, sequence in zip(counts, self.tokens, strict=True):
            for s, count in Counter(sequence).items():
                row[s] = count
        return counts

    @property
    def arguments(self) -> tuple[Array, Array, Array, list[list[int]], list[int]]:
        """(E, p, v, tokens, labels), the arguments of the functions of ``attnembed.reference``."""
        return self.E, self.p, self.v, self.tokens, self.labels

    def scaled(self, norm: float) -> AttentionProblem:
        """The same problem with ||p|| = norm, in the direction of p, or of the first axis where p = 0."""
        size = float(np.linalg.norm(self.p))
        direction = self.p / size if size else np.eye(len(self.p))[0]
        return dataclasses.replace(self, p=norm * direction)


def reals(bound: float = 2.0) -> st.SearchStrategy[float]:
    """Floats in [-bound, bound], zero or at least 1e-6 of the bound in size: products do not underflow."""
    return st.floats(-bound, bound).map(lambda x: x if abs(x) >= 1e-6 * bound else 0.0)


def generators() -> st.SearchStrategy[np.random.Generator]:
    """Generators for arrays too large to draw entry by entry."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def label_lists(draw: st.DrawFn, n: int) -> list[int]:
    """n labels in {-1, +1} with both classes present."""
    positive = draw(st.integers(1, n - 1))
    return draw(st.permutations([1] * positive + [-1] * (n - positive)))


@st.composite
def _parameters(draw: st.DrawFn, V: int, d: int, scale: float, distinct_values: bool) -> tuple[Array, Array, Array]:
    E = draw(arrays(np.float64, (V, d), elements=reals(scale)))
    p = draw(arrays(np.float64, d, elements=reals(scale)))
    v = draw(arrays(np.float64, d, elements=reals(scale)))
    v[draw(st.integers(0, d - 1))] = scale * draw(st.sampled_from([-1.0, 1.0]))
    if distinct_values:
        order = np.array(draw(st.permutations(range(V))))
        values = scale * (2.0 * order - V + 1) / V
        E = E + np.outer(values - E @ v, v) / (v @ v)
    return E, p, v


@st.composite
def attention_problems(
    draw: st.DrawFn,
    *,
    n: tuple[int, int] = (2, 6),
    length: tuple[int, int] = (1, 6),
    vocab: tuple[int, int] = (2, 8),
    dim: tuple[int, int] = (1, 5),
    scale: float = 2.0,
    distinct_values: bool = False,
) -> AttentionProblem:
    """Any problem: sequences of varying length with repeated tokens, entries of E, p, v up to ``scale``, v not zero.

    The pairs are inclusive ranges. ``distinct_values`` moves every E_s along v so that the values g_s = E_s.v are
    ``2 scale / V`` apart: each sequence then has one top token. Set ||p|| with ``.scaled``.
    """
    V, d, size = (draw(st.integers(*bounds)) for bounds in (vocab, dim, n))
    E, p, v = draw(_parameters(V, d, scale, distinct_values))
    sequence = st.lists(st.integers(0, V - 1), min_size=length[0], max_size=length[1])
    tokens = draw(st.lists(sequence, min_size=size, max_size=size))
    return AttentionProblem(E, p, v, tokens, draw(label_lists(size)))


@st.composite
def balanced_problems(
    draw: st.DrawFn,
    *,
    pairs: tuple[int, int] = (1, 3),
    important: tuple[int, int] = (1, 2),
    irrelevant: tuple[int, int] = (1, 4),
    length: tuple[int, int] = (2, 6),
    dim: tuple[int, int] = (1, 5),
    scale: float = 2.0,
    distinct_values: bool = False,
) -> AttentionProblem:
    """Assumption 1 holds: mirrored pairs of sequences, so every irrelevant token has signed frequency zero.

    Token ids: ``important`` positive ones, as many negative ones, then the irrelevant ones. The two sequences of a
    pair have the same irrelevant tokens and a positive or a negative token, as often in the one as in the other.
    """
    M, N, d = (draw(st.integers(*bounds)) for bounds in (important, irrelevant, dim))
    E, p, v = draw(_parameters(2 * M + N, d, scale, distinct_values))
    tokens, labels = [], []
    for _ in range(draw(st.integers(*pairs))):
        T = draw(st.integers(*length))
        times = draw(st.integers(1, T - 1))
        rest = draw(st.lists(st.integers(2 * M, 2 * M + N - 1), min_size=T - times, max_size=T - times))
        for label, first in ((1, 0), (-1, M)):
            tokens.append(draw(st.permutations([first + draw(st.integers(0, M - 1))] * times + rest)))
            labels.append(label)
    return AttentionProblem(E, p, v, tokens, labels)


@st.composite
def chain_potentials(
    draw: st.DrawFn,
    *,
    length: tuple[int, int] = (1, 5),
    labels: tuple[int, int] = (2, 4),
    elements: st.SearchStrategy[float] | None = None,
) -> tuple[Array, Array]:
    """Log-potentials (L, K) and (K, K); integers as ``elements`` make ties."""
    L, K = draw(st.integers(*length)), draw(st.integers(*labels))
    elements = reals(3.0) if elements is None else elements
    return (
        draw(arrays(np.float64, (L, K), elements=elements)),
        draw(arrays(np.float64, (K, K), elements=elements)),
    )


@st.composite
def grid_potentials(
    draw: st.DrawFn,
    *,
    height: tuple[int, int] = (1, 3),
    width: tuple[int, int] = (1, 3),
    labels: tuple[int, int] = (2, 2),
    elements: st.SearchStrategy[float] | None = None,
) -> tuple[Array, Array, Array]:
    """Log-potentials (H, W, K), and (K, K) of the horizontal and of the vertical edges."""
    H, W, K = (draw(st.integers(*bounds)) for bounds in (height, width, labels))
    elements = reals(3.0) if elements is None else elements
    return (
        draw(arrays(np.float64, (H, W, K), elements=elements)),
        draw(arrays(np.float64, (K, K), elements=elements)),
        draw(arrays(np.float64, (K, K), elements=elements)),
    )
