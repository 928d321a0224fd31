"""Claims of Section 6: the max-margin point in the orthogonal limit, in closed form."""

from __future__ import annotations

import numpy as np

from attnembed.attention.theory.orthogonal import (
    OrthogonalMargin,
    balanced_pair_margin,
    orthogonal_margin,
    private_margin,
    single_margin,
    unequal_pair_margin,
)
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, by_construction, claim
from attnembed.margins import MarginResult, max_margin

_SOURCE = "Section 6, derived here"
_PAGE = "derivations/orthogonal.md"


def solved(kappa: np.ndarray, groups: list[int] | int, tau: float, W: float) -> MarginResult:
    """The program solved numerically: E_s = tau e_s + kappa_s v, irrelevant tokens shared (int) or private (list)."""
    M = kappa.size
    sizes = [groups] if isinstance(groups, int) else groups
    frame = tau * np.eye(M + sum(sizes), M + sum(sizes) + 1)
    important, irrelevant = frame[:M].copy(), frame[M:]
    important[:, -1] = kappa * np.sqrt(W)
    if isinstance(groups, int):
        rows = (important[:, None] - irrelevant[None]).reshape(-1, frame.shape[1])
    else:
        rows = np.repeat(important, sizes, axis=0) - irrelevant
    return max_margin(rows)


def deviation(closed: OrthogonalMargin, numerical: MarginResult, W: float = 1.0, tau: float = 1.0) -> float:
    """Relative difference of the squared norms, of p_mm.v and of all coefficients of p_mm, whichever is largest."""
    along = abs(closed.value / np.sqrt(W) - float(numerical.p[-1])) * numerical.margin if W > 0 else 0.0
    # p_mm = sum lambda_s E_s - sum c_j E_j, and E_s = tau e_s + ..., E_j = tau e_j: its coordinates over tau.
    M, coordinates = len(closed.multipliers), numerical.p[:-1] / tau
    N = len(coordinates) - M
    irrelevant = np.broadcast_to(closed.irrelevant, N) if len(closed.irrelevant) == 1 else closed.irrelevant
    parts = [np.abs(closed.multipliers - coordinates[:M]).max() / np.abs(coordinates).max()]
    if len(irrelevant) == N:
        parts.append(np.abs(np.abs(irrelevant) - np.abs(coordinates[M:])).max() / np.abs(coordinates).max())
    gaps = abs(closed.squared_norm * numerical.margin**2 - 1), abs(closed.margin / numerical.margin - 1)
    return float(largest(along, *gaps, *parts))


@claim(
    "attention/orthogonal-margin",
    statement="M important and N irrelevant tokens: gamma^2 = tau^2 (1/M_eff + 1/N) where all multipliers are positive",
    tex=r"\gamma^2 = \tau^2(1/M_{\mathrm{eff}} + 1/N),\ M_{\mathrm{eff}} = M - K_1^2W/(\tau^2 + K_2W)",
    reference=_SOURCE,
    hypotheses=("every multiplier is positive",),
    control="the formula where a multiplier is negative",
    derivation=_PAGE,
)
def general(rng: np.random.Generator) -> Evidence:
    worst, control, holds = 0.0, 0.0, True
    for _ in range(30):
        M, N = int(rng.integers(1, 7)), int(rng.integers(1, 9))
        kappa = 0.5 * rng.standard_normal(M)
        tau, W = rng.uniform(0.5, 2.0), rng.uniform(0.2, 2.0)
        closed = orthogonal_margin(kappa, N, tau=tau, W=W)
        while not closed.holds:  # shrinking kappa makes every multiplier positive
            kappa /= 2
            closed = orthogonal_margin(kappa, N, tau=tau, W=W)
        holds &= closed.holds
        worst = largest(worst, deviation(closed, solved(kappa, N, tau, W), W, tau))
    kappa = np.array([8.0, 1.0, 1.0])
    beyond = orthogonal_margin(kappa, 3)
    control = deviation(beyond, solved(kappa, 3, 1.0, 1.0)) if not beyond.holds else 0.0
    return Evidence(
        measured=worst, tolerance=1e-12, control=control, hypotheses={"every multiplier is positive": holds}
    )


@claim(
    "attention/single-margin",
    statement="one important token and k irrelevant ones: gamma^2 = tau^2 (1 + 1/k) + kappa^2 ||v||^2",
    tex=r"\gamma^2 = \tau^2(1 + 1/k) + \kappa^2W",
    reference=_SOURCE,
    control="the formula without kappa^2 W",
    derivation=_PAGE,
)
def single(rng: np.random.Generator) -> Evidence:
    kappa, k = rng.uniform(0.5, 5.0), int(rng.integers(1, 10))
    tau, W = rng.uniform(0.5, 2.0), rng.uniform(0.2, 2.0)
    numerical = solved(np.array([kappa]), k, tau, W)
    return Evidence(
        measured=deviation(single_margin(kappa, k, tau=tau, W=W), numerical, W, tau),
        tolerance=1e-12,
        control=deviation(single_margin(0.0, k, tau=tau, W=W), numerical, W, tau),
    )


@claim(
    "attention/balanced-pair",
    statement="a balanced pair: gamma^2 = tau^2 (1/2 + 1/N) and p_mm.v = 0 for every step size and frequency",
    tex=r"\gamma^2 = \tau^2(1/2 + 1/N),\quad p_{mm}\cdot v = 0",
    reference=_SOURCE,
    hypotheses=(by_construction("kappa_- = -kappa_+", code="np.array([kappa, -kappa])"),),
    control="the same formula for an unbalanced pair",
    derivation=_PAGE,
)
def balanced_pair(rng: np.random.Generator) -> Evidence:
    worst, N = 0.0, int(rng.integers(1, 10))
    for kappa in (0.1, 1.0, 10.0):
        numerical = solved(np.array([kappa, -kappa]), N, 1.0, 1.0)
        worst = largest(worst, deviation(balanced_pair_margin(kappa, N), numerical), abs(float(numerical.p[-1])))
    return Evidence(
        measured=worst,
        tolerance=1e-12,
        control=deviation(balanced_pair_margin(1.0, N), solved(np.array([1.0, -0.5]), N, 1.0, 1.0)),
    )


@claim(
    "attention/unequal-pair",
    statement="a pair of opposite signs: ||p_mm||^2 from a 2 x 2 Gram matrix, G12 = tau^2/N - |kappa_+ kappa_-| W",
    tex=r"\|p_{mm}\|^2 = (G_{11} + G_{22} - 2G_{12})/(G_{11}G_{22} - G_{12}^2)",
    reference=_SOURCE,
    control="the other sign of the product kappa_+ kappa_-",
    derivation=_PAGE,
)
def unequal_pair(rng: np.random.Generator) -> Evidence:
    plus, minus, N = rng.uniform(0.2, 2.0), -rng.uniform(0.2, 2.0), int(rng.integers(2, 10))
    tau, W = rng.uniform(0.5, 2.0), rng.uniform(0.2, 2.0)
    numerical = solved(np.array([plus, minus]), N, tau, W)
    return Evidence(
        measured=deviation(unequal_pair_margin(plus, minus, N, tau=tau, W=W), numerical, W, tau),
        tolerance=1e-12,
        control=deviation(unequal_pair_margin(plus, -minus, N, tau=tau, W=W), numerical, W, tau),
    )


@claim(
    "attention/private-margin",
    statement="sequences with private irrelevant tokens: ||p_mm||^2 is the sum of (1 - kappa_i c W)/A_i",
    tex=r"\lambda_i = (1 - \kappa_i cW)/A_i,\ A_i = \tau^2(1 + 1/k_i)",
    reference=_SOURCE,
    hypotheses=("every multiplier is positive",),
    control="the closed form for shared irrelevant tokens",
    derivation=_PAGE,
)
def private(rng: np.random.Generator) -> Evidence:
    sizes = [int(k) for k in rng.integers(1, 6, size=4)]
    kappa = np.array([1.0, 1.0, -1.0, -1.0]) * rng.uniform(0.5, 1.0, size=4)
    tau, W = rng.uniform(0.5, 2.0), rng.uniform(0.2, 2.0)
    closed, numerical = private_margin(kappa, sizes, tau=tau, W=W), solved(kappa, sizes, tau, W)
    return Evidence(
        measured=deviation(closed, numerical, W, tau),
        tolerance=1e-12,
        control=deviation(orthogonal_margin(kappa, sum(sizes), tau=tau, W=W), numerical, W, tau),
        hypotheses={"every multiplier is positive": closed.holds},
    )


@claim(
    "attention/finite-width",
    statement="with Gaussian embeddings of width d, ||p_mm||^2 reaches its orthogonal limit at the rate d^{-1/2}",
    tex=r"\bigl|\,\|p_{mm}\|^2 - \|p_{mm}\|^2_\infty\bigr| = O(d^{-1/2})",
    reference="Section 6, measured",
    control="the exponent -1",
    derivation=_PAGE,
)
def finite_width(rng: np.random.Generator) -> Evidence:
    M, N, dims = 2, 4, np.array([100, 200, 400, 800, 1600, 3200])
    kappa = np.array([0.5, -0.5])
    limit = balanced_pair_margin(0.5, N).squared_norm
    errors = []
    for d in dims:
        norms = []
        for _ in range(60):
            E = rng.standard_normal((M + N, d)) / np.sqrt(d)
            v = rng.choice([-1.0, 1.0], size=d) / np.sqrt(d)
            E[:M] += np.outer(kappa, v)
            norms.append(1 / max_margin((E[:M, None] - E[None, M:]).reshape(-1, d)).margin ** 2)
        errors.append(np.sqrt(np.mean((np.array(norms) - limit) ** 2)))
    slope = float(np.polyfit(np.log(dims), np.log(errors), 1)[0])
    return Evidence(measured=abs(slope + 0.5), tolerance=0.15, control=abs(slope + 1), note=f"exponent {slope:.3f}")
