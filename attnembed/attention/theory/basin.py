"""The basin in which gradient flow on p provably selects the top tokens (F3), and two ways into it (F4, F5).

Derivations: docs/derivations/basin.md, large-step.md, small-step.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._typing import Floats
from attnembed._validation import as_real_array, freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.selection import TokenValues, top_tokens
from attnembed.attention.theory._inputs import (
    ROUNDING,
    independence,
    largest_share_along,
    parameters,
)
from attnembed.attention.theory._program import MarginProgram, solve_program
from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
from attnembed.attention.theory.orthogonal import orthogonal_embeddings
from attnembed.errors import InputError
from attnembed.gibbs import probabilities
from attnembed.losses import Loss, check_loss, logistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BasinBound",
    "BasinCondition",
    "LargeStepCondition",
    "LargeStepSize",
    "SmallStepCondition",
    "basin_bound",
    "basin_condition",
    "large_step_condition",
    "large_step_size",
    "small_step_condition",
]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BasinCondition(Prediction):
    """n (L(p_0) - L*) = ``left`` < ``right`` = min_i [l(gamma_i^(2)) - l(gamma_i*)], and its consequences.

    ``loss_gap`` L(p_0) - L*; ``margin`` gamma of the program of the top tokens (0 where infeasible, with the
    ``certificate``); ``kap`` the constant of `basin_bound`, 0 outside the basin; ``kap_sharp`` the larger constant
    that the proof gives.
    """

    left: float
    right: float
    loss_gap: float
    margin: float
    kap: float
    kap_sharp: float
    certificate: Floats | None

    @property
    def slack(self) -> float:
        """right - left: positive inside the basin."""
        return self.right - self.left


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BasinBound(Prediction):
    """The ``bound`` on L(p_t) - L* at the times ``t``, and ``sharp_bound`` <= ``bound`` with the larger constant.

    Outside the basin both are L(p_0) - L*, which no gradient flow exceeds.
    """

    t: Floats
    bound: Floats
    sharp_bound: Floats
    kap: float
    margin: float

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw both bounds against time, on new axes if none are given; returns the axes."""
        from attnembed import figures

        lines = {"bound": self.bound, "sharp bound": self.sharp_bound}
        return figures.plot_lines(self.t, lines, ax=ax, yscale="log", xlabel="time $t$", ylabel="bound on $L - L^*$")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LargeStepCondition(Prediction):
    """n l(theta Gamma - (1 - theta) eps) = ``left`` < ``right`` = l(eps).

    ``Gamma`` = min_i gamma_i*, ``eps`` = max |g_s| over the other tokens, ``theta`` = min_i a_{i s_i*}.
    """

    left: float
    right: float
    Gamma: float
    eps: float
    theta: float
    certificate: Floats | None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LargeStepSize(Prediction):
    """The ``step_size`` above which every step on E leads into the basin."""

    step_size: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SmallStepCondition(Prediction):
    """max |kappa_s| ||v|| = ``left`` < ``right`` = 2 tau / sqrt(M) for the ``n_important`` = M important tokens."""

    left: float
    right: float
    kappa: Floats
    tau: float
    n_important: int


def basin_condition(model: Parameters, data: TokenDataset, *, loss: Loss | str = logistic) -> BasinCondition:
    """Whether the flow from the model's p stays where every top token wins (F3).

    If the program of the top tokens is feasible and n (L(p_0) - L*) < min_i [l(gamma_i^(2)) - l(gamma_i*)], then at
    all times y_i f_i > gamma_i^(2), the attention on s_i* tends to 1 and p_t/||p_t|| to the max-margin direction.

    ``loss`` is a `losses.Loss`, or the name of one, with l'(gamma_i*) < 0: it must still pull at the best values. The
    constants are NaN if it has no inverse.

    Source: sufficient condition derived here (docs/derivations/basin.md).

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> start = AttentionModel(np.eye(3), [0.0, 0.0, 1.0], [1.0, -1.0, 0.0])
    >>> print(*basin_condition(start, data).failures)
    fails: n (L(p_0) - L*) < min [l(gamma^(2)) - l(gamma*)] (measured 0.5089, required < 0.3799, off by 0.129)
    """
    return basin_of(model, data, check_loss(loss))


def basin_of(model: Parameters, data: TokenDataset, kind: Loss, program: MarginProgram | None = None) -> BasinCondition:
    """`basin_condition`, given the program of the top tokens if it is solved already."""
    E, p, _ = parameters(model, data)
    gap = _gap(data, E @ p, TokenValues.of(model), kind)
    program = program or solve_program(model, data, gap.top)
    left, right = float(gap.increase.sum()), float(gap.step.min())
    loss_gap = left / data.n_samples
    kap = kap_sharp = 0.0
    if left < right and gap.several.any():
        # b_i = l^{-1}(l(gamma_i*) + n gap), the least y_i f_i compatible with the loss; gamma_i* itself at the optimum.
        gamma, second, D = (x[gap.several] for x in (gap.gamma, gap.runner_up, gap.spread))
        lowest = gamma
        if kind.inverse is None:
            lowest = np.full(gamma.shape, np.nan)
        elif (above := left + _underflow(kind, gamma, data.n_samples)) > 0:
            lowest = np.minimum(gamma, kind.margin(np.asarray(kind(gamma)) + above))
        ratio = np.maximum(lowest - second, 0.0) / D  # below 0 only by what underflows
        kap_sharp = float(ratio.min())
        # Some l(second) is above l(gamma*), so that l' < 0 there.
        # l'(gamma*) / l'(second) of their logarithms: values beyond 745 have derivatives that underflow.
        kap = float((np.exp(kind.log_pull(gamma) - kind.log_pull(second)) * ratio).min())
    return BasinCondition(
        hypotheses=(
            Hypothesis(
                "every top token is unique: smallest gamma* - gamma^(2)",
                float((gap.gamma - gap.runner_up).min()),
                ">",
                0.0,
            ),
            *program.hypotheses,
            *_pulls_at_the_best(kind, gap.gamma),
            Hypothesis("n (L(p_0) - L*) < min [l(gamma^(2)) - l(gamma*)]", left, "<", right),
        ),
        left=left,
        right=right,
        loss_gap=loss_gap,
        margin=program.margin,
        kap=kap,
        kap_sharp=kap_sharp,
        certificate=program.certificate,
    )


def basin_bound(model: Parameters, data: TokenDataset, t: ArrayLike, *, loss: Loss | str = logistic) -> BasinBound:
    """Bound L(p_t) - L* along the flow from the model's p (F3).

    L(p_t) - L* <= 1 / (1/(L_0 - L*) + gamma^2 kap^2 t), with b_i = l^{-1}(l(gamma_i*) + n (L_0 - L*)) and
    kap = min_i sigma(-gamma_i*) (b_i - gamma_i^(2)) / (sigma(-gamma_i^(2)) max_s D_is); the ``sharp_bound`` omits
    the two sigmoids.

    Source: derived here (docs/derivations/basin.md).

    Parameters
    ----------
    t : times >= 0, any shape
    loss : a `losses.Loss` with an inverse, or the name of one; -l' replaces the sigmoids

    Raises
    ------
    InputError
        for a negative time, or a loss without an inverse.
    """
    times = as_real_array("t", t, ndim=None, dtype=np.float64)
    if not (times >= 0).all():
        raise InputError("t", "must hold times >= 0", got=float(np.min(times)))
    condition = basin_condition(model, data, loss=with_inverse(loss))
    gap, rate = condition.loss_gap, condition.margin**2

    def bound(kap: float) -> Floats:
        # 1/(1/gap + rate t) = gap / (1 + gap rate t), which also holds for gap = 0.
        return np.asarray(gap / (1 + gap * rate * kap**2 * times))

    return BasinBound(
        hypotheses=condition.hypotheses,
        t=freeze(times.copy()),
        bound=freeze(bound(condition.kap)),
        sharp_bound=freeze(bound(condition.kap_sharp)),
        kap=condition.kap,
        margin=condition.margin,
    )


def large_step_condition(model: Parameters, data: TokenDataset, *, loss: Loss | str = logistic) -> LargeStepCondition:
    """A condition on three numbers that puts the model's p into the basin (F4).

    With Gamma = min_i gamma_i*, eps = the largest |g_s| of tokens other than the top one, theta = min_i a_{i s_i*}(p):
    n l(theta Gamma - (1 - theta) eps) < l(eps) implies the inequality of `basin_condition`. The margin program must
    also be feasible, which does not follow. ``loss`` is a `losses.Loss` that is >= 0, or the name of one.

    Source: sufficient condition derived here (docs/derivations/large-step.md).

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> large_step_condition(AttentionModel(np.eye(3), np.zeros(3), [3.0, -3.0, 0.0]), data).holds
    True
    """
    return large_step_of(model, data, check_loss(loss))


def large_step_of(
    model: Parameters, data: TokenDataset, kind: Loss, program: MarginProgram | None = None
) -> LargeStepCondition:
    """`large_step_condition`, given the program of the top tokens if it is solved already."""
    E, p, _ = parameters(model, data)
    values = TokenValues.of(model)
    g, columns, segments = values.values, data.counts.indices, data.segments
    top, _, gamma, _ = top_tokens(data, values)
    is_top = columns == top[segments.ids]
    attention = probabilities((E @ p)[columns], segments, data.counts.data)
    theta, Gamma = float(attention[is_top].min()), float(gamma.min())
    eps = float(np.abs(g[columns[~is_top]]).max(initial=0.0))
    left = float(data.n_samples * kind(theta * Gamma - (1 - theta) * eps))
    right = float(kind(eps))
    program = program or solve_program(model, data, top)
    return LargeStepCondition(
        hypotheses=(
            *program.hypotheses,
            *_pulls_at_the_best(kind, gamma),
            Hypothesis("n l(theta Gamma - (1 - theta) eps) < l(eps)", left, "<", right),
        ),
        left=left,
        right=right,
        Gamma=Gamma,
        eps=eps,
        theta=theta,
        certificate=program.certificate,
    )


def large_step_size(model: Parameters, data: TokenDataset, *, loss: Loss | str = logistic) -> LargeStepSize:
    """The step size on E above which `large_step_condition` holds after the step (F4, eps = 0).

    eta > 2 T log(n / log 2) / (alpha_min ||v||^2), T = max_i T_i, alpha_min = min |alpha_s| over the important tokens;
    for p_0 = 0, E^0 v = 0, independent rows of E^0, and data with Assumption 1. ``model`` is the model before the step.
    For any other ``loss`` >= 0 with an inverse (a `losses.Loss`, or the name of one),
    eta > T l^{-1}(l(0)/n) / (-l'(0) alpha_min ||v||^2).

    Source: sufficient condition derived here (docs/derivations/large-step.md).

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> round(large_step_size(AttentionModel(np.eye(3, 4), np.zeros(4), [0.0, 0, 0, 1]), data).step_size, 3)
    16.955
    """
    E, p, v = parameters(model, data)
    report = data.check_assumption(limit=data.n_samples + data.vocab_size)
    important = np.unique(report.important[report.important >= 0])
    alpha_min = float(np.abs(data.signed_frequency[important]).min()) if important.size else 0.0
    W = float(v @ v)
    occurring = E[data.frequency > 0]
    kind = with_inverse(loss)
    needed = 2 * data.lengths.max() * math.log(data.n_samples / math.log(2))
    if kind is not logistic:
        reached = float(kind.margin(np.asarray(kind(0.0)) / data.n_samples))
        needed = data.lengths.max() * reached / float(-np.asarray(kind.derivative(0.0)))
    return LargeStepSize(
        hypotheses=(
            Hypothesis("Assumption 1 holds: number of violations", float(len(report.violations)), "<=", 0.0),
            Hypothesis("p_0 is zero: ||p_0||", float(np.linalg.norm(p)), "<=", 0.0),
            Hypothesis(
                "E_0 v is zero: max |E_s.v| / (||E_s|| ||v||)",
                largest_share_along(occurring, v),
                "<=",
                ROUNDING,
            ),
            Hypothesis(
                "independent embeddings: smallest over largest singular value of the unit rows",
                independence(occurring),
                ">",
                ROUNDING,
            ),
        ),
        step_size=float(needed / (alpha_min * W)) if alpha_min * W > 0 else math.inf,
    )


def small_step_condition(model: Parameters, data: TokenDataset) -> SmallStepCondition:
    """A condition under which any limit of p_t/||p_t|| selects the top tokens, from any start (F5).

    E_s = e_s + kappa_s v with orthogonal e_s of norm tau, kappa_s = 0 for irrelevant tokens, Assumption 1 with M
    important tokens that have y kappa > 0: max |kappa_s| ||v|| < 2 tau / sqrt(M). The hypotheses measure how far
    the embeddings deviate from this form.

    Source: sufficient condition derived here (docs/derivations/small-step.md).

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> E = np.hstack([np.eye(3), [[0.5], [-0.5], [0.0]]])
    >>> condition = small_step_condition(AttentionModel(E, np.zeros(4), [0.0, 0.0, 0.0, 1.0]), data)
    >>> condition.holds, condition.left, round(condition.right, 3)
    (True, 0.5, 1.414)
    """
    split = orthogonal_embeddings(model, data)
    report = data.check_assumption(limit=data.n_samples + data.vocab_size)
    norm_v = math.sqrt(split.W)
    known = report.important >= 0
    important = np.unique(report.important[known])
    occurs = data.frequency > 0
    occurs[important] = False
    others = np.flatnonzero(occurs)
    along = split.kappa * norm_v
    signed = (data.labels * along[report.important])[known]
    left = float(np.abs(along).max(where=data.frequency > 0, initial=0.0))
    right = 2 * split.tau / math.sqrt(important.size) if important.size else math.inf
    return SmallStepCondition(
        hypotheses=(
            Hypothesis("Assumption 1 holds: number of violations", float(len(report.violations)), "<=", 0.0),
            *split.hypotheses,
            Hypothesis(
                "irrelevant tokens are orthogonal to v: max |kappa_s| ||v|| / tau",
                float(np.abs(along[others]).max(initial=0.0)) / (split.tau or 1.0),
                "<=",
                ROUNDING,
            ),
            Hypothesis(
                "important tokens have the sign of their label: min y_i kappa ||v||",
                float(signed.min(initial=math.inf)),
                ">",
                0.0,
            ),
            Hypothesis("max |kappa_s| ||v|| < 2 tau / sqrt(M)", left, "<", right),
        ),
        left=left,
        right=right,
        kappa=split.kappa,
        tau=split.tau,
        n_important=int(important.size),
    )


def with_inverse(loss: Loss | str) -> Loss:
    """The loss; InputError unless it has an inverse, which b_i = l^{-1}(...) and hence every rate needs."""
    kind = check_loss(loss)
    if kind.inverse is None:
        hint = "pass `inverse=` to Loss, or ask basin_condition, which needs none"
        raise InputError("loss", "must have an inverse for this bound", got=repr(kind), hint=hint)
    return kind


def _underflow(loss: Loss, gamma: Floats, n: int) -> float:
    """A bound on what n (L - L*) loses to underflow; 0 where every l(gamma*) is large enough for that not to matter."""
    tiny = n * float(np.finfo(np.float64).tiny)
    return tiny if float(np.min(loss(gamma))) < tiny / np.finfo(np.float64).eps else 0.0


def _pulls_at_the_best(loss: Loss, gamma: Floats) -> tuple[Hypothesis, ...]:
    """The hypothesis that l' < 0 at all gamma_i*, so that attention elsewhere always costs; empty for the logistic."""
    if loss is logistic:
        return ()
    weakest = float(loss.log_pull(gamma).min())
    least = math.exp(max(weakest, -700.0)) if weakest > -math.inf else 0.0
    return (Hypothesis("the loss still pulls at the best values: smallest -l'(gamma*)", least, ">", 0.0),)


@dataclass(frozen=True, eq=False)
class _Gap:
    """Per sequence: its top token, gamma_i*, gamma_i^(2), l(y_i f_i) - l(gamma_i*), l(gamma_i^(2)) - l(gamma_i*),
    max_s D_is, and whether it has a second token type."""

    top: NDArray[np.integer[Any]]
    gamma: Floats
    runner_up: Floats
    increase: Floats
    step: Floats
    spread: Floats
    several: NDArray[np.bool_]


def _gap(data: TokenDataset, u: Floats, g: TokenValues, loss: Loss) -> _Gap:
    columns, segments = data.counts.indices, data.segments
    top, _, gamma, runner_up = top_tokens(data, g)
    D = g.shortfalls(data, top)
    delta = segments.sum(probabilities(u[columns], segments, data.counts.data) * D)
    several = runner_up > -np.inf
    return _Gap(
        top=top,
        gamma=gamma,
        runner_up=runner_up,
        increase=loss.rise(gamma, np.maximum(delta, 0.0)),
        step=np.where(several, loss.rise(gamma, np.where(several, gamma - runner_up, 0.0)), np.inf),
        spread=segments.max(D),
        several=several,
    )
