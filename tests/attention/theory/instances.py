"""Instances on which the predictions are compared with the model, the flow and the margin solver."""

from __future__ import annotations

import numpy as np

from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from tests.plain import AttentionProblem


def as_model(problem: AttentionProblem) -> tuple[AttentionModel, TokenDataset]:
    """The model and the data set of a drawn problem."""
    data = TokenDataset.from_tokens(problem.tokens, problem.labels, vocab_size=len(problem.E))
    return AttentionModel(problem.E, problem.p, problem.v), data


def random_instance(rng: np.random.Generator, *, extra_dims: int = 0) -> tuple[AttentionModel, TokenDataset]:
    """Up to seven short sequences over up to eight tokens, at least one with two token types; E, p, v Gaussian."""
    V, n = int(rng.integers(3, 9)), int(rng.integers(2, 8))
    tokens = [rng.integers(0, V, size=rng.integers(1, 6)) for _ in range(n - 1)] + [np.array([0, 1])]
    data = TokenDataset.from_tokens(tokens, np.r_[1, -1, rng.choice([-1, 1], size=n - 2)], vocab_size=V)
    d = V + extra_dims
    return AttentionModel(rng.standard_normal((V, d)), rng.standard_normal(d), rng.standard_normal(d)), data


def unit_model(values: list[float]) -> AttentionModel:
    """E = identity, p = 0, and the token values v."""
    return AttentionModel(np.eye(len(values)), np.zeros(len(values)), values)
