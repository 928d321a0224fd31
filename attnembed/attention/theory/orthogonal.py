"""The margin program in the orthogonal limit, in closed form.

Embeddings E_s = e_s + kappa_s v with e_s orthogonal to each other and to v, ||e_s|| = tau: the result of one step on E
for wide random embeddings, where kappa_s = (eta/2) alpha_s, and kappa = 0 for irrelevant tokens. W = ||v||^2.
Derivation: docs/derivations/orthogonal.md.

For large kappa the formulas are differences of nearly equal numbers (such as 1 - kappa_s K1 W / ...) and may lose all
digits in floating point. They are rational in the arguments, so they are evaluated in exact fractions and rounded once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from attnembed._typing import Floats
from attnembed._validation import (
    as_array,
    as_real_array,
    check_between,
    check_integer,
    check_positive,
    freeze,
    shown,
)
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.theory._inputs import ROUNDING, largest_product, parameters
from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
from attnembed.errors import InputError

__all__ = [
    "OrthogonalEmbeddings",
    "OrthogonalMargin",
    "balanced_pair_margin",
    "orthogonal_embeddings",
    "orthogonal_margin",
    "private_margin",
    "single_margin",
    "unequal_pair_margin",
]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OrthogonalMargin(Prediction):
    """Solution of the margin program: ``margin`` gamma = 1/||p_mm||, ``squared_norm`` ||p_mm||^2 = sum lambda.

    p_mm = sum_s lambda_s E_s - (its irrelevant part). ``multipliers`` lambda (M,) has one entry per important token
    (the sum over its constraints), ``irrelevant`` is the coefficient of each irrelevant token E_j: one number, or one
    per important token where the irrelevant ones are private. ``value`` = p_mm . v. Valid if and only if lambda >= 0.
    """

    margin: float
    squared_norm: float
    multipliers: Floats
    irrelevant: Floats
    value: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OrthogonalEmbeddings(Prediction):
    """E_s = e_s + kappa_s v: ``e`` (V, d), ``kappa`` (V,), ``tau`` the mean norm of the e_s, ``W`` = ||v||^2.

    The hypotheses measure how far the e_s of the tokens that occur are from being orthogonal and of equal norm.
    """

    e: Floats
    kappa: Floats
    tau: float
    W: float


def orthogonal_embeddings(model: Parameters, data: TokenDataset) -> OrthogonalEmbeddings:
    """Split E_s = e_s + kappa_s v, kappa_s = E_s.v / ||v||^2, so that e_s.v = 0; (V, d) and (V,).

    For v = 0 there is no part along v: kappa = 0, and a hypothesis fails.

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 1], [2, 1]], [1, -1])
    >>> split = orthogonal_embeddings(AttentionModel(np.eye(3, 4) + [0, 0, 0, 0.5], np.zeros(4), [0, 0, 0, 2.0]), data)
    >>> split.kappa, split.tau, split.holds
    (array([0.25, 0.25, 0.25]), 1.0, True)
    """
    E, _, v = parameters(model, data)
    W = float(v @ v)
    kappa = E @ v / W if W > 0 else np.zeros(len(E))
    e = E - np.outer(kappa, v)
    occurring = e[data.frequency > 0]
    norms = np.linalg.norm(occurring, axis=1)
    tau = float(norms.mean())
    return OrthogonalEmbeddings(
        hypotheses=(
            Hypothesis(
                "e_s are orthogonal: max |e_s.e_r| / tau^2",
                largest_product(occurring) / (tau**2 or 1.0),
                "<=",
                ROUNDING,
            ),
            Hypothesis(
                "e_s have equal norms: max | ||e_s|| - tau | / tau",
                float(np.abs(norms - tau).max()) / (tau or 1.0),
                "<=",
                ROUNDING,
            ),
            Hypothesis("there is a direction v: ||v||^2", W, ">", 0.0),
        ),
        e=freeze(e),
        kappa=freeze(kappa),
        tau=tau,
        W=W,
    )


def orthogonal_margin(kappa: ArrayLike, n_irrelevant: int, *, tau: float = 1.0, W: float = 1.0) -> OrthogonalMargin:
    """The margin for M important and N irrelevant tokens, with every pair of them in some sequence.

    With K1 = sum kappa, K2 = sum kappa^2, M_eff = M - K1^2 W / (tau^2 + K2 W):
        gamma^2 = tau^2 (1/M_eff + 1/N),
        lambda_s = N / ((N + M_eff) tau^2) * (1 - kappa_s K1 W / (tau^2 + K2 W)),
        p_mm = sum_s lambda_s E_s - (sum lambda / N) sum_j E_j.

    Exact in kappa, tau and W up to one rounding, however large kappa is.

    Parameters
    ----------
    kappa : (M,) components of the important tokens along v, either sign
    n_irrelevant : N >= 1
    tau : ||e_s|| > 0
    W : ||v||^2 >= 0

    Source: derived here (docs/derivations/orthogonal.md).

    >>> round(orthogonal_margin([0.5, -0.5], 4).margin ** 2, 12)  # a balanced pair: 1/2 + 1/4
    0.75
    """
    k, N, t, w = _arguments(kappa, n_irrelevant, tau, W)
    K1, K2 = sum(k), sum(x * x for x in k)
    stiffness = t * t + K2 * w
    M_eff = len(k) - K1 * K1 * w / stiffness
    each = N / ((N + M_eff) * t * t * stiffness)
    # 1 - kappa_s K1 W / (tau^2 + K2 W) = (tau^2 + W sum_r kappa_r (kappa_r - kappa_s)) / (tau^2 + K2 W)
    multipliers = [each * (stiffness - x * K1 * w) for x in k]
    return _margin(multipliers, [-sum(multipliers) / N], k, w)


def private_margin(kappa: ArrayLike, n_irrelevant: ArrayLike, *, tau: float = 1.0, W: float = 1.0) -> OrthogonalMargin:
    """The margin for M sequences, each of one important token s_i and k_i irrelevant tokens that occur nowhere else.

    With A_i = tau^2 (1 + 1/k_i), c = sum(kappa_i / A_i) / (1 + W sum kappa_i^2 / A_i):
        lambda_i = (1 - kappa_i c W) / A_i,   ||p_mm||^2 = sum lambda_i,   p_mm . v = c W.

    Parameters
    ----------
    kappa : (M,); n_irrelevant : (M,) k_i >= 1, or one k for all

    Source: derived here (docs/derivations/orthogonal.md).

    >>> round(private_margin([0.5], [3]).margin ** 2, 12) == round(single_margin(0.5, 3).margin ** 2, 12)
    True
    """
    k, _, t, w = _arguments(kappa, 1, tau, W)
    sizes = as_array("n_irrelevant", n_irrelevant)
    if sizes.dtype.kind not in "iu" or sizes.shape not in ((), (len(k),)) or (sizes < 1).any():
        raise InputError("n_irrelevant", f"must hold {len(k)} integers >= 1, or one for all", got=shown(n_irrelevant))
    own = [Fraction(int(size)) for size in np.broadcast_to(sizes, len(k))]
    A = [t * t * (1 + 1 / size) for size in own]
    c = sum(x / a for x, a in zip(k, A)) / (1 + w * sum(x * x / a for x, a in zip(k, A)))
    multipliers = [(1 - x * c * w) / a for x, a in zip(k, A)]
    return _margin(multipliers, [-x / size for x, size in zip(multipliers, own)], k, w)


def single_margin(kappa: float, n_irrelevant: int, *, tau: float = 1.0, W: float = 1.0) -> OrthogonalMargin:
    """The margin for one important token and k irrelevant ones: gamma^2 = tau^2 (1 + 1/k) + kappa^2 W. Always valid.

    Source: derived here (docs/derivations/orthogonal.md).

    >>> round(single_margin(0.5, 4).margin ** 2, 12)  # 1 + 1/4 + 1/4
    1.5
    """
    kappa = check_between("kappa", kappa, -math.inf, math.inf)
    (x,), N, t, w = _arguments([kappa], n_irrelevant, tau, W)
    multiplier = 1 / (t * t * (1 + 1 / N) + x * x * w)
    return _margin([multiplier], [-multiplier / N], [x], w)


def balanced_pair_margin(kappa: float, n_irrelevant: int, *, tau: float = 1.0, W: float = 1.0) -> OrthogonalMargin:
    """The margin for important tokens at +kappa and -kappa: gamma^2 = tau^2 (1/2 + 1/N), p_mm . v = 0 for any kappa.

    Neither the step size nor the signed frequency matters. Always valid. Source: derived here
    (docs/derivations/orthogonal.md).

    >>> balanced_pair_margin(0.1, 4).margin == balanced_pair_margin(7.0, 4).margin
    True
    """
    kappa = check_between("kappa", kappa, -math.inf, math.inf)
    (x,), N, t, w = _arguments([kappa], n_irrelevant, tau, W)
    multiplier = 1 / (t * t * (1 + 2 / N))
    return _margin([multiplier] * 2, [-2 * multiplier / N], [x, -x], w)


def unequal_pair_margin(
    kappa_plus: float, kappa_minus: float, n_irrelevant: int, *, tau: float = 1.0, W: float = 1.0
) -> OrthogonalMargin:
    """The margin for important tokens at kappa_+ and kappa_-, with their signs (kappa_- < 0 for a negative token).

    ||p_mm||^2 = (G11 + G22 - 2 G12) / (G11 G22 - G12^2), with G11 = tau^2 (1 + 1/N) + kappa_+^2 W, G22 likewise and
    G12 = tau^2/N + kappa_+ kappa_- W. Always valid for opposite signs; for equal signs where both
    G11 > G12 and G22 > G12.

    Source: derived here (docs/derivations/orthogonal.md).

    >>> round(unequal_pair_margin(0.5, -0.5, 4).margin ** 2, 12)
    0.75
    """
    both = {"kappa_plus": kappa_plus, "kappa_minus": kappa_minus}
    pair = [check_between(name, kappa, -math.inf, math.inf) for name, kappa in both.items()]
    (x, y), N, t, w = _arguments(pair, n_irrelevant, tau, W)
    G11, G22 = (t * t * (1 + 1 / N) + z * z * w for z in (x, y))
    G12 = t * t / N + x * y * w
    determinant = G11 * G22 - G12 * G12
    multipliers = [(G22 - G12) / determinant, (G11 - G12) / determinant]
    return _margin(multipliers, [-sum(multipliers) / N], [x, y], w)


def _arguments(
    kappa: ArrayLike, n_irrelevant: int, tau: float, W: float
) -> tuple[list[Fraction], Fraction, Fraction, Fraction]:
    """kappa, N, tau and W, checked, as exact fractions."""
    N = check_integer("n_irrelevant", n_irrelevant, minimum=1)
    array = as_real_array("kappa", kappa, ndim=1, dtype=np.float64)
    if array.size == 0:
        raise InputError("kappa", "must have one entry per important token", got="none")
    exact = [Fraction(x) for x in array.tolist()]
    return exact, Fraction(N), Fraction(check_positive("tau", tau)), Fraction(check_positive("W", W, zero_ok=True))


def _margin(
    multipliers: list[Fraction], irrelevant: list[Fraction], kappa: list[Fraction], W: Fraction
) -> OrthogonalMargin:
    """||p_mm||^2 = sum lambda and p_mm.v = W sum lambda kappa, from the multipliers, all rounded here."""
    squared_norm = _rounded(sum(multipliers))
    return OrthogonalMargin(
        hypotheses=(Hypothesis("smallest multiplier", _rounded(min(multipliers)), ">=", 0.0),),
        margin=1 / math.sqrt(squared_norm) if squared_norm > 0 else math.nan,
        squared_norm=squared_norm,
        multipliers=freeze(np.array([_rounded(x) for x in multipliers])),
        irrelevant=freeze(np.array([_rounded(x) for x in irrelevant])),
        value=_rounded(W * sum(x * k for x, k in zip(multipliers, kappa))),
    )


def _rounded(x: Fraction | int) -> float:
    """The nearest float, infinite beyond the largest finite one."""
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf
