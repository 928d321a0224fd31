"""Keys and queries trained together, with a fixed query: what docs/derivations/key-query.md says of rank one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

import attnembed as ae

Array = NDArray[np.float64]
PAIR = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
# A fourth coordinate, in which no row extends.
MODEL = ae.AttentionModel(np.eye(3, 4), np.zeros(4), [1.0, -3.0, 0.0, 0.0])


def slope(p: Array) -> Array:
    return MODEL.replace(p=p).loss_and_grads(PAIR)[1].p


def test_both_conserve_the_difference_of_the_squares() -> None:
    rng = np.random.default_rng(0)
    K, Q, q = rng.normal(size=(2, 4)), rng.normal(size=(2, 3)), rng.normal(size=3)

    def force(_: float, z: Array) -> Array:
        K, Q = z[:8].reshape(2, 4), z[8:].reshape(2, 3)
        g = slope(K.T @ Q @ q)
        return -np.concatenate([np.outer(Q @ q, g).ravel(), np.outer(K @ g, q).ravel()])

    end = solve_ivp(force, (0, 30.0), np.concatenate([K.ravel(), Q.ravel()]), rtol=1e-10, atol=1e-12).y[:, -1]
    K1, Q1 = end[:8].reshape(2, 4), end[8:].reshape(2, 3)
    moved = np.linalg.norm(K1 @ K1.T - K @ K.T)
    assert moved > 0.5
    assert np.linalg.norm(K1 @ K1.T - Q1 @ Q1.T - K @ K.T + Q @ Q.T) < 1e-7 * moved


def rank_one(k: Array, size: float, log_time: float) -> tuple[Array, float]:
    """k and varrho from a balanced start after t = e^log_time, ||q|| = ``size``."""

    def force(tau: float, z: Array) -> Array:
        k, rho = z[:-1], z[-1]
        g = slope(rho * size * k)
        return -np.exp(tau) * np.append(rho * size * g, size * (k @ g))

    start = np.append(k, np.linalg.norm(k))
    end = solve_ivp(force, (-5.0, log_time), start, method="LSODA", rtol=1e-9, atol=1e-11).y[:, -1]
    return end[:-1], float(end[-1])


@pytest.mark.parametrize("size", [0.7, 2.0])
def test_rank_one_keeps_the_direction_and_loses_the_conserved_part(size: float) -> None:
    late = ae.theory.asymptotics(MODEL, PAIR)
    start = np.array([0.3, 0.1, -0.2, 0.4])
    parts = []
    for log_time in (60.0, 240.0):
        k, rho = rank_one(start, size, log_time)
        assert abs(k @ k - rho**2) < 1e-5 * rho**2
        p = rho * size * k
        assert abs(k[-1] - 0.4) < 1e-9  # outside of the rows k does not move, p does
        assert abs(p[-1] / (0.4 * np.sqrt(size * np.linalg.norm(p))) - 1) < 1e-4
        parts.append(p)
    assert parts[1][-1] > 1.1 * parts[0][-1]
    # In the rows' span, where entries sum to 0, the offset across p_mm tends to that of the flow on p.
    distances = []
    for p in parts:
        inside = p[:3] - p[:3].mean()
        offset = inside - late.rho[:3]
        distances.append(np.linalg.norm(offset - (offset @ late.p_mm[:3]) * late.margin**2 * late.p_mm[:3]))
    across = late.rho - (late.rho @ late.p_mm) * late.margin**2 * late.p_mm
    # Like 1/tau: rho_perp / (mu tau) is left, with mu = 1/3 here, and tau = gamma ||p|| to first order.
    assert distances[1] < 0.4 * distances[0]
    left = 3 * np.linalg.norm(across) / (late.margin * np.linalg.norm(parts[1]))
    assert abs(distances[1] / left - 1) < 0.1
