"""Models of structured prediction in files: what comes back is what was written, and damage is named."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import attnembed as ae
from attnembed.errors import DataFileError, InputError
from attnembed.structured import layers as nn
from attnembed.structured import storage
from attnembed.structured.networks import two_scale_net

SEQUENCES = ae.make_chain_dataset(4, 5, 3, 6, rng=0)
IMAGES = ae.make_grid_dataset(2, 8, 8, 3, rng=0)
ALLOWED = np.array([[True, False, True], [True, True, True], [False, True, True]])
SUMS = ae.Network.create([nn.EmbeddingSum(7, 4, scale=0.5), nn.Tanh(), nn.LayerNorm(4), nn.Dense(4, 3)], rng=0)
NETWORKS = {
    "mlp": ae.mlp(6, (5,), 3, dtype=np.float32, rng=0),
    "lenet": ae.lenet(3, rng=0),
    "birnn": ae.birnn(7, 2, 3, dim=4, hidden=5, rng=0),
    "two scales": two_scale_net(3, fine=2, coarse=(2, 3, 4), rng=0),
    "sums": SUMS,
}
START = np.array([0.5, -1.0, 2.0])
WEIGHTS = np.random.default_rng(0).normal(size=(3, 3))
CHAIN = ae.ChainCRF(NETWORKS["mlp"], WEIGHTS, 0.7, 1.3, start=START, allowed=ALLOWED, end_allowed=[True, False, True])
GRID = ae.GridCRF(ae.conv_net(3, (2,), 2, rng=0), np.eye(2), contrast=True, contrast_width=0.5, margin=4.0)
MODELS: dict[str, tuple[Any, Any]] = {"chain": (CHAIN, SEQUENCES), "grid": (GRID, IMAGES)}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]
    network.save(tmp_path / "network.npz")
    again = ae.Network.load(str(tmp_path / "network.npz"))
    assert again.layer == network.layer
    assert again.output == network.output
    assert again.params.keys() == network.params.keys()
    for key, value in network.params.items():
        assert again.params[key].tobytes() == value.tobytes()
        assert again.params[key].dtype == value.dtype


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back(name: str, tmp_path: Path) -> None:
    model, data = MODELS[name]
    model.save(tmp_path / "model.npz")
    again = type(model).load(tmp_path / "model.npz")
    for field in fields(model):
        if field.name != "network":
            assert_array_equal(getattr(again, field.name), getattr(model, field.name))
    assert_array_equal(again.predict_rows(data), model.predict_rows(data))
    assert_array_equal(again.unary(data), model.unary(data))
    assert type(model).restore(model, tmp_path / "model.npz").pairwise.tobytes() == model.pairwise.tobytes()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dense(2, 3), nn.LayerNorm(4), nn.Conv2D(2, 3, 5), nn.Embedding(3, 2), nn.EmbeddingSum(3, 2),
        nn.BiRecurrent(2, 3), nn.ReLU(), nn.Tanh(), nn.Reshape((2, 2)), nn.MaxPool2D(), nn.Upsample2D(),
        nn.Coordinates(), nn.Sequential((nn.Dense(2, 2), nn.ReLU())), nn.Branches((nn.Dense(2, 2),)),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_the_shapes_are_those_of_the_parameters(layer: nn.Layer) -> None:
    found = {name: value.shape for name, value in layer.init(np.random.default_rng(0)).items()}
    assert dict(storage._shapes(layer)) == found


def test_every_layer_of_the_package_can_be_stored() -> None:
    kinds = {name for name in nn.__all__ if name not in ("Array", "Layer", "Params")}
    assert set(storage._KINDS) == kinds


@dataclass(frozen=True)
class Twice:
    def init(self, rng: Any) -> Any:
        return {}

    def forward(self, params: Any, x: Any, packing: Any = None) -> Any:
        return 2 * x, None

    def backward(self, cache: Any, upstream: Any, *, inputs: bool = True) -> Any:
        return {}, 2 * upstream


def test_a_layer_of_ones_own_keeps_its_parameters_only(tmp_path: Path) -> None:
    network = ae.Network.create([Twice(), nn.Dense(6, 3)], rng=0)
    with pytest.raises(InputError, match="`layer` must be made of the layers of attnembed"):
        network.save(tmp_path / "network.npz")
    model = ae.ChainCRF(network, WEIGHTS)
    model.save(tmp_path / "model.npz")
    assert model.with_parameters(model.parameters()).restore(tmp_path / "model.npz").loss(SEQUENCES) == model.loss(
        SEQUENCES
    )
    with pytest.raises(DataFileError, match=r"lacks the array\(s\) architecture"):
        ae.ChainCRF.load(tmp_path / "model.npz")


def stored(path: Path, header: Any = None, **changes: Any) -> Path:
    """The file of the chain with another header or other arrays."""
    CHAIN.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    if header is not None:
        known = json.loads(arrays["architecture"].item())
        arrays["architecture"] = np.array(header if isinstance(header, str) else json.dumps({**known, **header}))
    np.savez(path, **{**arrays, **changes})
    return path


HUGE = ["Dense", {"n_in": 10**9, "n_out": 10**9}]
DAMAGE: list[tuple[dict[str, Any], str]] = [
    ({"header": {"kind": "GridCRF"}}, "must hold a ChainCRF; got GridCRF"),
    ({"header": {"kind": [1]}}, "must hold a ChainCRF; got something else"),
    ({"header": "[]"}, "must hold a ChainCRF; got something else"),
    ({"header": "{"}, "holds an architecture that is not valid JSON"),
    ({"header": {"layer": ["Dropout", {}]}}, "does not describe a network: 'Dropout'"),
    ({"header": {"layer": ["Dense", {"n_in": -1, "n_out": 3}]}}, "does not describe a network: `n_in` must be"),
    ({"header": {"layer": ["Dense", {"width": 3}]}}, "does not describe a network: .*unexpected keyword"),
    ({"header": {"layer": 3}}, "does not describe a network"),
    ({"header": {"layer": HUGE}}, r"lacks the array\(s\) network.W"),
    ({"header": {"layer": ["Sequential", {"layers": [HUGE]}]}}, r"must hold network.0.W of shape"),
    ({"header": {"shapes": {"pairwise": [2, 2]}}}, r"must hold pairwise of shape \(2, 2\); got \(3, 3\)"),
    ({"header": {"shapes": {"pairwise": [3, 3]}}}, "does not hold a ChainCRF: 'unary_scale'"),
    ({"header": {"output": ["nothing"]}}, "does not hold a ChainCRF: `output` must be a tuple of names"),
    ({"pairwise": np.full((3, 3), np.nan)}, "must hold pairwise that is finite"),
    ({"start": np.array([None] * 3)}, "is not a readable npz archive"),
    ({"allowed": np.ones((3, 3))}, "does not hold a ChainCRF: `allowed`"),
]


@pytest.mark.parametrize(("change", "problem"), DAMAGE)
def test_files_that_hold_no_model(change: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=problem) as caught:
        ae.ChainCRF.load(stored(tmp_path / "model.npz", **change))
    assert caught.value.path == tmp_path / "model.npz"


def test_files_of_something_else(tmp_path: Path) -> None:
    ae.AttentionModel.random(3, 2, rng=0).save(tmp_path / "attention.npz")
    for kind in (ae.ChainCRF, ae.GridCRF, ae.Network):
        with pytest.raises(DataFileError, match="lacks the array"):
            kind.load(tmp_path / "attention.npz")
        with pytest.raises(DataFileError, match="No such file"):
            kind.load(tmp_path / "absent.npz")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.sampled_from(["Dense", "Sequential"]),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from(["layers", "n_in", "x"]), parts),
    max_leaves=8,
)


@given(part=st.sampled_from(["layer", "output", "shapes"]), value=JSON)
def test_any_header_is_read_or_refused(part: str, value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = stored(tmp_path_factory.mktemp("model") / "model.npz", {part: value})
    try:
        assert isinstance(ae.ChainCRF.load(path), ae.ChainCRF)
    except DataFileError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


@given(data=st.data())
def test_damaged_bytes_are_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("model")
    model, _ = MODELS[data.draw(st.sampled_from(sorted(MODELS)))]
    model.save(folder / "model.npz")
    content = bytearray((folder / "model.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] ^= data.draw(st.integers(1, 255))
        else:
            del content[place:]
            break
    (folder / "model.npz").write_bytes(content)
    try:
        again = type(model).load(folder / "model.npz")
    except DataFileError:
        return
    assert isinstance(again, type(model))
