"""Slow, obvious oracles: the definitions in loops, in many digits, and by enumeration.

Nothing here shares code with the fast modules, and no fast module may import this one: agreement with an oracle is
evidence only where the two were written apart. Three groups, each with its own heading below:

- attention, straight from the definitions, for real and complex arguments (complex steps pass through);
- attention in as many decimal digits as it takes, for saturated attention, where float64 has none left;
- chains and grids by enumeration of every labeling.

Sequences are lists of token ids, one list per sequence; ``tokens_from_counts`` makes them from a count matrix.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed.errors import InputError

__all__ = [
    "AttentionGradients",
    "ChainEnumeration",
    "GridEnumeration",
    "PreciseVector",
    "attention_gradients",
    "attention_hessian_p",
    "attention_loss",
    "attention_output",
    "attention_weights",
    "enumerate_chain",
    "enumerate_grid",
    "precise_gradient_p",
    "precise_hessian_vector_p",
    "precise_log_attention",
    "precise_loss_gap",
    "tokens_from_counts",
]

Array = NDArray[Any]
Tokens = Sequence[Sequence[int]]


# ------------------------------------------------------------------------------------ attention, by its definition


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
    for sequence in _check_tokens(tokens, len(E)):
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
    for i, sequence in enumerate(_check_tokens(tokens, len(E))):
        for s, weight in zip(sequence, _softmax(E[sequence] @ p), strict=True):
            weights[i, s] += weight
    return weights


def attention_loss(E: ArrayLike, p: ArrayLike, v: ArrayLike, tokens: Tokens, labels: Sequence[int]) -> Any:
    """Empirical loss L = mean_i log(1 + e^{-y_i f_i}); complex where an argument is, and analytic in them.

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
    return weights / weights.sum()


def _logistic(z: Any) -> Any:
    """log(1 + e^{-z}), analytic; the branch only decides which of two equal formulas does not overflow."""
    return np.log1p(np.exp(-z)) if z.real >= 0 else -z + np.log1p(np.exp(z))


def _sigmoid(z: Any) -> Any:
    """sigma(z) = e^{-log(1 + e^{-z})}."""
    return np.exp(-_logistic(z))


def _check_tokens(tokens: Tokens, vocab_size: int) -> list[list[int]]:
    """The sequences as lists of ids; a negative id would silently count from the end."""
    sequences = [[operator.index(s) for s in sequence] for sequence in tokens]
    for i, sequence in enumerate(sequences):
        if not sequence:
            raise InputError("tokens", "must have no empty sequence", got=f"an empty sequence at index {i}")
        if not 0 <= min(sequence) <= max(sequence) < vocab_size:
            raise InputError("tokens", f"must be ids in 0..{vocab_size - 1}", got=f"{sequence} at index {i}")
    return sequences


# ------------------------------------------------------------------------------------ attention, in many digits


@dataclasses.dataclass(frozen=True, eq=False)
class PreciseVector:
    """A vector of decimals, right to 30 digits of its norm, at any magnitude: values = e^{log_norm} unit.

    ``unit`` (d,) is float64 of norm one; for the zero vector it is zero and ``log_norm`` is -inf.
    """

    values: tuple[Decimal, ...]
    unit: NDArray[np.float64]
    log_norm: float

    @classmethod
    def of(cls, values: Sequence[Decimal]) -> PreciseVector:
        """Scale the values to a unit vector of floats and the logarithm of their norm."""
        with _digits(50):
            norm = _norm(values)
            unit = np.array([float(value / norm) if norm else 0.0 for value in values])
            log_norm = float(norm.ln()) if norm else -math.inf
        unit.flags.writeable = False
        return cls(tuple(values), unit, log_norm)

    def relative_error(self, vector: ArrayLike, log_scale: float = 0.0) -> float:
        """||e^{log_scale} vector - values|| / ||values||, right even where both are below 1e-308.

        >>> exact = PreciseVector.of([Decimal("3e-900"), Decimal("4e-900")])
        >>> round(exact.relative_error([3.0, 4.4], log_scale=-900 * math.log(10)), 9)
        0.08
        """
        given = [float(x) for x in np.asarray(vector)]
        if not np.isfinite(given).all():
            return math.inf
        with _digits(50):
            scale, norm = Decimal(log_scale).exp(), _norm(self.values)
            error = _norm([Decimal(x) * scale - value for x, value in zip(given, self.values, strict=True)])
            return float(error / norm) if norm else (math.inf if error else 0.0)


def precise_gradient_p(
    E: ArrayLike, p: ArrayLike, v: ArrayLike, tokens: Tokens, labels: Sequence[int]
) -> PreciseVector:
    """grad_p L, right to 30 digits of its norm at any ||p||, also where the entries are far below 1e-308.

    grad_p L = -sum_i (y_i/n) sigma(-y_i f_i) sum_s a_is (g_s - f_i) (E_s - Ebar_i), a textbook formula, from the
    exact scores and values of the given floats.

    >>> gradient = precise_gradient_p([[1.0], [-1.0]], [5000.0], [1.0], [[0, 1]], [1])
    >>> gradient.unit, round(gradient.log_norm, 3)    # -4 a_0 a_1 sigma(-1), with a_1 = e^{-10000}
    (array([-1.]), -9999.927)
    """
    problem = _Exact(E, p, v, tokens, labels)

    def compute() -> list[Decimal]:
        total = [Decimal(0)] * problem.dim
        for y, f, terms in problem.moments():
            c = y / (1 + (y * f).exp()) / problem.n
            for a, value, embedding in terms:
                total = [x - c * a * value * e for x, e in zip(total, embedding, strict=True)]
        return total

    return PreciseVector.of(_settle(compute))


def precise_hessian_vector_p(
    E: ArrayLike, p: ArrayLike, v: ArrayLike, tokens: Tokens, labels: Sequence[int], x: ArrayLike
) -> PreciseVector:
    """Product of the Hessian of the loss in p with x (d,), right to 30 digits of its norm at any ||p||.

    The formula is that of ``attention_hessian_p``.

    >>> precise_hessian_vector_p([[1.0], [-1.0]], [0.0], [1.0], [[0, 1]], [1], [2.0]).unit
    array([1.])
    """
    problem = _Exact(E, p, v, tokens, labels)
    direction = [Decimal(float(entry)) for entry in np.asarray(x)]

    def compute() -> list[Decimal]:
        total = [Decimal(0)] * problem.dim
        for y, f, terms in problem.moments():
            residual = 1 / (1 + (y * f).exp())
            gradient = [Decimal(0)] * problem.dim
            curvature = [Decimal(0)] * problem.dim
            for a, value, embedding in terms:
                along = _dot(embedding, direction)
                for k, e in enumerate(embedding):
                    gradient[k] += a * value * e
                    curvature[k] += a * value * e * along
            slope = residual * (1 - residual) * _dot(gradient, direction)
            for k in range(problem.dim):
                total[k] += (slope * gradient[k] - y * residual * curvature[k]) / problem.n
        return total

    return PreciseVector.of(_settle(compute))


def precise_loss_gap(E: ArrayLike, p: ArrayLike, v: ArrayLike, tokens: Tokens, labels: Sequence[int]) -> Decimal:
    """L - L* to 30 digits, at any ||p||, where L* = mean_i l(gamma_i*) and gamma_i* = max_{s in X_i} y_i g_s.

    L - L* = mean_i log(1 + (e^{delta_i} - 1) sigma(-gamma_i*)), delta_i = sum_s a_is (gamma_i* - y_i g_s). Derived
    here. ``float(gap)`` may underflow to zero, ``float(gap.ln())`` does not.

    >>> gap = precise_loss_gap([[1.0], [-1.0]], [5000.0], [1.0], [[0, 1]], [1])
    >>> round(float(gap.ln()), 3)    # 2 a_1 sigma(-1), with a_1 = e^{-10000}
    -10000.62
    """
    problem = _Exact(E, p, v, tokens, labels)

    def compute() -> list[Decimal]:
        total = Decimal(0)
        for y, attention in problem.attention():
            top = max(y * problem.values[s] for s in attention)
            gaps = [_decimal(top - y * problem.values[s]) for s in attention]
            delta = _dot(attention.values(), gaps)
            total += _log1p(_expm1(delta) / (1 + _decimal(top).exp())) / problem.n
        return [total]

    return _settle(compute)[0]


def precise_log_attention(E: ArrayLike, p: ArrayLike, tokens: Tokens) -> NDArray[np.float64]:
    """log a_is (n, V), correctly rounded or nearly so at any ||p||; -inf where token s is not in X_i.

    log a_is = -log(1 + sum_{r != s} (n_ir / n_is) e^{u_r - u_s}), so it stays sharp near zero.

    >>> precise_log_attention([[1.0], [-1.0]], [20.0], [[0, 1], [1]])
    array([[-4.24835426e-18, -4.00000000e+01],
           [           -inf,  0.00000000e+00]])
    """
    problem = _Exact(E, p, np.zeros(np.shape(p)), tokens, [1] * len(tokens))
    log_attention = np.full((problem.n, len(problem.scores)), -np.inf)
    with _digits(50):
        for row, counts in zip(log_attention, problem.counts, strict=True):
            for s in counts:
                rest = [(r, n) for r, n in counts.items() if r != s]
                ratio = sum(n * _decimal(problem.scores[r] - problem.scores[s]).exp() for r, n in rest)
                row[s] = 0.0 - float(_log1p(ratio / Decimal(counts[s])))
    return log_attention


class _Exact:
    """The problem with its scores u_s and values g_s as exact fractions of the given floats."""

    def __init__(self, E: ArrayLike, p: ArrayLike, v: ArrayLike, tokens: Tokens, labels: Sequence[int]) -> None:
        rows, cls, head = (np.asarray(array, dtype=float).tolist() for array in (E, p, v))
        self.E = [[Decimal(entry) for entry in row] for row in rows]
        self.scores = [_exact_dot(row, cls) for row in rows]
        self.values = [_exact_dot(row, head) for row in rows]
        self.counts = [Counter(sequence) for sequence in _check_tokens(tokens, len(rows))]
        self.labels = [int(y) for y in labels]
        self.n, self.dim = len(self.counts), len(cls)

    def attention(self) -> Iterator[tuple[int, dict[int, Decimal]]]:
        """Label and attention a_is by token type, at the digits of the current decimal context."""
        # A decimal exponent has no practical limit: no shift by the largest score is needed.
        exponential = [_decimal(u).exp() for u in self.scores]
        for y, counts in zip(self.labels, self.counts, strict=True):
            total = sum(n * exponential[s] for s, n in counts.items())
            yield y, {s: n * exponential[s] / total for s, n in counts.items()}

    def moments(self) -> Iterator[tuple[int, Decimal, list[tuple[Decimal, Decimal, list[Decimal]]]]]:
        """Label, f_i and per token type a_is, g_s - f_i and E_s - Ebar_i.

        The centred quantities are averages of exact differences, sum_r a_ir (g_s - g_r): where attention is on s
        alone they are as small as they should be, and no digits cancel.
        """
        for y, attention in self.attention():
            terms = []
            for s, a in attention.items():
                value, embedding = Decimal(0), [Decimal(0)] * self.dim
                for r, weight in attention.items():
                    value += weight * _decimal(self.values[s] - self.values[r])
                    for k in range(self.dim):
                        embedding[k] += weight * (self.E[s][k] - self.E[r][k])
                terms.append((a, value, embedding))
            yield y, _dot(attention.values(), [_decimal(self.values[s]) for s in attention]), terms


def _settle(compute: Callable[[], list[Decimal]]) -> list[Decimal]:
    """Double the digits until two results agree to 30 digits of their norm.

    A result that still moves at 3,200 digits is zero by cancellation, and is returned as zero.
    """
    previous: list[Decimal] | None = None
    for doubling in range(7):
        with _digits(50 * 2**doubling):
            current = compute()
            if previous is not None:
                change = _norm([x - y for x, y in zip(current, previous, strict=True)])
                if change <= _norm(current) * Decimal("1e-30"):
                    return current
        previous = current
    return [Decimal(0) for _ in current]


def _digits(count: int) -> Any:
    """A decimal context with so many digits and the widest exponents."""
    return localcontext(Context(prec=count, Emax=MAX_EMAX, Emin=MIN_EMIN))


def _exact_dot(x: Sequence[float], y: Sequence[float]) -> Fraction:
    return sum((Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True)), Fraction(0))


def _decimal(x: Fraction) -> Decimal:
    return Decimal(x.numerator) / Decimal(x.denominator)


def _dot(x: Any, y: Any) -> Decimal:
    return sum((a * b for a, b in zip(x, y, strict=True)), Decimal(0))


def _norm(x: Sequence[Decimal]) -> Decimal:
    return _dot(x, x).sqrt()


def _expm1(x: Decimal) -> Decimal:
    """e^x - 1 for x >= 0, by its series where the subtraction would cancel."""
    return x.exp() - 1 if x > Decimal("1e-3") else _series(x, lambda power, k: power * x / k)


def _log1p(x: Decimal) -> Decimal:
    """log(1 + x) for x >= 0; as 2 artanh(z), z = x / (2 + x), by its series where 1 + x would round."""
    if x > Decimal("1e-3"):
        return (1 + x).ln()
    z = x / (2 + x)
    return 2 * _series(z, lambda power, k: power * z * z * (2 * k - 3) / (2 * k - 1))


def _series(first: Decimal, following: Callable[[Decimal, int], Decimal]) -> Decimal:
    """Sum of a quickly falling series, from its first term and the step to the k-th term, k = 2, 3, ..."""
    total, term, k = Decimal(0), first, 2
    while total + term != total:
        total, term, k = total + term, following(term, k), k + 1
    return total


# ------------------------------------------------------------------------------------ structured, by enumeration


class ChainEnumeration(NamedTuple):
    """Everything about a chain: log Z, marginals (L, K) and (L-1, K, K), the best labeling (L,) and its score."""

    log_partition: float
    node: NDArray[np.float64]
    edge: NDArray[np.float64]
    labeling: NDArray[np.intp]
    score: float


class GridEnumeration(NamedTuple):
    """Everything about a grid: log Z, marginals of nodes (H, W, K) and of the horizontal (H, W-1, K, K) and
    vertical (H-1, W, K, K) edges, the best labeling (H, W) and its score."""

    log_partition: float
    node: NDArray[np.float64]
    horizontal: NDArray[np.float64]
    vertical: NDArray[np.float64]
    labeling: NDArray[np.intp]
    score: float


def enumerate_chain(unary: ArrayLike, pairwise: ArrayLike) -> ChainEnumeration:
    """Enumerate all K^L labelings of a chain: F(Y) = sum_i U(i, y_i) + sum_i W(y_i, y_{i+1}), P(Y) = e^F / Z.

    ``unary`` (L, K) and ``pairwise`` (K, K), or (L-1, K, K) with one matrix per edge, are log-potentials; -inf
    forbids. Of equal scores the first labeling in lexicographic order is the best. Where every labeling is
    forbidden, log Z is -inf and the marginals are NaN. Raises InputError above a million labelings.

    >>> result = enumerate_chain(np.zeros((2, 2)), np.log([[1.0, 2.0], [3.0, 4.0]]))
    >>> result.labeling.tolist(), round(math.exp(result.log_partition), 12), result.node[0].round(12).tolist()
    ([1, 1], 10.0, [0.3, 0.7])
    """
    U = np.asarray(unary, dtype=float)
    L, K = U.shape
    W = np.broadcast_to(np.asarray(pairwise, dtype=float), (L - 1, K, K))
    log_partition, node, edge, labeling, score = _enumerate(U, [(i, i + 1) for i in range(L - 1)], W)
    return ChainEnumeration(log_partition, node, edge, labeling, score)


def enumerate_grid(unary: ArrayLike, horizontal: ArrayLike, vertical: ArrayLike) -> GridEnumeration:
    """Enumerate all K^(HW) labelings of a 4-connected grid, as ``enumerate_chain`` does those of a chain.

    ``unary`` (H, W, K); ``horizontal`` (K, K) or (H, W-1, K, K) scores (left, right); ``vertical`` (K, K) or
    (H-1, W, K, K) scores (upper, lower). Lexicographic order is that of the rows read one after the other.

    >>> stripes = [[0.0, 1.0], [1.0, 0.0]]
    >>> enumerate_grid(np.zeros((2, 3, 2)), stripes, stripes).labeling.tolist()
    [[0, 1, 0], [1, 0, 1]]
    """
    U = np.asarray(unary, dtype=float)
    H, W, K = U.shape
    across = np.broadcast_to(np.asarray(horizontal, dtype=float), (H, W - 1, K, K))
    down = np.broadcast_to(np.asarray(vertical, dtype=float), (H - 1, W, K, K))
    edges = [(r * W + c, r * W + c + 1) for r in range(H) for c in range(W - 1)]
    edges += [(r * W + c, (r + 1) * W + c) for r in range(H - 1) for c in range(W)]
    matrices = np.concatenate([across.reshape(-1, K, K), down.reshape(-1, K, K)])
    log_partition, node, edge, labeling, score = _enumerate(U.reshape(H * W, K), edges, matrices)
    return GridEnumeration(
        log_partition,
        node.reshape(U.shape),
        edge[: H * (W - 1)].reshape(across.shape),
        edge[H * (W - 1) :].reshape(down.shape),
        labeling.reshape(H, W),
        score,
    )


def _enumerate(unary: Array, edges: list[tuple[int, int]], matrices: Array) -> tuple[float, Array, Array, Array, float]:
    """log Z, node and edge marginals, best labeling and its score, for any graph."""
    L, K = unary.shape
    if K**L > 10**6:
        raise InputError("unary", "must allow at most a million labelings", got=f"{K}^{L}")
    labelings = list(itertools.product(range(K), repeat=L))
    # fsum rounds once, so labelings whose scores are equal in exact arithmetic are equal here as well.
    scores = [
        math.fsum(
            [unary[i, k] for i, k in enumerate(Y)] + [W[Y[i], Y[j]] for (i, j), W in zip(edges, matrices, strict=True)]
        )
        for Y in labelings
    ]
    best = max(scores)
    node, edge = np.zeros((L, K)), np.zeros((len(edges), K, K))
    labeling = np.array(labelings[scores.index(best)], dtype=np.intp)
    if best == -math.inf:
        return best, np.full_like(node, np.nan), np.full_like(edge, np.nan), labeling, best
    total = math.fsum(math.exp(score - best) for score in scores)
    for Y, score in zip(labelings, scores, strict=True):
        probability = math.exp(score - best) / total
        for i, k in enumerate(Y):
            node[i, k] += probability
        for e, (i, j) in enumerate(edges):
            edge[e, Y[i], Y[j]] += probability
    return best + math.log(total), node, edge, labeling, best
