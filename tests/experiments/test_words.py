"""The letters with word types held out: the splits, what a run reports of both populations, and the page."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.experiments import arms, letters, reproduce, words
from attnembed.experiments.arms import ARMS, Run, run_cell
from attnembed.experiments.letters import type_groups, word_types
from attnembed.experiments.tasks import Split, Task
from attnembed.structured.corpora import load_ocr
from attnembed.structured.data import ChainDataset, make_chain_dataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import mlp
from tools.fill_tables import DOCS, PLACES, ROWS, filled, row, with_row

pytestmark = pytest.mark.usefixtures("plain_layout")

TYPES = ("abc", "bca", "cab", "ab", "bc", "ca", "aabbcc", "ccbbaa", "abcabc", "ba")


def _file(folder: Path, types: tuple[str, ...] = TYPES, folds: int = 10) -> Path:
    """Every word type once in every fold; the pixels of a letter are its number and noise."""
    rng = np.random.default_rng(0)
    texts = [word for _ in range(folds) for word in types]
    labels = np.array([ord(letter) - ord("a") for letter in "".join(texts)])
    pixels = (rng.random((labels.size, 128)) < 0.3) | (np.arange(128) % 26 == labels[:, None])
    path = folder / "ocr_letters.npz"
    np.savez(
        path,
        pixels=pixels.astype(np.uint8),
        labels=labels,
        lengths=np.array([len(text) for text in texts]),
        folds=np.repeat(np.arange(folds), len(types)),
    )
    return path


def test_a_type_is_in_one_group_and_training_has_every_letter(tmp_path: Path) -> None:
    texts = [*TYPES, *TYPES]
    group = type_groups(texts)
    assert group.tolist() == type_groups(texts).tolist()
    assert group[: len(TYPES)].tolist() == group[len(TYPES) :].tolist()
    assert np.bincount(group[: len(TYPES)]).tolist() == [2] * 5
    for split in range(5):
        shown = "".join(word for word, g in zip(texts, group) if g not in (split, (split + 1) % 5))
        assert set(shown) == set("abc")


@pytest.mark.parametrize("name", ["ocr-words-small", "ocr-words-large"])
def test_the_populations_are_what_they_are_called(name: str, tmp_path: Path) -> None:
    path = _file(tmp_path)
    tested = set()
    for split in range(5):
        data = arms.TASKS[name].load(str(path), split)
        assert data.known is not None

        def types(part: ChainDataset) -> set[tuple[int, ...]]:
            return {tuple(word.tolist()) for word in part.split(part.known_labels)}

        train, validation, test = types(data.train), types(data.validation), types(data.test)
        assert len(validation) == len(test) == 2
        assert len(train | validation | test) == len(train) + 4
        assert types(data.known[0]) == types(data.known[1]) == train
        assert data.test.n_samples == 20  # both types, in all folds
        images = [{image.tobytes() for image in part.inputs} for part in (data.train, *data.known)]
        assert len(set().union(*images)) == sum(map(len, images))
        tested |= test
    assert len(tested) == len(TYPES)


def test_what_cannot_be_held_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="holds 4 different words, too few to hold some out; at least 5"):
        reproduce("ocr", data=_file(tmp_path, TYPES[:4]), out=tmp_path / "out", split="words")
    rare = ("abz", *TYPES[1:])
    with pytest.raises(DataFileError, match="has too few different words with 'z': a split leaves none of them"):
        reproduce("ocr", data=_file(tmp_path, rare), out=tmp_path / "out", split="words")
    with pytest.raises(DataFileError, match=r"holds no known words for .* in split 0; ten folds are needed"):
        reproduce("ocr", data=_file(tmp_path, folds=2), out=tmp_path / "out", split="words", quick=True)
    with pytest.raises(InputError, match="`split` must be one of 'folds', 'words'"):
        reproduce("ocr", data=tmp_path, out=tmp_path / "out", split="types")
    with pytest.raises(InputError, match="`split` belongs to ocr; got 'words' for chunking"):
        reproduce("chunking", data=tmp_path, out=tmp_path / "out", split="words")
    with pytest.raises(InputTypeError, match="`split` must be text"):
        reproduce("ocr", data=tmp_path, out=tmp_path / "out", split=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`workers` belongs to chunking, ocr, segmentation"):
        reproduce("alignment", out=tmp_path / "out", workers=2)
    with ThreadPoolExecutor(1) as executor, pytest.raises(InputError, match="`executor` exclude each other"):
        reproduce("ocr", out=tmp_path / "out", workers=2, executor=executor)


def _load(path: str, split: int) -> Split:
    data = make_chain_dataset(140, 5, 3, 4, transition=3.0, rng=split)
    parts = np.split(np.arange(140), (60, 80, 100, 120))
    train, validation, test, known, other = (data.subset(part) for part in parts)
    return Split(train, validation, test, known=(known, other))


def _model(split: Split, rng: np.random.Generator) -> ChainCRF:
    return ChainCRF(mlp(4, (5,), 3, rng=rng), rng.normal(size=(3, 3)))


def _scores(model: ChainCRF, data: Any, split: Split) -> dict[str, float]:
    return {"letters": model.accuracy(data), "words": model.sequence_accuracy(data)}


def _base(model: ChainCRF, data: Any, split: Split, path: str) -> dict[str, float]:
    return {"letters": 0.25, "words": float(data is split.test)}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("ocr-words-small", "ocr-words-large", "ocr-words-large-mlp")
    tasks = {name: Task(name, _load, _model, _scores, ("nll",), 20, baselines={"a list": _base}) for name in names}
    monkeypatch.setattr(arms, "TASKS", tasks)
    monkeypatch.setattr(words, "TASKS", tasks)
    arms.task_data.cache_clear()


def test_a_run_reports_both_populations(made_up: None, tmp_path: Path) -> None:
    def record(arm: str) -> dict[str, Any]:
        run = Run("ocr-words-small", str(tmp_path), 0, 0, arm, ("nll",), 0.03, 1.0, 3)
        return dict(run_cell(**run.cell(), rng=np.random.default_rng(0))["nll"])

    plain, online, offline = record("joint"), record("online-new"), record("offline-new")
    for found in (plain, online, offline):
        new = found["populations"]["new"]
        assert new["test"]["new"] == found["test"] != new["test"]["known"]
        assert new["best_epoch"] == found["best_epoch"]
        assert set(new["rescaled"]) == {"known", "new"}
    # Online scaling has just fitted the factor on these words: there is nothing left to gain.
    assert abs(np.log(online["populations"]["new"]["factor"]["new"])) < 0.05
    assert abs(np.log(plain["populations"]["new"]["factor"]["new"])) > 0.1
    # The ratio is the fitted one, not the task's 2.5.
    ratios = set(np.round(offline["history"]["ratio"], 1))
    assert not ratios & {2.4, 2.5, 2.6}


def test_each_selection_has_an_epoch_of_its_own(made_up: None, tmp_path: Path) -> None:
    run = Run("ocr-words-small", str(tmp_path), 0, 0, "joint", ("nll",), 0.1, 1.0, 8)
    data = _load("", 0)
    found = run_cell(**run.cell(), rng=np.random.default_rng(0))["nll"]["populations"]
    assert data.known is not None
    for selection in words.POPULATIONS:
        # Of the two selected models, each is at least as good on the words that selected it.
        other = {"known": "new", "new": "known"}[selection]
        assert found[selection]["validation"][selection]["letters"] >= found[other]["validation"][selection]["letters"]


@pytest.mark.slow
def test_the_page_is_made_from_the_numbers(made_up: None, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        written = reproduce("ocr", data=tmp_path, out=tmp_path, split="words", quick=True, executor=executor)
    names = {path.name for path in written.files}
    assert names == {f"ocr-words{part}" for part in ("-quick.md", "-quick.json", "-quick.png", "-scale-quick.png")}
    numbers = json.loads((tmp_path / "ocr-words-quick.json").read_text())["numbers"]
    text = words.page(numbers)
    assert (tmp_path / "ocr-words-quick.md").read_text().endswith(text)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for title in ("a list", *(arm.title for arm in ARMS.values())):
        assert any(row.startswith(f"| {title} |") for row in rows), title
    known, new = (numbers["sweep"][population]["nll.offline"] for population in words.POPULATIONS)
    assert np.ptp(known) == np.ptp(new) == 0
    assert numbers["sweep"]["known"]["nll.joint"] != numbers["sweep"]["new"]["nll.joint"]
    base = numbers["small training set"]["selected on new words"]["baseline: a list"]
    assert (base["new, words"]["mean"], base["known, words"]["mean"]) == (1.0, 0.0)
    _check_verdicts(written.numbers, tmp_path)


def _check_verdicts(numbers: Any, tmp_path: Path) -> None:
    """By hand, from the records of the store: the scaled arm that validation data choose, less stages."""
    lines = [json.loads(line) for line in (tmp_path / "ocr-words-runs.jsonl").read_text().splitlines()[1:]]
    found: dict[str, dict[int, Any]] = {}
    for line in lines:
        if line["cell"]["multiplier"] == 1:
            record = line["value"]["nll"]["populations"]["new"]
            found.setdefault(line["cell"]["arm"], {})[line["cell"]["split"]] = record
    for population in words.POPULATIONS:
        means = {arm: np.mean([found[arm][k]["validation"][population]["letters"] for k in (0, 1)]) for arm in found}
        arm = max(("offline", "online"), key=means.__getitem__)
        difference = [
            100 * (found[arm][k]["test"][population]["letters"] - found["stage"][k]["test"][population]["letters"])
            for k in (0, 1)
        ]
        verdicts = numbers["small training set"]["verdicts"]
        (one,) = (v for v in verdicts if v["population"] == population and v["question"] == "does scaling reach stages")
        assert (one["arm"], one["answer"]) == (arm, "no verdict")
        np.testing.assert_allclose(one["of"], difference, atol=1e-9)


# --- on the letters themselves ----------------------------------------------------------------------------------------


def test_all_words_are_in_all_folds(data_folder: Path) -> None:
    found = load_ocr(data_folder)
    types = np.array(word_types(found))
    assert np.unique(types).size == 55
    assert all(np.unique(types[found.folds == fold]).size == 55 for fold in range(10))
    data = letters.LETTERS[-1].load(str(data_folder), 3)
    assert data.known is not None
    assert len({tuple(word) for word in data.test.split(data.test.labels)}) == 11
    assert set(data.train.labels.tolist()) == set(range(26))


def test_the_documentation_has_a_place_for_the_tables() -> None:
    assert filled("a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n", "x", "new\n") == (
        "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n"
    )
    for mark, name in PLACES.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        held = text.partition(f"<!-- begin {mark} -->\n")[2].partition(f"\n<!-- end {mark} -->")[0]
        assert held.startswith("**")
        assert filled(text, mark, held) == text
    with pytest.raises(SystemExit, match="no place for y"):
        filled("a\n", "y", "new")


def test_verdicts_have_their_row_in_the_documentation() -> None:
    results = (DOCS / PLACES["ocr-words verdicts"]).read_text(encoding="utf-8")
    said = "not decidable: joint, online scaling is -0.10 +- 0.08 points from stages, plain joint -0.45"
    for label in (label for labels in ROWS.values() for label in labels.values()):
        line = row(label, {"mean_field": said} if label == "horses" else {"ssvm": said})
        cell = "not decidable: -0.10 \u00b1 0.08 (-0.45)"
        first, second = (f"{cell}, with the mean-field bound", "") if label == "horses" else ("", cell)
        assert line == f"| {label} | {first} | {second} |  |  |"
        if first:
            assert with_row(results, line).count(line) == 1
    with pytest.raises(SystemExit, match="0 rows for"):
        with_row(results, "| trees | yes |")
    with pytest.raises(SystemExit, match="is not a verdict"):
        row("chunks", {"nll": "no verdict: quick run"})
