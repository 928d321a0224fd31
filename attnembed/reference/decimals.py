"""Attention in as many decimal digits as needed: saturated attention has none left in float64."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed.reference.attention import Tokens, check_tokens

__all__ = [
    "PreciseVector",
    "precise_gradient_p",
    "precise_hessian_vector_p",
    "precise_log_attention",
    "precise_loss_gap",
]


@dataclasses.dataclass(frozen=True, eq=False)
class PreciseVector:
    """A vector of decimals, accurate to 30 digits of its norm, at any magnitude: values = e^{log_norm} unit.

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
        """||e^{log_scale} vector - values|| / ||values||, correct even if both are below 1e-308.

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
    """grad_p L, accurate to 30 digits of its norm at any ||p||, even where the entries are far below 1e-308.

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
    """Product of the Hessian of the loss in p with x (d,), accurate to 30 digits of its norm at any ||p||.

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
        self.counts = [Counter(sequence) for sequence in check_tokens(tokens, len(rows))]
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

        The centred quantities are averages of exact differences, sum_r a_ir (g_s - g_r): if all attention is on s
        they are as small as they should be, and no digits cancel.
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

    A result that still changes at 3,200 digits is zero by cancellation, and is returned as zero.
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
    """A decimal context with this many digits and the widest exponents."""
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
    """Sum of a fast-decaying series, from its first term and the step to the k-th term, k = 2, 3, ..."""
    total, term, k = Decimal(0), first, 2
    while total + term != total:
        total, term, k = total + term, following(term, k), k + 1
    return total
