"""Audits: facts of small data sets by hand, of the real ones by another path, files, errors."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnembed as ae
from attnembed.__main__ import main
from attnembed.auditing import Audit
from attnembed.auditing.baselines import constant_mask, most_frequent_tags, read_from_list
from attnembed.auditing.ratings import states_rating
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.results import Status
from attnembed.structured.corpora import load_conll2000, load_horses, load_ocr
from attnembed.structured.metrics import foreground_iou

pytestmark = pytest.mark.usefixtures("plain_layout")


def shares(found: Audit) -> dict[str, tuple[float, int | None]]:
    return {fact.name: (fact.value, fact.of) for fact in found.facts}


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_the_facts_of_chains() -> None:
    """Inputs a, b; training reads ab twice with different labels; the test repeats one of the two."""
    a, b = [1.0, 0.0], [0.0, 1.0]
    train = ae.ChainDataset([[a, b], [a, b], [b]], [[0, 1], [0, 0], [1]])
    test = ae.ChainDataset([[a, b], [a]], [[0, 1], [1]])
    found = shares(ae.audit(train, test))
    assert found["sequences"] == (5, 0)
    assert found["positions"] == (8, 0)
    assert found["sequences that occur more than once"] == (3, 5)
    assert found["sequences of the test part that the training part has"] == (1, 2)
    assert found["different sequences with more than one sequence of labels"] == (1, 3)
    assert found["sequences among these"] == (3, 5)
    assert found["sequences of labels in every part"] == (2, 3)  # 01 and 1
    assert found["sequences of the test whose labels training has"] == (2, 2)
    assert found["different inputs of one position with more than one label"] == (2, 2)
    assert found["most frequent of the labels, 0"] == (4, 8)
    assert found["labels right, the most frequent one throughout"] == (
        1 / 3,
        None,
    )  # 0 in training; the test is 0, 1, 1
    assert (found["shortest sequence"][0], found["longest sequence"][0]) == (1, 2)


def test_the_facts_of_grids() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(4, 3, 3, 3)).astype(np.uint8)
    near = images[:1] ^ np.uint8(1)  # every value differs by one
    masks = np.zeros((4, 3, 3), dtype=int)
    masks[:, 0], masks[1, 1] = 1, 1
    other = masks[:1].copy()
    other[0, 1, 0] = 1
    train, test = (
        ae.GridDataset(images, masks),
        ae.GridDataset(np.concatenate([near, images[3:]]), np.concatenate([other, masks[3:]])),
    )
    found = shares(ae.audit(train, test))
    assert found["pairs of images that show one photograph"] == (2, 0)
    assert found["pairs of these across the parts"] == (2, 0)
    assert found["images that another part has, too"] == (2, 6)
    assert found["different images with more than one mask"] == (0, 5)
    assert found["IoU of two annotations of one photograph, least"] == (0.75, None)
    # The mask of training is the first row: 6 of 6 + 1 foreground pixels of the test.
    assert found["foreground IoU, one mask for all"] == (6 / 7, None)
    assert found["pixels right, background throughout"] == (11 / 18, None)


def test_the_facts_of_counts() -> None:
    data = ae.TokenDataset.from_tokens([[0, 2], [0, 2], [1, 2], [2], [2]], [1, 1, -1, 1, -1], vocab_size=3)
    found = shares(ae.audit(data))
    assert found["sequences that occur more than once"] == (4, 5)
    assert found["different sequences with more than one label"] == (1, 3)
    assert found["pure tokens, which one class has"] == (2, 3)
    assert found["sequences with exactly one pure token"] == (3, 5)
    assert found["sequences with the most frequent pure token"] == (2, 0)
    assert found["labels right, the most frequent one throughout"] == (0.6, None)


def test_the_facts_of_reviews(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("2,good film 9/10\n1,bad film\n2,same words\n1,same words\n")
    (tmp_path / "test.csv").write_text("2,bad film\n2,a new one\n1,worse\n")
    found = shares(ae.audit(tmp_path))
    assert found["reviews"] == (7, 0)
    assert found["reviews that occur more than once"] == (4, 7)
    assert found["reviews of the test part that the training part has"] == (1, 3)
    assert found["different reviews with more than one label"] == (2, 5)
    assert found["reviews that state their rating, training"] == (1, 4)
    assert found["pure words, which one class has"] == (4, 7)  # good, 9, 10 and bad
    assert found["labels right, the most frequent one throughout"] == (2 / 3, None)
    parts = shares(ae.audit(tmp_path / "train.csv", tmp_path / "test.csv"))
    assert parts == found
    assert shares(ae.audit(tmp_path / "train.csv"))["reviews"] == (4, 0)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("It gets 7/10 from me", True),
        ("(8.5 / 10)", True),
        ("ten out of ten", True),
        ("I give it 1 out of 10.", True),
        ("Half of ten people left", False),
        ("on 9/10/2001", False),
        ("17/10", False),
        ("3 out of 100", False),
        ("9/100", False),
        ("good, " * 50 + "10/10", True),
    ],
)
def test_ratings(text: str, stated: bool) -> None:
    assert states_rating(text) is stated


def test_the_constant_mask_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    masks = (rng.random((5, 2, 3)) < rng.random((2, 3))).astype(int)
    best = max(
        foreground_iou(masks, np.broadcast_to(np.reshape(pixels, (2, 3)), masks.shape)).overall
        for pixels in itertools.product((0, 1), repeat=6)
    )
    assert foreground_iou(masks, np.broadcast_to(constant_mask(masks), masks.shape)).overall == best


def test_a_list_is_searched_for_the_largest_sum() -> None:
    rng = np.random.default_rng(0)
    known = [rng.integers(0, 3, size=length) for length in (2, 2, 4, 4, 4)]
    unary = [rng.normal(size=(length, 3)) for length in (2, 4, 4, 3)]
    found = read_from_list(unary, known)
    for u, word in zip(unary[:-1], found):
        fitting = [one for one in known if len(one) == len(u)]
        best = max(fitting, key=lambda one: sum(u[i, k] for i, k in enumerate(one)))
        assert word.tolist() == best.tolist()
    assert found[-1].tolist() == unary[-1].argmax(axis=1).tolist()


def test_equally_frequent_tags_are_taken_in_order() -> None:
    assert most_frequent_tags([("A", "A", "B")], [("O", "B-X", "O")]) == {"A": "B-X", "B": "O"}


# --- what comes back --------------------------------------------------------------------------------------------------


def test_an_audit_is_a_frozen_result() -> None:
    found = ae.audit(ae.make_chain_dataset(5, 3, 2, 2, rng=0))
    assert found.status is Status.REACHED_END
    assert found.kind == "chains"
    assert json.loads(json.dumps(found.to_dict()))["facts"]["size"]["sequences"]["value"] == 5
    assert str(found).startswith("# Audit of data in memory (chains)\n\n## Size\n\n- sequences: 5\n")
    with pytest.raises(AttributeError):
        found.kind = "grids"  # type: ignore[misc]
    with pytest.raises(InputError, match="`name` must be one of"):
        found["nothing"]
    axes = found.plot()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert "labels right, the most frequent one throughout" in labels
    assert "longest sequence" not in labels
    assert found.plot(axes) is axes


def test_the_command_writes_a_page_a_figure_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.txt").write_text("He PRP B-NP\nran VBD B-VP\n\nStop VB B-VP\n")
    (tmp_path / "test.txt").write_text("Stop VB O\n")
    out = tmp_path / "out"
    assert main(["audit", str(tmp_path), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [f"audit-sentences.{e}" for e in ("json", "md", "png")]
    page = (out / "audit-sentences.md").read_text()
    assert "- different sentences with more than one sequence of labels: 1 of 2 (50.00 %)" in page
    assert page in capsys.readouterr().out
    assert main(["audit", str(tmp_path / "train.txt"), "--test", str(tmp_path / "test.txt"), "--out", str(out)]) == 0
    assert (out / "audit-sentences.md").read_text().split("\n", 1)[1] == page.split("\n", 1)[1]


def test_what_cannot_be_audited_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="holds no data of a known name"):
        ae.audit(tmp_path)
    (tmp_path / "train.txt").write_text("He PRP B-NP\n")
    (tmp_path / "test.txt").write_text("He PRP B-NP\n")
    (tmp_path / "weizmann32.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"`kind` must name one of the kinds .*; use sentences, masks"):
        ae.audit(tmp_path)
    with pytest.raises(InputError, match="`kind` must be one of"):
        ae.audit(tmp_path, kind="words")
    with pytest.raises(InputError, match="`encoding` belongs to reviews; got kind 'sentences'"):
        ae.audit(tmp_path, kind="sentences", encoding="utf-8")
    with pytest.raises(InputError, match="`test` is part of the file of masks"):
        ae.audit(tmp_path, tmp_path, kind="masks")
    with pytest.raises(InputTypeError, match="`data`"):
        ae.audit(3)
    chains = ae.make_chain_dataset(3, 2, 2, 2, rng=0)
    with pytest.raises(InputTypeError, match="`test` must be a ChainDataset, as `data`; got str"):
        ae.audit(chains, "x")
    with pytest.raises(InputError, match="`data` must have labels"):
        ae.audit(ae.ChainDataset([np.zeros((2, 2))]))


# --- the real data, counted by another path ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_letters(data_folder: Path) -> None:
    found = ae.audit(data_folder, kind="letters")
    letters = load_ocr(data_folder)
    labels, folds = defaultdict(set), defaultdict(set)
    items = [
        (image.tobytes(), int(label), int(fold))
        for word, spelt, fold in zip(letters.words, letters.labels, letters.folds)
        for image, label in zip(word, spelt)
    ]
    for image, label, fold in items:
        labels[image].add(label)
        folds[image].add(fold)
    assert found["different images of letters with more than one letter"] == 141
    assert sum(len(one) > 1 for one in labels.values()) == 141
    assert found["images of letters that another part has, too"] == 3475
    assert sum(len(folds[image]) > 1 for image, _, _ in items) == 3475
    assert found["images of letters among these"] == sum(len(labels[image]) > 1 for image, _, _ in items) == 1537
    assert found["sequences of labels in every part"] == found["different sequences of labels"] == 55


@pytest.mark.slow
def test_the_sentences(data_folder: Path) -> None:
    found = ae.audit(data_folder, kind="sentences")
    train, test = load_conll2000(data_folder)
    known = Counter(sentence.words for sentence in train)
    assert found["sentences of the test part that the training part has"] == 14
    assert sum(sentence.words in known for sentence in test) == 14
    assert round(100 * found["chunk F1, most frequent tag of each part of speech"], 2) == 77.07
    tags = defaultdict(set)
    for sentence in (*train, *test):
        tags[sentence.words].add(sentence.chunks)
    assert found["different sentences with more than one sequence of labels"] == 6
    assert sum(len(one) > 1 for one in tags.values()) == 6
    assert found["words of the test whose tag training has not"] == 2


@pytest.mark.slow
def test_the_masks(data_folder: Path) -> None:
    found = ae.audit(data_folder, kind="masks")
    assert found["pairs of images that show one photograph"] == 9
    assert found["pairs of these across the parts"] == 1
    assert 0.89 < found["IoU of two annotations of one photograph, least"] < 0.9
    assert 0.97 < found["IoU of two annotations of one photograph, most"] < 0.98
    train, test = load_horses(data_folder)
    # No mask that is cut from the mean of training at one level is better on training than the one that was taken.
    mean, mask = train.known_labels.mean(axis=0), constant_mask(train.known_labels)

    def iou(data: Any, one: Any) -> float:
        return foreground_iou(data.known_labels, np.broadcast_to(one, data.known_labels.shape)).overall

    assert iou(train, mask) >= max(iou(train, (mean >= level).astype(int)) for level in np.unique(mean))
    assert found["foreground IoU, one mask for all"] == iou(test, mask)
    assert 0.54 < iou(test, mask) < 0.549  # of levels chosen on the test the best reaches 0.549


@pytest.mark.thorough
def test_the_reviews(data_folder: Path) -> None:
    if not (data_folder / "imdb_test.tsv.gz").exists():
        pytest.skip("needs the reviews of IMDB")
    found = ae.audit(data_folder, kind="reviews")
    test = ae.load_reviews(data_folder / "imdb_test.tsv.gz")
    train = set(ae.load_reviews(data_folder / "imdb_train.tsv.gz").documents)
    assert (
        found["reviews of the test part that the training part has"] == sum(t in train for t in test.documents) == 123
    )
    stated = re.compile(r"\d ?/ ?10(?!\w|/)|\bout +of +(10|ten)\b", re.IGNORECASE)
    rough = np.mean([stated.search(text) is not None for text in test.documents])
    assert abs(found["reviews that state their rating, test"] / 25_000 - 0.088) < 0.001
    assert abs(rough - 0.088) < 0.01
    assert found["pure words among those in 50 or more"] == 0
    assert found["sequences with the most frequent pure word"] == 40
