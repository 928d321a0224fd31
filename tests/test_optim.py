"""Optimisers against their textbook formulas, in place, in blocks, through checkpoints and under rescaling."""

from __future__ import annotations

import dataclasses
import tracemalloc
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attnembed.optim as optim
from attnembed._files import read_npz, write_npz
from attnembed.errors import InputError
from attnembed.optim import (
    SGD,
    Adam,
    Constant,
    Cosine,
    InverseTime,
    Optimizer,
    OptimizerState,
    StepDecay,
    state_arrays,
    state_from_arrays,
)
from attnembed.testing import generators

Arrays = dict[str, np.ndarray[Any, Any]]


def textbook(optimizer: Optimizer, start: Arrays, grads: list[Arrays]) -> Arrays:
    """The formulas as they stand in the docstrings, with fresh arrays at every step."""
    theta = {name: array.astype(np.longdouble) for name, array in start.items()}
    zeros = {name: np.zeros_like(array) for name, array in theta.items()}
    first, second = dict(zeros), dict(zeros)
    for k, gradient in enumerate(grads, start=1):
        for name, g in gradient.items():
            eta = optimizer.step_size * optimizer.multipliers.get(name, 1.0)
            decay = optimizer.weight_decay
            theta[name] = theta[name] * (1 - eta * (decay if isinstance(decay, float) else decay.get(name, 0.0)))
            if isinstance(optimizer, SGD):
                first[name] = optimizer.momentum * first[name] + g
                theta[name] = theta[name] - eta * first[name]
            else:
                assert isinstance(optimizer, Adam)
                b1, b2 = optimizer.beta1, optimizer.beta2
                first[name] = b1 * first[name] + (1 - b1) * g
                second[name] = b2 * second[name] + (1 - b2) * g**2
                mean, square = first[name] / (1 - b1**k), second[name] / (1 - b2**k)
                theta[name] = theta[name] - eta * mean / (np.sqrt(square) + optimizer.epsilon)
    return theta


def run(optimizer: Optimizer, start: Arrays, grads: list[Arrays]) -> tuple[Arrays, OptimizerState]:
    params = {name: array.copy() for name, array in start.items()}
    state = optimizer.init(params)
    for gradient in grads:
        optimizer.update(params, gradient, state)
    return params, state


def exact_adam(optimizer: Adam, grads: list[float]) -> float:
    """Where Adam goes from 0 on these gradients, in 60 digits and any range."""
    with localcontext(prec=60):
        b1, b2, epsilon, eta = map(Decimal, (optimizer.beta1, optimizer.beta2, optimizer.epsilon, optimizer.step_size))
        theta = first = second = Decimal(0)
        for k, g in enumerate(map(Decimal, grads), start=1):
            first, second = b1 * first + (1 - b1) * g, b2 * second + (1 - b2) * g**2
            theta -= eta * first / (1 - b1**k) / ((second / (1 - b2**k)).sqrt() + epsilon)
        return float(theta)


def problem(rng: np.random.Generator, steps: int = 6) -> tuple[Arrays, list[Arrays]]:
    shapes = {"E": (7, 3), "p": (3,), "scale": ()}
    draw = lambda: {name: np.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}  # noqa: E731
    return draw(), [draw() for _ in range(steps)]


optimizers = st.one_of(
    st.builds(
        SGD,
        step_size=st.floats(1e-3, 1.0),
        momentum=st.sampled_from([0.0, 0.5, 0.99]),
        multipliers=st.sampled_from([{}, {"E": 0.1, "p": 0.0}]),
        weight_decay=st.sampled_from([0.0, 0.3, {"p": 0.5}]),
    ),
    st.builds(
        Adam,
        step_size=st.floats(1e-3, 1.0),
        beta1=st.sampled_from([0.0, 0.9]),
        beta2=st.sampled_from([0.0, 0.9, 0.999]),
        epsilon=st.sampled_from([1e-8, 0.1]),
        multipliers=st.sampled_from([{}, {"E": 0.1, "p": 0.0}]),
        weight_decay=st.sampled_from([0.0, 0.3, {"p": 0.5}]),
    ),
)


@given(optimizer=optimizers, rng=generators())
def test_matches_textbook(optimizer: Optimizer, rng: np.random.Generator) -> None:
    start, grads = problem(rng)
    params, state = run(optimizer, start, grads)
    expected = textbook(optimizer, start, grads)
    for name, array in params.items():
        error = np.linalg.norm(array - expected[name]) / np.linalg.norm(expected[name])
        assert error < 1e-13, f"{name}: {error:.1e}"
    assert state.step == len(grads)


@pytest.mark.parametrize(
    "other",
    [
        Adam(step_size=0.1, beta1=0.9001),
        Adam(step_size=0.1, beta2=0.9991),
        Adam(step_size=0.1, epsilon=1e-7),
        Adam(step_size=0.1, weight_decay=1e-4),
        Adam(step_size=0.1, multipliers={"p": 1.001}),
    ],
    ids=lambda optimizer: repr(optimizer)[5:],
)
def test_textbook_notices_each_option(other: Adam) -> None:
    start, grads = problem(np.random.default_rng(0))
    expected, params = textbook(Adam(step_size=0.1), start, grads), run(other, start, grads)[0]
    assert max(np.linalg.norm(params[k] - expected[k]) / np.linalg.norm(expected[k]) for k in params) > 1e-9


@pytest.mark.parametrize("optimizer", [SGD(step_size=0.1, momentum=0.9), Adam(step_size=0.1, weight_decay=0.1)])
def test_blocks_change_nothing(optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    start, grads = problem(np.random.default_rng(1))
    whole = run(optimizer, start, grads)[0]
    monkeypatch.setattr(optim, "_BLOCK", 4)
    for name, array in run(optimizer, start, grads)[0].items():
        np.testing.assert_array_equal(array, whole[name])


@pytest.mark.parametrize("optimizer", [SGD(step_size=0.1, momentum=0.9), Adam(step_size=0.1)])
def test_in_place_and_lean(optimizer: Optimizer) -> None:
    params, grads = {"E": np.ones((20000, 64))}, {"E": np.full((20000, 64), 0.5)}
    state = optimizer.init(params)
    E, before = params["E"], grads["E"].copy()
    optimizer.update(params, grads, state)
    tracemalloc.start()
    try:
        optimizer.update(params, grads, state)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert params["E"] is E
    assert not (E == 1).any()
    np.testing.assert_array_equal(grads["E"], before)
    assert peak < E.nbytes / 20, f"{peak / E.nbytes:.3f} of the parameters"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(
    exponents=st.lists(st.floats(-1, 1), min_size=1, max_size=6),
    sign=st.lists(st.sampled_from([-1, 1]), min_size=6, max_size=6),
    epsilon=st.sampled_from([1e-8, 1e-30, 1e-300]),
)
def test_adam_follows_gradients_of_every_size(
    dtype: Any, exponents: list[float], sign: list[int], epsilon: float
) -> None:
    """From one end of the floats to the other, in one array with ordinary gradients, which are not disturbed."""
    widest = 300 if dtype is np.float64 else 37
    adam = Adam(step_size=1.0, epsilon=max(epsilon, 10.0**-widest))
    sizes = [s * 10.0 ** (widest * e) for s, e in zip(sign, exponents)]
    grads = [{"w": np.array([size, 0.3 / k, 0.0], dtype=dtype)} for k, size in enumerate(sizes, start=1)]
    found, state = run(adam, {"w": np.zeros(3, dtype=dtype)}, grads)
    alone, _ = run(adam, {"w": np.zeros(1, dtype=dtype)}, [{"w": g["w"][1:2]} for g in grads])
    expected = [exact_adam(adam, [float(g["w"][i]) for g in grads]) for i in (0, 1)]
    tolerance = 200 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found["w"][:2], expected, rtol=tolerance, atol=tolerance)
    assert found["w"][1] == alone["w"][0]
    assert found["w"][2] == 0
    loaded = state_from_arrays(state_arrays(state), adam.init(found))
    assert loaded.wide <= state.wide
    again = {name: array.copy() for name, array in found.items()}
    for params, continued in ((found, state), (again, loaded)):
        adam.update(params, grads[0], continued)
    np.testing.assert_array_equal(found["w"], again["w"])


@pytest.mark.parametrize("size", [1e-162, 1e155, 1e300, -1e-290])
def test_adams_first_step_has_the_size_of_the_step(size: float) -> None:
    params, adam = {"w": np.zeros(1)}, Adam(step_size=1.0, epsilon=1e-307)
    adam.update(params, {"w": np.array([size])}, adam.init(params))
    np.testing.assert_allclose(params["w"], -np.sign(size), rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-170, 3.0, 1e170])
@pytest.mark.parametrize("size", [1e-160, 1.0, 1e160])
def test_adam_is_rescaled_over_the_whole_range(factor: float, size: float) -> None:
    params, adam = {"w": np.zeros(1)}, Adam(step_size=1.0, epsilon=1e-306)
    if not 1e-295 < size / factor < 1e295:
        pytest.skip("no float")
    state, expected = adam.init(params), adam.init(params)
    adam.update(params, {"w": np.array([size])}, state)
    adam.update(params, {"w": np.array([size / factor])}, expected)
    adam.rescale(state, "w", factor)
    steps = []
    for each in (state, expected):
        moved = {"w": np.zeros(1)}
        adam.update(moved, {"w": np.array([0.5 * size / factor])}, each)
        steps.append(moved["w"])
    np.testing.assert_allclose(*steps, rtol=1e-12)


def test_parameter_without_gradient_stays() -> None:
    params = {"a": np.ones(2), "b": np.ones(2)}
    adam = Adam(step_size=0.1, weight_decay=0.1)
    adam.update(params, {"a": np.ones(2)}, adam.init(params))
    assert (params["b"] == 1).all()
    assert (params["a"] != 1).all()


def test_step_size_of_one_step() -> None:
    sgd = SGD(step_size=1.0, multipliers={"a": 2.0})
    params = {"a": np.zeros(1)}
    state = sgd.init(params)
    sgd.update(params, {"a": np.ones(1)}, state, step_size=0.25)
    assert params["a"] == -0.5
    sgd.update(params, {"a": np.ones(1)}, state, step_size=0.0)
    assert params["a"] == -0.5


def test_float32_stays_float32() -> None:
    params = {"a": np.ones(3, dtype=np.float32)}
    adam = Adam(step_size=0.1)
    state = adam.init(params)
    adam.update(params, {"a": np.ones(3, dtype=np.float32)}, state)
    assert {params["a"].dtype, *(array["a"].dtype for array in state.slots.values())} == {np.dtype(np.float32)}


@given(optimizer=optimizers, factor=st.floats(0.01, 100.0) | st.floats(-100.0, -0.01), rng=generators())
def test_rescale_is_the_state_of_rescaled_gradients(
    optimizer: Optimizer, factor: float, rng: np.random.Generator
) -> None:
    start, grads = problem(rng)
    _, state = run(optimizer, start, grads)
    _, expected = run(optimizer, start, [{**g, "E": g["E"] / factor} for g in grads])
    unscaled = {slot: arrays["E"].copy() for slot, arrays in state.slots.items()}
    optimizer.rescale(state, "E", factor)
    for slot, arrays in state.slots.items():
        for name, array in arrays.items():
            target = expected.slots[slot][name]
            assert np.linalg.norm(array - target) <= 1e-13 * np.linalg.norm(target)
        if abs(abs(factor) - 1) > 0.01:  # leaving the state as it was would have been wrong
            assert np.linalg.norm(unscaled[slot] - expected.slots[slot]["E"]) > 1e-3 * np.linalg.norm(unscaled[slot])


def test_rescaled_adam_takes_the_same_steps() -> None:
    """Adam moves W = c W~ by c eta and not by eta, but it goes on as if the scale had always been there."""
    start, grads = problem(np.random.default_rng(2))
    adam, factor = Adam(step_size=0.1, epsilon=1e-300), 8.0
    params, state = run(adam, start, grads)
    params["E"] *= factor
    adam.rescale(state, "E", factor)
    before = params["E"].copy()
    adam.update(params, {"E": grads[0]["E"] / factor}, state)
    straight = run(adam, start, [*grads, grads[0]])[0]["E"] - run(adam, start, grads)[0]["E"]
    np.testing.assert_allclose(params["E"] - before, straight, rtol=1e-12)


@pytest.mark.parametrize("factor", [0.0, np.nan, np.inf, "2"])
def test_rescale_refuses(factor: Any) -> None:
    adam = Adam(step_size=0.1)
    with pytest.raises(InputError, match="`factor`"):
        adam.rescale(adam.init({"a": np.ones(1)}), "a", factor)


def test_rescale_refuses_unknown_name() -> None:
    adam = Adam(step_size=0.1)
    with pytest.raises(InputError, match="`name`"):
        adam.rescale(adam.init({"a": np.ones(1)}), "b", 2.0)


def test_state_through_npz(tmp_path: Path) -> None:
    start, grads = problem(np.random.default_rng(3))
    adam = Adam(step_size=0.1)
    params, state = run(adam, start, grads)
    write_npz(tmp_path / "state.npz", **state_arrays(state))
    fresh = adam.init(start)
    assert fresh.step == 0
    loaded = state_from_arrays(read_npz(tmp_path / "state.npz", tuple(state_arrays(fresh))), fresh)
    assert loaded.step == len(grads)
    other = {name: array.copy() for name, array in params.items()}
    adam.update(params, grads[0], state)
    adam.update(other, grads[0], loaded)
    for name, array in params.items():
        np.testing.assert_array_equal(array, other[name])


@pytest.mark.parametrize("damage", ["missing", "shape", "dtype"])
def test_state_of_something_else_is_refused(damage: str) -> None:
    adam = Adam(step_size=0.1)
    state = adam.init({"a": np.ones(2)})
    arrays = state_arrays(state)
    key = "optimizer.square.a"
    assert key in arrays
    match damage:
        case "missing":
            del arrays[key]
        case "shape":
            arrays[key] = np.ones(3)
        case "dtype":
            arrays[key] = np.ones(2, dtype=np.float32)
    with pytest.raises(InputError, match=r"optimizer\.square\.a"):
        state_from_arrays(arrays, state)


@pytest.mark.parametrize("schedule", [Constant(), Cosine(10), Cosine(10, 0.1), StepDecay(3), InverseTime(4.0)])
@pytest.mark.parametrize("warmup", [0, 4])
def test_schedules_warm_up_and_then_never_rise(schedule: Constant, warmup: int) -> None:
    values = [dataclasses.replace(schedule, warmup=warmup)(k) for k in range(30)]
    assert all(0 <= value <= 1 for value in values)
    np.testing.assert_allclose(values[:warmup], (np.arange(warmup) + 1) / (warmup + 1), rtol=1e-15)
    assert values[warmup] == 1
    assert (np.diff(values[warmup:]) <= 0).all()
    assert isinstance(schedule, Constant)
    assert type(schedule) is Constant or values[-1] < 0.5


def test_cosine_ends_where_it_says() -> None:
    assert Cosine(10, 0.1, warmup=3)(10) == 0.1
    assert Cosine(10, 0.1, warmup=3)(9) > 0.1


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: SGD(step_size=0.0), "step_size"),
        (lambda: Adam(step_size=-1.0), "step_size"),
        (lambda: Adam(step_size=np.nan), "step_size"),
        (lambda: Adam(step_size=np.inf), "step_size"),
        (lambda: SGD(step_size=True), "step_size"),
        (lambda: SGD(step_size=1.0, momentum=1.0), "momentum"),
        (lambda: SGD(step_size=1.0, momentum=-0.1), "momentum"),
        (lambda: Adam(step_size=1.0, beta1=1.0), "beta1"),
        (lambda: Adam(step_size=1.0, beta2=-0.1), "beta2"),
        (lambda: Adam(step_size=1.0, epsilon=0.0), "epsilon"),
        (lambda: SGD(step_size=1.0, weight_decay=-1.0), "weight_decay"),
        (lambda: SGD(step_size=1.0, weight_decay={"p": np.nan}), r"weight_decay\['p'\]"),
        (lambda: SGD(step_size=1.0, multipliers={"E": -1.0}), r"multipliers\['E'\]"),
        (lambda: Constant(warmup=-1), "warmup"),
        (lambda: Cosine(0), "total"),
        (lambda: Cosine(5, warmup=5), "total"),
        (lambda: Cosine(5, 1.5), "final"),
        (lambda: StepDecay(0), "every"),
        (lambda: StepDecay(3, 2.0), "factor"),
        (lambda: InverseTime(0.0), "scale"),
    ],
)
def test_options_are_checked(make: Any, name: str) -> None:
    with pytest.raises(InputError, match=f"`{name}`"):
        make()


@pytest.mark.parametrize(
    ("params", "grads", "match"),
    [
        ({"a": np.ones((3, 2)).T}, {"a": np.ones((2, 3))}, "C-contiguous"),
        ({"a": np.ones(2)}, {"a": np.ones(3)}, r"grads\['a'\]"),
        ({"a": np.ones(2)}, {"b": np.ones(2)}, "`grads`"),
        ({"a": np.ones(2, dtype=int)}, {"a": np.ones(2)}, "float32 or float64"),
        ({"a": [1.0, 2.0]}, {"a": np.ones(2)}, "float32 or float64"),
    ],
)
def test_update_checks_arrays(params: Any, grads: Any, match: str) -> None:
    adam = Adam(step_size=0.1)
    with pytest.raises(InputError, match=match):
        adam.update(params, grads, adam.init(params))


def test_read_only_parameters_are_refused() -> None:
    array = np.ones(2)
    array.flags.writeable = False
    with pytest.raises(InputError, match="writable"):
        SGD(step_size=0.1).init({"a": array})


def test_a_wrong_gradient_changes_nothing() -> None:
    """The arrays are checked before the first of them is touched."""
    params = {"a": np.ones(2), "b": np.ones(2)}
    sgd = SGD(step_size=0.1)
    state = sgd.init(params)
    with pytest.raises(InputError):
        sgd.update(params, {"a": np.ones(2), "b": np.ones(3)}, state)
    assert (params["a"] == 1).all()
    assert state.step == 0
