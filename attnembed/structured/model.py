"""Deep conditional random fields: a network for the unary potentials, a matrix for the pairwise ones, and two scales.

    F(Y|X) = unary_scale * sum_i U(x_i, y_i) + pairwise_scale * sum W(y_i, y_j),      P(Y|X) = e^F / Z.

The models are frozen collections of arrays; inference and objectives are functions of `chain`, `grid` and `objectives`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._deprecation import moved
from attnembed._typing import Floats
from attnembed._validation import as_array, as_real_array, check_flag, check_positive, check_shape, freeze
from attnembed.errors import InputError
from attnembed.structured.base import StructuredModel, times
from attnembed.structured.chain import decode
from attnembed.structured.constraints import (
    Mask,
    add_ends,
    as_mask,
    check_labels_allowed,
    constrained,
    end_gradients,
    split_forbidden,
)
from attnembed.structured.data import ChainDataset, GridDataset
from attnembed.structured.grid import contrast_weights, grid_decode
from attnembed.structured.grid_objectives import GRID_OBJECTIVES, grid_objective, grid_objective_name
from attnembed.structured.grid_potentials import Weights
from attnembed.structured.interchange import as_given, as_transitions, linear_network
from attnembed.structured.objectives import CHAIN_OBJECTIVES, ObjectiveValue

__all__ = ["ChainCRF", "GridCRF"]


@dataclass(frozen=True, eq=False)
class ChainCRF(StructuredModel[ChainDataset]):
    """A linear-chain conditional random field (Lafferty et al. 2001) over a network.

        F(Y|X) = unary_scale * sum_i U(x_i, y_i) + pairwise_scale * (start(y_1) + sum_i W(y_i, y_{i+1}) + end(y_L))

    Forbidden labels and pairs have the score -inf at every scale. They are excluded from norms, from the factors of
    `OnlineScaling` and from training; their entries of ``pairwise`` are stored as 0.

    Parameters
    ----------
    network : `networks.Network`, (N, ...) -> (N, K)
    pairwise : (K, K) log-potentials W, row = left label; -inf forbids a pair, as ``allowed`` does
    unary_scale, pairwise_scale : finite
    start, end : (K,) log-potentials of the first and the last label, trained with W; none by default
    allowed : (K, K) bool, True where a pair may occur (`bio_constraints`); all by default
    start_allowed, end_allowed : (K,) bool, the labels that may come first and last; all by default

    Raises
    ------
    InputError
        for shapes that do not match, NaN or +inf; with data, for true labels that the constraints forbid.

    >>> from attnembed.structured.networks import mlp
    >>> model = ChainCRF(mlp(2, (), 3, rng=0), np.zeros((3, 3)))
    >>> data = ChainDataset([np.ones((4, 2)), np.ones((2, 2))], [[0, 1, 2, 0], [1, 1]])
    >>> [labels.shape for labels in model.predict(data)]
    [(4,), (2,)]
    >>> loss, grads = model.loss_and_grads(data, "nll")
    >>> grads.pairwise.shape, sorted(grads.network)
    ((3, 3), ['0.W', '0.b'])
    """

    start: Floats | None = field(default=None, kw_only=True)
    end: Floats | None = field(default=None, kw_only=True)
    allowed: Mask | None = field(default=None, kw_only=True)
    start_allowed: Mask | None = field(default=None, kw_only=True)
    end_allowed: Mask | None = field(default=None, kw_only=True)

    objectives: ClassVar[tuple[str, ...]] = tuple(CHAIN_OBJECTIVES)
    data_type: ClassVar[type] = ChainDataset
    _masks: ClassVar[tuple[str, ...]] = ("allowed", "start_allowed", "end_allowed")

    def __post_init__(self) -> None:
        square = np.shape(self.pairwise)
        allowed = as_mask("allowed", self.allowed, square)
        pairwise, allowed = split_forbidden(as_array("pairwise", self.pairwise), allowed)
        object.__setattr__(self, "pairwise", pairwise)
        object.__setattr__(self, "allowed", allowed)
        super().__post_init__()
        for name in ("start", "end"):
            value, mask = getattr(self, name), as_mask(f"{name}_allowed", getattr(self, f"{name}_allowed"), square[:1])
            if value is not None:
                array, mask = split_forbidden(as_array(name, value), mask)
                array = as_real_array(name, array, ndim=1)
                check_shape(name, array, square[:1], "one per label")
                object.__setattr__(self, name, freeze(array))
            if mask is not None and not mask.any():
                raise InputError(f"{name}_allowed", "must allow at least one label")
            object.__setattr__(self, f"{name}_allowed", mask)

    @classmethod
    def from_arrays(
        cls,
        transitions: ArrayLike,
        *,
        weights: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        start: ArrayLike | None = None,
        end: ArrayLike | None = None,
        indicators: bool = False,
        allowed: Mask | None = None,
        start_allowed: Mask | None = None,
        end_allowed: Mask | None = None,
    ) -> ChainCRF:
        """Build a chain from the arrays of a model trained elsewhere.

            F(Y|X) = start[y_1] + sum_i (x_i weights + bias)[y_i] + sum_i transitions[y_i, y_{i+1}] + end[y_L]

        Parameters
        ----------
        transitions : (K, K), row = left label; -inf forbids a pair
        weights : (F, K), one row per feature and one column per label; the ``coef_`` of scikit-learn and the
            ``weight`` of a torch layer are its transpose. Without weights the inputs (L, K) are themselves the unary
            potentials, like the emissions of pytorch-crf
        bias : (K,); zeros by default
        start, end : (K,); none by default
        indicators : inputs are ids (L, m) in 0..F-1, whose rows of the weights are summed; CRFsuite's binary attributes
        allowed, start_allowed, end_allowed : as in `ChainCRF`

        Arrays are copied and keep their precision; pairs that CRFsuite does not store have weight 0. Compare
        likelihoods with ``-model.loss(data) * len(data)``, the sum of log P(Y|X).

        Raises
        ------
        InputError
            for shapes that do not match, NaN or inf (-inf is allowed in ``transitions``, ``start`` and ``end``).

        >>> model = ChainCRF.from_arrays([[0.0, 1.0], [1.0, 0.0]], start=[0.5, 0.0])
        >>> data = ChainDataset([[[0.0, 0.0], [0.0, 0.0]]], [[0, 1]])
        >>> float(np.exp(-model.loss(data)).round(6))  # of e^{1.5} + e^{0.5} + e^1 + 1
        0.455054
        """
        pairwise = as_transitions(transitions)
        return cls(
            linear_network(weights, bias, len(pairwise), indicators=indicators),
            pairwise,
            start=None if start is None else as_given("start", start),
            end=None if end is None else as_given("end", end),
            allowed=allowed,
            start_allowed=start_allowed,
            end_allowed=end_allowed,
        )

    @property
    def allowed_pairs(self) -> Mask | None:
        """Mask of the pairs of labels that may be neighbours, (K, K); None if all may."""
        return self.allowed

    @property
    def pairwise_names(self) -> tuple[str, ...]:
        """The parameters that ``pairwise_scale`` multiplies."""
        return ("pairwise", *(name for name in ("start", "end") if getattr(self, name) is not None))

    def predict(self, data: ChainDataset) -> list[NDArray[Any]]:
        """The labeling with the largest score of every sequence, n arrays (L,)."""
        labels = self.predict_rows(data)
        return data.split(labels)

    def sequence_accuracy(self, data: ChainDataset) -> float:
        """Share of sequences without a wrong label, in [0, 1]."""
        labels = self._labels(data, unseen=self._unseen_labels)
        wrong = data.packing.sum(self.predict_rows(data) != labels)
        return float(np.mean(wrong == 0))

    def potential_objective(
        self, data: ChainDataset, unary: Floats, objective: str, *, factor: float = 1.0
    ) -> ObjectiveValue:
        """An objective as a function of the scaled unary potentials (N, K), with ``factor`` times the pairwise part.

        The gradient is in the potentials; those of the ends are part of the unary ones of their positions.
        """
        labels, packing = data.known_labels, data.packing
        if objective == "unary":  # the network on its own
            return CHAIN_OBJECTIVES[objective](unary, self.pairwise, labels, packing)
        check_labels_allowed(labels, packing, self.allowed, self.start_allowed, self.end_allowed)
        unary, pairwise = self._potentials(data, unary, factor)
        return CHAIN_OBJECTIVES[objective](unary, pairwise, labels, packing)

    def _potentials(self, data: ChainDataset, unary: Floats, factor: float = 1.0) -> tuple[Floats, Floats]:
        """Unary potentials with those of the ends, and the pairwise ones, all scaled and with -inf where forbidden."""

        def scaled(values: Floats) -> Floats:
            return times(factor, self.pairwise_scale * values)

        ends: list[Floats | None] = []
        for values, mask in ((self.start, self.start_allowed), (self.end, self.end_allowed)):
            if values is None and mask is None:
                ends.append(None)
                continue
            free = np.zeros(self.n_labels) if values is None else scaled(values)
            ends.append(constrained(free, mask).astype(unary.dtype, copy=False))
        return add_ends(unary, data.packing, *ends), constrained(scaled(self.pairwise), self.allowed)

    def _pairwise_gradients(self, data: ChainDataset, out: ObjectiveValue) -> dict[str, Floats]:
        own = {"pairwise": out.pairwise}
        if len(self.pairwise_names) > 1:
            ends = dict(zip(("start", "end"), end_gradients(out.unary, data.packing)))
            own |= {name: ends[name] for name in self.pairwise_names if name in ends}
        return own

    def _decode(self, data: ChainDataset, unary: Floats) -> NDArray[Any]:
        return decode(*self._potentials(data, unary), data.packing)


@dataclass(frozen=True, eq=False)
class GridCRF(StructuredModel[GridDataset]):
    """A conditional random field on the 4-connected grid, over a network that keeps the size of the image.

    Parameters
    ----------
    network : `networks.Network`, (n, H, W, C) -> (n, H, W, K)
    pairwise : (K, K) for all edges, or (2, K, K): horizontal, vertical
    contrast : weight the edges with `grid.contrast_weights` of the images
    contrast_width : its width; by default computed from the given images
    margin : of the objective "ssvm". The scores of many pixels are large compared with 1, and training shrinks them
        until few steps decide; with the number of pixels, every wrong one costs 1

    >>> from attnembed.structured.networks import conv_net
    >>> model = GridCRF(conv_net(1, (), 2, size=3, rng=0), np.eye(2))
    >>> model.predict(GridDataset(np.zeros((2, 4, 5, 1)), np.zeros((2, 4, 5), dtype=int))).shape
    (2, 4, 5)
    """

    contrast: bool = False
    contrast_width: float | None = None
    margin: float = 1.0

    objectives: ClassVar[tuple[str, ...]] = tuple(GRID_OBJECTIVES)
    data_type: ClassVar[type] = GridDataset
    _own_fields: ClassVar[tuple[str, ...]] = ("contrast", "contrast_width", "margin")
    _pairwise_axes: ClassVar[tuple[int, ...]] = (2, 3)
    _pairwise_text: ClassVar[str] = "a square matrix (K, K), or two (2, K, K)"
    _unseen_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("contrast", self.contrast)
        if self.contrast_width is not None:
            check_positive("contrast_width", self.contrast_width)
        check_positive("margin", self.margin)

    def objective_name(self, objective: str | None) -> str:
        """The checked name of an objective, "mean_field" by default; "nll", its old name, gives a warning."""
        return self.objectives[0] if objective is None else grid_objective_name(objective)

    def predict(self, data: GridDataset) -> NDArray[Any]:
        """The best labels, exact for two labels and by ICM for more (`grid.grid_decode`); (n, H, W)."""
        return self.predict_rows(data)

    def weights(self, data: GridDataset) -> Weights | None:
        """The edge weights, None for all ones."""
        self.check_data("data", data)
        return contrast_weights(data.images, self.contrast_width) if self.contrast else None

    def potential_objective(
        self, data: GridDataset, unary: Floats, objective: str, *, factor: float = 1.0
    ) -> ObjectiveValue:
        """An objective as a function of the scaled unary potentials (n, H, W, K), with ``factor`` times W."""
        pairwise = times(factor, self.pairwise_scale * self.pairwise)
        weights = None if objective == "unary" else self.weights(data)  # the network on its own has no edges
        return grid_objective(objective, unary, pairwise, data.known_labels, weights, margin=self.margin)

    def _decode(self, data: GridDataset, unary: Floats) -> NDArray[Any]:
        return grid_decode(unary, self.pairwise_scale * self.pairwise, self.weights(data))


# Formerly in this module.
__getattr__ = moved(__name__, {"StructuredGrads": "attnembed.structured.base"})
