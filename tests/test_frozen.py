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

import attnembed as ae
from attnembed._frozen import KeepsFrozen
from attnembed._validation import freeze
from attnembed.attention.reviews import Reviews
from attnembed.attention.svmlight import LabelledCounts
from attnembed.errors import InputError
from attnembed.results import Status
from attnembed.structured.constraints import bio_constraints
from attnembed.structured.data import ChainDataset, make_chain_dataset, make_grid_dataset
from attnembed.structured.grid import grid_mean_field
from attnembed.structured.letters import Letters
from attnembed.structured.model import ChainCRF, GridCRF
from attnembed.structured.networks import birnn, conv_net, mlp
from attnembed.structured.theory import fit_scales, scale_objective
from attnembed.structured.training import train_structured
from attnembed.sweeping import SweepResult

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


def constrained() -> ChainCRF:
    allowed, first = bio_constraints(["O", "B-NP", "I-NP"])
    ends = {"start": np.zeros(3), "end": np.ones(3)}
    return ChainCRF(
        mlp(2, (), 3, rng=0), np.eye(3), **ends, allowed=allowed, start_allowed=first, end_allowed=np.ones(3, bool)
    )


def margin():
    result = ae.max_margin(np.array([[1.0, 0.5], [0.2, 2.0], [3.0, 1.0]]))
    result.enclosure()
    return result


def counts() -> LabelledCounts:
    matrix = sp.csr_array(np.eye(2))
    for part in (matrix.data, matrix.indices, matrix.indptr):
        freeze(part)
    return LabelledCounts(matrix, freeze(np.array([1.0, -1.0])), ("a", "b"))


def trained():
    data = chains()
    return train_structured(ChainCRF(mlp(6, (), 5, rng=0), np.eye(5)), data, validation=data, n_epochs=1, rng=0)


OBJECTS = {
    "mixin": everything,
    "chains": chains,
    "images": lambda: make_grid_dataset(2, 3, 3, rng=0),
    "chain model": lambda: ChainCRF(mlp(2, (), 2, rng=0), np.eye(2)),
    "chain model with constraints": constrained,
    "grid model": lambda: GridCRF(conv_net(1, (), 2, rng=0), np.eye(2)),
    "margin": margin,
    "counts": counts,
    "letters": lambda: Letters(
        (freeze(np.zeros((2, 128), np.uint8)),), (freeze(np.zeros(2, np.intp)),), freeze(np.zeros(1, np.intp))
    ),
    "scale fit": lambda: fit_scales(np.array([[[1.0, 0.0]]] * 3), np.zeros((2, 2)), [[0], [0], [1]]),
    "objective of the scales": lambda: scale_objective([[0.0, 1.0]], np.zeros((2, 2)), [1]),
    "marginals": lambda: ae.chain_marginals(np.zeros((3, 2)), np.eye(2)),
    "mean field": lambda: grid_mean_field(np.zeros((1, 2, 2, 2)), np.eye(2)),
    "trained": trained,
}
# Frozen, too, without an array of their own.
PLAIN = {
    "reviews": lambda: Reviews(["good", "bad"], freeze(np.array([1.0, -1.0]))),
    "sweep": lambda: SweepResult(
        status=Status.REACHED_END, message="", cells=({"x": 1},), values=(2,), seeds=(3,), seconds=(0.1,), errors=()
    ),
    "report": lambda: ae.verify("structured", ids="length-one", instances=2, rng=0),
    "optimizer": lambda: ae.Adam(step_size=0.1, multipliers={"w": 2.0}),
    "evidence": lambda: ae.Evidence(measured=0.0, control=1.0, bound=0.5),
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


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_margin_encloses_the_same_numbers(how):
    original = margin()
    assert COPIES[how](original).enclosure() == original.enclosure()


@pytest.mark.parametrize("pairs", [False, True])
def test_a_margin_keeps_the_rows_that_it_was_given(pairs):
    rows = np.array([[1.0, 0.5], [0.2, 2.0], [3.0, 1.0]])
    result = ae.margins.max_margin_pairs(rows, [[2, 0], [1, 0]]) if pairs else ae.max_margin(rows)
    low, high = result.enclosure()
    rows *= 2
    assert result.enclosure() == (low, high)
    assert low <= result.margin <= high


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_model_obeys_the_same_constraints(how):
    original = constrained()
    other = COPIES[how](original)
    data = ChainDataset([np.ones((4, 2)), np.full((2, 2), -1.0)], [[0, 1, 2, 0], [1, 1]])
    assert [y.tolist() for y in other.predict(data)] == [y.tolist() for y in original.predict(data)]
    assert other.loss(data) == original.loss(data)
    with pytest.raises(InputError, match="must obey the constraints"):
        other.loss(ChainDataset([np.ones((2, 2))], [[0, 2]]))


@pytest.mark.parametrize("how", COPIES)
def test_a_copied_network_computes_the_same(how):
    network = birnn(5, 2, 3, dim=4, hidden=3, rng=0)
    ids = np.array([[0, 1], [2, 3], [4, 0]])
    assert np.array_equal(COPIES[how](network)(ids), network(ids))


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", PLAIN)
def test_plain_results_are_equal_and_frozen(name, how):
    original = PLAIN[name]()
    other = COPIES[how](original)
    assert repr(other) == repr(original)
    assert not any(a.flags.writeable for a in arrays(other))
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        setattr(other, dataclasses.fields(other)[0].name, None)
