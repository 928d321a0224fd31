"""Every layer's backward pass against its forward pass, alone and composed, on ragged batches."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.errors import InputError
from attnembed.structured.layers import (
    BiRecurrent,
    Branches,
    Conv2D,
    Coordinates,
    Dense,
    EmbeddingSum,
    LayerNorm,
    MaxPool2D,
    ReLU,
    Tanh,
    Upsample2D,
)
from attnembed.structured.networks import Network, birnn, conv_net, identity, lenet, mlp, two_scale_net
from attnembed.structured.packing import Packing
from tests.gradients import quick_check

PACKING = Packing(np.array([3, 1, 4, 2]))
IDS = np.random.default_rng(0).integers(0, 7, size=(10, 2))

NETWORKS = {
    "mlp": (mlp(5, (7,), 3, rng=1), (10, 5)),
    "lenet": (lenet(4, height=8, width=8, channels=(2, 3), hidden=5, rng=1), (10, 64)),
    "birnn": (birnn(7, 2, 3, dim=3, hidden=4, rng=1), None),
    "conv_net": (conv_net(3, (4,), 2, size=3, rng=1), (2, 5, 6, 3)),
    "valid lenet": (lenet(4, height=16, width=16, channels=(2, 3), hidden=5, padding="valid", rng=1), (10, 256)),
    "embedding sum": (Network.create([EmbeddingSum(7, 4, scale=0.5), Tanh(), Dense(4, 3)], rng=1), None),
    "wide images": (Network.create([Conv2D(2, 3, 3), Conv2D(3, 2, 5, padding="valid")], rng=1), (2, 6, 18, 2)),
    "even kernel padding": (Network.create([Conv2D(2, 3, 5)], rng=1), (2, 4, 3, 2)),
    "pool of odd sides": (Network.create([MaxPool2D(), Conv2D(2, 2, 1)], rng=1), (2, 5, 7, 2)),
    "two scales": (two_scale_net(3, fine=2, coarse=(3, 2, 3), rng=1), (2, 8, 12, 3)),
    "layers of images": (Network.create([Upsample2D(), Coordinates(), Conv2D(4, 2, 1)], rng=1), (2, 2, 3, 2)),
    "branches": (Network.create([Branches((Tanh(), Dense(5, 2), Dense(5, 3))), Dense(10, 2)], rng=1), (10, 5)),
    "layer norm": (Network.create([Dense(5, 4), LayerNorm(4)], rng=1), (10, 5)),
    "layer norm of images": (Network.create([LayerNorm(3)], rng=1), (2, 3, 4, 3)),
    "recurrent": (Network.create([BiRecurrent(5, 4), Tanh()], rng=1), (10, 5)),
    "dense on images": (Network.create([Dense(3, 2), ReLU()], rng=1), (2, 3, 4, 3)),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    """A network with random parameters, an input, and the gradients of <output, upstream>."""
    network, shape = NETWORKS[request.param]
    rng = np.random.default_rng(3)
    params = {name: value + 0.1 * rng.normal(size=value.shape) for name, value in network.params.items()}
    x = IDS if shape is None else rng.normal(size=shape)
    output, cache = network.layer.forward(params, x, PACKING)
    upstream = rng.normal(size=output.shape)
    grads, input_gradient = network.layer.backward(cache, upstream)

    def value(params=params, x=x):
        return float(np.vdot(network.layer.forward(params, x, PACKING)[0], upstream))

    return params, x, grads, input_gradient, value


def test_parameter_gradients(case):
    params, _, grads, _, value = case
    assert sorted(grads) == sorted(params)
    for name in params:
        report = quick_check(lambda p, name=name: value(params | {name: p}), grads[name], params[name])
        assert report.passed, f"{name}: {report.message}"


def test_input_gradient(case):
    _, x, _, input_gradient, value = case
    assert input_gradient.shape == x.shape
    if x.dtype.kind == "f":
        report = quick_check(lambda x: value(x=x), input_gradient, x)
        assert report.passed, report.message


def test_recurrence_does_not_cross_sequences():
    """Running a ragged batch is running its sequences one by one."""
    network = NETWORKS["recurrent"][0]
    x = np.random.default_rng(0).normal(size=(10, 5))
    together = network(x, PACKING)
    for i in range(4):
        rows = PACKING.sequence == i
        assert_allclose(together[rows], network(x[rows]), rtol=0, atol=1e-15)
    assert np.abs(together - network(x)).max() > 0.1


@pytest.mark.parametrize("width", [3, 5, 17], ids=["kernel's width", "narrow", "wide"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_convolution_by_its_definition(width, padding):
    layer = Conv2D(2, 1, 3, padding=padding)
    rng = np.random.default_rng(0)
    params, x = layer.init(rng), rng.normal(size=(1, 4, width, 2))
    y = layer.forward(params, x)[0]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))) if padding == "same" else x
    assert y.shape == (1, padded.shape[1] - 2, padded.shape[2] - 2, 1)
    for h in range(y.shape[1]):
        for w in range(y.shape[2]):
            window = padded[0, h : h + 3, w : w + 3].transpose(2, 0, 1)
            assert_allclose(y[0, h, w, 0], np.sum(window * params["W"][..., 0]), rtol=1e-12)


def test_upsampling_and_coordinates_by_their_definition():
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 1))
    large = Network.create([Upsample2D()])(x)
    assert_array_equal(large, np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
    placed = Network.create([Coordinates()])(x.astype(np.float32))
    assert placed.dtype == np.float32
    assert_array_equal(placed[..., :1], x.astype(np.float32))
    assert_array_equal(placed[1, ..., 1], [[-1, -1, -1], [1, 1, 1]])
    assert_array_equal(placed[1, ..., 2], [[-1, 0, 1], [-1, 0, 1]])


def test_branches_stand_side_by_side():
    network = Network.create([Branches((Dense(2, 3), Tanh()))], rng=0)
    x = np.random.default_rng(0).normal(size=(4, 2))
    expected = np.hstack([x @ network.params["0.0.W"], np.tanh(x)])
    assert_allclose(network(x), expected, rtol=1e-14)


def test_embedding_sum_by_its_definition():
    network = NETWORKS["embedding sum"][0]
    first = EmbeddingSum(7, 4, scale=0.5)
    y = first.forward({"E": network.params["0.E"], "b": network.params["0.b"]}, IDS)[0]
    assert_allclose(y, network.params["0.E"][IDS].sum(axis=1) + network.params["0.b"], rtol=1e-13)


def test_output_parameters_scale_the_output():
    for name, (network, shape) in NETWORKS.items():
        x = IDS if shape is None else np.random.default_rng(0).normal(size=shape)
        if not network.output:
            assert name in ("recurrent", "dense on images")
            continue
        scaled = network.with_params({k: 3 * v if k in network.output else v for k, v in network.params.items()})
        assert_allclose(scaled(x, PACKING), 3 * network(x, PACKING), rtol=1e-13, atol=1e-13)


def test_identity_and_dtype():
    x = np.ones((3, 2))
    assert_array_equal(identity()(x), x)
    network = lenet(4, height=8, width=8, dtype=np.float32, rng=0)
    assert network(np.ones((2, 64), dtype=np.float32)).dtype == np.float32


def test_external_lenet(data_folder):
    """Weights of another implementation give its potentials (docs/derivations/provenance.md).

    Its images are the 16 x 8 letters in the middle of 32 x 32 zeros. The potentials are those of one word; the data
    set has 81 of that spelling, and one of them fits.
    """
    with np.load(data_folder / "ocr_crf_fixture.npz") as archive:
        fixture = dict(archive)
    network = lenet(height=32, width=32, padding="valid")
    params = {}
    for layer, name in ((1, "conv1"), (4, "conv2")):  # (out, in, i, j) -> (in, i, j, out)
        params[f"{layer}.W"] = fixture[f"{name}_weight"].transpose(1, 2, 3, 0)
        params[f"{layer}.b"] = fixture[f"{name}_bias"]
    by_channel = fixture["fc1_weight"].reshape(140, 20, 5, 5)  # (out, channel, row, column) -> (row, column, channel)
    params |= {"8.W": by_channel.transpose(2, 3, 1, 0).reshape(500, 140), "8.b": fixture["fc1_bias"]}
    params |= {"10.W": fixture["fc2_weight"].T, "10.b": fixture["fc2_bias"]}

    with np.load(data_folder / "ocr_letters.npz") as archive:
        pixels, labels, lengths = (archive[name] for name in ("pixels", "labels", "lengths"))
    stops = np.cumsum(lengths)
    words = [slice(stop - length, stop) for stop, length in zip(stops, lengths)]
    words = [word for word in words if np.array_equal(labels[word], fixture["target"])]
    images = np.concatenate([pixels[word] for word in words]).reshape(-1, 16, 8).astype(float)
    images = np.pad(images, ((0, 0), (8, 8), (12, 12))).reshape(len(images), -1)
    unary = network.with_params(params)(images).reshape(len(words), *fixture["unary"].shape)
    error = np.abs(unary - fixture["unary"]).max(axis=(1, 2))
    assert len(words) == 81
    assert np.sum(error < 1e-5) == 1
    assert np.sort(error)[1] > 1


def test_same_seed_same_network():
    for name, value in mlp(3, (4,), 2, rng=5).params.items():
        assert_array_equal(value, mlp(3, (4,), 2, rng=5).params[name])


@pytest.mark.parametrize(
    ("network", "x", "message"),
    [
        (mlp(3, (), 2, rng=0), np.zeros((4, 5)), r"`inputs` must have 3 features for Dense; got shape \(4, 5\)"),
        (conv_net(3, (), 2, rng=0), np.zeros((1, 4, 4, 2)), r"`inputs` must be \(n, H, W, 3\) for Conv2D"),
        (lenet(rng=0), np.zeros((4, 100)), r"`inputs` must have rows of shape \(16, 8, 1\)"),
        (birnn(5, 1, 2, rng=0), np.zeros((4, 1)), r"`inputs` must be integers \(N, m\) for an embedding"),
        (conv_net(1, (), size=5, rng=0), np.zeros((1, 4, 4)), r"`inputs` must be \(n, H, W, 1\) for Conv2D"),
        (Network.create([Conv2D(1, 1, 5, padding="valid")], rng=0), np.zeros((1, 4, 9, 1)), "at least 5 high and wide"),
        (NETWORKS["embedding sum"][0], np.array([[7, 0]]), r"`inputs` must be ids in 0..6; got 7"),
        (birnn(5, 1, 2, rng=0), np.array([[5]]), r"`inputs` must be ids in 0..4; got 5"),
        (birnn(5, 1, 2, rng=0), np.array([[-1]]), r"`inputs` must be ids in 0..4; got -1"),
        (NETWORKS["recurrent"][0], np.zeros((4, 3)), r"`inputs` must be \(N, 5\) for BiRecurrent"),
        (
            NETWORKS["two scales"][0],
            np.zeros((1, 8, 6, 3)),
            r"^`inputs` must have a height and a width that are multiples of 4; got shape \(1, 8, 6, 3\)",
        ),
        (
            Network.create([Branches((MaxPool2D(), Tanh()))]),
            np.zeros((1, 2, 2, 3)),
            r"^`inputs` must leave all branches with outputs of one size, not \[.*\]; got shape \(1, 2, 2, 3\)",
        ),
    ],
)
def test_bad_inputs_are_named(network, x, message):
    with pytest.raises(InputError, match=message):
        network(x)


def test_bad_sizes_are_named():
    with pytest.raises(InputError, match="`height` and `width` must be at least 4"):
        lenet(height=3, width=8)
    with pytest.raises(InputError, match="`height` and `width` must be at least 16"):
        lenet(padding="valid")
    with pytest.raises(InputError, match="`size` must be odd"):
        conv_net(1, (), size=4)
    with pytest.raises(InputError, match="`hidden` must be at least 1"):
        mlp(3, (0,), 2)


@pytest.mark.parametrize("last", [False, True], ids=["image first", "image last"])
def test_the_first_of_equal_entries_takes_the_gradient_of_a_pool(last):
    x = np.array([[1, 1, 2, 0], [1, 0, 3, 3]], dtype=float).reshape(1, 2, 4, 1) * np.ones((2, 1, 1, 3))
    x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0) if last else x
    upstream = np.arange(1.0, 13.0).reshape(2, 1, 2, 3)
    pool = MaxPool2D()
    y, kept = pool.forward({}, x)
    assert_array_equal(y, np.array([1, 3]).reshape(1, 1, 2, 1) * np.ones((2, 1, 1, 3)))
    _, gradient = pool.backward(kept, upstream)
    expected = np.zeros_like(x)
    expected[:, 0, 0], expected[:, 1, 2] = upstream[:, 0, 0], upstream[:, 0, 1]
    assert_array_equal(gradient, expected)
