"""The relative scale of the unary and the pairwise part: diagnosis, online scaling, offline scaling.

[SO19] finds that joint training of deep structured models fails when the components of the score are scaled wrongly
against each other, and repairs it by an online and an offline algorithm. Its pseudo-code was not at hand: both
algorithms here are reconstructions from its abstract and stated aims (see docs/derivations/provenance.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from attnembed._typing import Floats
from attnembed._validation import (
    RNGLike,
    as_real_array,
    as_rng,
    check_between,
    check_integer,
    check_positive,
    check_shape,
    check_share,
    shown,
)
from attnembed.errors import InputError, InputTypeError
from attnembed.optim import Optimizer, OptimizerState
from attnembed.results import Record, Status
from attnembed.structured.base import StructuredModel
from attnembed.structured.data import ChainDataset, GridDataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.storage import NETWORK
from attnembed.structured.theory import ScaleFit, component_norms, fit_scales

__all__ = [
    "OfflineScaling",
    "OnlineScaling",
    "Parametrisation",
    "ScaleDiagnosis",
    "ScaleSearch",
    "best_pairwise_factor",
    "bigram_potentials",
    "fixed_subset",
    "fold",
    "normalised",
    "normalised_gradient",
    "output_names",
    "scale_diagnosis",
    "suggest_ratio",
]

Model = TypeVar("Model", bound=StructuredModel[Any])

# Exponent of two: beyond a thousandfold, one part of the score decides alone.
WIDEST = 10.0


@dataclass(frozen=True, eq=False, repr=False)
class ScaleSearch(Record):
    """The best factor for the pairwise part with the unary part fixed, and the objective at 1 and there."""

    factor: float
    before: float
    after: float


def best_pairwise_factor(
    model: StructuredModel[Any],
    data: Any,
    objective: str | None = None,
    *,
    unary: Floats | None = None,
    low: float = -2.0,
    high: float = 2.0,
    tolerance: float = 1e-3,
) -> ScaleSearch:
    """Minimise the objective over the factor 2^x of the pairwise part, x in [low, high], U fixed.

    Nine points, then a bounded search between the neighbours of the best one: the objectives nll, ssvm and
    pseudolikelihood are convex in the factor, so that it has one valley. Factor 1 is always among the candidates, and
    hence ``after <= before``.

    Parameters
    ----------
    unary : U of ``data``, where it is known already
    tolerance : of x
    """
    check_structured(model)
    model.check_data("data", data, labelled=True)
    name = model.objective_name(objective)
    low, high = check_between("low", low, -100, 0), check_between("high", high, 0, 100)
    tolerance = check_positive("tolerance", tolerance)
    if unary is None:
        unary = model.unary(data)
    else:
        unary = as_real_array("unary", unary, ndim=len(data.label_shape) + 1)
        check_shape("unary", unary, (*data.label_shape, model.n_labels), "what `model.unary(data)` returns")
    u = model.unary_scale * unary

    @cache  # no change of scale is most often one of the grid
    @np.errstate(over="ignore", invalid="ignore")
    def value(x: float) -> float:
        # Far out, potentials in single precision overflow; what is no number is not the best.
        found = model.potential_objective(data, u, name, factor=2.0**x).value
        return found if np.isfinite(found) else np.inf

    grid = np.linspace(low, high, 9)
    values = np.array([value(x) for x in grid])
    best = int(np.argmin(values))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, 8)])
    refined = minimize_scalar(value, bounds=bounds, method="bounded", options={"xatol": tolerance})
    before = value(0.0)
    candidates = ((before, 0.0), (float(values[best]), float(grid[best])), (float(refined.fun), float(refined.x)))
    after, x = min(candidates, key=lambda candidate: candidate[0])
    return ScaleSearch(2.0**x, before, after)


@dataclass(frozen=True, eq=False, repr=False)
class ScaleDiagnosis(Record):
    """How large the two parts of the score are, and what pairwise scale the data would prefer.

    Attributes
    ----------
    unary_norm, pairwise_norm : `theory.component_norms` of the scaled potentials
    ratio : unary_norm / pairwise_norm (inf where the pairwise part is constant)
    best_pairwise_scale : the ``pairwise_scale`` of least objective with everything else fixed
    factor : best_pairwise_scale / pairwise_scale, searched in 2^-10..2^10; a value far from 1 says that the relative
        scale is off
    gain : how much the objective would fall
    """

    unary_norm: float
    pairwise_norm: float
    ratio: float
    best_pairwise_scale: float
    factor: float
    gain: float

    def __str__(self) -> str:
        return (
            f"unary norm {self.unary_norm:.3g}, pairwise norm {self.pairwise_norm:.3g}, ratio {self.ratio:.3g}; "
            f"best pairwise scale {self.best_pairwise_scale:.3g} ({self.factor:.3g} times the present one), "
            f"which lowers the objective by {self.gain:.3g}"
        )


def scale_diagnosis(model: StructuredModel[Any], data: Any, objective: str | None = None) -> ScaleDiagnosis:
    """Whether the relative scale of a model is off on ``data`` (held-out data where the model was trained on some).

    The answer belongs to the population that ``data`` are from: a chain that has learned a list of words wants its full
    weight on other images of these words, and a fraction of it on words outside the list.

    >>> from attnembed.structured.networks import identity
    >>> from attnembed.structured.data import ChainDataset
    >>> data = ChainDataset([np.array([[1.0, -1.0], [0.0, 0.0]])] * 2, [[0, 0], [0, 1]])
    >>> diagnosis = scale_diagnosis(ChainCRF(identity(), np.eye(2) - 0.5, pairwise_scale=4.0), data)
    >>> diagnosis.pairwise_norm, diagnosis.best_pairwise_scale < 0.1
    (2.0, True)
    """
    unary = check_structured(model).unary(data)
    n_u, n_w = model.component_norms(unary)
    found = best_pairwise_factor(model, data, objective, unary=unary, low=-WIDEST, high=WIDEST)
    return ScaleDiagnosis(
        n_u,
        n_w,
        n_u / n_w if n_w > 0 else np.inf,
        found.factor * model.pairwise_scale,
        found.factor,
        found.before - found.after,
    )


def fold(
    params: dict[str, Floats],
    names: tuple[str, ...],
    factor: float,
    optimizer: Optimizer | None = None,
    state: OptimizerState | None = None,
) -> None:
    """Multiply parameters by ``factor`` in place, and let the optimiser's state follow.

    If the score is linear in these parameters, that is the same as scaling its component. The state becomes what the
    optimiser would hold had it seen the gradients of the new parameters (the old ones over ``factor``) from the start.
    """
    for name in names:
        params[name] *= factor
        if optimizer is not None and state is not None:
            optimizer.rescale(state, name, factor)


@dataclass(frozen=True)
class OnlineScaling:
    """Before training and every ``period`` epochs, fit the relative scale on a fixed subset and fold it into W.

    Only the pairwise part is scaled, with the unary part held: on separable training data a common scale would run
    away. A fit never raises the objective on the subset (`best_pairwise_factor`). What is folded is the factor found
    times the model's ``pairwise_scale``, which becomes 1 (unless it is learned). Reconstructed from [SO19].

    In joint training n_U / n_W is held above ``least_ratio``. Before it, W is given the norm n_U / ``least_ratio``, so
    that no multiplier it started with leaves a trace (unless U = 0: then W stays as it is), and the fit may only lower
    it; later fits begin by lowering a W that has grown beyond, and raise it no further. Without that bound, smooth
    labels want nearly everything to be pairwise while the network knows little, and it is then slow to learn. Stages
    trust the network: no bound.

    Parameters
    ----------
    period : epochs between fits
    subset : the population that the scale is fitted on: so many sequences of the training data, drawn once, or a
        labelled data set of its own, which is taken whole. The best scale belongs to a population: on words that
        training never shows it is smaller than on those it shows. The norms in the history are then those of this data
        set, too
    low, high : the factor lies in 2^low..2^high; before joint training in 2^-10..1, before a later stage in 2^-10..2^10
    least_ratio : of the norms n_U / n_W, in joint training
    """

    period: int = 1
    subset: int | ChainDataset | GridDataset = 500
    low: float = -2.0
    high: float = 2.0
    least_ratio: float = 1.0

    def __post_init__(self) -> None:
        check_integer("period", self.period, minimum=1)
        check_positive("least_ratio", self.least_ratio)
        if self.subset is None or isinstance(self.subset, str):
            expected = "must be a number of training sequences, or the labelled data set that the scale is fitted on"
            raise InputTypeError("subset", expected, got=shown(self.subset))
        if not isinstance(self.subset, (ChainDataset, GridDataset)):
            check_integer("subset", self.subset, minimum=1)
        check_between("low", self.low, -100, 0)
        check_between("high", self.high, 0, 100)
        if not self.low < 0 < self.high:
            raise InputError("low", "and `high` must enclose 0, the exponent of no change", got=(self.low, self.high))


@dataclass(frozen=True)
class OfflineScaling:
    """A parametrisation of the pairwise part, fixed before training.

    - ``multiplier`` c: W = c W~, a constant.
    - ``ratio`` rho: W = (nbar_U / rho) (W~ - mean W~) / n(W~), so that n_U / n_W = rho throughout. nbar_U is a running
      average of the norm of the unary part (``decay`` per step) through which no gradient passes; the gradient through
      W~ is that of weight normalisation (`normalised_gradient`).

    Give one of the two; by default rho = 2.5. Reconstructed from [SO19].

    >>> OfflineScaling().ratio, OfflineScaling(multiplier=0.1).ratio
    (2.5, None)
    """

    ratio: float | None = None
    multiplier: float | None = None
    decay: float = 0.99

    def __post_init__(self) -> None:
        if self.multiplier is None:
            object.__setattr__(self, "ratio", check_positive("ratio", 2.5 if self.ratio is None else self.ratio))
        elif self.ratio is not None:
            raise InputError("ratio", "and `multiplier` exclude each other: give one of them")
        else:
            check_positive("multiplier", self.multiplier)
        check_share("decay", self.decay, closed="left")

    @classmethod
    def fitted(cls, model: ChainCRF, data: ChainDataset, training: ChainDataset | None = None) -> OfflineScaling:
        """The ratio that `suggest_ratio` finds for the population ``data``, with the bigrams of ``training``.

        ``model`` must have a trained network; ``training`` is ``data`` itself where it is left out.
        """
        return cls(ratio=suggest_ratio(model, data, training)[0])


def check_structured(model: StructuredModel[Any]) -> StructuredModel[Any]:
    """The model; InputTypeError for anything but a `ChainCRF` or a `GridCRF`."""
    if not isinstance(model, StructuredModel):
        raise InputTypeError("model", "must be a ChainCRF or a GridCRF", got=type(model).__name__)
    return model


def normalised(raw: Floats, allowed: NDArray[np.bool_] | None = None) -> tuple[Floats, float]:
    """(W~ - mean W~) / n(W~), of unit norm, and n(W~); both over the ``allowed`` pairs, with 0 for the others."""
    n = component_norms(np.zeros(1), raw, allowed)[1]
    if not n > 0:
        raise InputError(
            "pairwise", "must not be constant for a fixed ratio", hint="start from random values or bigram_potentials"
        )
    return _centred(raw, allowed) / n, n


def normalised_gradient(upstream: Floats, unit: Floats, n: float, allowed: NDArray[np.bool_] | None = None) -> Floats:
    """Gradient in W~ of a function of W^ = `normalised` (W~): (g - mean g - W^ mean(g W^)) / n.

    The part along W^ is projected out, as W^ does not depend on the length of W~ (Salimans, Kingma 2016). Derived in
    docs/derivations/offline-scaling.md.
    """
    centred = _centred(upstream, allowed)
    products = centred * unit
    mean = np.mean(products) if allowed is None else np.mean(products, where=np.broadcast_to(allowed, products.shape))
    return (centred - unit * mean) / n


def _centred(values: Floats, allowed: NDArray[np.bool_] | None) -> Floats:
    """Each matrix less its mean, over the allowed pairs; 0 elsewhere."""
    if allowed is None:
        value: Floats = values - values.mean(axis=(-2, -1), keepdims=True)
        return value
    where = np.broadcast_to(allowed, values.shape)
    return np.where(where, values - values.mean(axis=(-2, -1), keepdims=True, where=where), 0)


def bigram_potentials(data: ChainDataset, n_labels: int, *, smoothing: float = 1.0) -> Floats:
    """W[k, l] = log of P(l follows k) / P(l), from counts with ``smoothing`` added to each pair; (K, K).

    >>> from attnembed.structured.data import ChainDataset
    >>> bigram_potentials(ChainDataset([np.zeros((3, 1))], [[0, 1, 0]]), 2).round(3)
    array([[-0.405,  0.288],
           [ 0.288, -0.405]])
    """
    if not isinstance(data, ChainDataset):
        raise InputTypeError("data", "must be a ChainDataset", got=type(data).__name__)
    k, packing = check_integer("n_labels", n_labels, minimum=1), data.packing
    if data.known_labels.max() >= k:
        raise InputError("n_labels", "must be above every label of `data`", got=k)
    pairs = data.known_labels[packing.left] * k + data.known_labels[packing.right]
    counts = np.bincount(pairs, minlength=k * k).reshape(k, k) + check_positive("smoothing", smoothing)
    joint = counts / counts.sum()
    value: Floats = np.log(joint) - np.log(joint.sum(axis=1, keepdims=True)) - np.log(joint.sum(axis=0))
    return value


def suggest_ratio(model: ChainCRF, data: ChainDataset, training: ChainDataset | None = None) -> tuple[float, ScaleFit]:
    """A ratio n_U / n_W for `OfflineScaling`: that of the best two scales for U and `bigram_potentials`.

    Use a model with a trained network and held-out data, where the common scale has an optimum. The bigrams are those
    of ``training``, by default ``data`` themselves: where the two are of different populations, the ratio says how far
    the pairs of the one can be trusted on the other.
    """
    if not isinstance(model, ChainCRF):
        raise InputTypeError("model", "must be a ChainCRF", got=type(model).__name__)
    model.check_data("data", data, labelled=True)
    if training is not None:
        model.check_data("training", training, labelled=True)
    w = bigram_potentials(data if training is None else training, model.n_labels)
    # Newton's method ends at its tolerance, which single precision does not reach.
    unary = data.split(model.unary(data).astype(np.float64))
    longest = max(len(u) for u in unary)
    padded = np.stack([np.pad(u, ((0, longest - len(u)), (0, 0))) for u in unary])
    labels = np.stack([np.pad(y, (0, longest - len(y))) for y in data.split(data.known_labels)])
    fit = fit_scales(padded, w, labels, data.packing.lengths)
    n_u, n_w = component_norms(fit.unary_scale * model.unary(data), fit.pairwise_scale * w)
    if fit.status is not Status.CONVERGED or not n_w > 0:
        raise InputError("data", f"must give finite scales: {fit.message}", hint="use held-out data")
    return n_u / n_w, fit


# --- how training applies a scaling -----------------------------------------------------------------------------


class Parametrisation:
    """How the trained array "pairwise" becomes the model's pairwise part: as it is, or normalised to a ratio."""

    def __init__(self, scaling: OnlineScaling | OfflineScaling | None) -> None:
        self.ratio = scaling.ratio if isinstance(scaling, OfflineScaling) else None
        self.decay = scaling.decay if isinstance(scaling, OfflineScaling) else 0.0
        self.unary_norm = np.nan
        self._unit: Floats | None = None
        self._n = 1.0
        self._allowed: NDArray[np.bool_] | None = None

    def observe(self, unary: Floats) -> None:
        """Take the norm of the scaled unary part of one batch into the running average, where a ratio is kept."""
        if self.ratio is None:
            return
        norm = component_norms(unary, np.zeros((1, 1)))[0]
        start = np.isnan(self.unary_norm)
        self.unary_norm = norm if start else self.decay * self.unary_norm + (1 - self.decay) * norm

    def apply(self, model: Model) -> Model:
        """The model whose pairwise array is raw, as the model to evaluate."""
        if self.ratio is None:
            return model
        self._allowed = model.allowed_pairs
        self._unit, self._n = normalised(model.pairwise, self._allowed)
        return replace(model, pairwise=self._unit, pairwise_scale=self.unary_norm / self.ratio)

    def pull_back(self, gradient: Floats) -> Floats:
        """Gradient in the raw array from that in the pairwise array of the last `apply`."""
        if self._unit is None:
            return gradient
        return normalised_gradient(gradient, self._unit, self._n, self._allowed)


def fixed_subset(data: Any, size: Any, rng: RNGLike) -> Any:
    """At most ``size`` random sequences of ``data``; or ``size`` itself where it is a data set."""
    if isinstance(size, (ChainDataset, GridDataset)):
        return size
    return data if len(data) <= size else data.subset(as_rng(rng).choice(len(data), size, replace=False))


def output_names(model: StructuredModel[Any]) -> tuple[str, ...]:
    """The parameters in which U is linear and homogeneous."""
    if not model.network.output:
        raise InputError("network", "must end in a Dense, Conv2D or LayerNorm layer for its output to be scaled")
    return tuple(NETWORK + name for name in model.network.output)
