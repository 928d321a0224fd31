"""The comparison on the structured tasks: equal budgets, verdicts, tables and figures, on a made-up task."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnembed as ae
from attnembed import plotting
from attnembed.errors import DataFileError, InputError, RunFailedError
from attnembed.experiments import arms, chunks, reproduce, structured, task_figures, verdicts
from attnembed.experiments.arms import ARMS, Row, Run, run_cell
from attnembed.experiments.plan import MULTIPLIERS, Entry, Repetition, ScaleSweep, Study, compute
from attnembed.experiments.registry import Request, number_rows
from attnembed.experiments.tasks import Split, Task
from attnembed.experiments.verdicts import markdown, numbers_of, verdict
from attnembed.structured.data import make_chain_dataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import mlp

pytestmark = pytest.mark.usefixtures("plain_layout")

OBJECTIVES = ("nll", "ssvm")


def _load(path: str, split: int) -> Split:
    data = make_chain_dataset(120, 5, 3, 4, transition=3.0, rng=0)
    order = np.random.default_rng(split).permutation(120)
    return Split(*(data.subset(part) for part in np.split(order, (60, 80))))  # type: ignore[arg-type]


def _model(split: Split, rng: np.random.Generator) -> ChainCRF:
    return ChainCRF(mlp(4, (5,), 3, rng=rng), rng.normal(size=(3, 3)))


def _scores(model: ChainCRF, data: Any, split: Split) -> dict[str, float]:
    return {"letters": model.accuracy(data), "words": model.sequence_accuracy(data)}


STUDY = Study("small", (Repetition(0, 0), Repetition(1, 1)), (0.01, 0.03), 3, OBJECTIVES)
SCALE = ScaleSweep("small", 0.03, 3, ("nll",))
PATH = "here"  # the task is made up: nothing is read from it


@contextmanager
def small_task() -> Iterator[ThreadPoolExecutor]:
    """The task "small" exists, and runs share this process."""
    small = Task("small", _load, _model, _scores, OBJECTIVES, 10)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as executor:
        patch.setattr(arms, "TASKS", {"small": small})
        patch.setattr(structured, "TASKS", {"small": small})
        arms.task_data.cache_clear()
        yield executor
    arms.task_data.cache_clear()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The runs of `STUDY` and `SCALE`, made once for all tests."""
    folder = tmp_path_factory.mktemp("runs")
    with small_task() as executor:
        _results(Request(folder, True, 0, folder, executor=executor))
    return (folder / "made-up-runs.jsonl").read_bytes()


@pytest.fixture
def request_(tmp_path: Path, store: bytes) -> Iterator[Request]:
    """A request that finds the runs of `store`; what else is needed is run in this process."""
    (tmp_path / "made-up-runs.jsonl").write_bytes(store)
    with small_task() as executor:
        yield Request(tmp_path, True, 0, tmp_path, executor=executor)


def _results(request: Request, study: Study = STUDY) -> tuple[Any, Any]:
    """The table and the sweep."""
    records = compute(request, "made-up", PATH, [study], SCALE)
    return study.entries(PATH, records), SCALE.scores(PATH, records)


def test_every_arm_has_the_same_budget(request_: Request, tmp_path: Path) -> None:
    entries, _ = _results(request_)
    assert set(entries) == {("unary", "unary"), *((a, o) for a in ("stage", *arms.JOINT) for o in OBJECTIVES)}
    for (arm, _), entry in entries.items():
        epochs = {len(record["history"]["loss"]) for record in entry.records}
        # Stage 1 is trained once for all objectives: 0.6 of the epochs, rounded.
        assert epochs == ({1} if arm == "stage" else {3})
        assert len(entry.records) == 2
        assert entry.step_size in STUDY.step_sizes
    lines = (tmp_path / "made-up-runs.jsonl").read_text().splitlines()
    runs = [cell for line in lines[1:] if (cell := json.loads(line)["cell"])["multiplier"] == 1]
    for arm in arms.JOINT:
        for objective in OBJECTIVES:
            mine = [run for run in runs if (run["arm"], run["objective"]) == (arm, objective)]
            assert sorted((run["split"], run["step_size"]) for run in mine if run["split"] == 0) == [
                (0, 0.01),
                (0, 0.03),
            ]
            assert sum(run["split"] == 1 for run in mine) == 1

    # The step size is that of the better validation score of the first repetition.
    tried = {}
    for line in lines[1:]:
        record = json.loads(line)
        cell = record["cell"]
        if (cell["arm"], cell["objective"], cell["split"], cell["multiplier"]) == ("online", "nll", 0, 1):
            tried[cell["step_size"]] = record["value"]["nll"]["validation"]["letters"]
    assert tried[entries["online", "nll"].step_size] == max(tried.values())

    # Started again, nothing is computed.
    again, _ = _results(request_)
    assert len((tmp_path / "made-up-runs.jsonl").read_text().splitlines()) == len(lines)
    assert again["joint", "nll"].scores().tolist() == entries["joint", "nll"].scores().tolist()

    page = markdown("made up", STUDY, entries)
    assert page.count("\n| joint") == 5
    assert "2 repetitions, 3 epochs, step sizes 0.01, 0.03" in page
    assert f"{100 * entries['stage', 'ssvm'].scores('test', 'words').mean():.2f} +- " in page


def test_stages_train_the_network_first(request_: Request, tmp_path: Path) -> None:
    run = Run("small", str(tmp_path), 0, 0, "stage", ("unary", "nll", "ssvm"), 0.03, 1.0, 3)
    out = run_cell(**run.cell(), rng=np.random.default_rng(0))
    assert set(out) == {"unary", *OBJECTIVES}
    assert set(out["unary"]["history"]["ratio"]) == {"inf"}  # the pairwise part is zero
    assert out["nll"]["test"] != out["ssvm"]["test"]
    assert [len(labels) for labels in out["nll"]["examples"]] == [5] * 5
    json.dumps(out)


def test_a_run_does_not_depend_on_the_cells_own_generator(request_: Request, tmp_path: Path) -> None:
    run = Run("small", str(tmp_path), 0, 0, "online", ("nll",), 0.03, 1.0, 3)
    first, second = (run_cell(**run.cell(), rng=np.random.default_rng(seed)) for seed in (0, 1))
    assert first == second
    assert run_cell(**replace(run, seed=1).cell(), rng=np.random.default_rng(0)) != first


def test_a_run_is_kept_as_plain_values_and_found_again(tmp_path: Path) -> None:
    """The layout of the stores, which older ones have as well."""
    run = Run("small", "here", 2, 3, "stage", ("unary", "nll"), 0.03, 0.5, 4)
    cell = run.cell()
    assert list(cell.items()) == [
        ("task", "small"),
        ("path", "here"),
        ("split", 2),
        ("seed", 3),
        ("arm", "stage"),
        ("objective", "unary nll"),
        ("step_size", 0.03),
        ("multiplier", 0.5),
        ("epochs", 4),
    ]
    assert Run.from_cell(json.loads(json.dumps(cell))) == run


@pytest.mark.parametrize("arm", arms.SCALED)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_that_forgets_the_multiplier_is_that_of_multiplier_1(
    request_: Request, arm: str, objective: str
) -> None:
    """What `Run.made` claims, of everything that a run keeps, to the last bit."""
    runs = [Run("small", PATH, 0, 0, arm, (objective,), 0.03, c, 3) for c in MULTIPLIERS]
    assert {run.made for run in runs} == {runs[MULTIPLIERS.index(1.0)]}
    first, *others = (json.dumps(run_cell(**run.cell(), rng=np.random.default_rng(0))) for run in runs)
    assert all(other == first for other in others)
    plain = [replace(run, arm="joint") for run in runs]
    assert [run.made for run in plain] == plain


def test_online_scaling_remembers_the_multiplier_where_the_network_starts_at_zero(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no norm of U then that W could be given: every multiplier has a run of its own."""

    def silent(split: Split, rng: np.random.Generator) -> ChainCRF:
        model = _model(split, rng)
        last = {name: np.zeros_like(model.network.params[name]) for name in model.network.output}
        return replace(model, network=model.network.with_params({**model.network.params, **last}))

    task = replace(arms.TASKS["small"], make_model=silent, starts_at_zero=True)
    monkeypatch.setattr(arms, "TASKS", {"small": task})
    runs = [Run("small", PATH, 0, 0, "online", ("nll",), 0.03, c, 1) for c in (0.01, 100.0)]
    assert [run.made for run in runs] == runs
    first, other = (run_cell(**run.cell(), rng=np.random.default_rng(0))["nll"]["history"] for run in runs)
    assert first["loss"] != other["loss"]
    assert [row.arm for row in SCALE.trained_once(PATH)] == ["offline"]


def test_the_sweep_changes_plain_training_and_not_offline(request_: Request, tmp_path: Path) -> None:
    _, scores = _results(request_)
    assert {key: len(values) for key, values in scores.items()} == dict.fromkeys(
        (("joint", "nll"), ("offline", "nll"), ("online", "nll")), 5
    )
    assert np.ptp(scores["joint", "nll"]) > 0.02
    assert SCALE.trained_once(PATH) == (("offline", "nll"), ("online", "nll"))
    page = verdicts.sweep_markdown(scores, "sweep", SCALE.trained_once(PATH))
    told = "training keeps no trace: nll, joint, offline scaling; nll, joint, online scaling"
    assert page.endswith(f"| 0.00 |\n\nTrained once for all c, of which {told}\n")
    assert verdicts.sweep_markdown(scores, "sweep").endswith("| 0.00 |\n")


def test_failed_runs_are_reported(request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: ChainCRF, data: Any, split: Split) -> dict[str, float]:
        raise ZeroDivisionError("no such score")

    broken_task = replace(arms.TASKS["small"], measure=broken)
    monkeypatch.setattr(arms, "TASKS", {"small": broken_task})
    (tmp_path / "made-up-runs.jsonl").unlink()
    failed = r"26 of 26 runs of made-up failed: ZeroDivisionError: no such score; see made-up-runs\.jsonl"
    with pytest.raises(RunFailedError, match=failed):
        _results(request_)


def test_a_run_that_did_not_stay_finite_is_not_chosen(request_: Request) -> None:
    path = PATH
    records = compute(request_, "made-up", path, [STUDY], SCALE)
    row = Row("joint", "nll")
    first = STUDY.entries(path, records)[row].step_size

    def with_failure(trial: Any, record: Any) -> Any:
        return {**record, row.objective: {**record[row.objective], "status": "not_finite"}} if trial else record

    failed = {run for trial, run in STUDY.tuning(path).items() if (trial.arm, trial.step_size) == (row, first)}
    (other,) = set(STUDY.step_sizes) - {first}
    changed = {run: with_failure(run in failed, record) for run, record in records.items()}
    chosen = STUDY.chosen(path, changed)
    assert {trial.step_size for trial in chosen[row]} == {other}
    assert all(chosen[one] == trials for one, trials in STUDY.chosen(path, records).items() if one != row)


def test_failed_repetitions_are_named_below_the_table(request_: Request) -> None:
    entries, _ = _results(request_)
    assert "failed" not in markdown("made up", STUDY, entries)
    row = Row("online", "ssvm")
    first, second = entries[row].records
    entries[row] = replace(entries[row], records=(first, {**second, "status": "not_finite"}))
    page = markdown("made up", STUDY, entries)
    assert page.endswith("\n- joint, online scaling, ssvm: repetition 2 failed (not_finite)\n")


def test_seeds_of_one_split_are_one_observation(request_: Request) -> None:
    """They share test data, so that only splits count for the standard error."""
    study = replace(STUDY, repetitions=tuple(Repetition(*pair) for pair in ((0, 0), (0, 1), (1, 0))), joint=("joint",))
    entry = _results(request_, study)[0]["joint", "nll"]
    each = [record["test"]["letters"] for record in entry.records]
    assert len(set(each)) == 3
    assert entry.scores().tolist() == pytest.approx([(each[0] + each[1]) / 2, each[2]])
    assert verdicts._repeated(study) == "3 repetitions (means over the seeds of 2 splits)"


def test_a_tag_that_training_never_shows_counts_as_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(10 * "He PRP B-NP\nran VBD B-VP\n\n")
    (tmp_path / "test.txt").write_text("1 CD B-LST\n2 CD I-LST\n")
    split = chunks._chunks(str(tmp_path), 0)
    assert split.names == ("B-NP", "B-VP", "B-LST", "I-LST")
    model = chunks._chunk_model(split, np.random.default_rng(0))
    assert model.n_labels == 2
    assert arms.TASKS["chunking"].starts_at_zero
    assert not model.unary(split.train).any()
    assert chunks._chunk_scores(model, split.test, split) == {"chunk F1": 0, "tags": 0}


# --- verdicts -----------------------------------------------------------------------------------------------------


def _entries(stage: list[float], online: list[float], offline: list[float], joint: list[float]) -> Any:
    def entry(scores: list[float]) -> Entry:
        records = tuple({"test": {"a": s}, "validation": {"a": s}} for s in scores)
        return Entry(0.1, records, tuple(range(len(scores))))

    named = {"stage": stage, "online": online, "offline": offline, "joint": joint}
    return {Row(arm, "nll"): entry(scores) for arm, scores in named.items()}


@pytest.mark.parametrize(
    ("online", "answer"),
    [
        ([0.91, 0.92, 0.90], "yes"),  # better
        ([0.90, 0.89, 0.90], "yes"),  # a third of a point below, one standard error
        ([0.891, 0.894, 0.90], "not decidable"),
        ([0.88, 0.89, 0.88], "no"),
    ],
)
def test_verdicts(online: list[float], answer: str) -> None:
    found = verdict(_entries([0.90, 0.90, 0.90], online, [0.5] * 3, [0.8] * 3), "nll")
    assert found.answer == answer
    assert found.arm == "online"
    difference = 100 * (np.array(online) - 0.90)
    assert found.difference == pytest.approx(difference.mean())
    assert found.standard_error == pytest.approx(difference.std(ddof=1) / np.sqrt(3))
    assert found.naive == pytest.approx(-10)
    assert str(found).startswith(f"{answer}: joint, online scaling is ")


@pytest.mark.parametrize(
    ("n", "quick", "told"),
    [
        (1, False, "no verdict: one repetition, fewer than 3"),
        (2, False, "no verdict: 2 repetitions, fewer than 3"),
        (2, True, "no verdict: quick run"),
        (3, True, "no verdict: quick run"),
    ],
)
def test_few_repetitions_and_quick_runs_decide_nothing(n: int, quick: bool, told: str) -> None:
    scores = [[0.9] * n, [0.95] * n, [0.91] * n, [0.8] * n]
    assert str(verdict(_entries(*scores), "nll", quick=quick)) == told
    assert str(verdict(_entries(*(score * 3 for score in scores)), "nll")).startswith("yes: joint, online scaling is ")


def test_a_single_run_has_no_spread(request_: Request, tmp_path: Path) -> None:
    study = replace(STUDY, repetitions=(Repetition(0, 0),))
    entries, _ = _results(request_, study)
    page = markdown("made up", study, entries, quick=True)
    assert "+-" not in page
    assert "nan" not in page
    assert "**made up, quick run**: one repetition, 3 epochs" in page
    numbers = numbers_of(study, entries, quick=True)
    assert numbers["nll.joint"]["letters"]["standard_error"] is None
    assert numbers["verdict"] == dict.fromkeys(OBJECTIVES, "no verdict: quick run")
    assert not any("+-" in text or "nan" in text.lower() for _, text in number_rows(numbers))
    (ax,) = task_figures.draw_arms(study, entries, "letters")().axes
    assert ax.get_title() == "one split"
    assert len(ax.containers) == 1 + len(study.joint)
    assert not any(container.has_yerr for container in ax.containers)  # type: ignore[attr-defined]
    (ax,) = task_figures.draw_arms(STUDY, _results(request_)[0], "letters")().axes
    assert ax.get_title() == "mean of 2 splits, bars: one standard error"
    assert all(container.has_yerr for container in ax.containers)  # type: ignore[attr-defined]


def test_the_better_scaled_arm_is_chosen_on_validation_data() -> None:
    entries = _entries([0.9, 0.9], [0.8, 0.8], [0.95, 0.97], [0.8, 0.8])
    records = tuple({**record, "validation": {"a": 0.1}} for record in entries["offline", "nll"].records)
    assert verdict(entries, "nll").arm == "offline"
    assert verdict({**entries, ("offline", "nll"): Entry(0.1, records, (0, 1))}, "nll").arm == "online"


def test_horses_are_trained_mirrored_and_tested_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(0, 256, size=(n, 32, 32, 3)) for part, n in (("train", 10), ("test", 3))}
    arrays |= {f"y_{part}": rng.integers(0, 2, size=(n, 32, 32)) for part, n in (("train", 10), ("test", 3))}
    np.savez(tmp_path / "weizmann32.npz", **{name: array.astype(np.uint8) for name, array in arrays.items()})
    data = arms.task_data("segmentation", str(tmp_path), 0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [16, 2, 3]
    for array in (data.train.images, data.train.labels):
        np.testing.assert_array_equal(array[8:], np.flip(array[:8], axis=2))
    np.testing.assert_array_equal(data.test.labels, arrays["y_test"])
    model = arms.TASKS["segmentation"].make_model(data, np.random.default_rng(0))
    assert model.predict(data.test).shape == (3, 32, 32)
    assert model.margin == 32 * 32


# --- the command, on real data ---------------------------------------------------------------------------------------


def write_part(name: str, folder: Path, out: Path) -> None:
    """A part of the real data: a third of the words, 600 sentences, 60 horses."""
    if name == "ocr":
        with np.load(folder / "ocr_letters.npz") as words:
            kept = np.arange(len(words["lengths"])) % 3 == 0
            letters = np.repeat(kept, words["lengths"])
            part = {key: words[key][letters if key in ("pixels", "labels") else kept] for key in words}
        np.savez(out / "ocr_letters.npz", **part)
    elif name == "segmentation":
        with np.load(folder / "weizmann32.npz") as horses:
            np.savez(out / "weizmann32.npz", **{key: horses[key][:60] for key in horses})
    else:
        for file, n in (("train.txt", 600), ("test.txt", 200)):
            with gzip.open(folder / "conll2000" / f"{file}.gz", "rt", encoding="utf-8") as stream:
                sentences = stream.read().split("\n\n")[:n]
            (out / file).write_text("\n\n".join(sentences) + "\n", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "row"), [("ocr", "letters"), ("chunking", "chunk F1"), ("segmentation", "foreground IoU")]
)
def test_quick_reproduction(name: str, row: str, tmp_path: Path, data_folder: Path) -> None:
    (tmp_path / "data").mkdir()
    write_part(name, data_folder, tmp_path / "data")
    written = reproduce(name, data=tmp_path / "data", out=tmp_path, quick=True, repetitions=1)
    names = {path.name for path in written.files}
    figures = {f"{name}{part}-quick.png" for part in ("", "-training", "-scale", "-examples")}
    assert names == {*figures, f"{name}-quick.md", f"{name}-quick.json"}
    page = (tmp_path / f"{name}-quick.md").read_text()
    assert row in page
    assert page.startswith("**Quick run**")
    assert (tmp_path / f"{name}-runs.jsonl").exists()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"ocr_letters\.npz"):
        reproduce("ocr", data=tmp_path, out=tmp_path / "out")
    with pytest.raises(InputError, match="`repetitions` must be at least 1; got 0"):
        reproduce("ocr", data=tmp_path, out=tmp_path / "out", repetitions=0)


# --- figures ------------------------------------------------------------------------------------------------------


def test_figures_show_every_arm(request_: Request, tmp_path: Path) -> None:
    entries, scores = _results(request_)
    arms = task_figures.draw_arms(STUDY, entries, "letters")()
    training = task_figures.draw_training(STUDY, entries, "letters")()
    scale = task_figures.draw_sweep(scores, "letters")()
    titles = [arm.title for name, arm in ARMS.items() if name != "unary" and not arm.on_new]
    assert arms.axes[0].get_legend_handles_labels()[1] == [ARMS["unary"].title, *titles]
    assert training.axes[0].get_legend_handles_labels()[1] == titles[1:]
    assert [line.get_label() for line in scale.axes[0].get_lines()] == [ARMS[a].title for a, _ in scores]
    for figure in (arms, training, scale):
        assert all(ax.get_ylabel() for ax in figure.axes)
        figure.canvas.draw()


def test_errors_stand_out() -> None:
    figure, axes = plotting.new_figure(1, 3)
    plotting.plot_word(axes[0, 0], np.ones((3, 16, 8)), [0, 1, 2], [("joint", [0, 5, 2])])
    plotting.plot_tags(axes[0, 1], ["He", "ran"], [("true", ["B-NP", "B-VP"]), ("joint", ["B-NP", "O"])])
    for ax, wrong in ((axes[0, 0], "f"), (axes[0, 1], "O")):
        assert [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"] == [wrong]
    plotting.plot_image(axes[0, 2], np.full((4, 4), 7))  # one value has no range
    shown = axes[0, 2].images[0].get_array()
    assert np.isfinite(shown).all()
    figure.canvas.draw()


# --- baselines and ceilings -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_baselines_stand_below_the_table(request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each split, on its test data; the mean and its error are those of any score."""

    def find(model: ChainCRF, data: Any, split: Split, path: str) -> dict[str, float]:
        assert data is split.test
        return {"letters": float(split.train.inputs[0, 0]), "words": 0.5}

    small = replace(arms.TASKS["small"], baselines={"a list": find})
    monkeypatch.setattr(arms, "TASKS", {"small": small})
    (tmp_path / "made-up-runs.jsonl").unlink()  # runs without the baseline
    study = replace(STUDY, objectives=("nll",), step_sizes=(0.03,), joint=())
    entries, _ = _results(request_, study)
    values = [float(_load("", split).train.inputs[0, 0]) for split in (0, 1)]
    found = verdicts.baselines_of(entries)["a list"]
    assert found["letters"]["mean"] == pytest.approx(np.mean(values))
    assert found["letters"]["standard_error"] == pytest.approx(abs(values[1] - values[0]) / 2)
    assert f"- a list: letters {100 * np.mean(values):.2f} +- " in markdown("made up", study, entries)
    assert numbers_of(study, entries, quick=False)["baselines"]["a list"]["words"]["mean"] == 0.5


@pytest.mark.slow
def test_the_baselines_of_the_real_tasks(data_folder: Path) -> None:
    tasks = {**arms.TASKS}
    found = {}
    for name in ("chunking", "segmentation"):
        data = tasks[name].load(str(data_folder), 0)
        found[name] = {
            title: score(None, data.test, data, str(data_folder)) for title, score in tasks[name].baselines.items()
        }
    assert round(100 * found["chunking"]["most frequent tag of each part of speech"]["chunk F1"], 2) == 77.07
    facts = ae.audit(data_folder, kind="masks")
    mask, annotations = found["segmentation"].values()
    assert mask["foreground IoU"] == facts["foreground IoU, one mask for all"]
    least, most = (facts[f"IoU of two annotations of one photograph, {end}"] for end in ("least", "most"))
    assert least < annotations["foreground IoU"] < most
    assert len(data.seen) == 1
