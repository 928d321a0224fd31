"""One gradient step on the embeddings, beside its prediction ([WSOM25], Lemma 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from attnembed._typing import Floats
from attnembed._validation import check_positive, freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.parameters import check_model
from attnembed.attention.theory.one_step import OneStepPrediction, bound, predict
from attnembed.errors import InputError
from attnembed.losses import Loss, check_loss, logistic
from attnembed.results import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["OneStepResult", "one_step"]


@dataclass(frozen=True, eq=False, repr=False)
class OneStepResult(Record):
    """A step, its prediction, and the distance between the two, each computed on first access.

    Attributes
    ----------
    model : the model after the step
    predicted_E : (V, d) E^0_s + (eta/2) alpha_s v
    error : (V,) ||E^1_s - predicted E_s||
    bound : (V,) upper bound on ``error`` from data statistics and parameters alone
    slope : (eta/2) ||v||^2, the predicted slope of E_s.v against alpha_s
    measured_slope : least-squares slope through the origin of (E^1_s - E^0_s).v against alpha_s
    step_size : eta
    """

    model: AttentionModel
    step_size: float
    _start: AttentionModel
    _data: TokenDataset
    _loss: Loss

    @cached_property
    def predicted_E(self) -> Floats:
        return self._prediction.E

    @cached_property
    def error(self) -> Floats:
        return freeze(_row_norms(self.model.E - self.predicted_E))

    @cached_property
    def bound(self) -> Floats:
        return bound(*self._parameters, self._data, self.step_size, self._loss).embedding

    @cached_property
    def slope(self) -> float:
        return self._prediction.slope

    @cached_property
    def measured_slope(self) -> float:
        alpha = self._data.signed_frequency
        moved = self.model.token_values - self._start.E @ self._start.v
        return float(moved @ alpha / (alpha @ alpha)) if alpha.any() else float("nan")

    @cached_property
    def _parameters(self) -> tuple[Floats, Floats, Floats]:
        E, p, v = (np.asarray(x, dtype=np.float64) for x in (self._start.E, self._start.p, self._start.v))
        return E, p, v

    @cached_property
    def _prediction(self) -> OneStepPrediction:
        # The model and the data have been checked, and so have the model's scores.
        return predict(*self._parameters, self._data, self.step_size, self._loss)

    def _shown(self) -> list[tuple[str, Any]]:
        names = ("step_size", "slope", "measured_slope", "error", "bound", "predicted_E", "model")
        return [(name, getattr(self, name)) for name in names]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the error of every token against its bound, on new axes where none are given; returns the axes."""
        from attnembed import figures

        return figures.plot_bounds(self.error, self.bound, ax=ax)


def _row_norms(rows: Floats) -> Floats:
    value: Floats = np.sqrt(np.einsum("sk,sk->s", rows, rows))
    return value


def one_step(
    model: AttentionModel, data: TokenDataset, step_size: float, *, loss: Loss | str = logistic
) -> OneStepResult:
    """Take the step E^1 = E^0 - eta grad_E L = E^0 + eta (A v^T + B p^T), an update of rank two; p and v stay.

    ``loss`` is a `losses.Loss`, or the name of one; for a loss other than the logistic, -eta l'(0) replaces eta/2 in
    the prediction and in the slope.

    Source: [WSOM25], Lemma 4.1; the bound is derived here (docs/derivations/one-step.md).

    Raises
    ------
    InputError
        for a step size that is not positive and finite, or is so large that the embeddings overflow.

    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> step = one_step(AttentionModel(np.zeros((3, 2)), [0, 0], [1, 0]), data, step_size=4.0)
    >>> step.model.E[:, 0], float(step.error.max())
    (array([ 0.5, -0.5,  0. ]), 0.0)
    """
    eta = check_positive("step_size", step_size)
    if type(model) is not AttentionModel:  # which has been checked
        check_model(model)
    kind = check_loss(loss)
    A, B = model.loss_and_grads(data, loss=kind)[1].E_factors
    with np.errstate(over="ignore", invalid="ignore"):
        E = A[:, None] * model.v
        E += B[:, None] * model.p
        E *= eta
        E += model.E
    if not np.isfinite(E).all():
        expected = f"must leave the embeddings finite in {E.dtype}"
        raise InputError("step_size", expected, got=f"{eta:g}", hint="take a smaller step")
    return OneStepResult(model._with_embeddings(E), eta, model, data, kind)
