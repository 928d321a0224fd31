"""Training against the model's own gradients, its stopping rules, and checkpoints that change nothing."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attnembed.fit as loop
from attnembed.attention.data import TokenDataset, make_balanced_dataset, make_iid_dataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.training import TrainResult, TrainState, split_dataset, train
from attnembed.errors import DataFileError, InputError
from attnembed.optim import SGD, Adam, Cosine, Optimizer
from attnembed.results import Status
from tests.plain import AttentionProblem, attention_problems

SUBSETS = [("E",), ("p",), ("v",), ("E", "p"), ("E", "p", "v")]
OPTIMIZERS = [
    SGD(step_size=0.7),
    SGD(step_size=0.7, weight_decay={"E": 0.1}, multipliers={"E": 0.5}),
    SGD(step_size=0.3, momentum=0.9),
    Adam(step_size=0.05, epsilon=1e-4, weight_decay=0.1),
]


@pytest.fixture
def data() -> TokenDataset:
    """Noisy labels, so that training overfits and the best epoch is not the last."""
    probs = np.array([4.0, 1.0, *np.ones(18)])
    positive, negative = probs / probs.sum(), probs[[1, 0, *range(2, 20)]] / probs.sum()
    return make_iid_dataset(
        n_samples=80, length=8, positive_probs=positive, negative_probs=negative, label_noise=0.1, rng=0
    )


@pytest.fixture
def model() -> AttentionModel:
    return AttentionModel.random(20, 6, rng=1)


def assert_same_run(one: TrainResult, other: TrainResult) -> None:
    """Bit for bit, all but the seconds."""
    for name in ("E", "p", "v"):
        np.testing.assert_array_equal(getattr(one.model, name), getattr(other.model, name))
    for name in ("epoch", "loss", "validation_loss", "validation_accuracy"):
        np.testing.assert_array_equal(one.history[name], other.history[name])
    assert one.best_epoch == other.best_epoch


def stop_after(epoch: int) -> Callable[[TrainState], bool]:
    return lambda state: state.epoch >= epoch


# --- the steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["gd", "decay", "momentum", "adam"])
@given(problem=attention_problems(), names=st.sampled_from(SUBSETS))
def test_steps_follow_the_models_gradients(
    optimizer: Optimizer, problem: AttentionProblem, names: tuple[str, ...]
) -> None:
    """The rank-two updates in place are those of the dense gradients of `loss_and_grads`."""
    model, data = AttentionModel(problem.E, problem.p, problem.v), TokenDataset.from_tokens(*problem.arguments[3:], 8)
    model = model.replace(E=np.vstack([problem.E, np.zeros((8 - len(problem.E), model.dim))]))
    params = {name: np.array(getattr(model, name)) for name in names}
    state, losses = optimizer.init(params), []
    for _ in range(3):
        loss, grads = model.replace(**params).loss_and_grads(data)
        losses.append(loss)
        optimizer.update(params, {name: np.ascontiguousarray(getattr(grads, name)) for name in names}, state)
    result = train(model, data, params=names, optimizer=optimizer, n_epochs=3)
    for name in ("E", "p", "v"):
        expected, found = params.get(name, getattr(model, name)), getattr(result.model, name)
        error = np.linalg.norm(found - expected)
        assert error <= 1e-10 * np.linalg.norm(expected), f"{name}: {error:.1e}"
    np.testing.assert_allclose(result.history.loss[:3], losses, rtol=1e-10)
    np.testing.assert_allclose(result.history.loss[3], result.model.loss(data), rtol=1e-12)


def test_a_step_moves_every_trained_parameter(model: AttentionModel, data: TokenDataset) -> None:
    """The test above could not fail on a parameter whose gradient vanishes."""
    after = train(model, data, params=("E", "p", "v"), optimizer=SGD(step_size=1.0), n_epochs=1).model
    for name in ("E", "p", "v"):
        assert np.linalg.norm(getattr(after, name) - getattr(model, name)) > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1)])
def test_one_token_or_one_coordinate(shape: tuple[int, int]) -> None:
    V, d = shape
    data = TokenDataset.from_tokens([[0, V - 1], [V - 1], [0]], [1, -1, 1], vocab_size=V)
    model = AttentionModel.random(V, d, rng=0)
    expected = model.E - model.loss_and_grads(data)[1].E
    np.testing.assert_allclose(
        train(model, data, params=("E",), optimizer=SGD(step_size=1.0), n_epochs=1).model.E, expected, rtol=1e-12
    )


def test_a_minibatch_epoch_sees_every_sequence_once(
    model: AttentionModel, data: TokenDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []
    subset = TokenDataset.subset

    def noting(whole: TokenDataset, rows: Any) -> TokenDataset:
        batches.append(rows.tolist())
        return subset(whole, rows)

    monkeypatch.setattr(TokenDataset, "subset", noting)
    train(model, data, optimizer=SGD(step_size=1e-3), batch_size=30, n_epochs=2, rng=0)
    assert [len(batch) for batch in batches] == [30, 30, 20] * 2
    for epoch in (batches[:3], batches[3:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(80))
    assert batches[:3] != batches[3:]


def test_minibatch_steps_use_the_batch_mean(model: AttentionModel, data: TokenDataset) -> None:
    """At a vanishing step size an epoch moves along the sum of the batch means: four batches go four times as far."""
    full = train(model, data, optimizer=SGD(step_size=1e-6), n_epochs=1).model.E - model.E
    batched = train(model, data, optimizer=SGD(step_size=1e-6), batch_size=20, n_epochs=1, rng=0).model.E - model.E
    assert np.linalg.norm(batched - 4 * full) <= 1e-4 * np.linalg.norm(batched)


def test_schedule_counts_steps(model: AttentionModel, data: TokenDataset) -> None:
    asked: list[int] = []
    train(model, data, batch_size=40, n_epochs=3, rng=0, schedule=lambda k: asked.append(k) or 1.0)  # type: ignore[func-returns-value]
    assert asked == list(range(6))
    still = train(model, data, n_epochs=3, schedule=lambda k: 0.0)
    np.testing.assert_array_equal(still.model.E, model.E)


def test_float32_stays_float32(model: AttentionModel, data: TokenDataset) -> None:
    single = AttentionModel(model.E.astype(np.float32), model.p, model.v)
    for optimizer in (SGD(step_size=1.0), Adam(step_size=0.01)):
        one, other = (train(start, data, optimizer=optimizer, n_epochs=5) for start in (single, model))
        assert {one.model.E.dtype, one.model.p.dtype} == {np.dtype(np.float32)}
        assert np.linalg.norm(one.model.E - other.model.E) <= 1e-4 * np.linalg.norm(other.model.E)


def test_the_model_given_is_left_alone(model: AttentionModel, data: TokenDataset) -> None:
    E = model.E.copy()
    result = train(model, data, params=("p",), n_epochs=2)
    np.testing.assert_array_equal(model.E, E)
    np.testing.assert_array_equal(result.model.E, E)
    assert not (result.model.p == model.p).any()


# --- history, validation, stopping -------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_best_model_by_validation(model: AttentionModel, data: TokenDataset, metric: Any) -> None:
    rest, held = split_dataset(data, 0.3, rng=0)
    models: list[AttentionModel] = [model]
    result = train(
        model,
        rest,
        optimizer=Adam(step_size=0.05),
        n_epochs=60,
        validation=held,
        metric=metric,
        callback=lambda state: models.append(AttentionModel(state.E, state.p, state.v)),
    )
    history = result.history
    assert history.epoch.tolist() == list(range(61))
    np.testing.assert_allclose(history.loss, [m.loss(rest) for m in models], rtol=1e-10)
    np.testing.assert_allclose(history.validation_loss, [m.loss(held) for m in models], rtol=1e-10)
    np.testing.assert_array_equal(history.validation_accuracy, [m.accuracy(held) for m in models])
    first = history.validation_accuracy if metric == "accuracy" else -history.validation_loss
    candidates = np.flatnonzero(first == first.max())
    assert result.best_epoch == candidates[np.argmin(history.validation_loss[candidates])]
    assert 0 < result.best_epoch < 60, "the best is neither the first nor the last, so the choice matters"
    np.testing.assert_array_equal(result.model.E, models[result.best_epoch].E)
    assert (np.diff(history.seconds) >= 0).all()
    assert result.status is Status.REACHED_END


def test_the_earliest_of_equals_is_best(model: AttentionModel, data: TokenDataset) -> None:
    result = train(model, data, n_epochs=5, validation=0.3, schedule=lambda k: 0.05 if k < 2 else 0.0, rng=0)
    assert len(set(result.history.validation_loss[2:])) == 1
    assert result.best_epoch <= 2


def test_without_validation_the_last_model_is_returned(model: AttentionModel, data: TokenDataset) -> None:
    result = train(model, data, n_epochs=4)
    assert result.best_epoch == 4
    assert result.model.loss(data) == pytest.approx(result.history.loss[-1], rel=1e-12)
    assert np.isnan(result.history.validation_accuracy).all()


@pytest.mark.parametrize("patience", [1, 5])
def test_patience(model: AttentionModel, data: TokenDataset, patience: int) -> None:
    options: dict[str, Any] = {"optimizer": Adam(step_size=0.05), "validation": 0.3, "metric": "loss", "rng": 0}
    long = train(model, data, n_epochs=60, **options)
    result = train(model, data, n_epochs=60, patience=patience, **options)
    assert result.status is Status.STOPPED
    assert result.success
    assert len(result.history) == result.best_epoch + patience + 1 < len(long.history)
    np.testing.assert_array_equal(result.history.loss, long.history.loss[: len(result.history)])


def test_callback_stops(model: AttentionModel, data: TokenDataset) -> None:
    seen: list[int] = []
    result = train(model, data, n_epochs=9, callback=lambda state: seen.append(state.epoch) or state.epoch == 3)  # type: ignore[func-returns-value]
    assert seen == [1, 2, 3]
    assert result.status is Status.STOPPED
    assert "callback" in result.message
    assert len(result.history) == 4


def test_callback_cannot_write(model: AttentionModel, data: TokenDataset) -> None:
    def meddle(state: TrainState) -> None:
        state.E[0, 0] = 1.0

    with pytest.raises(ValueError, match="read-only"):
        train(model, data, n_epochs=1, callback=meddle)


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("validation", [None, 0.3])
def test_not_finite(model: AttentionModel, data: TokenDataset, kind: type[Optimizer], validation: float | None) -> None:
    """A huge decoupled decay multiplies E by -1e100 per step; the model that comes back is a finite one."""
    optimizer = kind(step_size=1.0, weight_decay=1e100)
    result = train(model, data, optimizer=optimizer, validation=validation, rng=0)
    assert result.status is Status.NOT_FINITE
    assert not result.success
    assert "smaller step_size" in result.message
    assert np.isfinite(result.model.output(data)).all()
    assert validation is not None or (result.model.E == model.E).all()
    assert 1 <= len(result.history) < 10
    assert result.history.loss[0] == pytest.approx(np.log(2), abs=0.1)


def test_result_becomes_json(model: AttentionModel, data: TokenDataset) -> None:
    plain = json.loads(json.dumps(train(model, data, n_epochs=2, validation=0.2, rng=0).to_dict(), allow_nan=False))
    assert plain["history"]["epoch"] == [0, 1, 2]
    assert plain["status"] == "reached_end"


def test_history_is_read_only(model: AttentionModel, data: TokenDataset) -> None:
    with pytest.raises(ValueError, match="read-only"):
        train(model, data, n_epochs=1).history.loss[0] = 0.0


def test_progress_shows_loss_and_time_left(
    model: AttentionModel, data: TokenDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    ticks = iter(range(10**6))
    monkeypatch.setattr("attnembed._progress.time.monotonic", lambda: float(next(ticks)))
    train(model, data, n_epochs=3, validation=0.2, rng=0)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "s left" in shown
    assert "loss 0." in shown
    assert "validation accuracy" in shown


# --- splitting ---------------------------------------------------------------------------------------------------


@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 100))
def test_split_is_a_stratified_partition(share: float, seed: int) -> None:
    labels = [1] * 12 + [-1] * 30
    tokens = [[i % 7, i % 5, 7] for i in range(42)]
    data = TokenDataset.from_tokens(tokens, labels, vocab=[f"w{s}" for s in range(8)])
    rest, part = split_dataset(data, share, rng=seed)
    for sign, size in ((1, 12), (-1, 30)):
        assert int((part.labels == sign).sum()) == min(max(round(share * size), 1), size - 1)
    assert rest.n_samples + part.n_samples == 42
    together = sorted(map(tuple, np.vstack([rest.counts.toarray(), part.counts.toarray()]).tolist()))
    assert together == sorted(map(tuple, data.counts.toarray().tolist()))
    assert part.vocab == data.vocab
    checked = TokenDataset.from_counts(part.counts, part.labels)
    np.testing.assert_array_equal(checked.counts.indices, part.counts.indices)
    assert not part.counts.data.flags.writeable


def test_split_depends_on_rng_only(data: TokenDataset) -> None:
    splits = [split_dataset(data, 0.3, rng=seed)[1].counts.toarray() for seed in (0, 0, 1)]
    np.testing.assert_array_equal(splits[0], splits[1])
    assert (splits[0] != splits[2]).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, np.nan])
def test_split_checks_share(data: TokenDataset, share: float) -> None:
    with pytest.raises(InputError, match="`share`"):
        split_dataset(data, share, rng=0)


def test_split_needs_two_of_each_class() -> None:
    with pytest.raises(InputError, match="two sequences of each class"):
        split_dataset(TokenDataset.from_tokens([[0], [1], [1]], [1, -1, -1]), 0.5, rng=0)


# --- checkpoints -------------------------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "adam": {
        "optimizer": Adam(step_size=0.05),
        "validation": 0.3,
        "batch_size": 30,
        "rng": 0,
        "schedule": Cosine(60),
    },
    "gd": {"optimizer": SGD(step_size=1.0), "params": ("E", "p", "v")},
    "momentum": {"optimizer": SGD(step_size=0.1, momentum=0.9), "batch_size": 16, "rng": 5, "validation": 0.2},
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS.keys())
@pytest.mark.parametrize("stop", [1, 7])
def test_resumed_run_is_the_same_run(
    model: AttentionModel, data: TokenDataset, tmp_path: Path, options: dict[str, Any], stop: int
) -> None:
    file = tmp_path / "run.npz"
    whole = train(model, data, n_epochs=10, **options)
    half = train(model, data, n_epochs=10, checkpoint=file, callback=stop_after(stop), **options)
    assert len(half.history) == stop + 1
    resumed = train(model, data, n_epochs=10, checkpoint=file, **options)
    assert_same_run(resumed, whole)
    assert (np.diff(resumed.history.seconds) >= 0).all()
    again = train(model, data, n_epochs=10, checkpoint=file, callback=stop_after(0), **options)
    assert_same_run(again, whole)
    assert again.status is Status.REACHED_END, "a finished run is read, not repeated"
    longer = train(model, data, n_epochs=13, checkpoint=file, **options)
    assert_same_run(longer, train(model, data, n_epochs=13, **options))


def test_a_different_course_is_noticed(model: AttentionModel, data: TokenDataset) -> None:
    """The control of the test above: dropping the optimiser's state or the generator changes the digits."""
    options = RUNS["adam"]
    whole = train(model, data, n_epochs=20, **options)
    half = train(model, data, n_epochs=10, **{**options, "validation": None})
    for other in (
        train(half.model, data, n_epochs=10, **options),
        train(model, data, n_epochs=20, **{**options, "rng": 1}),
    ):
        with pytest.raises(AssertionError):
            assert_same_run(other, whole)


def test_generator_ends_in_the_same_state(model: AttentionModel, data: TokenDataset, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 30, "validation": 0.2, "n_epochs": 6}
    straight, broken = np.random.default_rng(3), np.random.default_rng(3)
    train(model, data, rng=straight, **options)
    train(model, data, rng=broken, checkpoint=tmp_path / "a.npz", callback=stop_after(2), **options)
    broken = np.random.default_rng(3)
    train(model, data, rng=broken, checkpoint=tmp_path / "a.npz", **options)
    assert straight.random() == broken.random()


def test_unseeded_run_resumes_with_its_own_split(
    model: AttentionModel, data: TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call without a seed draws another one; the resumed run takes over that of the first."""
    seeds = iter([7, 8])
    options: dict[str, Any] = {"validation": 0.3, "batch_size": 30, "n_epochs": 8}
    whole = train(model, data, rng=7, **options)
    monkeypatch.setattr(loop, "as_rng", lambda rng: np.random.default_rng(next(seeds) if rng is None else rng))
    train(model, data, checkpoint=tmp_path / "run.npz", callback=stop_after(4), **options)
    assert_same_run(train(model, data, checkpoint=tmp_path / "run.npz", **options), whole)
    assert next(seeds, None) is None


@pytest.fixture
def _python_handles_ctrl_c() -> Iterator[None]:
    """A job in the background starts with Ctrl-C ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("_python_handles_ctrl_c")
def test_ctrl_c_ends_the_epoch_and_keeps_it(model: AttentionModel, data: TokenDataset, tmp_path: Path) -> None:
    file, options = tmp_path / "run.npz", RUNS["adam"]

    def press(state: TrainState) -> None:
        if state.epoch == 3:
            signal.raise_signal(signal.SIGINT)

    result = train(model, data, n_epochs=20, checkpoint=file, checkpoint_every=100, callback=press, **options)
    assert result.status is Status.INTERRUPTED
    assert not result.success
    assert len(result.history) == 4
    assert "checkpoint" in result.message
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same_run(
        train(model, data, n_epochs=20, checkpoint=file, **options), train(model, data, n_epochs=20, **options)
    )


@pytest.mark.usefixtures("_python_handles_ctrl_c")
def test_second_ctrl_c_raises(model: AttentionModel, data: TokenDataset) -> None:
    def press(state: TrainState) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(model, data, n_epochs=3, callback=press)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_left_to_those_who_handle_it(model: AttentionModel, data: TokenDataset) -> None:
    pressed: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        result = train(model, data, n_epochs=3, callback=lambda state: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(pressed) == 3
    assert result.status is Status.REACHED_END


@pytest.mark.usefixtures("_python_handles_ctrl_c")
def test_other_threads_may_train(model: AttentionModel, data: TokenDataset) -> None:
    results: list[TrainResult] = []
    worker = threading.Thread(target=lambda: results.append(train(model, data, n_epochs=2)))
    worker.start()
    worker.join()
    assert_same_run(results[0], train(model, data, n_epochs=2))


SCRIPT = """
import os, signal, sys
from attnembed.attention.data import make_balanced_dataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.training import train

def die(state):
    if state.epoch == 5:
        os.kill(os.getpid(), signal.SIGKILL)

data = make_balanced_dataset(n_samples=40, length=6, rng=0)
train(AttentionModel.random(44, 6, rng=1), data, validation=0.2, batch_size=8, rng=2, n_epochs=12,
      checkpoint=sys.argv[1], checkpoint_every=2, callback=die)
"""


def test_killed_process_resumes(tmp_path: Path) -> None:
    file = tmp_path / "run.npz"
    killed = subprocess.run([sys.executable, "-c", SCRIPT, str(file)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    model, data = AttentionModel.random(44, 6, rng=1), make_balanced_dataset(n_samples=40, length=6, rng=0)
    options: dict[str, Any] = {"validation": 0.2, "batch_size": 8, "rng": 2, "n_epochs": 12}
    epochs: list[int] = []
    resumed = train(model, data, checkpoint=file, callback=lambda state: epochs.append(state.epoch), **options)
    assert epochs[0] == 5, "epoch 4 was the last one written"
    assert_same_run(resumed, train(model, data, **options))


BASE: dict[str, Any] = {"optimizer": Adam(step_size=0.05), "validation": 0.3, "rng": 0, "n_epochs": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": Adam(step_size=0.06)},
        {"params": ("E",)},
        {"optimizer": SGD(step_size=0.05)},
        {"batch_size": 10},
        {"validation": 0.2},
        {"validation": None},
        {"schedule": Cosine(9)},
        {"schedule": stop_after},
        {"metric": "loss"},
        {"optimizer": Adam(step_size=0.05, weight_decay=0.1)},
        {"rng": 1},
        {"rng": np.random.Generator(np.random.MT19937(0))},
    ],
    ids=str,
)
def test_checkpoint_of_other_options_is_refused(
    model: AttentionModel, data: TokenDataset, tmp_path: Path, change: dict[str, Any]
) -> None:
    file = tmp_path / "run.npz"
    train(model, data, checkpoint=file, **BASE)
    before = file.read_bytes()
    with pytest.raises(InputError, match="`checkpoint` must come from the same"):
        train(model, data, checkpoint=file, **{**BASE, **change})
    assert file.read_bytes() == before
    fresh = train(model, data, checkpoint=file, **BASE, resume=False)
    assert fresh.history.epoch[-1] == 3


def test_checkpoint_of_other_data_or_model_is_refused(
    model: AttentionModel, data: TokenDataset, tmp_path: Path
) -> None:
    file = tmp_path / "run.npz"
    train(model, data, checkpoint=file, **BASE)
    counts = data.counts.copy()
    counts.data = counts.data.copy()
    counts.data[-1] += 1
    for other_model, other_data in (
        (model, TokenDataset.from_counts(counts, data.labels)),
        (model, TokenDataset.from_counts(data.counts, -data.labels)),
        (model.replace(p=np.nextafter(model.p, 9)), data),
    ):
        with pytest.raises(InputError, match="`checkpoint`"):
            train(other_model, other_data, checkpoint=file, **BASE)


def test_resume_false_starts_anew(model: AttentionModel, data: TokenDataset, tmp_path: Path) -> None:
    file, seen = tmp_path / "run.npz", []
    train(model, data, checkpoint=file, **BASE)
    train(model, data, checkpoint=file, resume=False, callback=lambda state: seen.append(state.epoch), **BASE)
    assert seen == [1, 2, 3]


def test_fewer_epochs_than_the_checkpoint(model: AttentionModel, data: TokenDataset, tmp_path: Path) -> None:
    train(model, data, checkpoint=tmp_path / "run.npz", **BASE)
    with pytest.raises(InputError, match="`n_epochs` must be at least the 3"):
        train(model, data, checkpoint=tmp_path / "run.npz", **{**BASE, "n_epochs": 2})


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped", "array missing", "history", "generator"])
def test_corrupt_checkpoint(model: AttentionModel, data: TokenDataset, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "run.npz"
    train(model, data, checkpoint=file, **BASE)
    content = file.read_bytes()
    with np.load(file) as archive:
        arrays = dict(archive)
    match damage:
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("not an archive")
        case "truncated":
            file.write_bytes(content[: len(content) // 2])
        case "flipped":
            middle = content.index(arrays["E"].tobytes()) + 100
            file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        case "array missing":
            np.savez(file, **{name: array for name, array in arrays.items() if name != "optimizer.mean.E"})
        case "history":
            np.savez(file, **{**arrays, "history": np.zeros((4, 5))})
        case "generator":
            np.savez(file, **{**arrays, "rng": np.array('{"bit_generator": "MT19937"}')})
    with pytest.raises(DataFileError, match=r"run\.npz"):
        train(model, data, checkpoint=file, **{**BASE, "n_epochs": 6})


def test_checkpoint_that_cannot_be_written(model: AttentionModel, data: TokenDataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFileError, match="cannot be written"):
        train(model, data, checkpoint=tmp_path / "file" / "run.npz", **BASE)


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"params": ()}, "params"),
        ({"params": ("E", "E")}, "params"),
        ({"params": ("E", "q")}, "params"),
        ({"params": None}, "params"),
        ({"params": ([],)}, "params"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"optimizer": Adam}, "optimizer"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"n_epochs": 1.5}, "n_epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"validation": 1.0}, "validation"),
        ({"validation": "tenth"}, "validation"),
        ({"schedule": 0.5}, "schedule"),
        ({"callback": "print"}, "callback"),
        ({"validation": TokenDataset.from_tokens([[0], [1]], [1, -1])}, "validation"),
        ({"metric": "f1"}, "metric"),
        ({"patience": 3}, "patience"),
        ({"patience": 0, "validation": 0.2}, "patience"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"rng": -1}, "rng"),
    ],
)
def test_options_are_checked(model: AttentionModel, data: TokenDataset, options: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"`{name}`"):
        train(model, data, **options)


def test_vocabulary_must_match(model: AttentionModel) -> None:
    with pytest.raises(InputError, match="vocabulary"):
        train(model, TokenDataset.from_tokens([[0], [1]], [1, -1]))
