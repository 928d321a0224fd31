"""The regularisation path p(R) = argmin of L over ||p|| <= R: the flow's direction and offset without a flow.

Derivation: docs/derivations/regularisation-path.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize, root

from attnembed._typing import Floats
from attnembed._validation import as_real_array, freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.selection import top_tokens
from attnembed.attention.theory._inputs import parameters
from attnembed.attention.theory._program import solve_program
from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
from attnembed.errors import InputError
from attnembed.gibbs import probabilities
from attnembed.losses import Loss, check_loss, logistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RegularisationPath", "regularisation_path"]


# The part of the gradient along the sphere, times R over the gap, below which a point counts as a minimiser.
_STATIONARY = 1e-6


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RegularisationPath(Prediction):
    """p(R) at each of the ``radii`` (k,): ``p`` (k, d), ``loss_gap`` (k,) L - L*, and ``offset`` (k, d), the part of
    p(R) across the max-margin direction, which tends to the flow's rho_perp like 1/R.

    ``direction`` is p_mm/||p_mm|| of the top tokens, ``margin`` gamma, and ``stationarity`` (k,) the gradient of
    log(L - L*) along the sphere, times R.
    """

    radii: Floats
    p: Floats
    loss_gap: Floats
    offset: Floats
    direction: Floats
    margin: float
    stationarity: Floats

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss gap and the offset against the radius, on new axes where none are given; returns the axes."""
        from attnembed import figures

        return figures.plot_radii(self.radii, self.loss_gap, self.offset, ax=ax)


def regularisation_path(
    model: Parameters, data: TokenDataset, radii: ArrayLike, *, loss: Loss | str = logistic
) -> RegularisationPath:
    """Minimise L over the ball ||p|| <= R for each R, E and v fixed; the model's p plays no part.

    L keeps decreasing along p_mm of the top tokens, so the minimiser lies on the sphere. It is followed from the
    smallest radius to the largest: each search starts from the last direction, the first from that of p_mm. The
    objective is log(L - L*), because L - L* soon vanishes beside L*.

    Parameters
    ----------
    radii : (k,) positive
    loss : a `losses.Loss`, or the name of one

    Raises
    ------
    InputError
        for a radius that is not positive, or too large for L - L* to be a normal number.

    Source: [TLTO23] for the direction; the offset is derived here (docs/derivations/regularisation-path.md).

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> path = regularisation_path(AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.0]), data, [5.0, 50.0])
    >>> path.holds, bool((path.p[1] @ path.direction / 50) > 0.999)
    (True, True)
    """
    sizes = as_real_array("radii", np.atleast_1d(radii), ndim=1, dtype=np.float64)
    if sizes.size == 0 or not (sizes > 0).all():
        raise InputError("radii", "must hold positive radii", got=sizes.tolist()[:5])
    E, _, v = parameters(model, data)
    gap = _Gap(data, E, E @ v, check_loss(loss))
    program = solve_program(model, data, gap.top)
    points = np.full((sizes.size, E.shape[1]), np.nan)
    gaps, rest = np.full(sizes.size, np.nan), np.full(sizes.size, np.nan)
    feasible = program.certificate is None
    if feasible:
        q = program.p * program.margin
        for k in np.argsort(sizes):
            radius = float(sizes[k])
            found = minimize(gap.on_sphere, q, args=(radius,), jac=True, method="BFGS", options={"gtol": 1e-9})
            # The value has too few digits left for a line search; the gradient still has enough.
            polished = root(lambda x, size=radius: gap.stationarity(x, size), found.x / np.linalg.norm(found.x))
            q = polished.x if polished.success else found.x
            q = q / np.linalg.norm(q)
            points[k], gaps[k] = radius * q, np.exp(gap.on_sphere(q, radius)[0])
            rest[k] = np.linalg.norm(gap.on_sphere(q, radius)[1])
    u = program.p * program.margin
    return RegularisationPath(
        hypotheses=(
            Hypothesis("every top token is unique: smallest gamma* - gamma^(2)", gap.smallest_step, ">", 0.0),
            *program.hypotheses,
            Hypothesis("the points are minimisers: gradient along the sphere", float(rest.max()), "<=", _STATIONARY),
        ),
        radii=freeze(sizes.copy()),
        p=freeze(points),
        loss_gap=freeze(gaps),
        offset=freeze(points - np.outer(points @ u, u)),
        direction=freeze(u),
        margin=program.margin,
        stationarity=freeze(rest),
    )


class _Gap:
    """log(L - L*) as a function of p, by its own formulas: D_is = y_i (g_top - g_s), delta_i = sum_s a_is D_is."""

    def __init__(self, data: TokenDataset, E: Floats, g: Floats, loss: Loss) -> None:
        self.loss = loss
        self.data, self.segments, self.columns = data, data.segments, data.counts.indices
        self.top, _, self.gamma, second = top_tokens(data, g)
        self.smallest_step = float((self.gamma - second).min())
        self.D = self.segments.spread(self.gamma) - self.segments.spread(data.labels) * g[self.columns]
        self.E = E
        self.rows = E[self.columns] - E[self.segments.spread(self.top)]  # (nnz, d): the theory is for small data

    def stationarity(self, q: Floats, radius: float) -> Floats:
        """The gradient along the sphere and, across it, the deviation of q from norm 1: zero at a minimiser, (d,)."""
        norm = float(np.linalg.norm(q))
        return self.on_sphere(q, radius)[1] + (norm - 1) * q

    def on_sphere(self, q: Floats, radius: float) -> tuple[float, Floats]:
        """log(L - L*) at p = R q/||q||, and its gradient in q."""
        norm = float(np.linalg.norm(q))
        u = q / norm
        a = probabilities(radius * (self.E @ u)[self.columns], self.segments, self.data.counts.data)
        delta = self.segments.sum(a * self.D)
        value = float(self.loss.rise(self.gamma, delta).mean())
        if value <= np.finfo(float).tiny:
            raise InputError(
                "radii", "must leave L - L* above the smallest float", got=radius, hint="use smaller radii"
            )
        slope = -np.asarray(self.loss.derivative(self.gamma - delta)) / self.data.n_samples
        gradient = (self.segments.spread(slope) * a * (self.D - self.segments.spread(delta))) @ self.rows
        along = radius * gradient / value
        return float(np.log(value)), (along - (along @ u) * u) / norm
