"""Copies and pickles of frozen objects are frozen too, and carry no cached values."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from attnembed._frozen import KeepsFrozen
from attnembed._validation import freeze
from attnembed.structured.data import make_chain_dataset, make_grid_dataset
from attnembed.structured.model import ChainCRF, GridCRF
from attnembed.structured.networks import conv_net, mlp

COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


@dataclasses.dataclass(frozen=True, eq=False)
class Everything(KeepsFrozen):
    array: np.ndarray
    counts: Any
    nested: tuple[dict[str, list[np.ndarray]], ...]

    @cached_property
    def total(self) -> float:
        return float(self.array.sum())


def everything() -> Everything:
    counts = sp.csr_array(np.eye(2))
    for part in (counts.data, counts.indices, counts.indptr):
        freeze(part)
    return Everything(freeze(np.ones(3)), counts, ({"a": [freeze(np.ones(1))]},))


def chains():
    data = make_chain_dataset(4, 3, rng=0)
    assert data.packing.left.size  # fills the caches
    return data


OBJECTS = {
    "mixin": everything,
    "chains": chains,
    "images": lambda: make_grid_dataset(2, 3, 3, rng=0),
    "chain model": lambda: ChainCRF(mlp(2, (), 2, rng=0), np.eye(2)),
    "grid model": lambda: GridCRF(conv_net(1, (), 2, rng=0), np.eye(2)),
}


def arrays(value: Any) -> list[np.ndarray]:
    """Every array that the attributes of an object hold; networks, which training moves, are left out."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, (list, tuple)):
        return [a for part in value for a in arrays(part)]
    if isinstance(value, dict):
        return arrays([part for name, part in value.items() if name != "network"])
    return arrays(vars(value)) if hasattr(value, "__dict__") else []


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", OBJECTS)
def test_copies_are_frozen_and_equal(name, how):
    original = OBJECTS[name]()
    other = COPIES[how](original)
    assert type(other) is type(original)
    assert arrays(other)
    assert not any(a.flags.writeable for a in arrays(other))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(other, dataclasses.fields(other)[0].name, None)
    for field in dataclasses.fields(original):
        for a, b in zip(arrays(getattr(original, field.name)), arrays(getattr(other, field.name))):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


@pytest.mark.parametrize("how", COPIES)
def test_cached_values_stay_behind(how):
    original = everything()
    assert original.total == 3
    other = COPIES[how](original)
    assert "total" in vars(original)
    assert "total" not in vars(other)
    assert other.total == 3
