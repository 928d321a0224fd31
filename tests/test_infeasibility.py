"""Proofs that rows cannot be separated are exact, and none is found where they can."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnembed as ae
from attnembed.errors import InputError, NotSeparableError


def check_proof(rows: Any, proof: Any) -> None:
    """The weights are convex and make 0 in exact arithmetic."""
    assert proof.proved
    assert min(proof.numerators) >= 0
    assert sum(proof.numerators) == proof.denominator > 0
    for column in np.asarray(rows).T.tolist():
        assert sum(w * Fraction(x) for w, x in zip(proof.numerators, column)) == 0


def certificate(rows: Any) -> Any:
    with pytest.raises(NotSeparableError) as caught:
        ae.max_margin(rows)
    return caught.value.certificate


def cloud(seed: int, m: int, d: int, spread: float) -> Any:
    """Rows around a centre of length ``spread``: of the size of the noise, they surround 0 or not."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal(d)
    return rng.standard_normal((m, d)) * 10.0 ** rng.integers(-3, 4) + spread * centre / np.linalg.norm(centre)


@pytest.mark.parametrize("seed", range(12))
def test_rows_around_zero_are_proved_inseparable(seed: int) -> None:
    d = 1 + seed % 5
    rows = cloud(seed, 12 * d, d, 0.0)
    weights = certificate(rows)
    exact = [sum(Fraction(w) * Fraction(x) for w, x in zip(weights.tolist(), c)) for c in rows.T.tolist()]
    proof = ae.infeasibility_proof(rows, weights)
    check_proof(rows, proof)
    assert proof.margin_bound == 0
    assert any(exact) or d == 1  # the floating-point weights alone prove nothing


def test_opposite_rows_and_zero_rows() -> None:
    for rows in ([[0.1, 0.3], [-0.1, -0.3]], [[0.1, 0.3], [-0.2, -0.6]], [[0.0, 0.0], [1.0, 0.5]]):
        check_proof(rows, ae.infeasibility_proof(rows, certificate(rows)))


def test_dependent_rows_keep_their_weight() -> None:
    rows = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]])
    check_proof(rows, ae.infeasibility_proof(rows, np.array([0.2, 0.2, 0.15, 0.15, 0.15, 0.15])))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_nothing_is_proved_of_rows_that_can_be_separated(seed: int, d: int) -> None:
    """Any weights bound the margin, and none proves that there is none."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(d)
    rows = rng.standard_normal((6, d))
    rows += np.maximum(1e-6 - rows @ direction, 0)[:, None] * direction / (direction @ direction)
    result = ae.max_margin(rows)
    for weights in (result.dual, rng.random(6)):
        proof = ae.infeasibility_proof(rows, weights)
        assert not proof.proved
        assert proof.numerators is proof.denominator is None
        assert proof.margin_bound >= result.enclosure()[0]
    assert ae.infeasibility_proof(rows, result.dual).margin_bound <= result.margin * (1 + 1e-6)


def test_rounding_can_move_zero_out_of_the_hull() -> None:
    """A row and three times its opposite, rounded, are not quite opposite: no proof, and a bound of that size."""
    a, b = [0.1, 0.3], [-3 * 0.1, -3 * 0.3]
    assert Fraction(a[0]) * Fraction(b[1]) != Fraction(a[1]) * Fraction(b[0])
    proof = ae.infeasibility_proof([a, b], [0.75, 0.25])
    assert not proof.proved
    assert 0 < proof.margin_bound < 1e-16


def test_a_large_support_is_bounded_only() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 40))
    proof = ae.infeasibility_proof(rows, np.ones(300))
    assert not proof.proved
    assert proof.margin_bound >= np.linalg.norm(rows.mean(axis=0)) > 0.999 * proof.margin_bound


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0], "`certificate` must have shape"),
        ([1.0, -1.0], "must have weights >= 0, not all zero; got the least is -1"),
        ([0.0, 0.0], "must have weights >= 0, not all zero"),
        ([np.nan, 1.0], "`certificate`"),
    ],
)
def test_wrong_weights_are_named(weights: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ae.infeasibility_proof([[1.0, 0.0], [-1.0, 0.0]], weights)
