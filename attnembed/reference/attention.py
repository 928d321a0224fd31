"""Attention from its definition, in loops, for real and complex arguments (complex steps pass through)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed.errors import InputError

__all__ = [
    "AttentionGradients",
    "attention_gradients",
    "attention_hessian_p",
    "attention_loss",
    "attention_output",
    "attention_weights",
    "tokens_from_counts",
]

Array = NDArray[Any]
Tokens = Sequence[Sequence[int]]


def tokens_from_counts(counts: ArrayLike) -> list[list[int]]:
    """Sequences with the given token counts (n, V), each in the order of the token ids.

    >>> tokens_from_counts([[2, 0, 1], [0, 1, 0]])
    [[0, 0, 2], [1]]
    """
    return [[s for s, count in enumerate(row) for _ in range(int(count))] for row in np.asarray(counts)]


def attention_output(E: ArrayLike, p: ArrayLike, v: ArrayLike, tokens: Tokens) -> Array:
    """Output f_i = Softmax(p^T E_X^T) E_X v of every sequence, over its positions; shape (n,).

    E_X (T, d) holds the embeddings of the tokens of X_i, one row per position. E (V, d), p (d,) and v (d,) may be
    complex, and the result is analytic in them. Raises InputError for an empty sequence or an unknown token id.
    Source: [WSOM25], the model.

    >>> attention_output([[1.0], [3.0]], [0.0], [1.0], [[0, 1], [0, 0, 0, 1]]).tolist()
    [2.0, 1.5]
    """
    E, p, v = np.asarray(E), np.asarray(p), np.asarray(v)
    output = []
    for sequence in check_tokens(tokens, len(E)):
        embedded = E[sequence]
        softmax = _softmax(embedded @ p)
        output.append(softmax @ (embedded @ v))
    return np.array(output)


def attention_weights(E: ArrayLike, p: ArrayLike, tokens: Tokens) -> Array:
    """Attention a_is of sequence i on token type s, the sum over its positions; shape (n, V), rows sum to one.

    >>> attention_weights([[1.0], [3.0]], [0.0], [[0, 0, 0, 1]]).tolist()
    [[0.75, 0.25]]
    """
    E, p = np.asarray(E), np.asarray(p)
    weights = np.zeros((len(tokens), len(E)), dtype=np.result_type(E, p, float))
    for i, sequence in enumerate(check_tokens(tokens, len(E))):
        for s, weight in zip(sequence, _softmax(E[sequence] @ p), strict=True):
            weights[i, s] += weight
    return weights


def attention_loss(E: ArrayLike, p: ArrayLike, v: ArrayLike, tokens: Tokens, labels: Sequence[int]) -> Any:
    """Empirical loss L = mean_i log(1 + e^{-y_i f_i}); complex if an argument is, and analytic in the arguments.

    >>> import math
    >>> float(attention_loss([[0.0]], [0.0], [1.0], [[0]], [1])) == math.log(2)
    True
    """
    output = attention_output(E, p, v, tokens)
    return sum(_logistic(y * f) for y, f in zip(labels, output, strict=True)) / len(output)


class AttentionGradients(NamedTuple):
    """Gradients of the loss by E (V, d), p (d,), v (d,), and the factors A, B (V,) of the first."""

    E: Array
    p: Array
    v: Array
    A: Array
    B: Array


def attention_gradients(
    E: ArrayLike, p: ArrayLike, v: ArrayLike, tokens: Tokens, labels: Sequence[int]
) -> AttentionGradients:
    """Gradients of the loss by the textbook formulas; they lose their digits where attention saturates.

    With c_i = (y_i/n) sigma(-y_i f_i), A_s = sum_i c_i a_is and B_s = sum_i c_i a_is (g_s - f_i):
    grad_{E_s} L = -(A_s v + B_s p), grad_p L = -sum_s B_s E_s, grad_v L = -sum_s A_s E_s. Derived here.

    >>> attention_gradients([[1.0], [-1.0]], [0.0], [1.0], [[0, 1]], [1]).p.tolist()
    [-0.5]
    """
    E, p, v = np.asarray(E), np.asarray(p), np.asarray(v)
    g = E @ v
    A, B = np.zeros((2, len(E)), dtype=np.result_type(E, p, v, float))
    a, f = attention_weights(E, p, tokens), attention_output(E, p, v, tokens)
    for y, a_i, f_i in zip(labels, a, f, strict=True):
        c = y / len(f) * _sigmoid(-y * f_i)
        for s in range(len(E)):
            A[s] += c * a_i[s]
            B[s] += c * a_i[s] * (g[s] - f_i)
    return AttentionGradients(E=-(np.outer(A, v) + np.outer(B, p)), p=-(B @ E), v=-(A @ E), A=A, B=B)


def attention_hessian_p(E: ArrayLike, p: ArrayLike, v: ArrayLike, tokens: Tokens, labels: Sequence[int]) -> Array:
    """Hessian of the loss in p by the textbook formula, shape (d, d).

    H = (1/n) sum_i [ s_i (1 - s_i) (grad f_i)(grad f_i)^T - y_i s_i K_i ], s_i = sigma(-y_i f_i),
    grad f_i = sum_s a_is (g_s - f_i) E_s, K_i = sum_s a_is (g_s - f_i) (E_s - Ebar_i)(E_s - Ebar_i)^T. Derived here.

    >>> attention_hessian_p([[1.0], [-1.0]], [0.0], [1.0], [[0, 1]], [1]).tolist()
    [[0.25]]
    """
    E, p, v = np.asarray(E), np.asarray(p), np.asarray(v)
    g = E @ v
    hessian = np.zeros((len(p), len(p)), dtype=np.result_type(E, p, v, float))
    a, f = attention_weights(E, p, tokens), attention_output(E, p, v, tokens)
    for y, a_i, f_i in zip(labels, a, f, strict=True):
        residual = _sigmoid(-y * f_i)
        gradient = sum(a_i[s] * (g[s] - f_i) * E[s] for s in range(len(E)))
        centred = E - a_i @ E
        K = sum(a_i[s] * (g[s] - f_i) * np.outer(centred[s], centred[s]) for s in range(len(E)))
        hessian += residual * (1 - residual) * np.outer(gradient, gradient) - y * residual * K
    return hessian / len(f)


def _softmax(scores: Array) -> Array:
    """Softmax of a vector; the shift is a real constant, so the result stays analytic."""
    weights = np.exp(scores - scores.real.max())
    value: Array = weights / weights.sum()
    return value


def _logistic(z: Any) -> Any:
    """log(1 + e^{-z}), analytic; the branch only decides which of two equal formulas does not overflow."""
    return np.log1p(np.exp(-z)) if z.real >= 0 else -z + np.log1p(np.exp(z))


def _sigmoid(z: Any) -> Any:
    """sigma(z) = e^{-log(1 + e^{-z})}."""
    return np.exp(-_logistic(z))


def check_tokens(tokens: Tokens, vocab_size: int) -> list[list[int]]:
    """The sequences as lists of ids; a negative id would silently count from the end."""
    sequences = [[operator.index(s) for s in sequence] for sequence in tokens]
    for i, sequence in enumerate(sequences):
        if not sequence:
            raise InputError("tokens", "must have no empty sequence", got=f"an empty sequence at index {i}")
        if not 0 <= min(sequence) <= max(sequence) < vocab_size:
            raise InputError("tokens", f"must be ids in 0..{vocab_size - 1}", got=f"{sequence} at index {i}")
    return sequences
