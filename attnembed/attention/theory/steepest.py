"""Steepest descent in any norm, inside the basin: the loss gap falls exponentially with the length of the path.

Derivation: docs/derivations/steepest.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from attnembed._typing import Floats
from attnembed._validation import check_choice, freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.selection import margin_constraints, top_tokens
from attnembed.attention.theory._inputs import parameters
from attnembed.attention.theory.basin import basin_condition, with_inverse
from attnembed.attention.theory.hypotheses import Prediction
from attnembed.errors import InputError, NotSeparableError
from attnembed.losses import Loss, logistic
from attnembed.margin_norms import NORMS, Norm
from attnembed.margins import max_margin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SteepestBound", "steepest_bound"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SteepestBound(Prediction):
    """A bound, ``gap``, on L - L* at the lengths ``r`` of the path in the ``norm``, falling like e^{-``rate`` r}.

    ``margin`` is gamma in that norm (0 where the program is infeasible), ``kap`` the constant of the basin, and
    ``rate`` their product. Outside the basin the bound is L(p_0) - L*, which no steepest descent exceeds.
    """

    r: Floats
    gap: Floats
    margin: float
    kap: float
    rate: float
    norm: str

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the bound against the length of the path, on new axes if none are given; returns the axes."""
        from attnembed import figures

        xlabel, ylabel = f"length $r$ of the path in the norm {self.norm}", "$L - L^*$"
        return figures.plot_lines(self.r, {"bound": self.gap}, ax=ax, yscale="log", xlabel=xlabel, ylabel=ylabel)


def steepest_bound(
    model: Parameters, data: TokenDataset, r: ArrayLike, *, norm: Norm = "l2", loss: Loss | str = logistic
) -> SteepestBound:
    """Bound L - L* along steepest descent from the model's p, dp/dr = argmax_{||x|| <= 1} <-grad_p L, x>.

    L(p_r) - L* <= (L_0 - L*) e^{-gamma kap r} for p_0 in the basin of F3, with gamma the margin in the norm and
    kap = min_i (b_i - gamma_i^(2)) / max_s D_is, b_i = l^{-1}(l(gamma_i*) + n (L_0 - L*)). The norm "l2" gives gradient
    flow in its arc length, "linf" sign descent, "l1" coordinate descent.

    Parameters
    ----------
    r : lengths >= 0 of the path, in the norm; any shape
    loss : a `losses.Loss` with an inverse, or the name of one

    Raises
    ------
    InputError
        for a negative length, an unknown norm, or a loss without an inverse.

    Source: [JTA24] for the method; the bound is derived here (docs/derivations/steepest.md).

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> start = AttentionModel(np.eye(3), [1.0, 1.0, -1.0], [1.0, -1.0, 0.0])
    >>> bound = steepest_bound(start, data, [0.0, 1.0], norm="linf")
    >>> bound.holds, bound.margin, bool(bound.gap[1] < bound.gap[0])
    (True, 2.0, True)
    """
    check_choice("norm", norm, NORMS)
    lengths = np.asarray(r, dtype=np.float64)
    if not (lengths >= 0).all():
        raise InputError("r", "must hold lengths >= 0", got=float(np.min(lengths)))
    condition = basin_condition(model, data, loss=with_inverse(loss))
    E, _, v = parameters(model, data)
    margin = condition.margin
    if norm != "l2" and margin > 0:
        D = margin_constraints(model, data, top_tokens(data, E @ v)[0]).differences
        try:
            margin = max_margin(D, norm=norm).margin
        except NotSeparableError:
            margin = 0.0
    rate = margin * condition.kap_sharp
    return SteepestBound(
        hypotheses=condition.hypotheses,
        r=freeze(lengths.copy()),
        gap=freeze(np.asarray(condition.loss_gap * np.exp(-rate * lengths))),
        margin=margin,
        kap=condition.kap_sharp,
        rate=rate,
        norm=norm,
    )
