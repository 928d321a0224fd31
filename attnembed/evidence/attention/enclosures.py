"""Claims about proofs for a margin in floating point: intervals that contain it, and infeasibility."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from attnembed.enclosures import rounding_constant
from attnembed.errors import NotSeparableError
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, by_construction, claim
from attnembed.infeasibility import infeasibility_proof
from attnembed.margin_norms import Norm
from attnembed.margins import MarginResult, max_margin


@claim(
    "attention/margin-enclosure",
    statement="the enclosure of a margin contains the exact margin of the floating-point rows and is narrow",
    tex=r"\min_k d_k\cdot p/\|p\| - \epsilon \le \gamma \le \|D^\top u\|/\textstyle\sum_k u_k + \epsilon'",
    reference="derived here, with the rounding bounds of Higham (2002)",
    hypotheses=(by_construction("the program is feasible", code="except NotSeparableError"),),
    control="the same interval without the rounding terms",
    derivation="derivations/enclosures.md",
)
def margin_interval(rng: np.random.Generator) -> Evidence:
    worst, bare, widest = -math.inf, -math.inf, 0.0
    for k in range(40):
        D = rng.standard_normal((2, int(rng.integers(2, 8)))) + rng.standard_normal()
        if k % 4 == 0:  # rows that nearly cancel
            D[1] = -D[0] + 10.0 ** rng.integers(-6, -1) * rng.standard_normal(D.shape[1])
        try:
            result = max_margin(D)
        except NotSeparableError:
            continue
        square = _squared_distance(D)
        low, high = result.enclosure()
        # However small the margin beside the rows, it is as wide as the solution is off, and one rounding of the rows.
        left = 2 * result.kkt_residual * high + 2.0**-51 * float(np.linalg.norm(D))
        worst = worst if high - low <= max(2e-12 * high, left) else math.inf
        worst = largest(worst, _overshoot(low, high, square))
        widest = largest(widest, (high - low) / float(np.linalg.norm(D)))
        bare = max(bare, _overshoot(*_without_rounding(D, result), square))
    # The constant of Higham's bounds, rounded up; no interval may be wider than a few hundred roundings of its rows.
    u = Fraction(1, 2**53)
    for n in (1, 7, 40, 1000):
        constant = Fraction(rounding_constant(n)) / (n * u / (1 - n * u))
        worst = worst if 1 <= constant < 1 + 20 * u else math.inf
    worst = worst if widest < 1e-14 else math.inf
    return Evidence(measured=worst, tolerance=0.0, control=bare, note=f"the widest is {widest:.1g} wide")


@claim(
    "attention/infeasibility-proof",
    statement="the weights that prove that no direction separates the rows combine them exactly to 0; without a proof "
    "the bound is above the margin",
    tex=r"w \ge 0,\ \textstyle\sum_kw_k = 1,\ \sum_kw_kd_k = 0;\quad \gamma \le \|D^\top w\|/\textstyle\sum_kw_k",
    reference="Gordan's alternative; compared with fractions",
    control="the solver's weights, in floating point",
    derivation="derivations/enclosures.md",
)
def exact_infeasibility(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for d in (1, 2, 3, 5):
        inner = rng.uniform(0.1, 1.0, d + 1) * 10.0 ** rng.integers(-3, 1, size=d + 1)
        D = 10.0 ** rng.integers(-2, 3, size=(d + 1, 1)) * rng.standard_normal((d + 1, d))
        D[-1] = -(inner[:-1] @ D[:-1]) / inner[-1]
        beside = rng.standard_normal((2, d))  # rows that the certificate does not need
        doubled = np.vstack([D, D[:1]])  # dependent ones, both with a weight
        shared = np.append(inner, 0.3 * inner[0]) - np.append(0.3 * inner[0], np.zeros(d + 1))
        more = np.vstack([beside, D])
        # The double of a row with next to no weight, beside weights that are a little too large.
        hardly = np.append(inner / inner.sum() * (1 + 1e-9), 1e-25)
        for rows, given in ((more, _weights_of(more)), (doubled, shared), (doubled, hardly)):
            proof = infeasibility_proof(rows, given)
            if proof.numerators is None or proof.denominator is None or proof.margin_bound != 0:
                worst = math.inf
                continue
            worst += float(min(proof.numerators) < 0 or sum(proof.numerators) != proof.denominator)
            worst += float(any(_combined(rows, proof.numerators)))
            control += float(any(_combined(rows, [Fraction(float(w)) for w in given])))
    # Rows that can just be separated.
    for shift in (1.0, 1e-9):
        D = rng.standard_normal((2, 1)) * rng.standard_normal(4) + shift * rng.standard_normal(4)
        proof = infeasibility_proof(D, max_margin(D).dual)
        excess = Fraction(proof.margin_bound) ** 2 / _squared_distance(D) - 1
        worst += float(proof.proved or not 0 <= excess < Fraction(1, 10**10) / Fraction(shift))
    return Evidence(measured=worst, tolerance=0.0, control=control)


def _weights_of(rows: np.ndarray) -> np.ndarray:
    """The certificate of inseparable rows."""
    try:
        max_margin(rows)
    except NotSeparableError as error:
        return np.array(error.certificate)
    return np.zeros(len(rows))


def _combined(rows: np.ndarray, weights: Sequence[int | Fraction]) -> list[Fraction]:
    """sum_k w_k d_k in exact arithmetic."""
    return [sum((w * Fraction(float(x)) for w, x in zip(weights, column)), Fraction(0)) for column in rows.T]


def _squared_distance(D: np.ndarray) -> Fraction:
    """The exact squared distance of 0 from the segment between two points."""
    a, b = ([Fraction(float(x)) for x in row] for row in D)
    aa, ab, bb = (sum((x * y for x, y in zip(*both)), Fraction(0)) for both in ((a, a), (a, b), (b, b)))
    length = aa - 2 * ab + bb
    inside = 0 < aa - ab < length  # the foot of the perpendicular lies between the points
    return (aa * bb - ab * ab) / length if inside else min(aa, bb)


def _overshoot(low: float, high: float, square: Fraction) -> float:
    """The relative distance of the exact margin from [low, high], negative inside."""
    return float(max(Fraction(low) ** 2 / square - 1, square / Fraction(high) ** 2 - 1))


def _without_rounding(D: np.ndarray, result: MarginResult) -> tuple[float, float]:
    low = float((D @ result.p).min() / np.linalg.norm(result.p))
    return low, float(np.linalg.norm(D.T @ result.dual) / result.dual.sum())


@claim(
    "attention/margin-norms",
    statement="in the norms l1 and linf the direction attains the margin, and no direction has a larger one",
    tex=r"\gamma = \min_k d_k\cdot\hat p,\ \|\hat p\| = 1,\quad \gamma = \|D^\top\lambda\|_* / \textstyle\sum\lambda",
    reference="linear programming duality",
    control="the direction of the Euclidean norm",
    derivation="derivations/max-margin.md",
)
def margin_norms(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, math.inf
    for d, m in ((2, 3), (4, 3), (5, 9)):
        # Rows around a direction with entries of both signs, so that there is a margin.
        D = rng.standard_normal((m, d)) + 4 * rng.choice([-1.0, 1.0], d) * rng.uniform(0.5, 1.5, d)
        plain = max_margin(D).direction
        norms: tuple[tuple[Norm, float, float], ...] = (("l1", 1, np.inf), ("linf", np.inf, 1))
        for name, order, dual_order in norms:
            found = max_margin(D, norm=name)
            below = float((D @ found.direction).min()) / float(np.linalg.norm(found.direction, order))
            above = float(np.linalg.norm(D.T @ found.dual, dual_order)) / float(found.dual.sum())
            signs = max(0.0, -float(found.dual.min()))
            worst = largest(worst, abs(below / found.margin - 1), abs(above / found.margin - 1), signs)
            worst = largest(worst, float(np.abs(found.p * found.margin - found.direction).max()))
            worst = worst if found.success else math.inf
            control = min(control, 1 - float((D @ plain).min()) / float(np.linalg.norm(plain, order)) / found.margin)
    return Evidence(measured=worst, tolerance=1e-9, control=control)
