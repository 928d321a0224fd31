"""The loop that both subjects share: what it refuses, what it resumes, and what is left when it is cut off."""

from __future__ import annotations

import functools
import io
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnembed as ae
import attnembed._checkpoint as checkpoints
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.optim import SGD, Adam, Cosine
from attnembed.results import Status
from attnembed.structured.stages import Plan, Stage

TOKENS = ae.make_balanced_dataset(n_samples=40, length=6, n_irrelevant=10, rng=0)
CHAINS = ae.make_chain_dataset(40, 4, 3, 3, rng=0)


@dataclass(frozen=True, eq=False)
class Subject:
    """One of the two trainings with a model and data, and others of the same sizes."""

    train: Callable[..., Any]
    model: Any
    data: Any
    held: Any
    other_model: Any
    other_data: Any
    parameters: Callable[[Any], dict[str, np.ndarray[Any, Any]]]

    def run(self, **options: Any) -> Any:
        arguments = {"model": self.model, "data": self.data, "n_epochs": 4, "rng": 0, **options}
        return self.train(arguments.pop("model"), arguments.pop("data"), **arguments)

    def assert_same(self, one: Any, other: Any) -> None:
        """Bit for bit, all but the seconds."""
        for name, array in self.parameters(one.model).items():
            np.testing.assert_array_equal(array, self.parameters(other.model)[name])
        assert one.history.dtype == other.history.dtype
        for name in set(one.history.dtype.names) - {"seconds"}:
            np.testing.assert_array_equal(one.history[name], other.history[name])
        assert one.best_epoch == other.best_epoch


def crf(seed: int) -> ae.ChainCRF:
    return ae.ChainCRF(ae.mlp(3, (4,), 3, rng=seed), np.random.default_rng(seed).normal(size=(3, 3)))


def attention_parameters(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {"E": model.E, "p": model.p, "v": model.v}


SUBJECTS = {
    "attention": Subject(
        ae.train,
        ae.AttentionModel.random(TOKENS.vocab_size, 5, rng=1),
        TOKENS,
        ae.make_balanced_dataset(n_samples=20, length=6, n_irrelevant=10, rng=5),
        ae.AttentionModel.random(TOKENS.vocab_size, 5, rng=2),
        ae.make_balanced_dataset(n_samples=40, length=6, n_irrelevant=10, rng=3),
        attention_parameters,
    ),
    "structured": Subject(
        functools.partial(ae.train_structured, batch_size=20),
        crf(1),
        CHAINS,
        ae.make_chain_dataset(20, 4, 3, 3, rng=5),
        crf(2),
        ae.make_chain_dataset(40, 4, 3, 3, rng=3),
        lambda model: model.parameters(),
    ),
}


@pytest.fixture(params=list(SUBJECTS.values()), ids=list(SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.param
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.npz"


@pytest.fixture
def python_handles_ctrl_c() -> Iterator[None]:
    """A job in the background starts with Ctrl-C ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def own_metric(model: Any, held: Any) -> float:
    return float(model.accuracy(held))


@functools.cache
def written(subject: Subject, *, validated: bool = True, step_size: float | None = None, **options: Any) -> bytes:
    """The checkpoint of a run, made once for all tests that damage it; with a ``step_size``, by Adam."""
    if validated:
        options["validation"] = subject.held
    if step_size is not None:
        options["optimizer"] = Adam(step_size=step_size)
    with tempfile.TemporaryDirectory() as folder:
        subject.run(checkpoint=Path(folder, "run.npz"), **options)
        return Path(folder, "run.npz").read_bytes()


def stop_after(epochs: int) -> Callable[[Any], bool]:
    return lambda state: state.epoch >= epochs


# --- the same words -----------------------------------------------------------------------------------------------


def test_histories_begin_alike(subject: Subject) -> None:
    history = subject.run(validation=subject.held).history
    assert history.dtype.names[:4] == ("epoch", "seconds", "loss", "validation_score")
    assert history.epoch.tolist() == list(range(len(history)))
    assert np.isfinite(history.validation_score).all()
    assert (np.diff(history.seconds) >= 0).all()
    assert np.isnan(subject.run().history.validation_score).all()


def test_callbacks_get_the_row_and_the_model(subject: Subject) -> None:
    states: list[Any] = []

    def note(state: Any) -> None:
        states.append(state)
        assert state.validation_score == state.model.accuracy(subject.held)

    result = subject.run(callback=note, validation=subject.held, optimizer=Adam(step_size=0.1))
    for state in states:
        row = result.history[state.epoch]
        assert {name: getattr(state, name) for name in result.history.dtype.names} == {
            name: row[name] for name in result.history.dtype.names
        }
    assert len(states) == 4


@pytest.mark.parametrize("answer", [True, 1, "stop"])
def test_a_callback_stops_with_anything_true(subject: Subject, answer: object) -> None:
    result = subject.run(callback=lambda state: answer)
    assert (result.status, result.success) == (Status.STOPPED, True)
    assert result.history.epoch[-1] == len(result.history) - 1 <= 1


def test_metrics(subject: Subject) -> None:
    """By name or as a function; the best epoch is the first of those with the largest score."""
    options: dict[str, Any] = {"validation": subject.held, "optimizer": SGD(step_size=2.0), "n_epochs": 12}
    models: list[Any] = []
    loss = subject.run(metric="loss", callback=lambda state: models.append(state.model), **options)
    rows = loss.history.validation_score[-12:]
    np.testing.assert_allclose(rows, [-model.loss(subject.held) for model in models], rtol=1e-10)
    assert loss.best_epoch == np.argmax(loss.history.validation_score)
    worst = subject.run(metric=lambda model, held: model.loss(held), **options)
    np.testing.assert_allclose(worst.history.validation_score, -loss.history.validation_score, rtol=1e-10)
    assert worst.best_epoch == np.argmin(loss.history.validation_score) != loss.best_epoch


def test_a_score_that_is_nan_is_never_the_best(subject: Subject) -> None:
    scores = iter([np.nan, np.nan, 0.1, np.nan, 0.3, 0.2, np.nan])
    result = subject.run(metric=lambda model, held: next(scores), validation=subject.held)
    assert result.history.validation_score[result.best_epoch] == np.nanmax(result.history.validation_score)


@pytest.mark.parametrize("optimizer", [SGD(step_size=0.1, momentum=0.5), Adam(step_size=0.01)])
def test_schedules_multiply_the_step_size(subject: Subject, optimizer: Any) -> None:
    """A constant factor is another step size, and None is the factor 1."""
    plain = subject.run(optimizer=optimizer)
    subject.assert_same(plain, subject.run(optimizer=optimizer, schedule=None))
    subject.assert_same(plain, subject.run(optimizer=optimizer, schedule=lambda k: np.array(1)))
    half = type(optimizer)(**{**vars(optimizer), "step_size": optimizer.step_size / 2})
    subject.assert_same(subject.run(optimizer=half), subject.run(optimizer=optimizer, schedule=lambda k: 0.5))


# --- wrong arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"model": None}, "model"),
        ({"model": ae.TwoLayerModel.__new__(ae.TwoLayerModel)}, "model"),
        ({"data": None}, "data"),
        ({"data": np.eye(3)}, "data"),
        ({"validation": np.eye(3)}, "validation"),
        ({"validation": "held"}, "validation"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"optimizer": Adam}, "optimizer"),
        ({"optimizer": lambda gradient: gradient}, "optimizer"),
        ({"n_epochs": None}, "n_epochs"),
        ({"n_epochs": "4"}, "n_epochs"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"schedule": 0.5}, "schedule"),
        ({"schedule": lambda k: None}, "schedule"),
        ({"schedule": lambda k: "fast"}, "schedule"),
        ({"schedule": lambda k: np.nan}, "schedule"),
        ({"schedule": lambda k: -1.0}, "schedule"),
        ({"schedule": lambda k: np.ones(2)}, "schedule"),
        ({"schedule": lambda k: 1e308, "optimizer": SGD(step_size=1e9)}, "schedule"),
        ({"metric": "f1"}, "metric"),
        ({"metric": np.ones(2)}, "metric"),
        ({"metric": lambda model, held: None}, "metric"),
        ({"metric": lambda model, held: "good"}, "metric"),
        ({"patience": 0}, "patience"),
        ({"patience": "two"}, "patience"),
        ({"patience": 3, "validation": None}, "patience"),
        ({"callback": "print"}, "callback"),
        ({"callback": 3}, "callback"),
        ({"checkpoint": 3}, "checkpoint"),
        ({"checkpoint": True}, "checkpoint"),
        ({"checkpoint": "run.npz", "checkpoint_every": 0}, "checkpoint_every"),
        ({"resume": "yes"}, "resume"),
        ({"rng": "seed"}, "rng"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else value,
)
def test_wrong_arguments_are_named(
    subject: Subject, options: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^`{name}` "):
        subject.run(**{"validation": subject.held, **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"learned_scales": None}, "learned_scales"),
        ({"learned_scales": "pairwise_scale"}, "learned_scales"),
        ({"rates": 3}, "rates"),
        ({"rates": {"pairwise": "fast"}}, r"rates\['pairwise'\]"),
        ({"rates": {"pairwise": -1.0}}, r"rates\['pairwise'\]"),
        ({"strategy": "stage", "stage_epochs": 4}, "stage_epochs"),
        ({"strategy": "stage", "stage_epochs": (1, 1, "2")}, "stage_epochs"),
        ({"stage_unary_norm": "one"}, "stage_unary_norm"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else value,
)
def test_wrong_arguments_of_structured_training_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^`{name}` "):
        SUBJECTS["structured"].run(**options)


def test_a_refused_optimizer_is_told_what_would_do(subject: Subject) -> None:
    with pytest.raises(InputTypeError, match=r"got <class .*Adam'>; pass Adam\(step_size=\.\.\.\)"):
        subject.run(optimizer=Adam)
    with pytest.raises(InputTypeError, match=r"must be an optimizer, .*; got 'adam'; .*attnembed\.Adam\(step_size"):
        subject.run(optimizer="adam")


# --- checkpoints of other runs ------------------------------------------------------------------------------------


def scaled(factor: float) -> Callable[[int], float]:
    return lambda k: factor * 0.5


class Falling:
    def __init__(self, rate: float):
        self.rate = rate

    def __call__(self, k: int) -> float:
        return self.rate**k

    def fall(self, k: int) -> float:
        return self.rate**k


def tilted(weights: np.ndarray[Any, Any], k: int) -> float:
    return float(weights[k % len(weights)])


LONG = np.linspace(0.1, 1.0, 5000)
BENT = LONG.copy()
BENT[2500] = 0.7  # in the part that a repr leaves out

SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "closure": scaled,
    "object": Falling,
    "method": lambda rate: Falling(rate).fall,
    "partial": lambda rate: functools.partial(tilted, LONG if rate == 0.5 else BENT),
    "default": lambda rate: lambda k, rate=rate: rate,
    "options": lambda rate: Cosine(9, final=rate),
}


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_another_schedule_is_refused(subject: Subject, file: Path, make: Callable[[Any], Any]) -> None:
    whole = subject.run(schedule=make(0.5))
    subject.run(schedule=make(0.5), checkpoint=file, callback=stop_after(1))
    with pytest.raises(InputError, match=r"^`checkpoint` must come from the same training; .* other schedule "):
        subject.run(schedule=make(0.9), checkpoint=file)
    subject.assert_same(subject.run(schedule=make(0.5), checkpoint=file), whole)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda s: {"data": s.other_data}, "data"),
        (lambda s: {"model": s.other_model}, "model"),
        (lambda s: {"validation": s.data}, "validation"),
        (lambda s: {"validation": None}, "validation"),
        (lambda s: {"metric": "loss"}, "metric"),
        (lambda s: {"metric": lambda model, held: 2 * model.accuracy(held)}, "metric"),
        (lambda s: {"optimizer": Adam(step_size=0.02)}, "optimizer"),
        (lambda s: {"batch_size": 10}, "batch_size"),
        (lambda s: {"rng": 1}, "rng"),
        (lambda s: {"rng": np.random.Generator(np.random.MT19937(0))}, "rng"),
        (lambda s: {"data": s.other_data, "rng": 1}, "data, rng"),
    ],
)
def test_checkpoints_of_other_runs_are_refused(
    subject: Subject, file: Path, change: Callable[[Subject], dict[str, Any]], name: str
) -> None:
    """The file stays as it is."""
    options: dict[str, Any] = {"validation": subject.held, "metric": own_metric}
    before = written(subject, metric=own_metric, n_epochs=3)
    file.write_bytes(before)
    with pytest.raises(InputError, match=f"^`checkpoint` must come from the same .* with other {name} in "):
        subject.run(**{**options, "checkpoint": file, "n_epochs": 4, **change(subject)})
    assert file.read_bytes() == before
    anew = subject.run(**{**options, "checkpoint": file, "resume": False, **change(subject)})
    assert len(anew.history) >= 4


@pytest.mark.parametrize("change", [{"objective": "ssvm"}, {"learned_scales": ("unary_scale",)}, {"strategy": "stage"}])
def test_checkpoints_of_other_plans_are_refused(file: Path, change: dict[str, Any]) -> None:
    subject = SUBJECTS["structured"]
    subject.run(checkpoint=file)
    with pytest.raises(InputError, match=f"other {next(iter(change))}"):
        subject.run(checkpoint=file, **change)


# --- going on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"optimizer": Adam(step_size=0.05), "batch_size": 7, "schedule": Cosine(90)}])
def test_a_run_is_extended(subject: Subject, file: Path, options: dict[str, Any]) -> None:
    options = {"validation": subject.held, **options}
    whole = subject.run(n_epochs=7, **options)
    subject.run(n_epochs=3, checkpoint=file, **options)
    subject.assert_same(subject.run(n_epochs=7, checkpoint=file, **options), whole)
    with pytest.raises(InputError, match="`n_epochs` must be at least the 7 of the checkpoint; got 3"):
        subject.run(n_epochs=3, checkpoint=file, **options)


def test_stages_are_extended_where_the_plan_is_the_same(file: Path) -> None:
    subject = SUBJECTS["structured"]
    options = {"strategy": "stage", "checkpoint": file}
    subject.run(n_epochs=6, **options)
    with pytest.raises(InputError, match=r"`stage_epochs` must begin like that of the checkpoint, .*\(2, 2, 2\)"):
        subject.run(n_epochs=9, **options)
    extended = subject.run(n_epochs=9, stage_epochs=(2, 2, 5), **options)
    whole = subject.run(n_epochs=9, stage_epochs=(2, 2, 5), strategy="stage")
    subject.assert_same(extended, whole)
    assert extended.history.stage.tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 2]


def test_plans_pass_over_empty_stages() -> None:
    plan = Plan(tuple(Stage("nll", ("pairwise",), epochs) for epochs in (0, 2, 0, 1)))
    assert [(index, before) for index, _, before in map(plan.at, range(3))] == [(1, 0), (1, 1), (3, 0)]


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_a_run_without_a_seed_takes_over_the_generator(subject: Subject, file: Path, kind: Any) -> None:
    options = {"batch_size": 7}
    whole = subject.run(rng=np.random.Generator(kind(3)), **options)
    subject.run(rng=np.random.Generator(kind(3)), checkpoint=file, callback=stop_after(1), **options)
    subject.assert_same(subject.run(rng=None, checkpoint=file, **options), whole)


# --- damaged checkpoints ------------------------------------------------------------------------------------------


def rewrite(file: Path, **changes: Any) -> None:
    with np.load(file) as archive:
        arrays = {**archive, **changes}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    file.write_bytes(stream.getvalue())


def floats(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(file) as archive:
        return {name: array for name, array in archive.items() if array.dtype.kind == "f"}


DAMAGE: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "scalar": lambda array: np.array(0.5) if array.ndim else np.ones(1),
    "row": lambda array: array[:1] if len(array.shape) and len(array) > 1 else array[None],
    "integers": lambda array: array.astype(int),
    "single": lambda array: array.astype(np.float32),
    "nan": lambda array: np.full_like(array, np.nan),
    "infinite": lambda array: np.full_like(array, np.inf),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_nothing_is_cast_or_broadcast(
    subject: Subject, file: Path, damage: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> None:
    good = written(subject, step_size=0.01)
    file.write_bytes(good)
    found = floats(file)
    names = [
        "E",
        "best.p",
        "optimizer.mean.E",
        "pairwise",
        "best.network.0.W",
        "optimizer.square.pairwise",
        "number.folded",
    ]
    assert len(set(names) & set(found)) >= 3
    for name in sorted(set(names) & set(found)):
        array = found[name]
        file.write_bytes(good)
        rewrite(file, **{name: damage(array)})
        with pytest.raises(DataFileError, match=rf"run\.npz: must hold {name} "):
            subject.run(checkpoint=file, validation=subject.held, n_epochs=6, optimizer=Adam(step_size=0.01))


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "changes",
    [
        {"best_epoch": np.array(999)},
        {"best_epoch": np.array(-1)},
        {"best_epoch": np.array(1.0)},
        {"best_epoch": np.array([1, 2])},
        {"optimizer.step": np.array(-1)},
        {"optimizer.step": np.array(2.0)},
        {"rng": np.array(DEEP)},
        {"rng_start": np.array(DEEP)},
        {"identity": np.array(DEEP)},
        {"rng": np.array("{}")},
        {"identity": np.array("[1]")},
        {"history": np.zeros((4, 4))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_damaged_checkpoints_are_refused(subject: Subject, file: Path, changes: dict[str, Any]) -> None:
    options: dict[str, Any] = {"checkpoint": file, "validation": subject.held, "rng": None}
    file.write_bytes(written(subject))
    rewrite(file, **changes)
    with pytest.raises(DataFileError, match=r"run\.npz: "):
        subject.run(n_epochs=6, **options)


@pytest.mark.parametrize("column", ["epoch", "seconds", "loss"])
@pytest.mark.parametrize("value", [np.nan, 7])
def test_damaged_histories_are_refused(subject: Subject, file: Path, column: str, value: float) -> None:
    file.write_bytes(written(subject, validated=False))
    with np.load(file) as archive:
        history = archive["history"]
    if column == "epoch":
        value = 7
    elif value == 7:
        value = np.inf
    history[column][1] = value
    rewrite(file, history=history)
    with pytest.raises(DataFileError, match="holds no training history"):
        subject.run(checkpoint=file)
    rewrite(file, history=history[:0])
    with pytest.raises(DataFileError, match="holds no training history"):
        subject.run(checkpoint=file)


# --- cut off ------------------------------------------------------------------------------------------------------


def press_at_call(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, call: int, times: int = 1) -> None:
    """Press Ctrl-C in the middle of the given call of a function, from within."""
    function = getattr(place, name)
    calls: list[None] = []

    def pressing(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    monkeypatch.setattr(place, name, pressing)


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize(("place", "name"), [(np, "savez"), (Adam, "update")])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_ctrl_c_at_any_time_leaves_a_checkpoint(
    subject: Subject, file: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, call: int
) -> None:
    """In the middle of a step, or while the file is being written."""
    options: dict[str, Any] = {"optimizer": Adam(step_size=0.01), "checkpoint_every": 1, "validation": subject.held}
    whole = subject.run(n_epochs=4, **options)
    with monkeypatch.context() as patch:
        press_at_call(patch, place, name, call)
        result = subject.run(n_epochs=4, checkpoint=file, **options)
    assert result.status is Status.INTERRUPTED
    assert not result.success
    assert result.message.endswith("run it again to continue from the checkpoint")
    assert len(result.history) < len(whole.history)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    subject.assert_same(subject.run(n_epochs=4, checkpoint=file, **options), whole)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_in_the_last_epoch_is_not_lost(subject: Subject) -> None:
    """A script with one training after the other is to end."""
    result = subject.run(callback=lambda state: signal.raise_signal(signal.SIGINT) if state.epoch > 2 else None)
    assert result.status is Status.INTERRUPTED


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_second_ctrl_c_ends_at_once_and_leaves_the_last_checkpoint(
    subject: Subject, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = subject.run(n_epochs=4)
    with monkeypatch.context() as patch:
        press_at_call(patch, np, "savez", 2, times=2)
        with pytest.raises(KeyboardInterrupt):
            subject.run(n_epochs=4, checkpoint=file, checkpoint_every=1)
    assert [path.name for path in file.parent.iterdir()] == ["run.npz"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    seen: list[int] = []
    resumed = subject.run(n_epochs=4, checkpoint=file, callback=lambda state: seen.append(state.epoch))
    subject.assert_same(resumed, whole)
    assert len(seen) == 3, "the first epoch is in the file"


KILLED = """
import os, signal, sys
import numpy as np
sys.path.insert(0, {tests!r})
from tests.test_fit import SUBJECTS

whole, calls = np.savez, []

def torn(stream, **arrays):
    calls.append(None)
    if len(calls) == 3:
        stream.write(b"PK half of a file")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    whole(stream, **arrays)

np.savez = torn
SUBJECTS[{name!r}].run(checkpoint={file!r}, checkpoint_every=1, n_epochs=6)
"""


def test_killed_while_writing(file: Path) -> None:
    name = "structured"
    code = KILLED.format(tests=str(Path(__file__).parents[1]), name=name, file=str(file))
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    subject = SUBJECTS[name]
    seen: list[int] = []
    resumed = subject.run(checkpoint=file, n_epochs=6, callback=lambda state: seen.append(state.epoch))
    subject.assert_same(resumed, subject.run(n_epochs=6))
    assert len(seen) == 4, "two epochs are in the file"


def test_an_error_in_the_callback_costs_no_epoch(subject: Subject, file: Path) -> None:
    def fail(state: Any) -> None:
        if state.epoch == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        subject.run(checkpoint=file, checkpoint_every=1, callback=fail)
    subject.assert_same(subject.run(checkpoint=file), subject.run())


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_an_interrupted_claim_has_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is measured after Ctrl-C in the middle of a training."""
    press_at_call(monkeypatch, Adam, "update", 5)
    with pytest.raises(KeyboardInterrupt):
        ae.verify(ids=["structured/scale-decides"])


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_an_interrupted_comparison_has_no_result() -> None:
    subject, seen = SUBJECTS["structured"], []

    def press(state: Any) -> None:
        seen.append(state)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ae.compare_arms(
            {"a": {"callback": press}, "b": {"callback": press}},
            lambda rng: subject.model,
            *(subject.data, subject.held, subject.held),
            n_epochs=3,
            repetitions=2,
        )
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["arms", "step_sizes", "repetitions"])
def test_empty_comparisons_say_what_is_empty(name: str) -> None:
    subject = SUBJECTS["structured"]
    empty: Any = {} if name == "arms" else ()
    options: dict[str, Any] = {"arms": {"a": {}}, "step_sizes": (0.1,), "repetitions": (0,), name: empty}
    with pytest.raises(InputError, match=f"^`{name}` must not be empty"):
        ae.compare_arms(
            options.pop("arms"), lambda rng: crf(0), *(subject.data, subject.held, subject.held), n_epochs=1, **options
        )


def test_checkpoints_are_written_as_often_as_asked(
    subject: Subject, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = checkpoints.Checkpoint.write

    def noting(self: Any, log: Any, rng: Any) -> None:
        written.append(log.done)
        write(self, log, rng)

    monkeypatch.setattr(checkpoints.Checkpoint, "write", noting)
    subject.run(checkpoint=file, checkpoint_every=3, n_epochs=7)
    assert written == [3, 6, 7]


# --- old names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"method": "adam"}, {"optimizer": Adam(step_size=0.01)}),
        ({"method": "gd"}, {"optimizer": SGD(step_size=1.0)}),
        (
            {"method": "sgd", "momentum": 0.5, "step_size": 0.1, "batch_size": 7},
            {"optimizer": SGD(step_size=0.1, momentum=0.5), "batch_size": 7},
        ),
        ({"method": Adam(step_size=0.1)}, {"optimizer": Adam(step_size=0.1)}),
        ({"step_size": 0.05, "weight_decay": 0.1}, {"optimizer": Adam(step_size=0.05, weight_decay=0.1)}),
        ({"epochs": 4}, {}),
        ({"monitor": "loss", "validation": 0.3}, {"metric": "loss", "validation": 0.3}),
    ],
    ids=lambda options: ", ".join(options),
)
def test_old_names_still_work(old: dict[str, Any], new: dict[str, Any]) -> None:
    subject = SUBJECTS["attention"]
    names = [name for name in old if name not in ("batch_size", "validation")]
    with pytest.warns(DeprecationWarning, match=f"`{names[0]}`.* of train is deprecated.*use `") as warned:
        found = subject.train(
            subject.model, subject.data, rng=0, **({"n_epochs": 4} | old if "epochs" not in old else old)
        )
    assert [Path(warning.filename).name for warning in warned] == ["test_fit.py"]
    subject.assert_same(found, subject.run(**new))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"method": "newton"}, "method"),
        ({"method": Adam}, "method"),
        ({"method": 3}, "method"),
        ({"method": Adam(step_size=0.1), "step_size": 0.1}, "method"),
        ({"method": SGD(step_size=0.1), "momentum": 0.5}, "method"),
        ({"method": "adam", "momentum": 0.5}, "momentum"),
        ({"method": "gd", "momentum": 0.5}, "momentum"),
        ({"method": "sgd", "momentum": 1.0}, "momentum"),
        ({"method": "gd", "batch_size": 4}, "batch_size"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": np.nan}, "step_size"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"step_size": 0.1, "optimizer": Adam(step_size=0.1)}, "optimizer"),
        ({"epochs": 3, "n_epochs": 3}, "n_epochs"),
    ],
)
def test_old_names_are_checked(options: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^`{name}` "):
        SUBJECTS["attention"].train(SUBJECTS["attention"].model, TOKENS, **options)


def test_a_refused_method_is_told_what_would_do() -> None:
    """An optimizer was accepted, but the message did not say so."""
    with pytest.raises(
        InputError, match=r"'gd' or an optimizer; got <class .*Adam'>; .*attnembed\.Adam\(step_size=0\.01\)"
    ):
        SUBJECTS["attention"].run(method=Adam)


def test_old_callbacks_still_work() -> None:
    seen: list[Any] = []
    subject = SUBJECTS["structured"]

    def callback(epoch: int, model: Any, record: dict[str, Any]) -> bool:
        seen.append((epoch, model, record))
        return epoch == 1

    with pytest.warns(DeprecationWarning, match=r"callback\(epoch, model, record\).*use callback\(state\)"):
        result = subject.run(callback=callback, validation=subject.held)
    assert result.status is Status.STOPPED
    assert [epoch for epoch, _, _ in seen] == [0, 1]
    assert [record["loss"] for _, _, record in seen] == result.history.loss.tolist()
    np.testing.assert_array_equal(seen[1][1].pairwise, result.last_model.pairwise)
    assert set(seen[0][2]) == set(result.history.dtype.names) - {"epoch", "seconds"}


@pytest.mark.parametrize("name", ["Arm", "Comparison", "compare_arms"])
def test_old_import_paths_still_work(name: str) -> None:
    import attnembed.compare as compare
    import attnembed.structured.training as training

    with pytest.warns(DeprecationWarning, match=rf"use attnembed\.compare\.{name}"):
        assert getattr(training, name) is getattr(compare, name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = training.nothing
