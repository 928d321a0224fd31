"""The classifier as an object: its parameters, outputs, files, and the smoothness of its loss."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from attnembed import reference
from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.model import AttentionModel
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.testing import generators
from tests.attention.theory.instances import as_model, random_instance
from tests.plain import AttentionProblem, attention_problems


def example() -> tuple[AttentionModel, TokenDataset]:
    return random_instance(np.random.default_rng(5))


# -------------------------------------------------------------------------------------------------------- parameters


def test_parameters_are_copied_and_cannot_be_written() -> None:
    E, p, v = np.ones((3, 2)), np.zeros(2), np.array([1.0, -1.0])
    model = AttentionModel(E, p, v)
    E[:], p[:], v[:] = 7.0, 7.0, 7.0
    assert (model.E.max(), model.p.max(), model.v.max()) == (1.0, 0.0, 1.0)
    for array in (model.E, model.p, model.v):
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.p = p  # type: ignore[misc]
    assert AttentionModel(np.asfortranarray(np.ones((3, 2))), p, v).E.flags.c_contiguous
    assert repr(model) == "AttentionModel(vocab_size=3, dim=2, dtype=float64)"
    assert (model.vocab_size, model.dim) == (3, 2)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.float16, np.float64),
        (int, np.float64),
        (bool, np.float64),
    ],
)
def test_the_embeddings_decide_the_precision(dtype: Any, kept: Any) -> None:
    model = AttentionModel(np.ones((2, 2), dtype=dtype), [0.1, 0.2], np.ones(2, dtype=np.longdouble))
    assert {model.E.dtype, model.p.dtype, model.v.dtype} == {np.dtype(kept)}


def test_replace_changes_what_is_named_and_nothing_else() -> None:
    model, _ = example()
    other = model.replace(p=2 * model.p)
    assert_array_equal(other.p, 2 * model.p)
    assert_array_equal(other.E, model.E)
    assert_array_equal(other.v, model.v)
    with pytest.raises(InputTypeError, match=r"^`P` is not a parameter of the model; those are E, p and v$"):
        model.replace(P=model.p)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="`v` must have shape"):
        model.replace(v=np.ones(model.dim + 1))


BAD: list[tuple[Any, str]] = [
    (([1.0], [1.0], [1.0]), "`E` must have 2 axes; got shape (1,)"),
    ((np.ones((0, 2)), [1, 1], [1, 1]), "`E` must have at least one token and one coordinate; got shape (0, 2)"),
    (([[1.0], [1.0, 2.0]], [1.0], [1.0]), "`E` must be an array, with rows of one length; got list"),
    (([[np.nan]], [1.0], [1.0]), "`E` must be finite; got nan at index (0, 0); remove NaN and inf"),
    (([["a"]], [1.0], [1.0]), "`E` must be a real numeric array; got dtype <U1"),
    (([[1j]], [1.0], [1.0]), "`E` must be a real numeric array; got dtype complex128"),
    ((None, [1.0], [1.0]), "`E` must be a real numeric array; got dtype object"),
    (([[1.0]], [np.inf], [1.0]), "`p` must be finite; got inf at index (0,); remove NaN and inf"),
    (
        ([[1.0]], [1.0, 2.0], [1.0]),
        "`p` must have shape (1,); got shape (2,); E has shape (V, d); p and v have shape (d,)",
    ),
    (([[1.0]], [1.0], [[1.0]]), "`v` must have 1 axes; got shape (1, 1)"),
    ((np.ones((1, 1), np.float32), [1e300], [1.0]), "`p` must be finite; got inf at index (0,); remove NaN and inf"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_bad_parameters_end_in_one_sentence(arguments: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        AttentionModel(*arguments)
    assert str(caught.value) == message


def test_random_parameters() -> None:
    model = AttentionModel.random(400, 64, rng=0)
    assert_array_equal(np.abs(model.v), 1 / 8)
    assert set(np.sign(model.v)) == {-1.0, 1.0}
    # the standard error of a standard deviation over N numbers is sigma / sqrt(2 N)
    assert abs(model.E.std() * 8 - 1) < 4 / np.sqrt(2 * model.E.size)
    assert abs(model.p.std() * 8 - 1) < 4 / np.sqrt(2 * model.p.size)
    again = AttentionModel.random(400, 64, rng=np.random.default_rng(0))
    assert model.E.tobytes() == again.E.tobytes()
    scaled = AttentionModel.random(400, 64, embedding_scale=3.0, cls_scale=0.0, rng=0)
    assert_allclose(scaled.E, 24 * model.E, rtol=1e-14)
    assert_array_equal(scaled.p, 0)
    assert not np.array_equal(AttentionModel.random(400, 64, rng=1).v, model.v)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 2), {}, "`vocab_size` must be at least 1; got 0"),
        ((2, 2.0), {}, "`dim` must be an integer; got 2.0"),
        ((2, 2), {"embedding_scale": -1}, "`embedding_scale` must be finite and >= 0; got -1.0"),
        ((2, 2), {"cls_scale": "a"}, "`cls_scale` must be a real number; got 'a'"),
        ((2, 2), {"rng": 1.5}, "`rng` must be an int, a numpy.random.Generator or None; got float"),
    ],
)
def test_bad_options_of_random(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        AttentionModel.random(*arguments, **options)
    assert str(caught.value) == message


# ----------------------------------------------------------------------------------------------------------- outputs


@given(attention_problems(), st.floats(-3, 4))
def test_attention_by_definition(problem: AttentionProblem, power: float) -> None:
    problem = problem.scaled(10**power)
    model, data = as_model(problem)
    attention = model.attention(data)
    assert_allclose(attention.sum(axis=1), 1, rtol=1e-14)
    assert_array_equal(attention.indices, data.counts.indices)
    assert_array_equal(attention.indptr, data.counts.indptr)
    rounding = 1e-14 + 4e-16 * float((np.abs(problem.E) @ np.abs(problem.p)).max())
    expected = reference.attention_weights(problem.E, problem.p, problem.tokens)
    assert_allclose(attention.toarray(), expected, rtol=4 * rounding, atol=1e-300)
    assert_allclose(model.output(data), attention @ model.token_values, rtol=0, atol=1e-13)
    g = data.segments.spread(np.zeros(data.n_samples)) + model.token_values[data.counts.indices]
    assert (model.output(data) <= data.segments.max(g) + 1e-14 * np.abs(g).max()).all()
    assert (model.output(data) >= -data.segments.max(-g) - 1e-14 * np.abs(g).max()).all()


@given(attention_problems())
def test_accuracy_counts_the_right_signs(problem: AttentionProblem) -> None:
    model, data = as_model(problem)
    output = model.output(data)
    right = sum(1 for y, f in zip(problem.labels, output) if y * f > 0)
    assert model.accuracy(data) == right / len(output)


def test_an_output_of_zero_is_wrong() -> None:
    data = TokenDataset.from_tokens([[0], [1]], [1, -1])
    assert AttentionModel(np.eye(2), np.zeros(2), [0.0, -1.0]).accuracy(data) == 0.5
    assert AttentionModel(np.eye(2), np.zeros(2), np.zeros(2)).loss(data) == pytest.approx(np.log(2), rel=1e-15)


def test_data_must_fit_the_model() -> None:
    model = AttentionModel(np.eye(3), np.zeros(3), np.ones(3))
    data = TokenDataset.from_tokens([[0], [1]], [1, -1])
    for call in (
        model.output,
        model.attention,
        model.loss,
        model.loss_and_grads,
        model.hessian_p,
        model.accuracy,
        model.smoothness_p,
    ):
        with pytest.raises(
            InputError, match=r"`data` must have the model's vocabulary of 3 tokens; got 2; pass vocab_size"
        ):
            call(data)
        with pytest.raises(InputError, match="`data` must be a TokenDataset; got list"):
            call([[0, 1]])
    fitting = TokenDataset.from_tokens([[0], [1]], [1, -1], vocab_size=3)
    for x, message in (([1.0], r"`x` must have shape \(3,\)"), ([1.0, np.nan, 0.0], "`x` must be finite")):
        with pytest.raises(InputError, match=message):
            model.hessian_vector_p(fitting, x)


def test_gradients_are_formed_once_and_into_any_array() -> None:
    model, data = example()
    grads = model.loss_and_grads(data)[1]
    assert grads.E is grads.E
    out = np.full(model.E.shape, np.nan)
    assert grads.write_E(out) is out
    assert_array_equal(out, grads.E)
    with pytest.raises(InputError, match="`out` must have shape"):
        grads.write_E(np.empty((1, 1)))
    for array in (grads.p, grads.v, *grads.E_factors):
        assert not array.flags.writeable


@given(attention_problems(), st.integers(0, 2))
def test_a_small_step_against_each_gradient_lowers_the_loss(problem: AttentionProblem, which: int) -> None:
    model, data = as_model(problem)
    name = "Epv"[which]
    loss, grads = model.loss_and_grads(data)
    gradient = getattr(grads, name)
    step = 1e-4 / max(1.0, float(np.linalg.norm(gradient)))
    decrease = loss - model.replace(**{name: getattr(model, name) - step * gradient}).loss(data)
    square = float((gradient**2).sum())
    assert abs(decrease / step - square) <= 1e-2 * square + 1e-10


# -------------------------------------------------------------------------------------------------------- smoothness


@given(attention_problems(), st.lists(st.floats(-3, 3), min_size=1, max_size=4), generators())
def test_smoothness_bounds_every_hessian(
    problem: AttentionProblem, powers: list[float], rng: np.random.Generator
) -> None:
    model, data = as_model(problem)
    beta = model.smoothness_p(data)
    for power in powers:
        there = model.replace(p=10**power * rng.standard_normal(model.dim))
        assert np.linalg.norm(there.hessian_p(data), 2) <= beta * (1 + 1e-12) + 1e-14


def test_smoothness_is_not_far_from_the_largest_curvature() -> None:
    model = AttentionModel([[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0], [1e-3, 0.0])
    data = TokenDataset.from_tokens([[0, 1], [0, 1, 1, 1, 1]], [1, -1])
    norms = [np.linalg.norm(model.replace(p=[x, 0.0]).hessian_p(data), 2) for x in np.linspace(-3, 3, 61)]
    ratio = max(norms) / model.smoothness_p(data)
    assert 0.1 < ratio <= 1


@given(attention_problems(scale=3.0), st.floats(0.5, 0.999))
def test_descent_below_two_over_beta_never_rises(problem: AttentionProblem, share: float) -> None:
    model, data = as_model(problem)
    beta = model.smoothness_p(data)
    if beta == 0:
        return
    loss, grads = model.loss_and_grads(data)
    for _ in range(20):
        model = model.replace(p=model.p - share * 2 / beta * grads.p)
        before, (loss, grads) = loss, model.loss_and_grads(data)
        assert loss <= before * (1 + 1e-14)


def test_descent_with_four_times_that_step_can_rise() -> None:
    model = AttentionModel([[1.0, 0.0], [-1.0, 0.0]], [0.2, 0.0], [4.0, 0.0])
    data = TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1])
    step = 8 / model.smoothness_p(data)
    after = model.replace(p=model.p - step * model.loss_and_grads(data)[1].p)
    assert after.loss(data) > model.loss(data)


# ------------------------------------------------------------------------------------------------------------- files


@given(E=arrays(np.float64, (3, 2), elements=st.floats(-1e300, 1e300)), single=st.booleans())
def test_a_model_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, E: Any, single: bool) -> None:
    path = tmp_path_factory.mktemp("model") / "model.npz"
    model = AttentionModel((E * 1e-270).astype(np.float32) if single else E, E[0] * 1e-270, E[1] * 1e-270)
    model.save(path)
    loaded = AttentionModel.load(str(path))
    for name in ("E", "p", "v"):
        assert getattr(loaded, name).tobytes() == getattr(model, name).tobytes()
        assert getattr(loaded, name).dtype == getattr(model, name).dtype
        assert not getattr(loaded, name).flags.writeable


def test_saving_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    model, _ = example()
    path = tmp_path / "folder" / "model.npz"
    model.save(path)
    model.replace(p=model.p + 1).save(path)
    assert_array_equal(AttentionModel.load(path).p, model.p + 1)
    assert os.listdir(path.parent) == ["model.npz"]


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"E": np.eye(2), "p": np.ones(2)}, r"lacks the array\(s\) v"),
        ({"E": np.eye(2), "p": np.ones(3), "v": np.ones(2)}, r"must hold p of shape \(2,\); got \(3,\)"),
        ({"E": np.eye(2), "p": np.ones(2), "v": np.array([1.0, np.nan])}, "must hold v that is finite; got nan"),
        ({"E": np.array([["a"]]), "p": np.ones(1), "v": np.ones(1)}, "must hold E of type float32 or float64; got <U1"),
        ({"E": np.array([[None]]), "p": np.ones(1), "v": np.ones(1)}, "is not a readable npz archive"),
        ({"E": np.array(1.0), "p": np.ones(1), "v": np.ones(1)}, r"must hold E of shape \(V, d\); got \(\)"),
        ({"E": np.eye(2)[:1], "p": np.ones(1), "v": np.ones(1)}, r"must hold p of shape \(2,\); got \(1,\)"),
        ({"E": np.eye(2, dtype=int), "p": np.ones(2), "v": np.ones(2)}, "E of type float32 or float64; got int64"),
        ({"E": np.eye(2), "p": np.ones(2, int), "v": np.ones(2)}, "p of type float32 or float64; got int64"),
        ({"E": np.eye(2, dtype=np.float32), "p": np.ones(2), "v": np.ones(2)}, "must hold E, p and v of one type"),
        ({"E": np.zeros((0, 2)), "p": np.ones(2), "v": np.ones(2)}, "does not hold a model: `E` must have at least"),
    ],
)
def test_files_that_hold_no_model(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataFileError, match=problem) as caught:
        AttentionModel.load(path)
    assert caught.value.path == path


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="No such file"):
        AttentionModel.load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(DataFileError, match="is not a readable npz archive"):
        AttentionModel.load(tmp_path / "text.npz")


def test_models_and_data_survive_a_copy() -> None:
    model, data = example()
    for duplicate in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        again, same = duplicate(model), duplicate(data)
        assert again.loss(same) == model.loss(data)
    assert make_balanced_dataset(rng=0) != make_balanced_dataset(rng=0)  # identity, not a comparison of arrays
