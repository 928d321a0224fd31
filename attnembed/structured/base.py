"""The common part of chains and grids: a network with two scales, its objective, gradients, parameters and files."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnembed._files import PathLike, read_npz
from attnembed._frozen import KeepsFrozen
from attnembed._typing import Floats
from attnembed._validation import as_real_array, check_choice, check_mapping, freeze
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.gradients import Gradients
from attnembed.results import Shown
from attnembed.structured.constraints import Mask
from attnembed.structured.data import ChainDataset, GridDataset
from attnembed.structured.layers import Layer, Params
from attnembed.structured.networks import Network
from attnembed.structured.objectives import ObjectiveValue
from attnembed.structured.storage import NETWORK, read_model, write_model
from attnembed.structured.theory import component_norms

__all__ = ["StructuredGrads", "StructuredModel", "times"]

Data = TypeVar("Data", ChainDataset, GridDataset)


@dataclass(frozen=True, eq=False, repr=False)
class StructuredGrads(Gradients):
    """Gradient of an objective in every parameter: ``network`` by name, ``pairwise`` (K, K) and the two scales.

    ``start`` and ``end`` (K,) are None where the model has no such potentials.
    """

    network: Params
    pairwise: Floats
    unary_scale: float
    pairwise_scale: float
    start: Floats | None = None
    end: Floats | None = None

    def _names(self) -> tuple[str, ...]:
        return tuple(self.to_dict())

    def __getitem__(self, name: str) -> Floats:
        return self.to_dict()[name]

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
        return int(self.pairwise.shape[-1])

    # --- what subclasses define ---

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
        """Mask of the pairs of labels that may be neighbours, (K, K); None if all may."""
        return None

    @property
    def pairwise_names(self) -> tuple[str, ...]:
        """The parameters that ``pairwise_scale`` multiplies: "pairwise" and, if present, the ends of a chain."""
        return ("pairwise",)

    # --- what is shared ---

    def component_norms(self, unary: Floats) -> tuple[float, float]:
        """n_U and n_W of the scaled potentials (`theory.component_norms`), ``unary`` before scaling."""
        return component_norms(self.unary_scale * unary, self.pairwise_scale * self.pairwise, self.allowed_pairs)

    def unary(self, data: Data) -> Floats:
        """U, the output of the network before scaling: (N, K) in packed order, or (n, H, W, K)."""
        return self._forward(data)[0]

    def check_data(self, name: str, data: object, *, labelled: bool = False) -> None:
        """Raise unless ``data``, the argument of that name, is of the kind that the model accepts."""
        if not isinstance(data, self.data_type):
            raise InputTypeError(name, f"must be a {self.data_type.__name__}", got=type(data).__name__)
        if labelled and getattr(data, "labels", None) is None:
            raise InputError(
                name, "must have labels", got="a data set without", hint="pass `labels` when it is created"
            )

    def objective_name(self, objective: str | None) -> str:
        """The checked name of an objective; the default is the likelihood, on grids its bound."""
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
        """The labels with the largest score, in the layout of ``data.labels``."""
        return self._decode(data, self.unary_scale * self.unary(data))

    def accuracy(self, data: Data) -> float:
        """Share of positions or pixels with the correct predicted label, in [0, 1].

        A label unknown to the model counts as a mistake in a held-out sequence; in a mask it is an error, because it
        comes from another numbering.
        """
        labels = self._labels(data, unseen=self._unseen_labels)
        return float(np.mean(self.predict_rows(data) == labels))

    def loss(self, data: Data, objective: str | None = None) -> float:
        """The objective, averaged over sequences or images."""
        return self._evaluate(data, objective, self.unary(data)).value

    def loss_and_grads(self, data: Data, objective: str | None = None) -> tuple[float, StructuredGrads]:
        """The objective and its gradient in every parameter.

        ``objective`` is "nll" (default), "ssvm", "pseudolikelihood", "marginal" or "unary" on chains, and "mean_field"
        (default), "ssvm", "pseudolikelihood" or "unary" on grids.
        """
        loss, grads, _ = self.pass_through(data, objective)
        return loss, grads

    def pass_through(
        self, data: Data, objective: str | None, unary: Floats | None = None
    ) -> tuple[float, StructuredGrads, Floats]:
        """Loss, gradients and U; if ``unary`` is given the network is not run and has no gradients."""
        cache = None
        if unary is None:
            unary, cache = self._forward(data)
        out = self._evaluate(data, objective, unary)
        network: Params = {}
        if cache is not None:
            network, _ = self.network.layer.backward(cache, times(self.unary_scale, out.unary), inputs=False)
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
        scaled = times(self.unary_scale, unary)
        if not np.isfinite(scaled).all():  # the network has overflowed: its potentials are never constraints
            return ObjectiveValue(math.nan, np.zeros_like(scaled), np.zeros_like(self.pairwise))
        return self.potential_objective(data, scaled, name)

    def _labels(self, data: Data, *, unseen: bool = False) -> NDArray[np.integer[Any]]:
        """The labels of ``data``, which must be known to the model unless ``unseen`` ones are allowed."""
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
        """The model with these parameters; the network's arrays are used without a copy."""
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

    def at(self, params: Mapping[str, Floats]) -> Self:
        """`with_parameters` without its checks, for arrays that training updates in place."""
        network, model = object.__new__(type(self.network)), object.__new__(type(self))
        own = {name.removeprefix(NETWORK): v for name, v in params.items() if name.startswith(NETWORK)}
        vars(network).update(vars(self.network), params=own)
        vars(model).update(vars(self), network=network)
        vars(model).update({name: freeze(params[name].copy()) for name in self.pairwise_names})
        vars(model).update({name: float(params[name]) for name in ("unary_scale", "pairwise_scale")})
        return model

    _own_fields: ClassVar[tuple[str, ...]] = ()
    _masks: ClassVar[tuple[str, ...]] = ()

    def save(self, path: PathLike) -> None:
        """Write the model as npz (no pickle), atomically.

        A network with layers of your own is stored without its architecture: `restore` reads it, `load` does not.
        """
        parameters = self.parameters()
        arrays = {name: value for name, value in parameters.items() if not name.startswith(NETWORK)}
        arrays |= {name: getattr(self, name) for name in self._masks if getattr(self, name) is not None}
        fields = {"output": list(self.network.output), **{name: getattr(self, name) for name in self._own_fields}}
        write_model(path, type(self).__name__, self.network.layer, self.network.params, arrays, **fields)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read a model written by `save`; anything malformed raises DataFileError."""

        def build(layer: Layer, params: Params, arrays: Params, fields: dict[str, Any]) -> Self:
            network = Network(layer, params, tuple(fields["output"]))
            own: dict[str, Any] = {**arrays, **{name: fields[name] for name in cls._own_fields}}
            own |= {name: float(arrays[name]) for name in ("unary_scale", "pairwise_scale")}
            return cls(network, **own)

        return read_model(path, cls.__name__, build)

    def restore(self, path: PathLike) -> Self:
        """This model with the parameters in a file written by `save`, which must have the same architecture."""
        own = self.parameters()
        found = read_npz(path, tuple(own))
        for name, value in own.items():
            if found[name].shape != value.shape:
                raise InputError("path", f"must hold {name} of shape {value.shape}", got=f"shape {found[name].shape}")
            if found[name].dtype.kind not in "biuf" or not np.isfinite(found[name]).all():
                raise DataFileError(path, f"must hold finite numbers under {name}")
        return self.with_parameters(found)


def _inner(a: Floats, b: Floats) -> float:
    """<a, b>, read in memory order: vdot copies arrays that are not C-contiguous."""
    return float(np.vdot(a.T, b.T) if a.flags.f_contiguous else np.vdot(a, b))


def times(scale: float, values: Floats) -> Floats:
    """scale * values, without a copy for scale 1."""
    return values if scale == 1.0 else scale * values
