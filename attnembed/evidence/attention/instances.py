"""The random instances on which claims are measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.first_step import one_step
from attnembed.attention.model import AttentionModel
from attnembed.reference import tokens_from_counts


@dataclass(frozen=True)
class Instance:
    """A model and its data; ``tokens`` and ``labels`` are the input of the oracles in `reference`."""

    model: AttentionModel
    data: TokenDataset

    @property
    def tokens(self) -> list[list[int]]:
        """The sequences as lists of ids."""
        return tokens_from_counts(self.data.counts.toarray())

    @property
    def labels(self) -> list[int]:
        """The labels as ints."""
        return [int(y) for y in self.data.labels]


def ragged_instance(rng: np.random.Generator, *, dim: int = 5, score_norm: float = 1.0) -> Instance:
    """Eight sequences of different lengths over nine tokens, both labels, ||p|| = score_norm."""
    tokens = [rng.integers(0, 9, size=rng.integers(1, 8)) for _ in range(8)]
    labels = np.where(np.arange(8) % 2 == 0, 1, -1)
    model = AttentionModel.random(9, dim, rng=rng)
    model = model.replace(p=model.p * (score_norm / np.linalg.norm(model.p)), v=rng.standard_normal(dim))
    return Instance(model, TokenDataset.from_tokens(tokens, labels, vocab_size=9))


def selecting_instance(rng: np.random.Generator, *, step_size: float = 100.0, dim: int = 48) -> Instance:
    """Balanced data and the embeddings after one actual step, p = 0: the top tokens are the important ones."""
    data = make_balanced_dataset(n_samples=40, length=5, n_irrelevant=12, rng=rng)
    start = AttentionModel.random(data.vocab_size, dim, cls_scale=0.0, rng=rng)
    return Instance(one_step(start, data, step_size).model, data)


def orthogonal_instance(rng: np.random.Generator, *, step_size: float = 40.0) -> Instance:
    """Balanced data, orthonormal E^0 orthogonal to v, and one actual step from p = 0: E_s = e_s + kappa_s v."""
    data = make_balanced_dataset(n_samples=30, length=4, n_irrelevant=5, rng=rng)
    frame = np.linalg.qr(rng.standard_normal((data.vocab_size + 3, data.vocab_size + 3)))[0]
    start = AttentionModel(frame[: data.vocab_size], np.zeros(len(frame)), frame[-1])
    return Instance(one_step(start, data, step_size).model, data)
