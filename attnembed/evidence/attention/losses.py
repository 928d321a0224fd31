"""Claims about the losses and the softmax on which everything else is built, against decimals and fractions."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np

from attnembed import gibbs
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.gibbs import cross_entropy
from attnembed.losses import (
    Loss,
    exponential,
    logistic,
    smoothed_squared_hinge,
    softplus,
)

_DIGITS = 80
_SATURATED = 400  # digits for e^{-600} beside 1, and more
_EPS = float(np.finfo(np.float64).eps)
_PAGE = "derivations/losses.md"

Exact = Callable[[Decimal], Decimal]


def _logistic(T: Decimal) -> tuple[Exact, Exact, Exact]:
    """T log(1 + e^{-z/T}) and its first two derivatives."""

    def value(z: Decimal) -> Decimal:
        return T * (1 + (-z / T).exp()).ln()

    def first(z: Decimal) -> Decimal:
        return -1 / (1 + (z / T).exp())

    def second(z: Decimal) -> Decimal:
        return (z / T).exp() / (1 + (z / T).exp()) ** 2 / T

    return value, first, second


def _exponential() -> tuple[Exact, Exact, Exact]:
    return (lambda z: (-z).exp(), lambda z: -(-z).exp(), lambda z: (-z).exp())


def _hinge(w: Decimal) -> tuple[Exact, Exact, Exact]:
    """The double integral of l'' = min(1, max(0, 1 - z)/w), with value and slope 0 at z = 1."""

    def value(z: Decimal) -> Decimal:
        x = max(1 - z, Decimal(0))
        return x**3 / (6 * w) if x < w else w**2 / 6 + (x - w) * w / 2 + (x - w) ** 2 / 2

    def first(z: Decimal) -> Decimal:
        x = max(1 - z, Decimal(0))
        return -(x**2) / (2 * w) if x < w else -(x - w / 2)

    def second(z: Decimal) -> Decimal:
        return min(Decimal(1), max(Decimal(0), 1 - z) / w)

    return value, first, second


def _plain_logistic() -> Loss:
    """The logistic loss as a user would define it: a value and two derivatives only."""
    return Loss(logistic.value, logistic.derivative, logistic.second_derivative)


@claim(
    "attention/loss-functions",
    statement="losses, their derivatives, differences, log-slopes and inverses are correct up to rounding",
    tex=r"\ell(z),\ \ell'(z),\ \ell''(z),\ \ell(z-\Delta) - \ell(z),\ \log(-\ell'(z)),\ \ell''/(-\ell'),\ \ell^{-1}",
    reference="derived here; compared with decimals of 80 digits",
    control="the margin larger by ten percent",
    derivation=_PAGE,
)
def loss_functions(rng: np.random.Generator) -> Evidence:
    T, w = (float(rng.choice([0.25, 0.5, 2.0, 3.0])) for _ in range(2))
    families = (
        (logistic, _logistic(Decimal(1)), 8.0),
        (softplus(T), _logistic(Decimal(T)), 8.0),
        (exponential, _exponential(), 8.0),
        (smoothed_squared_hinge(w), _hinge(Decimal(w)), 8.0),
        # Differences by Gauss's formula, a sum of 32 terms.
        (_plain_logistic(), _logistic(Decimal(1)), 64.0),
    )
    margins = [-30 * rng.random(), rng.uniform(-3, 3), 1 - w * rng.random(), 1 - w, 1.0, 30 * rng.random()]
    drops = np.array([1e-12, 0.05, 0.9, 1.1, 5.0]) * rng.uniform(0.9, 1.1)
    worst = control = 0.0
    with localcontext() as context:
        context.prec = _DIGITS
        for loss, (value, first, second), roundings in families:
            for z in map(float, margins):
                worst = largest(worst, _off(loss, z, drops, value, first, second) / (roundings * _EPS))
            moved = 1.1 * margins[0]
            control = max(control, _off(loss, moved, drops[:1], value, first, second, at=margins[0]) / _EPS)
    return Evidence(measured=worst, tolerance=1.0, control=control)


def _off(
    loss: Loss, z: float, drops: np.ndarray, value: Exact, first: Exact, second: Exact, at: float | None = None
) -> float:
    """The largest relative error of a loss at a margin, over its rounding; or ``at`` another margin."""
    x = Decimal(z if at is None else at)
    exact, slope, bend = value(x), first(x), second(x)
    unit = max(1.0, abs(z))
    pairs: list[tuple[float, Decimal, float]] = [
        (float(loss(z)), exact, unit),
        (float(loss.derivative(z)), slope, unit),
        (float(loss.second_derivative(z)), bend, unit),
        (float(loss.curvature(z)), -bend / slope if slope else Decimal(0), unit),
    ]
    pairs += [(float(loss.rise(z, drop)), value(x - Decimal(drop)) - exact, unit + drop) for drop in map(float, drops)]
    if loss.inverse is not None and exact > Decimal("1e-3"):
        pairs.append((float(value(Decimal(float(loss.margin(float(exact)))))), exact, 4 * unit))
    worst = largest(_relative(found, truth) / size for found, truth, size in pairs)
    pull = float(loss.log_pull(z))
    if not slope:
        return worst if pull == -math.inf else math.inf
    return largest(worst, float(abs(Decimal(pull) - (-slope).ln())) / unit)


def _relative(found: float, truth: Decimal) -> float:
    if not math.isfinite(found):
        return math.inf
    return float(abs(Decimal(found) - truth) / abs(truth)) if truth else (0.0 if found == 0 else math.inf)


@claim(
    "attention/softmax-functions",
    statement="log-partition, probabilities, expectations and their derivatives are correct, saturated or not",
    tex=r"\log\sum_k m_ke^{u_k},\ a_k = m_ke^{u_k}/Z,\ f = \sum_k a_kg_k,\ w\,a_k(g_k - f)",
    reference="derived here; compared with decimals of 400 digits",
    control="multiplicities omitted; and the textbook a (g - f)",
    derivation="derivations/saturation.md",
)
def softmax_functions(rng: np.random.Generator) -> Evidence:
    worst = without = textbook = 0.0
    for spread in (0.1, 3.0, 60.0):
        sizes = rng.integers(1, 5, size=3)
        segments = gibbs.Segments(np.append(0, np.cumsum(sizes)))
        total = int(sizes.sum())
        u, g, m = spread * rng.standard_normal(total), rng.standard_normal(total), rng.integers(1, 6, total) + 0.0
        log_w = spread * rng.standard_normal(3)
        truth = _softmax(u, g, m, log_w, segments)
        found = _measured_softmax(u, g, m, log_w, segments)
        worst = largest(worst, *(_largest(a, b) for a, b in zip(found, truth)))
        without = max(without, _largest(_measured_softmax(u, g, np.ones(total), log_w, segments)[1], truth[1]))
        a, f = (
            gibbs.probabilities(u, segments, m),
            segments.spread(segments.sum(gibbs.probabilities(u, segments, m) * g)),
        )
        textbook = max(textbook, _largest([Decimal(float(x)) for x in a * (g - f)], truth[4]))
    return Evidence(measured=worst, tolerance=1e-12, control=min(without, textbook))


def _measured_softmax(u: Any, g: Any, m: Any, log_w: Any, segments: gibbs.Segments) -> list[list[Decimal]]:
    soft = gibbs.AnchoredSoftmax(u, g, m, segments)
    with localcontext() as context:
        context.prec = _SATURATED

        def scaled(derivative: Any, log_scale: float) -> list[Decimal]:
            factor = Decimal(log_scale).exp()
            return [Decimal(float(x)) * factor for x in derivative]

        parts = (gibbs.log_partition(u, segments, m), gibbs.probabilities(u, segments, m), soft.expectation)
        plain = [[Decimal(float(x)) for x in part] for part in (*parts, soft.probability)]
        return [*plain, scaled(*soft.sensitivity()), scaled(*soft.sensitivity(log_w))]


def _softmax(u: Any, g: Any, m: Any, log_w: Any, segments: gibbs.Segments) -> list[list[Decimal]]:
    """log Z, a, f, a again, a (g - f) and w a (g - f), by their definitions."""
    log_Z, a, f, plain, weighted = [], [], [], [], []
    with localcontext() as context:
        context.prec = _SATURATED
        for i, (start, stop) in enumerate(zip(segments.indptr[:-1], segments.indptr[1:])):
            weights = [Decimal(float(m[k])) * Decimal(float(u[k])).exp() for k in range(start, stop)]
            values = [Decimal(float(g[k])) for k in range(start, stop)]
            Z = sum(weights, Decimal(0))
            own = [weight / Z for weight in weights]
            mean = sum((x * y for x, y in zip(own, values)), Decimal(0))
            factor = Decimal(float(log_w[i])).exp()
            log_Z.append(Z.ln())
            f.append(mean)
            a += own
            plain += [x * (y - mean) for x, y in zip(own, values)]
            weighted += [factor * x * (y - mean) for x, y in zip(own, values)]
    return [log_Z, a, f, a, plain, weighted]


def _largest(found: list[Decimal], truth: list[Decimal]) -> float:
    """The largest difference relative to the largest entry; for small probabilities, relative to themselves."""
    size = max((abs(x) for x in truth), default=Decimal(0))
    return float(max(abs(x - y) for x, y in zip(found, truth)) / size) if size else float(max(map(abs, found)))


@claim(
    "attention/cross-entropy",
    statement="the cross-entropy of K labels and its gradient keep their digits however certain the label is",
    tex=r"\log(1 + \textstyle\sum_{k\ne y} e^{u_k-u_y}),\quad \operatorname{softmax}(u) - e_y",
    reference="derived here; compared with decimals of 80 digits",
    control="log-sum-exp minus the score of the label, in floats",
    derivation="derivations/saturation.md",
)
def certain_cross_entropy(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for k, spread, lead in ((2, 3.0, 0.0), (2, 3.0, 60.0), (4, 30.0, 0.0), (3, 1.0, 50.0), (3, 1.0, 150.0)):
        for kind in (np.float64, np.float32):
            logits, labels = spread * rng.standard_normal((2, k)), rng.integers(0, k, 2)
            logits[0, labels[0]] += lead
            logits = logits.astype(kind)
            loss, gradient = cross_entropy(logits, labels)
            eps = float(np.finfo(kind).eps)
            for i in range(2):
                exact, slope = _cross_entropy([Fraction(float(x)) for x in logits[i]], int(labels[i]))
                # e^{-x} has the rounding of x.
                unit = 8 * eps * max(1.0, float(np.ptp(logits[i])))
                # Below the smallest normal float there are no digits to keep.
                shown = [(float(a), b) for a, b in zip(gradient[i], slope) if abs(b) > np.finfo(kind).tiny]
                shown.append((float(loss[i]), exact))
                worst = largest(worst, *(_relative(a, b) / unit for a, b in shown))
                plain = float(np.logaddexp.reduce(logits[i].astype(float)) - float(logits[i, labels[i]]))
                control = max(control, _relative(plain, exact) / unit)
    return Evidence(measured=worst, tolerance=1.0, control=control)


def _cross_entropy(u: list[Fraction], y: int) -> tuple[Decimal, list[Decimal]]:
    with localcontext() as context:
        context.prec = _DIGITS
        exact = [Decimal(x.numerator) / Decimal(x.denominator) for x in u]
        weights = [(x - exact[y]).exp() for x in exact]
        Z = sum(weights, Decimal(0))
        return Z.ln(), [(w - Z * (k == y)) / Z for k, w in enumerate(weights)]
