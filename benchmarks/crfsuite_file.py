"""The weights in a model file of CRFsuite, in full precision.

``Tagger.info()`` of python-crfsuite goes through a dump that prints six decimals. The file has the numbers themselves:
a header with the place of the features, and for each of them kind, source, target and weight, little-endian. Names
come from ``info()``.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_HEADER = struct.Struct("<4s I 4s I 3I 5I")
_CHUNK = struct.Struct("<4s 2I")
_FEATURE = struct.Struct("<3I d")
_STATE = 0  # kind of a feature: of an attribute and a label; otherwise of two labels


class Weights(NamedTuple):
    """Names of the attributes and of the labels, (A, K) state weights and (K, K) transitions, 0 where none is kept."""

    attributes: list[str]
    labels: list[str]
    state: np.ndarray
    transitions: np.ndarray


def read_weights(path: Path, tagger: Any) -> Weights:
    """The weights of a model; ``tagger`` is a `pycrfsuite.Tagger` that has it open."""
    info, data = tagger.info(), path.read_bytes()
    names = [sorted(index, key=lambda name, index=index: int(index[name])) for index in (info.attributes, info.labels)]
    magic, *_, features, _, _, _, _ = _HEADER.unpack_from(data)
    chunk, _, number = _CHUNK.unpack_from(data, features)
    if (magic, chunk) != (b"lCRF", b"FEAT"):
        raise ValueError(f"{path} is not a model file of CRFsuite")
    state, transitions = np.zeros((len(names[0]), len(names[1]))), np.zeros((len(names[1]),) * 2)
    for k in range(number):
        kind, source, target, weight = _FEATURE.unpack_from(data, features + _CHUNK.size + k * _FEATURE.size)
        (state if kind == _STATE else transitions)[source, target] = weight
    return Weights(names[0], names[1], state, transitions)
