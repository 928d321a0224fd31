"""Enclosures of log Z contain what listing all labelings in 60 digits gives, and are narrow."""

from __future__ import annotations

import itertools
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import attnembed as ae
from attnembed.errors import InputError


def exact_log_partition(unary: Any, pairwise: Any) -> Decimal:
    """Scores as fractions, the rest in 60 digits."""
    L, K = unary.shape
    with localcontext(Context(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX)):
        total = Decimal(0)
        for y in itertools.product(range(K), repeat=L):
            parts = [unary[i, y[i]] for i in range(L)] + [pairwise[a, b] for a, b in itertools.pairwise(y)]
            if -np.inf not in parts:
                score = sum((Fraction(float(x)) for x in parts), Fraction(0))
                total += (Decimal(score.numerator) / Decimal(score.denominator)).exp()
        return total.ln()


def drawn(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    L, K = int(rng.integers(1, 5)), int(rng.integers(2, 4))
    spread = rng.choice([0.1, 1.0, 30.0, 1e4])
    unary, pairwise = spread * rng.standard_normal((L, K)), spread * rng.standard_normal((K, K))
    if seed % 3 == 0:
        unary[0, 1] = pairwise[1, 0] = -np.inf
    return unary, pairwise


def check(seeds: range) -> int:
    """Returns how often the floating-point log Z is not the exact one."""
    inexact = 0
    for seed in seeds:
        unary, pairwise = drawn(seed)
        low, high = ae.chain_log_partition_enclosure(unary, pairwise)
        exact = exact_log_partition(unary, pairwise)
        assert Decimal(low) <= exact <= Decimal(high), seed
        assert high - low <= 2 * np.spacing(max(abs(low), abs(high)))
        inexact += not low <= float(ae.chain_log_partition(unary, pairwise)) <= high
    return inexact


def test_the_exact_value_is_inside() -> None:
    check(range(20))


@pytest.mark.slow
def test_the_exact_value_is_inside_300() -> None:
    """As a control, the recursion in floating point leaves the interval now and then."""
    assert check(range(300)) > 10


def test_a_long_chain_is_narrow_and_agrees() -> None:
    rng = np.random.default_rng(0)
    unary, pairwise = rng.standard_normal((300, 5)), rng.standard_normal((5, 5))
    low, high = ae.chain_log_partition_enclosure(unary, pairwise)
    assert 0 <= high - low <= 1e-12
    np.testing.assert_allclose(ae.chain_log_partition(unary, pairwise), low, rtol=1e-13)


@pytest.mark.parametrize("size", [1e6, 1e12])
def test_sizes_that_exponentials_do_not_hold(size: float) -> None:
    low, high = ae.chain_log_partition_enclosure([[0.0, size], [0.0, -size]], np.zeros((2, 2)))
    assert low <= size <= high  # the rest is e^-size of it
    assert high <= np.nextafter(size, np.inf)


def test_single_precision_is_taken_for_what_it_is() -> None:
    unary = np.array([[0.1, 0.7], [0.3, -0.2]], dtype=np.float32)
    pairwise = np.zeros((2, 2), dtype=np.float32)
    low, high = ae.chain_log_partition_enclosure(unary, pairwise)
    assert Decimal(low) <= exact_log_partition(unary, pairwise) <= Decimal(high)


@pytest.mark.parametrize(
    ("unary", "pairwise", "words"),
    [
        (np.zeros((2, 3, 2)), np.zeros((2, 2)), "one sequence"),
        (np.zeros((3, 2)), np.zeros((3, 3)), "`pairwise` must have shape"),
        ([[0, 1e13]], np.zeros((2, 2)), "`unary` must be at most 1e.12 in size"),
        ([[0, -np.inf], [-np.inf, 0]], [[0, -np.inf], [0, 0]], "must leave the sequence a labeling"),
    ],
)
def test_what_cannot_be_enclosed_is_named(unary: Any, pairwise: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ae.chain_log_partition_enclosure(unary, pairwise)
