"""Deep conditional random fields: a network for the unary potentials, a matrix for the pairwise ones, two scales.

    F(Y|X) = unary_scale * sum_i U(x_i, y_i) + pairwise_scale * sum W(y_i, y_j),      P(Y|X) = e^F / Z.

The models are frozen bags of arrays; inference and objectives are the functions of `chain`, `grid` and `objectives`.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnembed._files import PathLike, read_npz, write_npz
from attnembed._frozen import KeepsFrozen
from attnembed._typing import Floats
from attnembed._validation import (
    as_array,
    as_real_array,
    check_choice,
    check_flag,
    check_mapping,
    check_positive,
    check_shape,
    freeze,
)
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.results import Record, Shown
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
from attnembed.structured.networks import Network, Params
from attnembed.structured.objectives import CHAIN_OBJECTIVES, ObjectiveValue
from attnembed.structured.theory import component_norms

__all__ = ["ChainCRF", "GridCRF", "StructuredGrads", "StructuredModel"]

Data = TypeVar("Data", ChainDataset, GridDataset)

NETWORK = "network."


@dataclass(frozen=True, eq=False, repr=False)
class StructuredGrads(Record):
    """Gradient of an objective in every parameter: ``network`` by name, ``pairwise`` (K, K), and the two scales.

    ``start`` and ``end`` (K,) are None where the model has no such potentials.
    """

    network: Params
    pairwise: Floats
    unary_scale: float
    pairwise_scale: float
    start: Floats | None = None
    end: Floats | None = None

    def to_dict(self) -> dict[str, Floats]:
        """The gradients under the names of `StructuredModel.parameters`."""
        scales = {"unary_scale": np.asarray(self.unary_scale), "pairwise_scale": np.asarray(self.pairwise_scale)}
        ends = {name: value for name, value in (("start", self.start), ("end", self.end)) if value is not None}
        return {**{NETWORK + k: v for k, v in self.network.items()}, "pairwise": self.pairwise, **ends, **scales}


@dataclass(frozen=True, eq=False)
class StructuredModel(KeepsFrozen, Shown, ABC, Generic[Data]):
    """The common part of chains and grids."""

    network: Network
    pairwise: Floats
    unary_scale: float = 1.0
    pairwise_scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.network, Network):
            raise InputTypeError(
                "network", "must be an attnembed.structured.networks.Network", got=type(self.network).__name__
            )
        array = np.array(self.pairwise)
        checked = as_real_array("pairwise", array, ndim=array.ndim)
        if checked.ndim not in self._pairwise_axes or len(set(checked.shape[-2:])) != 1 or checked.size == 0:
            raise InputError("pairwise", f"must be {self._pairwise_text}", got=f"shape {checked.shape}")
        object.__setattr__(self, "pairwise", freeze(checked))
        for name in ("unary_scale", "pairwise_scale"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise InputError(name, "must be a finite number", got=value)
            object.__setattr__(self, name, float(value))

    _pairwise_axes: ClassVar[tuple[int, ...]] = (2,)
    _pairwise_text: ClassVar[str] = "a square matrix (K, K)"
    _unseen_labels: ClassVar[bool] = True
    objectives: ClassVar[tuple[str, ...]]
    data_type: ClassVar[type]

    @property
    def n_labels(self) -> int:
        """K."""
        return self.pairwise.shape[-1]

    # --- what differs ---

    @abstractmethod
    def potential_objective(self, data: Data, unary: Floats, objective: str, *, factor: float = 1.0) -> ObjectiveValue:
        """An objective as a function of the scaled unary potentials, with ``factor`` times the pairwise part."""

    @abstractmethod
    def _decode(self, data: Data, unary: Floats) -> NDArray[Any]:
        """Best labels, in the layout of ``data.labels``, for scaled unary potentials."""

    def _pairwise_gradients(self, data: Data, out: ObjectiveValue) -> dict[str, Floats]:
        """The gradient in each array of `pairwise_names`, before scaling."""
        return {"pairwise": out.pairwise}

    @property
    def allowed_pairs(self) -> Mask | None:
        """Which pairs of labels may be neighbours, (K, K); None where all may."""
        return None

    @property
    def pairwise_names(self) -> tuple[str, ...]:
        """The parameters that ``pairwise_scale`` multiplies: "pairwise", and the ends of a chain where it has them."""
        return ("pairwise",)

    # --- what is shared ---

    def component_norms(self, unary: Floats) -> tuple[float, float]:
        """n_U and n_W of the scaled potentials (`theory.component_norms`), ``unary`` before scaling."""
        return component_norms(self.unary_scale * unary, self.pairwise_scale * self.pairwise, self.allowed_pairs)

    def unary(self, data: Data) -> Floats:
        """U, the output of the network before scaling: (N, K) in packed order, or (n, H, W, K)."""
        return self._forward(data)[0]

    def check_data(self, name: str, data: object, *, labelled: bool = False) -> None:
        """Raise unless ``data``, the argument of that name, is of the kind that the model takes."""
        if not isinstance(data, self.data_type):
            raise InputTypeError(name, f"must be a {self.data_type.__name__}", got=type(data).__name__)
        if labelled and getattr(data, "labels", None) is None:
            raise InputError(
                name, "must have labels", got="a data set without", hint="pass `labels` when it is created"
            )

    def objective_name(self, objective: str | None) -> str:
        """The checked name of an objective; by default the likelihood, or its bound on grids."""
        return self.objectives[0] if objective is None else check_choice("objective", objective, self.objectives)

    def _forward(self, data: Data) -> tuple[Floats, Any]:
        self.check_data("data", data)
        packing = getattr(data, "packing", None)
        out, cache = self.network.layer.forward(self.network.params, data.inputs, packing)
        expected = (*data.label_shape, self.n_labels)
        if out.shape != expected:
            raise InputError("network", f"must give potentials of shape {expected}", got=f"shape {out.shape}")
        return out, cache

    def predict_rows(self, data: Data) -> NDArray[Any]:
        """The labels of largest score, in the layout of ``data.labels``."""
        return self._decode(data, self.unary_scale * self.unary(data))

    def accuracy(self, data: Data) -> float:
        """Share of positions or pixels whose predicted label is right, in [0, 1].

        A tag of a held-out sequence that the model does not have is a mistake; in a mask such a label is refused, as
        it comes from another numbering.
        """
        labels = self._labels(data, unseen=self._unseen_labels)
        return float(np.mean(self.predict_rows(data) == labels))

    def loss(self, data: Data, objective: str | None = None) -> float:
        """The objective, averaged over sequences or images."""
        return self._evaluate(data, objective, self.unary(data)).value

    def loss_and_grads(self, data: Data, objective: str | None = None) -> tuple[float, StructuredGrads]:
        """The objective and its gradient in every parameter.

        ``objective``: on chains "nll" (by default), "ssvm", "pseudolikelihood", "marginal" or "unary"; on grids
        "mean_field" (by default), "ssvm", "pseudolikelihood" or "unary".
        """
        loss, grads, _ = self.pass_through(data, objective)
        return loss, grads

    def pass_through(
        self, data: Data, objective: str | None, unary: Floats | None = None
    ) -> tuple[float, StructuredGrads, Floats]:
        """Loss, gradients and U; with ``unary`` given the network is left alone and has no gradients."""
        cache = None
        if unary is None:
            unary, cache = self._forward(data)
        out = self._evaluate(data, objective, unary)
        network: Params = {}
        if cache is not None:
            network, _ = self.network.layer.backward(cache, _times(self.unary_scale, out.unary), inputs=False)
        own = self._pairwise_gradients(data, out)
        grads = StructuredGrads(
            network=network,
            unary_scale=_inner(out.unary, unary),
            pairwise_scale=sum(_inner(gradient, getattr(self, name)) for name, gradient in own.items()),
            **{name: self.pairwise_scale * gradient for name, gradient in own.items()},
        )
        return out.value, grads, unary

    def _evaluate(self, data: Data, objective: str | None, unary: Floats) -> ObjectiveValue:
        name = self.objective_name(objective)
        self._labels(data)
        scaled = _times(self.unary_scale, unary)
        if not np.isfinite(scaled).all():  # the network has overflowed: no potential of its is a constraint
            return ObjectiveValue(math.nan, np.zeros_like(scaled), np.zeros_like(self.pairwise))
        return self.potential_objective(data, scaled, name)

    def _labels(self, data: Data, *, unseen: bool = False) -> NDArray[np.integer[Any]]:
        """The labels of ``data``, which must be labels of the model unless ``unseen`` ones are allowed."""
        self.check_data("data", data, labelled=True)
        labels = data.known_labels
        if not unseen and labels.max() >= self.n_labels:
            raise InputError("labels", f"must be in 0..{self.n_labels - 1}", got=labels.max())
        return labels

    def parameters(self) -> dict[str, Floats]:
        """Copies of all parameters by name: "network.<name>", `pairwise_names`, "unary_scale", "pairwise_scale"."""
        named = {NETWORK + name: value for name, value in self.network.params.items()}
        named |= {name: getattr(self, name) for name in self.pairwise_names}
        named |= {name: np.array(getattr(self, name)) for name in ("unary_scale", "pairwise_scale")}
        return {name: np.array(value, order="C") for name, value in named.items()}

    def with_parameters(self, params: Mapping[str, Floats]) -> Self:
        """The model with these parameters; the network's arrays are used as they are, not copied."""
        check_mapping("params", params, "names to arrays")
        needed = (*self.pairwise_names, "unary_scale", "pairwise_scale")
        missing = [name for name in needed if name not in params]
        if missing:
            expected = f"must hold {', '.join(needed)} and those of the network"
            raise InputError("params", expected, got=f"no {missing[0]}")
        network = {name.removeprefix(NETWORK): v for name, v in params.items() if name.startswith(NETWORK)}
        return replace(
            self,
            network=self.network.with_params(network),
            **{name: params[name] for name in self.pairwise_names},
            unary_scale=float(params["unary_scale"]),
            pairwise_scale=float(params["pairwise_scale"]),
        )

    def _at(self, params: Mapping[str, Floats]) -> Self:
        """`with_parameters` without its checks, for arrays of a model's own that a training moves."""
        network, model = object.__new__(type(self.network)), object.__new__(type(self))
        own = {name.removeprefix(NETWORK): v for name, v in params.items() if name.startswith(NETWORK)}
        vars(network).update(vars(self.network), params=own)
        vars(model).update(vars(self), network=network)
        vars(model).update({name: freeze(params[name].copy()) for name in self.pairwise_names})
        vars(model).update({name: float(params[name]) for name in ("unary_scale", "pairwise_scale")})
        return model

    def save(self, path: PathLike) -> None:
        """Write all parameters as npz, atomically."""
        write_npz(path, **self.parameters())

    def restore(self, path: PathLike) -> Self:
        """This model with the parameters that `save` wrote; the file must come from the same architecture."""
        own = self.parameters()
        found = read_npz(path, tuple(own))
        for name, value in own.items():
            if found[name].shape != value.shape:
                raise InputError("path", f"must hold {name} of shape {value.shape}", got=f"shape {found[name].shape}")
            if found[name].dtype.kind not in "biuf" or not np.isfinite(found[name]).all():
                raise DataFileError(path, f"must hold finite numbers under {name}")
        return self.with_parameters(found)


def _inner(a: Floats, b: Floats) -> float:
    """<a, b>, read as the arrays lie: vdot copies what is not C-contiguous."""
    return float(np.vdot(a.T, b.T) if a.flags.f_contiguous else np.vdot(a, b))


def _times(scale: float, values: Floats) -> Floats:
    """scale * values, without a copy for scale 1."""
    return values if scale == 1.0 else scale * values


@dataclass(frozen=True, eq=False)
class ChainCRF(StructuredModel[ChainDataset]):
    """A linear-chain conditional random field (Lafferty et al. 2001) over a network.

        F(Y|X) = unary_scale * sum_i U(x_i, y_i) + pairwise_scale * (start(y_1) + sum_i W(y_i, y_{i+1}) + end(y_L))

    Forbidden labels and pairs have the score -inf at every scale. They take no part in norms, in the factors of
    `OnlineScaling` and in training; their entry of ``pairwise`` is held as 0.

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
        for shapes that do not fit, NaN or +inf; with data, for true labels that the constraints forbid.

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

    @property
    def allowed_pairs(self) -> Mask | None:
        """Which pairs of labels may be neighbours, (K, K); None where all may."""
        return self.allowed

    @property
    def pairwise_names(self) -> tuple[str, ...]:
        """The parameters that ``pairwise_scale`` multiplies."""
        return ("pairwise", *(name for name in ("start", "end") if getattr(self, name) is not None))

    def predict(self, data: ChainDataset) -> list[NDArray[Any]]:
        """The labeling of largest score of every sequence, n arrays (L,)."""
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

        The gradient is that in the potentials; those of the ends are part of the unary ones of their positions.
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
            return _times(factor, self.pairwise_scale * values)

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
    """A 4-connected grid over a network that keeps the size of the image.

    Parameters
    ----------
    network : `networks.Network`, (n, H, W, C) -> (n, H, W, K)
    pairwise : (K, K) for all edges, or (2, K, K): horizontal, vertical
    contrast : weigh the edges with `grid.contrast_weights` of the images
    contrast_width : its width; by default that of the given images
    margin : of the objective "ssvm". Beside 1 the scores of many pixels are large, and training shrinks them until few
        steps decide; with the number of pixels, every wrong one costs 1

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
        """The best labels: exactly for two labels, by ICM for more (`grid.grid_decode`); (n, H, W)."""
        return self.predict_rows(data)

    def weights(self, data: GridDataset) -> Weights | None:
        """The edge weights, None for all ones."""
        self.check_data("data", data)
        return contrast_weights(data.images, self.contrast_width) if self.contrast else None

    def potential_objective(
        self, data: GridDataset, unary: Floats, objective: str, *, factor: float = 1.0
    ) -> ObjectiveValue:
        """An objective as a function of the scaled unary potentials (n, H, W, K), with ``factor`` times W."""
        pairwise = _times(factor, self.pairwise_scale * self.pairwise)
        return grid_objective(objective, unary, pairwise, data.known_labels, self.weights(data), margin=self.margin)

    def _decode(self, data: GridDataset, unary: Floats) -> NDArray[Any]:
        return grid_decode(unary, self.pairwise_scale * self.pairwise, self.weights(data))
