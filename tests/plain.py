"""Problems of `attnembed.testing` as plain arrays and lists, which the oracle of `attnembed.reference` takes."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnembed import testing as t
from attnembed.attention.data import TokenDataset

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


@st.composite
def attention_problems(
    draw: st.DrawFn,
    *,
    kind: str = "any",
    n: tuple[int, int] = (2, 6),
    length: tuple[int, int] = (1, 6),
    vocab: tuple[int, int] = (2, 8),
    dim: tuple[int, int] = (1, 5),
    scale: float = 2.0,
    distinct_values: bool = False,
) -> AttentionProblem:
    """Sequences and a model of any size up to orthonormal rows, which need more dimensions."""
    tokens, labels, V = draw(t.sequences(kind, n_samples=n, length=length, vocab_size=vocab))
    data = TokenDataset.from_tokens(tokens, labels, vocab_size=V)
    made = draw(st.sampled_from(["readable", "gaussian", "degenerate"]))
    model = draw(t.models(data, made, dim=dim, scale=scale, distinct_values=distinct_values))
    return AttentionProblem(model.E.copy(), model.p.copy(), model.v.copy(), tokens, labels)


def balanced_problems() -> st.SearchStrategy[AttentionProblem]:
    """Assumption 1 holds: mirrored pairs of sequences, so every irrelevant token has signed frequency zero."""
    return attention_problems(kind="balanced", length=(2, 6), vocab=(3, 8))
