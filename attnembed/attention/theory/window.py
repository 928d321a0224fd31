"""One large step from a random initialisation: the step sizes that make selection certain, up to delta.

Derivation: docs/derivations/random-step-window.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from attnembed._typing import Floats
from attnembed._validation import check_integer, check_positive, check_share
from attnembed.attention.data import TokenDataset
from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
from attnembed.attention.theory.one_step import normal_length, normal_peak
from attnembed.errors import InputTypeError
from attnembed.losses import logistic

__all__ = ["RandomStepWindow", "random_step_window"]

# The step sizes to search, as multiples of the threshold for p_0 = 0 and E_0 v = 0.
_SEARCHED = (1e-6, 1e12)
_POINTS = 2000


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RandomStepWindow(Prediction):
    """Step sizes from ``low`` to ``high`` lead into the basin with probability at least 1 - ``delta``.

    Both are NaN where no step size is certain; ``high`` is inf where no step is too large. ``threshold`` is the step
    size that suffices for p_0 = 0 and E_0 v = 0 (`basin.large_step_size`); ``best_ratio`` the smallest value of
    n l(theta Gamma - (1 - theta) eps) / l(eps), reached at ``best``: below 1 inside the window.
    ``G0``, ``cls_norm``, ``rho`` and ``cls_value`` bound max |E_s.v|, ||p_0||, max |p_0.E_s| and |p_0.v|.
    """

    low: float
    high: float
    threshold: float
    best: float
    best_ratio: float
    delta: float
    G0: float
    cls_norm: float
    rho: float
    cls_value: float


def random_step_window(
    data: TokenDataset,
    dim: int,
    *,
    embedding_scale: float | None = None,
    cls_scale: float | None = None,
    delta: float = 0.05,
    v_norm: float = 1.0,
) -> RandomStepWindow:
    """Find the step sizes eta for which one step on E from a random start leads into the basin of the top tokens.

    E_0s ~ N(0, sE^2 I), p_0 ~ N(0, sp^2 I), Assumption 1. Each important token has |alpha_s| = phi_s, so that with the
    bound b on the error of a value per unit of eta phi_s (`one_step.gaussian_one_step_bound`)

        Gamma >= eta phi_imp (W/2 - b) - G0,   eps <= G0 + eta phi_irr b,
        theta >= min_i (n_is*/T_i) e^{-2 (rho + eta x)},   x = phi_max sigma(G0) e^{2 rho} (|p_0.v| + 2 G0 ||p_0||^2),

    and `basin.large_step_condition` holds where n l(theta Gamma - (1 - theta) eps) < l(eps). Since theta falls with
    eta, a larger step is not always better.

    Parameters
    ----------
    dim : d; independent embeddings, and so a feasible program, need d >= the number of tokens that occur
    embedding_scale, cls_scale : sE, sp >= 0, standard deviations per coordinate; 1/sqrt(d) by default, as in
        `AttentionModel.random`
    delta : in (0, 1), the allowed probability of failure
    v_norm : ||v||

    Raises
    ------
    InputError
        for values out of range.

    Source: derived here (docs/derivations/random-step-window.md).

    >>> from attnembed.attention.data import make_balanced_dataset
    >>> data = make_balanced_dataset(n_samples=16, length=4, n_irrelevant=6, n_positive=1, n_negative=1, rng=0)
    >>> window = random_step_window(data, 10_000_000)
    >>> window.holds, bool(window.threshold < window.low < window.high < np.inf)
    (True, True)
    >>> random_step_window(data, 50).holds
    False
    """
    if not isinstance(data, TokenDataset):
        raise InputTypeError("data", "must be a TokenDataset", got=type(data).__name__)
    d = check_integer("dim", dim, minimum=1)
    sE = check_positive("embedding_scale", d**-0.5 if embedding_scale is None else embedding_scale, zero_ok=True)
    sp = check_positive("cls_scale", d**-0.5 if cls_scale is None else cls_scale, zero_ok=True)
    norm_v = check_positive("v_norm", v_norm)
    check_share("delta", delta, closed="neither")

    report = data.check_assumption(limit=data.n_samples + data.vocab_size)
    occurs = data.frequency > 0
    important = np.unique(report.important[report.important >= 0])
    irrelevant = np.setdiff1d(np.flatnonzero(occurs), important)
    V, n, W = int(np.count_nonzero(occurs)), data.n_samples, norm_v**2
    # Four events, each failing with probability at most delta/4.
    spread = normal_peak(V, delta / 4)
    G0 = sE * norm_v * spread
    norm_p = sp * normal_length(d, delta / 4)
    rho = sE * norm_p * spread
    along = sp * norm_v * normal_peak(1, delta / 4)

    phi_imp = float(data.frequency[important].min(initial=np.inf)) if important.size else 0.0
    phi_irr = float(data.frequency[irrelevant].max(initial=0.0))
    share = _least_share(data, report.important)
    power, sigma = min(2 * rho, 600.0), float(expit(G0))
    b = (math.expm1(power) * sigma + G0 / 4) * W + 2 * math.exp(power) * sigma * G0 * along
    x = float(data.frequency.max()) * sigma * math.exp(power) * (along + 2 * G0 * norm_p**2)

    def log_ratio(eta: float) -> float:
        """log of n l(theta Gamma - (1 - theta) eps) / l(eps)."""
        Gamma, eps = eta * phi_imp * (W / 2 - b) - G0, G0 + eta * phi_irr * b
        theta = share * math.exp(-2 * (rho + eta * x))
        worst = theta * Gamma - (1 - theta) * eps
        # l(z) = e^{-z} up to rounding beyond 700, where it underflows.
        losses = [-z if z > 700 else math.log(float(logistic(z))) for z in (worst, eps)]
        return math.log(n) + losses[0] - losses[1]

    threshold = 2 * math.log(n / math.log(2)) / (share * phi_imp * W) if share * phi_imp > 0 else math.inf
    usable = math.isfinite(threshold) and b < W / 2
    low, high, best, least = _window(log_ratio, threshold) if usable else (math.nan, math.nan, math.nan, math.inf)
    return RandomStepWindow(
        hypotheses=(
            Hypothesis("violations of Assumption 1", float(len(report.violations)), "<=", 0.0),
            Hypothesis("independent embeddings: d against the tokens that occur", float(d), ">=", float(V)),
            Hypothesis("the step aligns the important values: error b against ||v||^2/2", b, "<", W / 2),
            Hypothesis("some step size is certain: smallest log ratio", least, "<", 0.0),
        ),
        low=low,
        high=high,
        threshold=threshold,
        best=best,
        best_ratio=math.exp(min(least, 700.0)),
        delta=float(delta),
        G0=G0,
        cls_norm=norm_p,
        rho=rho,
        cls_value=along,
    )


def rotated_start(
    rng: np.random.Generator, vocab_size: int, dim: int, embedding_scale: float, cls_scale: float
) -> tuple[Floats, Floats, Floats]:
    """A draw of (E, p, v), ||v|| = 1, in a basis of their span: only inner products matter, and d may be any size.

    The triangular factor of a Gaussian (d, k) matrix with k = V + 2 <= d has chi variables with d, d - 1, ... degrees
    of freedom on its diagonal and standard normal ones above it (Bartlett's decomposition).
    """
    k = vocab_size + 2
    R = np.triu(rng.standard_normal((k, k)), 1)
    R[np.diag_indices(k)] = np.sqrt(rng.chisquare(dim - np.arange(k)))
    return embedding_scale * R[:, 2:].T, cls_scale * R[:, 1], np.eye(k)[0]


def _least_share(data: TokenDataset, important: np.ndarray) -> float:
    """min_i n_is* / T_i over the sequences with an important token, 0 where one has none."""
    if (important < 0).any():
        return 0.0
    counts = np.asarray(data.counts[np.arange(data.n_samples), important]).ravel()
    return float((counts / data.lengths).min())


def _window(log_ratio: Callable[[float], float], threshold: float) -> tuple[float, float, float, float]:
    """(low, high, best, log_ratio at best) around the smallest value; NaN for both ends where it is not negative."""
    etas = threshold * np.geomspace(*_SEARCHED, _POINTS)
    values = np.array([log_ratio(eta) for eta in etas])
    k = int(np.argmin(values))
    if not values[k] < 0:
        return math.nan, math.nan, float(etas[k]), float(values[k])

    def end(inside: int, outside: int) -> float:
        return math.exp(brentq(lambda z: log_ratio(math.exp(z)), math.log(etas[inside]), math.log(etas[outside])))

    below = np.flatnonzero(values[:k] >= 0)
    above = k + np.flatnonzero(values[k:] >= 0)
    low = end(below[-1] + 1, below[-1]) if below.size else float(etas[0])
    high = end(above[0] - 1, above[0]) if above.size else math.inf
    return low, high, float(etas[k]), float(values[k])
