"""One gradient step on E, which makes the token values (eta/2) ||v||^2 times the average signed frequencies.

[WSOM25], Lemma 4.1. Derivation, with the constants used here: docs/derivations/one-step.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtri, ndtri

from attnembed._typing import Floats
from attnembed._validation import as_real_array, check_positive, check_share, freeze
from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.parameters import Parameters
from attnembed.attention.theory._inputs import ROUNDING, largest_share_along, parameters
from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
from attnembed.errors import InputError
from attnembed.gibbs import probabilities
from attnembed.losses import Loss, check_loss, logistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "GaussianOneStepBound",
    "OneStepBound",
    "OneStepPrediction",
    "gaussian_one_step_bound",
    "normal_length",
    "normal_peak",
    "one_step_bound",
    "one_step_prediction",
]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OneStepPrediction(Prediction):
    """Embeddings ``E`` (V, d) and token values ``values`` (V,) after one step; ``slope`` = (eta/2) ||v||^2.

    ``values`` = g^0 + slope * alpha. The prediction is ``exact`` when p_0 = 0 and E^0 v = 0; otherwise `one_step_bound`
    bounds its error.
    """

    E: Floats
    values: Floats
    slope: float

    @property
    def exact(self) -> bool:
        """Whether p_0 = 0 and E^0 v = 0."""
        return self.holds


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OneStepBound(Prediction):
    """Bounds on the error of `one_step_prediction`, per token: ``embedding`` (V,) in norm, ``value`` (V,) in g.

    ``G0`` = max |g^0_s|, ``F`` = max |f^0_i|, ``rho`` = max |p_0 . E^0_s|, over the tokens that occur. No hypothesis.
    """

    embedding: Floats
    value: Floats
    G0: float
    F: float
    rho: float

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw both bounds by token, on new axes if none are given; returns the axes."""
        from attnembed import figures

        lines = {"embedding, in norm": self.embedding, "value $g$": self.value}
        tokens = np.arange(self.value.size)
        return figures.plot_lines(tokens, lines, ax=ax, marker="o", xlabel="token", ylabel="bound on the error")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GaussianOneStepBound(OneStepBound):
    """The bound for Gaussian E^0 and p_0, valid with probability at least 1 - ``delta``; ``cls_norm`` bounds ||p_0||.

    ``G0``, ``F``, ``rho`` and ``cls_norm`` are upper bounds that hold with that probability, not measured values.
    """

    cls_norm: float
    delta: float


def one_step_prediction(
    model: Parameters, data: TokenDataset, step_size: float, *, loss: Loss | str = logistic
) -> OneStepPrediction:
    """Predict E^1_s ~ E^0_s + (eta/2) alpha_s v, the step in the limit of small initial scores and values.

    Exact when p_0 = 0 and E^0 v = 0. For any other ``loss``, a `losses.Loss` or the name of one, -eta l'(0) replaces
    eta/2. Shapes: E (V, d), values (V,). Source: [WSOM25], Lemma 4.1.

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> step = one_step_prediction(AttentionModel(np.zeros((3, 2)), [0.0, 0.0], [1.0, 0.0]), data, 8.0)
    >>> step.values, step.slope, step.exact
    (array([ 1., -1.,  0.]), 4.0, True)
    """
    eta = check_positive("step_size", step_size, zero_ok=True)
    return predict(*parameters(model, data), data, eta, check_loss(loss))


def predict(
    E: Floats, p: Floats, v: Floats, data: TokenDataset, eta: float, loss: Loss = logistic
) -> OneStepPrediction:
    """`one_step_prediction` for checked arguments."""
    alpha = data.signed_frequency
    rate = eta * _pull(loss, 0.0)
    slope = rate * float(v @ v)
    g = E @ v
    return OneStepPrediction(
        hypotheses=(
            Hypothesis("p_0 is zero: ||p_0||", float(np.linalg.norm(p)), "<=", 0.0),
            Hypothesis(
                "E_0 v is zero: max |E_s.v| / (||E_s|| ||v||)",
                largest_share_along(E[data.frequency > 0], v),
                "<=",
                ROUNDING,
            ),
        ),
        E=freeze(E + (rate * alpha)[:, None] * v),
        values=freeze(g + slope * alpha),
        slope=slope,
    )


def one_step_bound(
    model: Parameters, data: TokenDataset, step_size: float, *, loss: Loss | str = logistic
) -> OneStepBound:
    """Bound the error of `one_step_prediction` for any E^0 and p_0.

    ||E^1_s - E^0_s - (eta/2) alpha_s v||
        <= eta phi_s { [(e^{2 rho} - 1) sigma(F) + F/4] ||v|| + 2 e^{2 rho} sigma(F) G0 ||p_0|| },
    and the same with ||v||^2 and |p_0 . v| in place of ||v|| and ||p_0|| for g^1_s - g^0_s - (eta/2) alpha_s ||v||^2.
    For any other ``loss``, -l'(-F) replaces sigma(F), the larger of l'(0) - l'(-F) and l'(F) - l'(0) replaces F/4, and
    -eta l'(0) replaces eta/2.

    Source: [WSOM25], Lemma 4.1; constants derived here (docs/derivations/one-step.md).

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> bound = one_step_bound(AttentionModel(np.eye(3), [0.1, 0.0, 0.0], [0.0, 0.0, 1.0]), data, 1.0)
    >>> bound.rho, bound.G0, bound.embedding.round(3)
    (0.1, 1.0, array([0.104, 0.104, 0.207]))
    """
    eta = check_positive("step_size", step_size, zero_ok=True)
    return bound(*parameters(model, data), data, eta, check_loss(loss))


def bound(E: Floats, p: Floats, v: Floats, data: TokenDataset, eta: float, loss: Loss = logistic) -> OneStepBound:
    """`one_step_bound` for checked arguments."""
    u, g = E @ p, E @ v
    columns, segments = data.counts.indices, data.segments
    attention = probabilities(u[columns], segments, data.counts.data)
    F = _peak(segments.sum(attention * g[columns]))
    G0, rho = _peak(g[columns]), _peak(u[columns])
    norm_v, norm_p = (float(np.linalg.norm(x)) for x in (v, p))
    share = eta * data.frequency
    return OneStepBound(
        hypotheses=(),
        embedding=freeze(_times(share, _per_frequency(loss, G0, F, rho, norm_v, norm_p))),
        value=freeze(_times(share, _per_frequency(loss, G0, F, rho, norm_v**2, abs(float(p @ v))))),
        G0=G0,
        F=F,
        rho=rho,
    )


def gaussian_one_step_bound(
    data: TokenDataset,
    v: ArrayLike,
    step_size: float,
    *,
    embedding_scale: float,
    cls_scale: float,
    delta: float = 0.05,
    loss: Loss | str = logistic,
) -> GaussianOneStepBound:
    """Bound the error before E^0 and p_0 are drawn, with probability >= 1 - delta.

    For E^0_s ~ N(0, sE^2 I) and p_0 ~ N(0, sp^2 I): G0 <= sE ||v|| Lam, ||p_0|| <= sp X, rho <= sE ||p_0|| Lam and
    F <= G0, where Lam is exceeded by the largest of V standard normal |z|, and X by chi with d degrees of freedom,
    with probability delta/3 each.

    Parameters
    ----------
    v : (d,) output vector
    embedding_scale, cls_scale : sE, sp >= 0, standard deviations per coordinate
    delta : in (0, 1)
    loss : a `losses.Loss`, or the name of one

    Source: derived here (docs/derivations/one-step.md).

    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> v = np.ones(400) / 20
    >>> bound = gaussian_one_step_bound(data, v, 1.0, embedding_scale=0.05, cls_scale=0.05)
    >>> round(bound.G0, 3), round(bound.cls_norm, 3), round(bound.rho, 3)
    (0.139, 1.075, 0.149)
    """
    check_data(data)
    eta = check_positive("step_size", step_size, zero_ok=True)
    v = as_real_array("v", v, ndim=1, dtype=np.float64)
    if v.size == 0:
        raise InputError("v", "must have at least one entry", got=f"shape {v.shape}")
    sE = check_positive("embedding_scale", embedding_scale, zero_ok=True)
    sp = check_positive("cls_scale", cls_scale, zero_ok=True)
    check_share("delta", delta, closed="neither")
    norm_v = float(np.linalg.norm(v))
    spread = normal_peak(data.vocab_size, delta / 3)
    G0 = sE * norm_v * spread
    norm_p = sp * normal_length(v.size, delta / 3)
    rho = sE * norm_p * spread
    share, kind = eta * data.frequency, check_loss(loss)
    return GaussianOneStepBound(
        hypotheses=(),
        embedding=freeze(_times(share, _per_frequency(kind, G0, G0, rho, norm_v, norm_p))),
        value=freeze(_times(share, _per_frequency(kind, G0, G0, rho, norm_v**2, norm_p * norm_v))),
        G0=G0,
        F=G0,
        rho=rho,
        cls_norm=norm_p,
        delta=delta,
    )


def normal_peak(count: int, missed: float) -> float:
    """The value that the largest of ``count`` independent standard normal |z| exceeds with probability ``missed``."""
    return float(-ndtri(-math.expm1(math.log1p(-missed) / count) / 2))


def normal_length(dim: int, missed: float) -> float:
    """The value that the norm of a standard normal vector exceeds with probability ``missed``."""
    return math.sqrt(float(chdtri(dim, missed)))


def _pull(loss: Loss, z: float) -> float:
    return float(-np.asarray(loss.derivative(np.float64(z))))


def _per_frequency(loss: Loss, G0: float, F: float, rho: float, along_v: float, along_p: float) -> float:
    """[(e^{2 rho} - 1) sigma(F) + F/4] * along_v + 2 e^{2 rho} sigma(F) G0 * along_p, for the logistic loss."""
    sigma = _pull(loss, -F)
    # -l' falls with the margin: it is farthest from -l'(0) at one of the ends.
    at_zero = _pull(loss, 0.0)
    bend = F / 4 if loss is logistic else max(sigma - at_zero, at_zero - _pull(loss, F))
    # Attention weights differ from n_is/T_i by a factor of at most T_i, so that e^600 bounds as well as anything above.
    power = min(2 * rho, 600.0)
    return (math.expm1(power) * sigma + bend) * along_v + 2 * math.exp(power) * sigma * G0 * along_p


def _times(share: Floats, bound: float) -> Floats:
    """share * bound, and 0 for a token that does not occur, even where the bound has overflowed to inf."""
    return np.multiply(share, bound, out=np.zeros_like(share), where=share > 0)


def _peak(x: Floats) -> float:
    return float(np.abs(x).max())
