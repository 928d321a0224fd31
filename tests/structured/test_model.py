"""Data sets, the models' gradients and predictions, and their files."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.errors import DataFileError, InputError
from attnembed.structured.chain import chain_viterbi
from attnembed.structured.data import ChainDataset, GridDataset, make_chain_dataset, make_grid_dataset
from attnembed.structured.model import ChainCRF, GridCRF
from attnembed.structured.networks import conv_net, identity, mlp
from tests.gradients import quick_check


def ragged(rng, lengths=(3, 1, 4, 2), k=3, features=2):
    inputs = [rng.normal(size=(n, features)) for n in lengths]
    return inputs, [rng.integers(0, k, size=n) for n in lengths]


@pytest.fixture
def chain_case():
    rng = np.random.default_rng(0)
    data = ChainDataset(*ragged(rng))
    return ChainCRF(mlp(2, (4,), 3, rng=1), rng.normal(size=(3, 3)), 0.7, 1.9), data


@pytest.fixture
def grid_case():
    rng = np.random.default_rng(0)
    data = GridDataset(rng.normal(size=(1, 2, 3, 2)), rng.integers(0, 2, size=(1, 2, 3)))
    network = conv_net(2, (3,), 2, size=3, rng=1)
    return GridCRF(network, np.eye(2) + 0.1 * rng.normal(size=(2, 2)), 0.7, 0.4, contrast=True), data


@pytest.mark.parametrize("objective", ChainCRF.objectives)
def test_chain_gradients(chain_case, objective):
    assert_gradients(*chain_case, objective)


@pytest.mark.parametrize("objective", ["ssvm", "pseudolikelihood"])
def test_grid_gradients(grid_case, objective):
    assert_gradients(*grid_case, objective)


def assert_gradients(model, data, objective):
    params, (loss, grads) = model.parameters(), model.loss_and_grads(data, objective)
    assert_allclose(loss, model.loss(data, objective), rtol=1e-14)
    named = grads.to_dict()
    assert sorted(named) == sorted(params)
    for name, gradient in named.items():
        if objective == "unary" and name.startswith("pairwise"):
            assert not gradient.any()
            continue
        report = quick_check(
            lambda p, name=name: model.with_parameters(params | {name: p}).loss(data, objective), gradient, params[name]
        )
        assert report.passed, f"{name}: {report.message}"


def test_predictions_are_the_best_labelings(chain_case):
    model, data = chain_case
    for labels, unary in zip(model.predict(data), data.split(model.unary(data))):
        assert_array_equal(labels, chain_viterbi(0.7 * unary, 1.9 * model.pairwise))
    right = [np.array_equal(a, b) for a, b in zip(model.predict(data), data.split(data.labels))]
    assert model.sequence_accuracy(data) == np.mean(right)


def test_zero_pairwise_scale_leaves_the_network_alone(chain_case, grid_case):
    for model, data in (chain_case, grid_case):
        alone = type(model)(model.network, model.pairwise, pairwise_scale=0.0)
        assert_array_equal(alone.predict_rows(data), model.unary(data).argmax(axis=-1))


def test_subset_and_split():
    inputs, labels = ragged(np.random.default_rng(0))
    data = ChainDataset(inputs, labels)
    for wanted in ([2, 0], [3], [1, 3, 2, 0]):
        part = data.subset(wanted)
        assert_array_equal(part.inputs, data.inputs[data.rows(wanted)])
        for i, (x, y) in zip(wanted, zip(part.split(part.inputs), part.split(part.labels))):
            assert_array_equal(x, inputs[i])
            assert_array_equal(y, labels[i])


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([4], "`indices` must be in 0..3; got 4"),
        ([-1], "`indices` must be in 0..3; got -1"),
        ([], "`indices` must hold at least one"),
        (np.arange(4) > 1, "`indices` must hold integers; got dtype bool"),
    ],
)
def test_bad_subsets_are_named(indices, message):
    chains = ChainDataset(*ragged(np.random.default_rng(0)))
    for data in (chains, make_grid_dataset(4, 3, 3, 2, rng=0)):
        with pytest.raises(InputError, match=message):
            data.subset(indices)


def test_save_and_restore(chain_case, tmp_path):
    model, data = chain_case
    model.save(tmp_path / "model.npz")
    blank = ChainCRF(mlp(2, (4,), 3, rng=9), np.zeros((3, 3)))
    assert blank.restore(tmp_path / "model.npz").loss(data) == model.loss(data)
    with pytest.raises(InputError, match="of shape"):
        ChainCRF(mlp(2, (5,), 3, rng=9), np.zeros((3, 3))).restore(tmp_path / "model.npz")
    (tmp_path / "other.npz").write_text("nothing")
    with pytest.raises(DataFileError, match=r"other.npz"):
        blank.restore(tmp_path / "other.npz")


def test_same_seed_same_data():
    for make in (make_chain_dataset, make_grid_dataset):
        a, b = make(rng=3), make(rng=3)
        assert_array_equal(a.inputs, b.inputs)
        assert_array_equal(a.labels, b.labels)
        assert (a.inputs[:3] != make(rng=4).inputs[:3]).any()


def test_strengths_control_the_data():
    """Emission decides what the inputs tell, transition what the neighbours tell."""

    def agreement(data):
        return np.mean(data.labels[:, :, 1:] == data.labels[:, :, :-1])

    assert agreement(make_grid_dataset(transition=0.0, rng=0)) < 0.55
    assert agreement(make_grid_dataset(transition=1.2, rng=0)) > 0.8
    quiet = make_chain_dataset(emission=3.0, noise=1e-9, transition=0.0, rng=0)
    assert len(np.unique(quiet.inputs.round(6), axis=0)) == 5


def test_bad_data_is_named():
    x, y = [np.zeros((2, 1))], [[0, 1]]
    for arguments, message in (
        ((x, []), r"`labels` must have one entry per sequence \(1\)"),
        (([], []), "`inputs` must hold at least one sequence"),
        ((x, [[0]]), "one label per position.* in sequence 0"),
        (([np.zeros((0, 1))], [[]]), "`inputs` must have at least one position .* in sequence 0"),
        ((x, [[0.0, 1.0]]), "`labels` must be integers; got dtype float64 in sequence 0"),
        ((x, [[0, -1]]), "`labels` must be >= 0"),
        (([np.full((2, 1), np.nan)], y), "`inputs` must be finite; got NaN or inf in sequence 0"),
        (([np.zeros((2, 1)), np.zeros((2, 2))], [*y, *y]), "same shape .* in sequence 1"),
    ):
        with pytest.raises(InputError, match=message):
            ChainDataset(*arguments)
    for arguments, message in (
        ((np.zeros((1, 2, 2)), np.zeros((1, 2, 2), int)), "`images` must be a real array"),
        ((np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 3), int)), r"`labels` must have shape \(1, 2, 2\)"),
        ((np.full((1, 2, 2, 1), np.inf), np.zeros((1, 2, 2), int)), "`images` must be finite"),
    ):
        with pytest.raises(InputError, match=message):
            GridDataset(*arguments)


def test_bad_models_are_named(chain_case):
    model, data = chain_case
    for arguments, message in (
        ((lambda x: x, np.zeros((3, 3))), "`network` must be an attnembed.structured.networks.Network; got function"),
        ((identity(), np.zeros((3, 2))), "`pairwise` must be a square matrix"),
        ((identity(), np.full((3, 3), np.nan)), "`pairwise` must be finite"),
        ((identity(), np.zeros((3, 3)), np.inf), "`unary_scale` must be a finite number"),
    ):
        with pytest.raises(InputError, match=message):
            ChainCRF(*arguments)
    with pytest.raises(InputError, match=r"`network` must give potentials of shape \(10, 4\); got shape \(10, 3\)"):
        ChainCRF(model.network, np.zeros((4, 4))).loss(data)
    with pytest.raises(InputError, match=r"`labels` must be in 0..1; got 2"):
        ChainCRF(identity(), np.zeros((2, 2))).loss(data)
    with pytest.raises(InputError, match="`objective` must be one of"):
        model.loss(data, "mse")
    with pytest.raises(InputError, match="`objective` must be one of"):
        GridCRF(identity(), np.eye(2)).loss(make_grid_dataset(2, 3, 3, 2, rng=0), "marginal")
