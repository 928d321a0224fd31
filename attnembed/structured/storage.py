"""Models in files: npz archives without pickle, with the architecture as a JSON text beside the arrays.

Layers of other packages have no description. A model with such a layer is stored with its parameters alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from attnembed._files import Member, PathLike, parse_json, read_checked, write_npz
from attnembed.errors import DataFileError, InputError
from attnembed.structured import layers as nn
from attnembed.structured.layers import Layer, Params

__all__ = ["NETWORK", "is_describable", "read_model", "write_model"]

NETWORK = "network."

Shapes = dict[str, tuple[int, ...]]
T = TypeVar("T")

_ARCHITECTURE = "architecture"
_FLOATS = (np.float32, np.float64)
# The shapes of the parameters of each layer: a file is checked against them before anything is allocated.
_SHAPES: dict[type, Callable[[Any], Shapes]] = {
    nn.Dense: lambda layer: {"W": (layer.n_in, layer.n_out), "b": (layer.n_out,)},
    nn.LayerNorm: lambda layer: {"gain": (layer.size,), "bias": (layer.size,)},
    nn.Conv2D: lambda layer: {"W": (layer.n_in, layer.size, layer.size, layer.n_out), "b": (layer.n_out,)},
    nn.Embedding: lambda layer: {"E": (layer.vocab_size, layer.dim)},
    nn.EmbeddingSum: lambda layer: {"E": (layer.vocab_size, layer.dim), "b": (layer.dim,)},
    nn.BiRecurrent: lambda layer: {
        f"{way}_{name}": shape
        for way in ("forward", "backward")
        for name, shape in (
            ("Wx", (layer.n_in, layer.n_hidden)),
            ("Wh", (layer.n_hidden, layer.n_hidden)),
            ("b", (layer.n_hidden,)),
        )
    },
    **{kind: lambda layer: {} for kind in (nn.ReLU, nn.Tanh, nn.Reshape, nn.MaxPool2D, nn.Upsample2D, nn.Coordinates)},
}
_PARTS: dict[type, str] = {nn.Sequential: "layers", nn.Branches: "branches"}
_KINDS = {kind.__name__: kind for kind in (*_SHAPES, *_PARTS)}


def write_model(path: PathLike, kind: str, layer: Layer, params: Params, arrays: Params, **fields: Any) -> None:
    """Write the parameters of a network, other arrays and plain values, atomically."""
    stored = {**{NETWORK + name: value for name, value in params.items()}, **arrays}
    description = _describe(layer)
    if description is not None:
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        header = {"kind": kind, "layer": description, "shapes": shapes, **{k: _plain(v) for k, v in fields.items()}}
        stored[_ARCHITECTURE] = np.array(json.dumps(header))
    write_npz(path, **stored)


def read_model(path: PathLike, kind: str, build: Callable[[Layer, Params, Params, dict[str, Any]], T]) -> T:
    """The result of ``build`` on the layer, parameters, other arrays and values in a file by `write_model`.

    Raises DataFileError for a file that is damaged, inconsistent, or holds something else.
    """
    text = read_checked(path, {_ARCHITECTURE: Member("U", ())})[_ARCHITECTURE].item()
    header = parse_json(path, text, what="an architecture")
    found = header.get("kind") if isinstance(header, dict) else None
    if found != kind:
        raise DataFileError(path, f"must hold a {kind}; got {found if isinstance(found, str) else 'something else'}")
    try:
        layer = _build(header.pop("layer"))
        network = {NETWORK + name: Member(_FLOATS, shape) for name, shape in _shapes(layer)}
        others = {name: Member("fb", tuple(map(int, shape))) for name, shape in header.pop("shapes").items()}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataFileError(path, f"does not describe a network: {' '.join(str(error).split())[:200]}") from error
    arrays = read_checked(path, {**network, **others})
    params = {name.removeprefix(NETWORK): arrays[name] for name in network}
    try:
        return build(layer, params, {name: arrays[name] for name in others}, header)
    except (InputError, KeyError, TypeError) as error:
        raise DataFileError(path, f"does not hold a {kind}: {' '.join(str(error).split())[:200]}") from error


def is_describable(layer: Layer) -> bool:
    """Whether a file can describe the layer, which must come from this package."""
    return _describe(layer) is not None


def _describe(layer: Any) -> list[Any] | None:
    """The class of a layer and its fields, for JSON; None for a layer from outside this package."""
    kind = type(layer)
    if kind in _PARTS:
        parts = [_describe(part) for part in getattr(layer, _PARTS[kind])]
        return None if None in parts else [kind.__name__, {_PARTS[kind]: parts}]
    if kind not in _SHAPES:
        return None
    return [kind.__name__, {field.name: _plain(getattr(layer, field.name)) for field in dataclasses.fields(layer)}]


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def _build(description: Any) -> Layer:
    name, fields = description
    kind = _KINDS[name]
    if kind in _PARTS:
        (parts,) = fields.values()
        found: Layer = kind(tuple(map(_build, parts)))
        return found
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    found = kind(**values)
    return found


def _shapes(layer: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter, with the names of `init`."""
    kind = type(layer)
    if kind not in _PARTS:
        yield from _SHAPES[kind](layer).items()
        return
    for i, part in enumerate(getattr(layer, _PARTS[kind])):
        for name, shape in _shapes(part):
            yield f"{i}.{name}", shape
