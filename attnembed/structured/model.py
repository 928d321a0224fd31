"""Deep conditional random fields: a network for the unary potentials, a matrix for the pairwise ones, two scales.

    F(Y|X) = unary_scale * sum_i U(x_i, y_i) + pairwise_scale * sum W(y_i, y_j),      P(Y|X) = e^F / Z.

The models are frozen bags of arrays; inference and objectives are the functions of `chain`, `grid` and `objectives`.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnembed._files import PathLike, read_npz, write_npz
from attnembed._frozen import KeepsFrozen
from attnembed._validation import as_real_array, check_choice, freeze
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.structured.chain import decode
from attnembed.structured.data import ChainDataset, GridDataset
from attnembed.structured.grid import GRID_OBJECTIVES, Weights, contrast_weights, grid_decode, grid_objective
from attnembed.structured.networks import Network, Params
from attnembed.structured.objectives import CHAIN_OBJECTIVES, ObjectiveValue

__all__ = ["ChainCRF", "GridCRF", "StructuredGrads", "StructuredModel"]

Floats = NDArray[np.floating[Any]]
Data = TypeVar("Data", ChainDataset, GridDataset)

NETWORK = "network."


@dataclass(frozen=True, eq=False)
class StructuredGrads:
    """Gradient of an objective in every parameter: ``network`` by name, ``pairwise`` (K, K), and the two scales."""

    network: Params
    pairwise: Floats
    unary_scale: float
    pairwise_scale: float

    def to_dict(self) -> dict[str, Floats]:
        """The gradients under the names of `StructuredModel.parameters`."""
        scales = {"unary_scale": np.asarray(self.unary_scale), "pairwise_scale": np.asarray(self.pairwise_scale)}
        return {**{NETWORK + k: v for k, v in self.network.items()}, "pairwise": self.pairwise, **scales}


@dataclass(frozen=True, eq=False)
class StructuredModel(KeepsFrozen, ABC, Generic[Data]):
    """What chains and grids share."""

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
    objectives: ClassVar[tuple[str, ...]]
    data_type: ClassVar[type]

    @property
    def n_labels(self) -> int:
        """K."""
        return self.pairwise.shape[-1]

    # --- what differs ---

    @abstractmethod
    def potential_objective(self, data: Data, unary: Floats, pairwise: Floats, objective: str) -> ObjectiveValue:
        """An objective as a function of the scaled potentials."""

    @abstractmethod
    def _decode(self, data: Data, unary: Floats, pairwise: Floats) -> NDArray[Any]:
        """Best labels, in the layout of ``data.labels``."""

    # --- what is shared ---

    def unary(self, data: Data) -> Floats:
        """U, the output of the network before scaling: (N, K) in packed order, or (n, H, W, K)."""
        return self._forward(data)[0]

    def check_data(self, name: str, data: object) -> None:
        """Raise unless ``data``, the argument of that name, is of the kind that the model takes."""
        if not isinstance(data, self.data_type):
            raise InputTypeError(name, f"must be a {self.data_type.__name__}", got=type(data).__name__)

    def _forward(self, data: Data) -> tuple[Floats, Any]:
        self.check_data("data", data)
        packing = getattr(data, "packing", None)
        out, cache = self.network.layer.forward(self.network.params, data.inputs, packing)
        expected = (*data.labels.shape, self.n_labels)
        if out.shape != expected:
            raise InputError("network", f"must give potentials of shape {expected}", got=f"shape {out.shape}")
        return out, cache

    def predict_rows(self, data: Data) -> NDArray[Any]:
        """The labels of largest score, in the layout of ``data.labels``."""
        return self._decode(data, self.unary_scale * self.unary(data), self.pairwise_scale * self.pairwise)

    def accuracy(self, data: Data) -> float:
        """Share of positions or pixels whose predicted label is right, in [0, 1]."""
        return float(np.mean(self.predict_rows(data) == data.labels))

    def loss(self, data: Data, objective: str = "nll") -> float:
        """The objective, averaged over sequences or images."""
        return self._evaluate(data, objective, self.unary(data)).value

    def loss_and_grads(self, data: Data, objective: str = "nll") -> tuple[float, StructuredGrads]:
        """The objective and its gradient in every parameter.

        ``objective``: "nll", "ssvm", "pseudolikelihood", "marginal" (chains) or "unary".
        """
        loss, grads, _ = self.pass_through(data, objective)
        return loss, grads

    def pass_through(
        self, data: Data, objective: str, unary: Floats | None = None
    ) -> tuple[float, StructuredGrads, Floats]:
        """Loss, gradients and U; with ``unary`` given the network is left alone and has no gradients."""
        cache = None
        if unary is None:
            unary, cache = self._forward(data)
        out = self._evaluate(data, objective, unary)
        network: Params = {}
        if cache is not None:
            network, _ = self.network.layer.backward(cache, _times(self.unary_scale, out.unary), inputs=False)
        grads = StructuredGrads(
            network,
            self.pairwise_scale * out.pairwise,
            _inner(out.unary, unary),
            _inner(out.pairwise, self.pairwise),
        )
        return out.value, grads, unary

    def _evaluate(self, data: Data, objective: str, unary: Floats) -> ObjectiveValue:
        check_choice("objective", objective, self.objectives)
        if data.labels.max() >= self.n_labels:
            raise InputError("labels", f"must be in 0..{self.n_labels - 1}", got=data.labels.max())
        return self.potential_objective(
            data, _times(self.unary_scale, unary), self.pairwise_scale * self.pairwise, objective
        )

    def parameters(self) -> dict[str, Floats]:
        """Copies of all parameters by name: "network.<name>", "pairwise", "unary_scale", "pairwise_scale"."""
        named = {NETWORK + name: value for name, value in self.network.params.items()}
        named |= {"pairwise": self.pairwise}
        named |= {name: np.array(getattr(self, name)) for name in ("unary_scale", "pairwise_scale")}
        return {name: np.array(value, order="C") for name, value in named.items()}

    def with_parameters(self, params: Mapping[str, Floats]) -> Self:
        """The model with these parameters; the network's arrays are used as they are, not copied."""
        network = {name.removeprefix(NETWORK): v for name, v in params.items() if name.startswith(NETWORK)}
        return replace(
            self,
            network=self.network.with_params(network),
            pairwise=params["pairwise"],
            unary_scale=float(params["unary_scale"]),
            pairwise_scale=float(params["pairwise_scale"]),
        )

    def save(self, path: PathLike) -> None:
        """Write all parameters as npz, whole or not at all."""
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

    Parameters
    ----------
    network : `networks.Network`, (N, ...) -> (N, K)
    pairwise : (K, K) log-potentials, row = left label
    unary_scale, pairwise_scale : finite

    >>> from attnembed.structured.networks import mlp
    >>> model = ChainCRF(mlp(2, (), 3, rng=0), np.zeros((3, 3)))
    >>> data = ChainDataset([np.ones((4, 2)), np.ones((2, 2))], [[0, 1, 2, 0], [1, 1]])
    >>> [labels.shape for labels in model.predict(data)]
    [(4,), (2,)]
    >>> loss, grads = model.loss_and_grads(data, "nll")
    >>> grads.pairwise.shape, sorted(grads.network)
    ((3, 3), ['0.W', '0.b'])
    """

    objectives: ClassVar[tuple[str, ...]] = tuple(CHAIN_OBJECTIVES)
    data_type: ClassVar[type] = ChainDataset

    def predict(self, data: ChainDataset) -> list[NDArray[Any]]:
        """The labeling of largest score of every sequence, n arrays (L,)."""
        labels = self.predict_rows(data)
        return data.split(labels)

    def sequence_accuracy(self, data: ChainDataset) -> float:
        """Share of sequences without a wrong label, in [0, 1]."""
        wrong = data.packing.sum(self.predict_rows(data) != data.labels)
        return float(np.mean(wrong == 0))

    def potential_objective(
        self,
        data: ChainDataset,
        unary: Floats,
        pairwise: Floats,
        objective: str,
    ) -> ObjectiveValue:
        """An objective as a function of the scaled potentials (N, K) and (K, K)."""
        return CHAIN_OBJECTIVES[objective](unary, pairwise, data.labels, data.packing)

    def _decode(self, data: ChainDataset, unary: Floats, pairwise: Floats) -> NDArray[Any]:
        return decode(unary, pairwise, data.packing)


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

    def predict(self, data: GridDataset) -> NDArray[Any]:
        """The best labels that `grid.grid_decode` finds, (n, H, W)."""
        return self.predict_rows(data)

    def weights(self, data: GridDataset) -> Weights | None:
        """The edge weights, None for all ones."""
        return contrast_weights(data.images, self.contrast_width) if self.contrast else None

    def potential_objective(
        self,
        data: GridDataset,
        unary: Floats,
        pairwise: Floats,
        objective: str,
    ) -> ObjectiveValue:
        """An objective as a function of the scaled potentials (n, H, W, K) and (K, K) or (2, K, K)."""
        return grid_objective(objective, unary, pairwise, data.labels, self.weights(data), margin=self.margin)

    def _decode(self, data: GridDataset, unary: Floats, pairwise: Floats) -> NDArray[Any]:
        return grid_decode(unary, pairwise, self.weights(data))
