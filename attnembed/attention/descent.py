"""Normalised gradient descent on the <cls> embedding, and Polyak's step: geometric decay where plain descent has 1/t.

    p_{k+1} = p_k - eta grad/||grad||        normalised ([VDT24])
    p_{k+1} = p_k - (L - L*)/||grad||^2 grad  Polyak's step, with L* the loss where every top token wins

The consequences of either are derived in docs/derivations/normalised-steps.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attnembed._notebook import Curve
from attnembed._progress import Progress
from attnembed._typing import Doubles
from attnembed._validation import check_integer, check_positive, freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.flow import _ClsField
from attnembed.attention.model import AttentionModel
from attnembed.clocks import direction
from attnembed.errors import InputError
from attnembed.losses import Loss, check_loss, logistic
from attnembed.results import Record, Result, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DescentResult", "DescentState", "normalised_descent"]


@dataclass(frozen=True, eq=False, repr=False)
class DescentState(Record):
    """Argument of a callback of `normalised_descent`: the number of steps so far, p (d,) and L - L*."""

    step: int
    p: Doubles
    loss_gap: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DescentResult(Result):
    """The path of p; all arrays run over the points, including the start.

    Attributes
    ----------
    p : (d,) the last point
    path : (k + 1, d) all points
    loss_gap : (k + 1,) L - L*, L* = mean_i l(gamma_i*), computed without cancellation
    top_attention : (k + 1,) the smallest over sequences of the attention on the top token
    step_length : (k,) the length of each step, eta or Polyak's
    model : the model at the last point
    """

    p: Doubles
    path: Doubles
    loss_gap: Doubles
    top_attention: Doubles
    step_length: Doubles
    model: AttentionModel

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw L - L* and the attention missing from the top tokens against the steps, on a logarithmic axis.

        Draws on new axes if none are given; returns the axes.
        """
        from attnembed import figures

        steps = np.arange(len(self.loss_gap))
        return figures.plot_flow(steps, self.loss_gap, 1 - self.top_attention, clock="steps", ax=ax)

    def _curves(self) -> list[Curve]:
        with np.errstate(divide="ignore"):
            return [Curve(np.arange(len(self.loss_gap)), np.log10(self.loss_gap), "steps", "log10 (L - L*)")]


def normalised_descent(
    model: AttentionModel,
    data: TokenDataset,
    step_size: float,
    n_steps: int,
    *,
    polyak: bool = False,
    loss: Loss | str = logistic,
    callback: Callable[[DescentState], bool | None] | None = None,
) -> DescentResult:
    """Take steps of length ``step_size`` along -grad_p L from the model's p.

    The norm of the gradient is taken after scaling, so that the direction stays right where the gradient underflows.

    Parameters
    ----------
    step_size : eta > 0, the length of every step; with ``polyak`` a multiplier of Polyak's step, 1 for the step itself
    n_steps : number of steps, at least 1
    polyak : take (L - L*)/||grad|| as the length. L* is known here: the loss when every top token has all the attention
    loss : a `losses.Loss`, or the name of one
    callback : called with a `DescentState` at the start and after each step; stops the descent by returning True

    Returns
    -------
    DescentResult
        ``status`` REACHED_END, STOPPED (by the callback), CONVERGED (the gradient is zero, or L <= L* with Polyak's
        step) or NOT_FINITE.

    Raises
    ------
    InputError
        for a step size or a number of steps out of range.

    Source: [VDT24], Vasudeva, Deora, Thrampoulidis, arXiv 2402.05738; constants derived here.

    >>> from attnembed.attention.data import make_balanced_dataset
    >>> data = make_balanced_dataset(n_samples=8, length=3, n_irrelevant=4, rng=0)
    >>> model = AttentionModel(np.eye(8), np.zeros(8), [1, 1, -1, -1, 0, 0, 0, 0])
    >>> run = normalised_descent(model, data, 0.5, 60)
    >>> run.success, bool(run.loss_gap[-1] < 1e-6)
    (True, True)
    """
    model._check(data)
    eta, n = check_positive("step_size", step_size), check_integer("n_steps", n_steps, minimum=1)
    if not isinstance(polyak, (bool, np.bool_)):
        raise InputError("polyak", "must be True or False", got=repr(polyak))
    if not (callback is None or callable(callback)):
        raise InputError("callback", "must be a function or None", got=type(callback).__name__)
    field = _ClsField(model, data, check_loss(loss))
    x = np.zeros(field.rank)
    points, observed, lengths = [x], [field.observe(x)], []
    status, message = Status.REACHED_END, f"{n} steps"
    with Progress("descent", total=n) as progress:
        for step in range(n + 1):
            if callback is not None and callback(DescentState(step, field.lift(x), observed[-1][0])):
                status, message = Status.STOPPED, f"stopped by the callback after {step} steps"
                break
            if step == n:
                break
            unit, log_norm = direction(*field.force(x))
            gap = observed[-1][0]
            if log_norm == -np.inf or (polyak and gap <= 0):
                why = "the gradient is zero" if log_norm == -np.inf else "L is not above L*"
                status, message = Status.CONVERGED, f"{why} after {step} steps"
                break
            length = eta * float(np.exp(np.log(gap) - log_norm)) if polyak else eta
            x = x + length * unit
            if not np.isfinite(x).all():
                status, message = Status.NOT_FINITE, f"p overflowed in step {step + 1}; use a smaller step_size"
                break
            points.append(x)
            observed.append(field.observe(x))
            lengths.append(length)
            progress.update(step + 1, f"L - L* {observed[-1][0]:.3g}")
    path = field.lift(np.array(points))
    gaps, attention = np.array(observed).T
    return DescentResult(
        status=status,
        message=message,
        p=freeze(path[-1].copy()),
        path=freeze(path),
        loss_gap=freeze(gaps.copy()),
        top_attention=freeze(attention.copy()),
        step_length=freeze(np.array(lengths)),
        model=model.replace(p=path[-1]),
    )
