"""Frozen objects: one short line as repr, and copies that are frozen, too; for all public classes with arrays."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pickle
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import attnembed as ae
from attnembed import theory
from attnembed._frozen import KeepsFrozen
from attnembed.attention.diagnosis import diagnose
from attnembed.attention.training import TrainState
from attnembed.gradcheck import check_gradient
from attnembed.results import Result
from attnembed.structured.base import StructuredModel

ARRAYS = re.compile(r"Array|Vector|Floats|Ints|Indices|csr_|csc_|recarray|Signs")
# Not results: layers and their layout, the state that an optimiser moves, and exact numbers of the oracles.
OTHERS = re.compile(
    r"attnembed\.(structured\.(networks|convolution)|optim|reference|experiments|verify)\b|.*(__main__|\._)"
)


def public_classes() -> Iterator[type]:
    """Every public dataclass of the package with a field that is annotated as an array."""
    for module in pkgutil.walk_packages(ae.__path__, "attnembed."):
        if OTHERS.match(module.name):
            continue
        for name, found in vars(importlib.import_module(module.name)).items():
            if isinstance(found, type) and dataclasses.is_dataclass(found) and found.__module__ == module.name:
                fields = [str(field.type) for field in dataclasses.fields(found)]
                if not name.startswith("_") and any(map(ARRAYS.search, fields)):
                    yield found


CLASSES = list(public_classes())


def test_the_classes_are_found() -> None:
    names = {found.__name__ for found in CLASSES}
    assert {"TokenDataset", "AttentionModel", "FlowResult", "MarginResult", "Asymptotics", "ChainMarginals"} <= names


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_a_class_that_holds_arrays_is_frozen_and_prints_none(found: type) -> None:
    params = found.__dataclass_params__  # type: ignore[attr-defined]
    assert params.frozen
    assert issubclass(found, KeepsFrozen)
    assert issubclass(found, StructuredModel) or not params.repr  # the generated one prints the arrays


def results() -> dict[str, Any]:
    data = ae.make_balanced_dataset(n_samples=40, length=8, n_irrelevant=30, rng=0)
    model = ae.AttentionModel.random(data.vocab_size, 50, rng=0)
    step = ae.one_step(model, data, 10.0)
    flow = ae.gradient_flow(step.model, data, until=5.0)
    choice = ae.select(flow.model, data)
    constraints = ae.margin_constraints(flow.model, data, choice.top)
    states: list[TrainState] = []
    trained = ae.train(model, data, n_epochs=2, callback=lambda state: states.append(state), rng=0)
    chains = ae.make_chain_dataset(4, 5, rng=0)
    U, W = np.zeros((5, 3)), np.zeros((3, 3))
    return {
        "data": data,
        "model": model,
        "two layers": ae.TwoLayerModel.random(5, 4, rng=0),
        "step": step,
        "gradients": model.loss_and_grads(data)[1],
        "flow": flow,
        "selection": choice,
        "constraints": constraints,
        "margin": ae.max_margin(np.eye(30, 40)),
        "training": trained,
        "state": states[0],
        "diagnosis": diagnose(model, data),
        "assumption": data.check_assumption(),
        "asymptotics": theory.asymptotics(flow.model, data),
        "basin": theory.basin_condition(model, data),
        "divergence": theory.divergence(model, data),
        "prediction": theory.one_step_prediction(model, data, 1.0),
        "bound": theory.one_step_bound(model, data, 1.0),
        "smoothness": theory.smoothness_bound(model, data),
        "gradient check": check_gradient(lambda x: float(x @ x), lambda x: 2 * x, np.ones(3), rng=0),
        "chains": chains,
        "marginals": ae.chain_marginals(U, W),
        "map": ae.grid_map(np.zeros((1, 2, 2, 2)), np.eye(2)),
        "images": ae.make_grid_dataset(2, 4, 4, rng=0),
    }


RESULTS = results()


@pytest.mark.parametrize("name", RESULTS)
def test_a_repr_is_one_line(name: str) -> None:
    text = repr(RESULTS[name])
    assert "\n" not in text
    assert len(text) <= 210
    assert text.startswith(type(RESULTS[name]).__name__ + "(")
    assert "array([" not in text


def arrays(value: Any, seen: set[int] | None = None) -> Iterator[np.ndarray]:
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for name, part in value.items():
            if name != "network":
                yield from arrays(part, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from arrays(part, seen)
    elif dataclasses.is_dataclass(value) or sp.issparse(value):
        yield from arrays(vars(value), seen)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("name", RESULTS)
def test_copies_are_equal_and_frozen(name: str, how: Any) -> None:
    other = how(RESULTS[name])
    assert repr(other) == repr(RESULTS[name])
    assert not any(array.flags.writeable for array in arrays(other))
    for field in dataclasses.fields(other):
        for mine, theirs in zip(arrays(getattr(RESULTS[name], field.name)), arrays(getattr(other, field.name))):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
            assert mine.tobytes() == theirs.tobytes()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(other, dataclasses.fields(other)[0].name, None)
    if isinstance(other, Result):
        assert other.success == RESULTS[name].success
