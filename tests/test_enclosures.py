"""Enclosures of margins contain the exact rational margin, and are narrow."""

from __future__ import annotations

import itertools
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import attnembed as ae
from attnembed import enclosures
from attnembed.errors import InputError, NotSeparableError
from attnembed.margins import MarginResult, max_margin, max_margin_pairs

Array = NDArray[np.float64]
Rows = list[list[Fraction]]


def rational(rows: Array) -> Rows:
    """The floating-point numbers themselves."""
    return [[Fraction(float(x)) for x in row] for row in rows]


def squared_margin(rows: Rows) -> Fraction:
    """The squared distance of 0 from the convex hull: the least over faces of that of their foot, if it is inside."""
    gram = [[sum((x * y for x, y in zip(a, b)), Fraction(0)) for b in rows] for a in rows]
    best: Fraction | None = None
    for size in range(1, min(len(rows), len(rows[0])) + 1):
        for face in itertools.combinations(range(len(rows)), size):
            weights = _foot([[gram[i][j] for j in face] for i in face])
            if weights is not None and min(weights) >= 0:
                value = sum(
                    (a * b * gram[i][j] for a, i in zip(weights, face) for b, j in zip(weights, face)), Fraction(0)
                )
                best = value if best is None else min(best, value)
    assert best is not None
    return best


def _foot(gram: Rows) -> list[Fraction] | None:
    """Affine weights w of the point nearest to 0, from G w = mu 1, sum w = 1; None where the points are dependent."""
    n = len(gram) + 1
    one, zero = Fraction(1), Fraction(0)
    A = [[*row, one, zero] for row in gram] + [[one] * (n - 1) + [zero, one]]
    for c in range(n):
        pivot = next((r for r in range(c, n) if A[r][c] != 0), None)
        if pivot is None:
            return None
        A[c], A[pivot] = A[pivot], A[c]
        A[c] = [x / A[c][c] for x in A[c]]
        for r in range(n):
            if r != c and A[r][c] != 0:
                factor = A[r][c]
                A[r] = [x - factor * y for x, y in zip(A[r], A[c])]
    return [row[n] for row in A[:-1]]


def random_rows(rng: np.random.Generator) -> Array:
    """Up to four rows in up to three dimensions, of any unit, some with a small margin, some on a grid."""
    m, d = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    D = rng.normal(size=(m, d)) + rng.normal(size=d) * rng.choice([0.3, 1.0, 5.0])
    D *= 10.0 ** rng.integers(-3, 4)
    return np.round(D * 8) / 8 if rng.random() < 0.2 else D


def solved(rng: np.random.Generator) -> tuple[Array, MarginResult]:
    while True:
        D = random_rows(rng)
        try:
            result = max_margin(D)
        except (NotSeparableError, InputError):
            continue
        if result.success:
            return D, result


def check_programs(seed: int, number: int) -> int:
    """The exact margin is inside, the width below 1e-11; returns how often the computed margin is not exact."""
    rng, inexact = np.random.default_rng(seed), 0
    for _ in range(number):
        D, result = solved(rng)
        low, high = result.enclosure()
        square = squared_margin(rational(D))
        assert Fraction(low) ** 2 <= square <= Fraction(high) ** 2, (D, low, high)
        assert high - low <= 1e-11 * high
        inexact += Fraction(result.margin) ** 2 != square
    return inexact


def test_the_exact_margin_is_inside() -> None:
    assert check_programs(0, 300) > 150  # the floating-point number alone is no proof


@pytest.mark.thorough
def test_the_exact_margin_is_inside_10000() -> None:
    assert check_programs(1, 10_000) > 5_000


def test_control_without_the_rounding_term_it_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclosures, "rounding_constant", lambda n: 0.0)
    monkeypatch.setattr(enclosures, "_UNIT", 0.0)
    monkeypatch.setattr(enclosures, "_down", lambda x: x)
    monkeypatch.setattr(enclosures, "_up", lambda x: x)
    rng, missed = np.random.default_rng(0), 0
    for _ in range(60):
        D, result = solved(rng)
        low, high = result.enclosure()
        missed += not Fraction(low) ** 2 <= squared_margin(rational(D)) <= Fraction(high) ** 2
    assert missed > 10


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_exact_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(15):
        # 1e3 beside differences of size 1: forming a row already rounds.
        E = rng.normal(size=(4, 3)) + 1e3 * rng.normal(size=3)
        pairs = [[0, 1], [0, 2], [3, 1]]
        try:
            result = max_margin_pairs(E, pairs)
        except NotSeparableError:
            continue
        low, high = result.enclosure()
        exact = rational(E)
        rows = [[x - y for x, y in zip(exact[a], exact[b])] for a, b in pairs]
        assert Fraction(low) ** 2 <= squared_margin(rows) <= Fraction(high) ** 2
        assert high - low <= 1e-11 * high


def test_bad_vectors_still_give_an_enclosure() -> None:
    """Any p and any u >= 0 bound the margin, that of the wrong ones only more loosely."""
    rng = np.random.default_rng(4)
    for _ in range(40):
        D, result = solved(rng)
        p = result.p * (1 + 0.1 * rng.normal(size=result.p.size))
        u = np.abs(rng.normal(size=len(D)))
        low, high = enclosures.margin_enclosure(result._rows, p, u)
        square = squared_margin(rational(D))
        assert low < 0 or Fraction(low) ** 2 <= square
        assert square <= Fraction(high) ** 2


def test_width_and_cost_on_a_larger_program() -> None:
    rng = np.random.default_rng(1)
    D = rng.normal(size=(2000, 128)) + rng.normal(size=128)
    low, high = max_margin(D).enclosure()
    assert 0 <= high - low <= 1e-11 * high


def test_extreme_units() -> None:
    for unit in (1e-130, 1e130):
        D = unit * np.array([[0.1, 0.3], [0.7, -0.2]])
        low, high = max_margin(D).enclosure()
        assert Fraction(low) ** 2 <= squared_margin(rational(D)) <= Fraction(high) ** 2
        assert high - low <= 1e-11 * high


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_other_norms_are_refused(norm: Any) -> None:
    with pytest.raises(InputError, match="must be 'l2' for an enclosure"):
        ae.max_margin([[1.0, 2.0]], norm=norm).enclosure()


def test_products_are_split_exactly() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=500) * 10.0 ** rng.integers(-40, 40, size=500) for _ in range(2))
    product, error = enclosures._two_product(a, b)
    for x, y, p, e in zip(a.tolist(), b.tolist(), product.tolist(), error.tolist()):
        assert Fraction(p) + Fraction(e) == Fraction(x) * Fraction(y)
        assert p == x * y


def test_norms_are_rounded_to_their_side() -> None:
    rng = np.random.default_rng(0)
    with localcontext(Context(prec=60, Emin=-(10**6), Emax=10**6)):
        for _ in range(200):
            x = rng.normal(size=int(rng.integers(1, 40))) * 10.0 ** float(rng.integers(-150, 150))
            exact = sum((Decimal(float(y)) ** 2 for y in x), Decimal(0)).sqrt()
            above, below = enclosures._norm_above(x), enclosures._norm_below(x)
            assert Decimal(float(below)) <= exact <= Decimal(float(above))
            assert above - below <= 1e-13 * above
    assert enclosures._norm_above(np.zeros(3)) == 0


def test_rounding_constants_are_rounded_up() -> None:
    for n in (1, 2, 1000, 10**9):
        exact = Fraction(n, 2**53) / (1 - Fraction(n, 2**53))
        assert exact <= Fraction(enclosures.rounding_constant(n)) <= exact * (1 + Fraction(1, 2**49))
