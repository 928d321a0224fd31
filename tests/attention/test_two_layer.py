"""The two-layer variant against a slow reference, against the one-layer model, and on a task that needs the gate."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from numpy.testing import assert_allclose

from attnembed.attention import two_layer
from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.two_layer import TwoLayerModel
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.gradcheck import check_gradient_complex_step
from attnembed.optim import Adam
from attnembed.testing import generators
from tests.gradients import quick_check

Array = np.ndarray[Any, Any]
NAMES = ("E", "p", "v", "W")
V, DIM = 6, 3


def instance(rng: np.random.Generator, *, norm: float = 1.0) -> tuple[TwoLayerModel, TokenDataset]:
    """Six tokens, the last of them absent, five sequences with repeated tokens; ||p|| = norm."""
    tokens = [rng.integers(0, V - 1, size=T) for T in (1, 2, 3, 5, 8)]
    E, p, v, W = (rng.standard_normal(shape) for shape in ((V, DIM), DIM, DIM, (DIM, DIM)))
    data = TokenDataset.from_tokens(tokens, [1, -1, 1, -1, 1], vocab_size=V)
    return TwoLayerModel(E, norm * p / np.linalg.norm(p), v, W), data


def slow_loss(E: Array, p: Array, v: Array, W: Array, data: TokenDataset, pooled: Array | None = None) -> Any:
    """The definition, token by token and analytic in all parameters; ``pooled`` stands for E in the mean."""
    total: Any = 0
    for counts, label in zip(data.counts.toarray(), data.labels, strict=True):
        tokens = np.repeat(np.arange(len(counts)), counts.astype(int))
        mean = sum((E if pooled is None else pooled)[s] for s in tokens) / len(tokens)
        gate = np.array([2 / (1 + np.exp(-(row * mean).sum())) for row in W])
        scores = np.array([(p * E[s] * gate).sum() for s in tokens])
        values = np.array([(v * E[s] * gate).sum() for s in tokens])
        weights = np.exp(scores - scores.real.max())
        total = total + np.log(1 + np.exp(-label * (weights * values).sum() / weights.sum()))
    return total / data.n_samples


def arrays_of(model: TwoLayerModel) -> dict[str, Array]:
    return {name: getattr(model, name) for name in NAMES}


def flat(arrays: dict[str, Array]) -> Array:
    return np.concatenate([arrays[name].ravel() for name in NAMES])


def unflat(x: Array) -> dict[str, Array]:
    shapes = ((V, DIM), (DIM,), (DIM,), (DIM, DIM))
    parts = np.split(x, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    return {name: part.reshape(shape) for name, part, shape in zip(NAMES, parts, shapes, strict=True)}


def relative_error(x: Array, y: Array) -> float:
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def lifted(model: TwoLayerModel, data: TokenDataset) -> tuple[AttentionModel, TokenDataset]:
    """The one-layer model and data whose tokens are the pairs (i, s), with embeddings h_is."""
    counts = data.counts
    mean = counts.toarray() @ model.E / counts.toarray().sum(axis=1, keepdims=True)
    gate = 1 + np.tanh(mean @ model.W.T / 2)
    pairs = sp.csr_array((counts.data, np.arange(counts.nnz), counts.indptr), shape=(len(mean), counts.nnz))
    embeddings = model.E[counts.indices] * gate[data.segments.ids]
    return AttentionModel(embeddings, model.p, model.v), TokenDataset.from_counts(pairs, data.labels)


# ------------------------------------------------------------------------------------------------ the passes


@given(generators())
def test_loss_and_gradients_against_the_definition(rng: np.random.Generator) -> None:
    model, data = instance(rng)
    loss, grads = model.loss_and_grads(data)
    assert_allclose([loss, model.loss(data)], slow_loss(**arrays_of(model), data=data), rtol=1e-13)
    report = check_gradient_complex_step(
        lambda x: slow_loss(**unflat(x), data=data), flat(grads), flat(arrays_of(model))
    )
    assert report.relative_error <= 1e-12, report.message


def without_the_mean(model: TwoLayerModel, data: TokenDataset) -> Array:
    """grad_E with the gates held fixed, by complex steps."""
    out = np.empty((V, DIM))
    for index in np.ndindex(V, DIM):
        E = model.E.astype(complex)
        E[index] += 1e-20j
        out[index] = slow_loss(E, model.p, model.v, model.W, data, pooled=model.E).imag / 1e-20
    return out


WRONG: dict[str, Callable[[TwoLayerModel, TokenDataset, dict[str, Array]], dict[str, Array]]] = {
    "mean": lambda model, data, grads: {"E": without_the_mean(model, data)},
    "transposed": lambda model, data, grads: {"W": grads["W"].T},
    "swapped": lambda model, data, grads: {"p": grads["v"], "v": grads["p"]},
    "no gate": lambda model, data, grads: {"p": model.replace(W=0 * model.W).loss_and_grads(data)[1]["p"]},
    "sign": lambda model, data, grads: {"v": -grads["v"]},
}


@pytest.mark.parametrize("wrong", [None, *WRONG])
def test_taylor_and_complex_step_tell_right_from_wrong(wrong: str | None) -> None:
    model, data = instance(np.random.default_rng(1))
    grads = dict(model.loss_and_grads(data)[1])
    if wrong is not None:
        grads |= WRONG[wrong](model, data, grads)
    start = flat(arrays_of(model))
    reports = [
        quick_check(lambda x: TwoLayerModel(**unflat(x)).loss(data), flat(grads), start, directions=4, coordinates=9),
        check_gradient_complex_step(lambda x: slow_loss(**unflat(x), data=data), flat(grads), start),
    ]
    for report in reports:
        assert report.passed == (wrong is None), report.message


@given(generators())
def test_without_mixing_it_is_the_one_layer_model(rng: np.random.Generator) -> None:
    model, data = instance(rng)
    loss, grads = model.replace(W=np.zeros((DIM, DIM))).loss_and_grads(data)
    one_loss, one = AttentionModel(model.E, model.p, model.v).loss_and_grads(data)
    assert_allclose(loss, one_loss, rtol=1e-14)
    for name in ("E", "p", "v"):
        scale = np.linalg.norm(one.E) + np.linalg.norm(one.v)  # the gradient in p may vanish
        assert np.linalg.norm(grads[name] - getattr(one, name)) <= 1e-13 * scale
    assert abs(model.loss(data) - one_loss) > 1e-9 * one_loss  # the gate does something


@pytest.mark.parametrize("norm", [1.0, 30.0, 300.0])
def test_lifted_one_layer_model_where_attention_saturates(norm: float) -> None:
    model, data = instance(np.random.default_rng(3), norm=norm)
    reference, pairs = lifted(model, data)
    loss, grads = model.loss_and_grads(data)
    one_loss, one = reference.loss_and_grads(pairs)
    assert_allclose(model.output(data), reference.output(pairs), rtol=1e-12)
    assert_allclose(loss, one_loss, rtol=1e-13)
    assert relative_error(grads["v"], one.v) <= 1e-12
    assert relative_error(grads["p"], one.p) <= 1e-10
    # The textbook difference g - f loses the gradient in p: this is what the anchor is for.
    a, g = reference.attention(pairs).data, reference.token_values
    c = data.labels / (1 + np.exp(data.labels * reference.output(pairs))) / data.n_samples
    f = data.segments.spread(data.segments.sum(a * g))
    textbook = -reference.E.T @ (data.segments.spread(c) * a * (g - f))
    assert (relative_error(textbook, one.p) > 1e-6) == (norm == 300.0)


def test_open_gate_keeps_its_derivative() -> None:
    data = TokenDataset.from_tokens([[0, 1], [1, 2], [2, 0, 0]], [1, -1, 1])
    model = TwoLayerModel([[1.0], [2.0], [1.5]], [0.3], [0.4], [[40.0]])
    gradient = model.loss_and_grads(data)[1]["W"]
    exact = slow_loss(model.E, model.p, model.v, model.W + 1e-20j, data).imag / 1e-20
    assert_allclose(gradient, [[exact]], rtol=1e-10)
    gate = 1 + np.tanh(20 * model.E.min())
    assert abs(exact) > 0  # of the order of e^{-48}, where
    assert 1 - gate / 2 == 0  # the textbook derivative of the gate is lost


def test_huge_parameters_stay_finite() -> None:
    model, data = instance(np.random.default_rng(4), norm=1e6)
    loss, grads = model.replace(W=1e6 * model.W).loss_and_grads(data)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in grads.values())
    assert np.linalg.norm(grads["v"]) > 0


# ------------------------------------------------------------------------------------------------ properties


@given(generators())
def test_only_the_composition_counts(rng: np.random.Generator) -> None:
    model, data = instance(rng)
    twice = TokenDataset.from_counts(2 * data.counts, data.labels)
    assert_allclose(model.output(twice), model.output(data), rtol=0, atol=1e-13 * np.abs(model.E @ model.v).max())
    more = TokenDataset.from_counts(data.counts.toarray() + np.eye(V)[-1], data.labels)  # the absent token
    assert np.abs(model.output(more) - model.output(data)).max() > 1e-6
    assert (model.loss_and_grads(data)[1]["E"][-1] == 0).all()


def test_float32_follows_float64() -> None:
    model, data = instance(np.random.default_rng(5))
    single = TwoLayerModel(*(x.astype(np.float32) for x in arrays_of(model).values()))
    for name, gradient in single.loss_and_grads(data)[1].items():
        assert gradient.dtype == np.float32
        assert not gradient.flags.writeable
        assert 0 < relative_error(gradient, model.loss_and_grads(data)[1][name]) <= 1e-5


def peak_memory(function: Callable[[], object]) -> int:
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_blocks_change_nothing_but_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, d = np.random.default_rng(6), 64
    data = TokenDataset.from_tokens(rng.integers(0, 500, size=(400, 80)), np.resize([1, -1], 400), vocab_size=500)
    model = TwoLayerModel.random(500, d, rng=rng)
    data.segments.ids  # noqa: B018 (kept on the data from here on)
    whole = 8 * data.counts.nnz * d  # bytes of all h_is
    output = model.output(data)
    blocked = peak_memory(lambda: model.loss_and_grads(data))
    monkeypatch.setattr(two_layer, "_BLOCK", 10**9)
    unblocked = peak_memory(lambda: model.loss_and_grads(data))
    assert blocked < 0.6 * whole, (blocked, whole)
    assert unblocked > 2 * whole, (unblocked, whole)
    for block in (1, 7 * d, 10**9):  # single entries, a remainder at the end, all of it
        monkeypatch.setattr(two_layer, "_BLOCK", block)
        assert_allclose(model.output(data), output, rtol=0, atol=1e-14 * np.abs(output).max())


def test_input_is_checked_and_kept() -> None:
    model, data = instance(np.random.default_rng(7))
    E = model.E.copy()
    copy = TwoLayerModel(E, model.p, model.v, model.W)
    E[:] = 0
    assert (copy.E == model.E).all()
    with pytest.raises(ValueError, match="read-only"):
        model.W[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.W = model.W  # type: ignore[misc]
    for name, value in (("W", np.eye(DIM + 1)), ("W", np.full((DIM, DIM), np.nan)), ("p", np.ones(DIM + 1))):
        with pytest.raises(InputError, match=f"`{name}` must"):
            model.replace(**{name: value})
    with pytest.raises(InputError, match="`data` must have the model's vocabulary"):
        TwoLayerModel.random(V + 1, DIM, rng=0).loss(data)
    with pytest.raises(InputTypeError, match="`data` must be a TokenDataset"):
        model.output([[0, 1]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`mixing_scale` must"):
        TwoLayerModel.random(V, DIM, mixing_scale=-1.0)


# ------------------------------------------------------------------------------------------------ what the gate can do


def parity_data(groups: int, seed: int) -> TokenDataset:
    """Two topic tokens decide the sign of a third: y = (-1)^{a + b + c}, every combination beside the same others."""
    rng, tokens, labels = np.random.default_rng(seed), [], []
    for _ in range(groups):
        others = rng.integers(6, 16, size=3).tolist()
        for a, b, c in itertools.product((0, 1), repeat=3):
            tokens.append([a, 2 + b, 4 + c, *others])
            labels.append((-1) ** (a + b + c))
    return TokenDataset.from_tokens(tokens, labels, vocab_size=16)


def fitted(model: Any, data: TokenDataset, names: tuple[str, ...]) -> Any:
    """150 steps of Adam on the named parameters."""
    adam, params = Adam(step_size=0.1), {name: np.array(getattr(model, name)) for name in names}
    state = adam.init(params)
    for _ in range(150):
        _, grads = model.loss_and_grads(data)
        grads = grads if isinstance(grads, dict) else {name: getattr(grads, name) for name in names}
        adam.update(params, {name: grads[name] for name in names}, state)
        model = model.replace(**params)
    return model


def test_parity_needs_the_gate() -> None:
    seen, fresh = parity_data(16, 0), parity_data(16, 1)
    start = TwoLayerModel.random(16, 16, rng=0)
    one_layer = fitted(AttentionModel(start.E, start.p, start.v), seen, ("E", "p", "v"))
    gated = fitted(start, seen, NAMES)
    closed = fitted(start.replace(W=np.zeros((16, 16))), seen, ("E", "p", "v"))  # the same code, no context
    accuracies = [model.accuracy(fresh) for model in (gated, one_layer, closed)]
    assert accuracies[0] > 0.95, accuracies
    assert max(accuracies[1:]) < 0.7, accuracies
    assert gated.loss(seen) < 0.01 < 0.5 < one_layer.loss(seen)


@given(generators())
def test_no_one_layer_model_has_parity(rng: np.random.Generator) -> None:
    """Z_i f_i is linear in the counts, so sum_i y_i Z_i f_i = 0 with Z_i > 0: not all y_i f_i are positive."""
    data, shapes = parity_data(1, int(rng.integers(100))), ((16, 4), 4, 4, (4, 4))
    gated = TwoLayerModel(*(rng.standard_normal(shape) for shape in shapes))
    one_layer = AttentionModel(gated.E, gated.p, gated.v)
    Z = data.counts @ np.exp(one_layer.token_scores)
    terms = data.labels * Z * one_layer.output(data)
    assert abs(terms.sum()) <= 1e-13 * np.abs(terms).sum()
    assert one_layer.accuracy(data) < 1
    terms = data.labels * Z * gated.output(data)
    assert abs(terms.sum()) > 1e-8 * np.abs(terms).sum()


def test_gradients_are_read_in_three_ways() -> None:
    model, data = TwoLayerModel.random(4, 3, rng=0), TokenDataset.from_tokens([[0, 2], [1, 2, 3]], [1, -1])
    for grads in (model.loss_and_grads(data)[1], model.one_layer.loss_and_grads(data)[1]):
        names = list(grads)
        assert names == ["E", "p", "v", "W"][: len(grads)]
        for name, value in grads.to_dict().items():
            assert grads[name] is value
            assert getattr(grads, name) is value
        assert grads == grads
        assert hash(grads) == hash(grads)
        assert "E_factors" not in grads
        with pytest.raises(KeyError):
            _ = grads["E_factors"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_comes_back_bit_for_bit(dtype: Any, tmp_path: Path) -> None:
    model = TwoLayerModel.random(4, 3, rng=0)
    model = TwoLayerModel(*(getattr(model, name).astype(dtype) for name in "EpvW"))
    model.save(tmp_path / "model.npz")
    again = TwoLayerModel.load(str(tmp_path / "model.npz"))
    for name in "EpvW":
        assert getattr(again, name).tobytes() == getattr(model, name).tobytes()
        assert getattr(again, name).dtype == dtype
        assert not getattr(again, name).flags.writeable


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"W": np.eye(2)}, r"must hold W of shape \(3, 3\); got \(2, 2\)"),
        ({"W": np.full((3, 3), np.inf)}, "must hold W that is finite; got inf"),
        ({"W": np.eye(3, dtype=np.float32)}, "must hold E, p, v and W of one type"),
        ({"W": np.array([["a"] * 3] * 3)}, "must hold W of type float32 or float64"),
        ({"W": None}, r"lacks the array\(s\) W"),
    ],
)
def test_files_that_hold_no_model(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    model = TwoLayerModel.random(4, 3, rng=0)
    held = {name: getattr(model, name) for name in "EpvW"} | changes
    np.savez(tmp_path / "model.npz", **{name: array for name, array in held.items() if array is not None})
    with pytest.raises(DataFileError, match=problem):
        TwoLayerModel.load(tmp_path / "model.npz")
