"""The layers of networks, each with a hand-written forward and backward pass."""

from attnembed.structured.layers.core import (
    Array,
    Branches,
    Dense,
    Layer,
    LayerNorm,
    Params,
    ReLU,
    Reshape,
    Sequential,
    Tanh,
)
from attnembed.structured.layers.images import Conv2D, Coordinates, MaxPool2D, Upsample2D
from attnembed.structured.layers.sequences import BiRecurrent, Embedding, EmbeddingSum

__all__ = [
    "Array",
    "BiRecurrent",
    "Branches",
    "Conv2D",
    "Coordinates",
    "Dense",
    "Embedding",
    "EmbeddingSum",
    "Layer",
    "LayerNorm",
    "MaxPool2D",
    "Params",
    "ReLU",
    "Reshape",
    "Sequential",
    "Tanh",
    "Upsample2D",
]
