"""A two-layer variant outside the theory: the mean of a sequence gates its tokens before the <cls> token reads them.

With m_i = sum_s n_is E_s / T_i, the logistic sigmoid sigma and the entrywise product *,

    k_i = 2 sigma(W m_i),   h_is = E_s * k_i,   u_is = p . h_is,   g_is = v . h_is,
    a_is = n_is e^{u_is} / sum_r n_ir e^{u_ir},   f_i = sum_s a_is g_is.

At W = 0 every gate is one and the model is `AttentionModel`. No theorem of the package covers W != 0: scores and
values then belong to a token in its sequence and not to the token alone. The reasons for this form, and the backward
pass, are in docs/derivations/two-layer.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from attnembed._files import Member, PathLike, write_npz
from attnembed._frozen import KeepsFrozen
from attnembed._sparse import with_values
from attnembed._typing import Floats
from attnembed._validation import RNGLike, as_real_array, as_rng, check_names, check_positive, check_shape, freeze
from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.model import FLOATS, MEMBERS, AttentionModel, read_parameters
from attnembed.attention.parameters import check_scores
from attnembed.gibbs import AnchoredSoftmax
from attnembed.gradients import Gradients
from attnembed.losses import logistic, logistic_derivative
from attnembed.results import Shown

__all__ = ["TwoLayerGradients", "TwoLayerModel"]


# The h_is are formed for this many entries at a time (1 MB in float64), never for all of the data.
_BLOCK = 2**17


@dataclass(frozen=True, eq=False, repr=False)
class TwoLayerGradients(Gradients):
    """Gradients of the loss in E (V, d), p (d,), v (d,) and W (d, d)."""

    E: Floats
    p: Floats
    v: Floats
    W: Floats

    def _names(self) -> tuple[str, ...]:
        return "E", "p", "v", "W"


@dataclass(frozen=True, eq=False, repr=False)
class TwoLayerModel(KeepsFrozen, Shown):
    """Parameters of the two-layer variant; the arrays are copied and read-only.

    f_i = sum_s a_is g_is with u_is = p . (E_s * k_i), g_is = v . (E_s * k_i), k_i = 2 sigma(W m_i); outside the theory.

    Parameters
    ----------
    E : (V, d) token embeddings; all four have its dtype (float32 or float64)
    p : (d,) embedding of the <cls> token
    v : (d,) output vector
    W : (d, d) mixing matrix, from the mean embedding of a sequence to its gate

    Attributes
    ----------
    one_layer : the `AttentionModel` of E, p and v, equal to this model at W = 0

    Raises
    ------
    InputError
        for NaN, inf or shapes that do not match.

    Derived here (docs/derivations/two-layer.md).

    >>> model = TwoLayerModel([[1.0], [-0.5]], [0.0], [1.0], [[2.0]])
    >>> data = TokenDataset.from_tokens([[0, 0, 1], [1, 1]], [1, -1])
    >>> model.output(data).round(6), model.accuracy(data)
    (array([ 0.731059, -0.268941]), 1.0)
    """

    one_layer: AttentionModel
    W: Floats

    def __init__(self, E: ArrayLike, p: ArrayLike, v: ArrayLike, W: ArrayLike) -> None:
        one_layer = AttentionModel(E, p, v)
        W = as_real_array("W", W, ndim=2, dtype=one_layer.E.dtype)
        check_shape("W", W, 2 * one_layer.p.shape, "E has shape (V, d); W has shape (d, d)")
        object.__setattr__(self, "one_layer", one_layer)
        object.__setattr__(self, "W", freeze(np.array(W, order="C")))

    @classmethod
    def random(
        cls,
        vocab_size: int,
        dim: int,
        *,
        embedding_scale: float | None = None,
        cls_scale: float | None = None,
        mixing_scale: float | None = None,
        rng: RNGLike = None,
    ) -> TwoLayerModel:
        """E, p and v as in `AttentionModel.random`; W Gaussian with standard deviation ``mixing_scale`` (1/sqrt(dim)).

        >>> TwoLayerModel.random(5, 4, rng=0)
        TwoLayerModel(vocab_size=5, dim=4, dtype=float64)
        """
        rng = as_rng(rng)
        base = AttentionModel.random(vocab_size, dim, embedding_scale=embedding_scale, cls_scale=cls_scale, rng=rng)
        scale = dim**-0.5 if mixing_scale is None else check_positive("mixing_scale", mixing_scale, zero_ok=True)
        return cls(base.E, base.p, base.v, scale * rng.standard_normal((dim, dim)))

    @property
    def E(self) -> Floats:
        """(V, d) token embeddings."""
        return self.one_layer.E

    @property
    def p(self) -> Floats:
        """(d,) embedding of the <cls> token."""
        return self.one_layer.p

    @property
    def v(self) -> Floats:
        """(d,) output vector."""
        return self.one_layer.v

    @property
    def vocab_size(self) -> int:
        """Number of tokens V."""
        return self.one_layer.vocab_size

    @property
    def dim(self) -> int:
        """Width d."""
        return self.one_layer.dim

    def replace(
        self,
        *,
        E: ArrayLike | None = None,
        p: ArrayLike | None = None,
        v: ArrayLike | None = None,
        W: ArrayLike | None = None,
        **others: Any,
    ) -> TwoLayerModel:
        """A copy of the model with some of E, p, v and W replaced."""
        check_names(others, "E, p, v and W")
        given = {"E": E, "p": p, "v": v, "W": W}
        return TwoLayerModel(**{name: getattr(self, name) if x is None else x for name, x in given.items()})

    def output(self, data: TokenDataset) -> Floats:
        """f_i, (n,), between the smallest and the largest value g_is in the sequence."""
        expectation: Floats = self._forward(data).softmax.expectation
        return expectation

    def loss(self, data: TokenDataset) -> float:
        """L = mean_i log(1 + e^{-y_i f_i}), > 0."""
        return float(logistic(self.output(data) * data.labels).mean())

    def accuracy(self, data: TokenDataset) -> float:
        """Share of sequences with y_i f_i > 0, in [0, 1]; an output of exactly 0 counts as wrong."""
        return float(np.mean(self.output(data) * data.labels > 0))

    def loss_and_grads(self, data: TokenDataset) -> tuple[float, TwoLayerGradients]:
        """The loss and its exact gradients in E (V, d), p (d,), v (d,) and W (d, d).

        With c_i = (y_i/n) sigma(-y_i f_i), sparse (n, V) matrices A_is = c_i a_is, B_is = c_i a_is (g_is - f_i) and
        N_is = n_is / T_i, the rows k_i of K and m_i of M (n, d), and p and v multiplying columns:

            Q = (p * (B E) + v * (A E)) * K * (1 - K/2),
            grad_E L = -(p * (B^T K) + v * (A^T K) + N^T Q W),   grad_W L = -Q^T M,
            grad_p L = -sum_i k_i * (B E)_i,   grad_v L = -sum_i k_i * (A E)_i.

        Derived here (docs/derivations/two-layer.md).

        >>> data = TokenDataset.from_tokens([[0, 2], [1, 2, 3]], [1, -1])
        >>> loss, grads = TwoLayerModel.random(4, 3, rng=0).loss_and_grads(data)
        >>> {name: gradient.shape for name, gradient in grads.items()}
        {'E': (4, 3), 'p': (3,), 'v': (3,), 'W': (3, 3)}
        """
        forward, E, p, v, W = self._forward(data), self.E, self.p, self.v, self.W
        K, softmax = forward.gate, forward.softmax
        margins = data.labels * softmax.expectation
        c = -data.labels * logistic_derivative(margins) / data.n_samples
        weights = data.segments.spread(c) * softmax.probability
        A, B = with_values(data.counts, weights), with_values(data.counts, weights * softmax.centred)
        AE, BE = A @ E, B @ E
        Q = (p * BE + v * AE) * K * expit(-forward.preactivation)  # 1 - K/2 would cancel where the gate is open
        descent = {
            "E": p * (B.T @ K) + v * (A.T @ K) + data.counts.T @ (Q @ W / data.lengths[:, None]),
            "p": (K * BE).sum(axis=0),
            "v": (K * AE).sum(axis=0),
            "W": Q.T @ forward.mean,
        }
        grads = {name: freeze(-x.astype(E.dtype, copy=False)) for name, x in descent.items()}
        return float(logistic(margins).mean()), TwoLayerGradients(**grads)

    def save(self, path: PathLike) -> None:
        """Write E, p, v and W to an npz archive (no pickle), atomically."""
        write_npz(path, E=self.E, p=self.p, v=self.v, W=self.W)

    @classmethod
    def load(cls, path: PathLike) -> TwoLayerModel:
        """Read a model written by `save`; anything malformed raises DataFileError."""
        return read_parameters(path, {**MEMBERS, "W": Member(FLOATS, ("d", "d"))}, cls)

    def _forward(self, data: TokenDataset) -> _Forward:
        check_data(data, self.vocab_size)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = (data.counts @ self.E) / data.lengths[:, None]
            preactivation = mean @ self.W.T
            gate = 2 * expit(preactivation)
        reading = np.stack([self.p, self.v], axis=1)
        columns, ids = data.counts.indices, data.segments.ids
        scores_values = np.empty((columns.size, 2))
        step = max(1, _BLOCK // self.dim)
        for part in (slice(k, k + step) for k in range(0, columns.size, step)):
            with np.errstate(over="ignore", invalid="ignore"):
                np.matmul(self.E[columns[part]] * gate[ids[part]], reading, out=scores_values[part])
        check_scores(scores_values[:, 0], scores_values[:, 1], self.E.dtype)
        softmax = AnchoredSoftmax(scores_values[:, 0], scores_values[:, 1], data.counts.data, data.segments)
        return _Forward(mean, preactivation, gate, softmax)

    def _shown(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in ("E", "p", "v", "W")]

    def __repr__(self) -> str:
        return f"TwoLayerModel(vocab_size={self.vocab_size}, dim={self.dim}, dtype={self.E.dtype})"


@dataclass(frozen=True, eq=False)
class _Forward:
    """The intermediate values of the backward pass: M, W M, K (n, d) and the softmax over the nonzero counts."""

    mean: Floats
    preactivation: Floats
    gate: Floats
    softmax: AnchoredSoftmax
