"""Metrics against cases done by hand and against slow readings of their definitions."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose

from attnembed.errors import InputError, InputTypeError
from attnembed.structured.metrics import (
    ChunkScore,
    chunk_f1,
    chunk_spans,
    foreground_iou,
    letter_accuracy,
    pixel_accuracy,
    word_accuracy,
)

SPANS: dict[str, tuple[list[str], list[tuple[str, int, int]]]] = {
    "nothing": ([], []),
    "outside": (["O", "O"], []),
    "two chunks side by side": (["B-NP", "I-NP", "B-NP"], [("NP", 0, 2), ("NP", 2, 3)]),
    "I at the start": (["I-NP", "I-NP"], [("NP", 0, 2)]),
    "I after O": (["O", "I-NP", "O"], [("NP", 1, 2)]),
    "I of another type": (["B-NP", "I-VP", "I-VP"], [("NP", 0, 1), ("VP", 1, 3)]),
    "I of another type and back": (["B-NP", "I-VP", "I-NP"], [("NP", 0, 1), ("VP", 1, 2), ("NP", 2, 3)]),
    "B of another type": (["B-NP", "B-VP", "I-VP"], [("NP", 0, 1), ("VP", 1, 3)]),
    "a type with a hyphen": (["B-A-B", "I-A-B", "I-A"], [("A-B", 0, 2), ("A", 2, 3)]),
    "up to the end": (["O", "B-NP", "I-NP"], [("NP", 1, 3)]),
}


@pytest.mark.parametrize("case", SPANS)
def test_chunk_spans(case: str) -> None:
    tags, spans = SPANS[case]
    assert chunk_spans(tags) == spans


def test_a_score_by_hand() -> None:
    true = [["B-NP", "I-NP", "B-VP", "O", "B-NP"], ["B-PP", "B-NP", "I-NP"]]
    predicted = [["B-NP", "I-NP", "B-NP", "O", "I-NP"], ["B-PP", "B-NP", "B-NP"]]
    score = chunk_f1(true, predicted)
    # correct: NP 0-2 and NP 4-5 of the first sentence, PP 0-1 of the second
    assert (score.n_true, score.n_predicted, score.n_correct) == (5, 6, 3)
    assert (score.precision, score.recall, score.f1) == (3 / 6, 3 / 5, 6 / 11)
    assert score.by_type == {"NP": ChunkScore(3, 5, 2), "PP": ChunkScore(1, 1, 1), "VP": ChunkScore(1, 0, 0)}
    assert score.by_type["VP"].precision == score.by_type["VP"].recall == score.by_type["VP"].f1 == 0.0
    assert pickle.loads(pickle.dumps(score)) == score


def test_sentences_do_not_run_into_each_other() -> None:
    apart = chunk_f1([["B-NP"], ["I-NP"]], [["B-NP"], ["B-NP"]])
    assert (apart.n_true, apart.n_predicted, apart.n_correct) == (2, 2, 2)
    joined = chunk_f1([["B-NP", "I-NP"]], [["B-NP", "B-NP"]])
    assert (joined.n_true, joined.n_predicted, joined.n_correct) == (1, 2, 0)


def test_no_chunks_at_all() -> None:
    score = chunk_f1([["O", "O"]], [["O", "O"]])
    assert (score.precision, score.recall, score.f1, score.by_type) == (0.0, 0.0, 0.0, {})
    assert chunk_f1([["O"]], [["B-NP"]]).recall == 0.0


# What conlleval does, read literally: it walks through the tokens of both taggings at once, with an O between
# sentences, decides at every token whether a chunk ends before it or begins at it, and remembers whether the current
# chunk began in both with one type.

BEGINS = {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I")}
ENDS = {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O")}


def parts(tag: str) -> tuple[str, str]:
    return (tag[0], tag[2:]) if tag != "O" else ("O", "")


def begins(before: tuple[str, str], now: tuple[str, str]) -> bool:
    return (before[0], now[0]) in BEGINS or (now[0] != "O" and before[1] != now[1])


def ends(before: tuple[str, str], now: tuple[str, str]) -> bool:
    return (before[0], now[0]) in ENDS or (before[0] != "O" and before[1] != now[1])


def conlleval(true: list[list[str]], predicted: list[list[str]]) -> tuple[int, int, int]:
    n_true = n_predicted = n_correct = 0
    last_true = last_guess = ("O", "")
    inside_correct = False
    tokens = [pair for a, b in zip(true, predicted) for pair in [*zip(a, b), ("O", "O")]]
    for true_tag, guess_tag in tokens:
        now_true, now_guess = parts(true_tag), parts(guess_tag)
        end_true, end_guess = ends(last_true, now_true), ends(last_guess, now_guess)
        if inside_correct:
            if end_true and end_guess and last_true[1] == last_guess[1]:
                inside_correct = False
                n_correct += 1
            elif end_true != end_guess or now_true[1] != now_guess[1]:
                inside_correct = False
        begin_true, begin_guess = begins(last_true, now_true), begins(last_guess, now_guess)
        if begin_true and begin_guess and now_true[1] == now_guess[1]:
            inside_correct = True
        n_true += begin_true
        n_predicted += begin_guess
        last_true, last_guess = now_true, now_guess
    return n_true, n_predicted, n_correct


TAGS = st.sampled_from(["O", "B-NP", "I-NP", "B-VP", "I-VP"])
TAGGED = st.lists(st.lists(st.tuples(TAGS, TAGS), max_size=12), min_size=1, max_size=4)


@given(TAGGED)
def test_chunk_f1_is_that_of_conlleval(sentences: list[list[tuple[str, str]]]) -> None:
    true, predicted = ([[pair[k] for pair in sentence] for sentence in sentences] for k in (0, 1))
    score = chunk_f1(true, predicted)
    assert (score.n_true, score.n_predicted, score.n_correct) == conlleval(true, predicted)
    for count in ("n_true", "n_predicted", "n_correct"):
        assert sum(getattr(part, count) for part in score.by_type.values()) == getattr(score, count)
    if score.n_correct:
        precision, recall = (Fraction(score.n_correct, n) for n in (score.n_predicted, score.n_true))
        assert_allclose(score.f1, float(2 * precision * recall / (precision + recall)), rtol=1e-15)
        assert_allclose([score.precision, score.recall], [float(precision), float(recall)], rtol=1e-15)


@given(TAGGED)
def test_a_tagging_agrees_with_itself(sentences: list[list[tuple[str, str]]]) -> None:
    true = [[tag for tag, _ in sentence] for sentence in sentences]
    score = chunk_f1(true, true)
    assert score.n_true == score.n_predicted == score.n_correct
    assert score.f1 == (1.0 if score.n_true else 0.0)


def test_letters_and_words_by_hand() -> None:
    true = [np.array([1, 2, 3]), np.array([4]), np.array([5, 6])]
    predicted = [np.array([1, 0, 0]), np.array([4]), np.array([5, 6])]
    assert letter_accuracy(true, predicted) == 4 / 6  # not the mean of the words' shares, 7/9
    assert word_accuracy(true, predicted) == 2 / 3


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1), min_size=1))
def test_letters_and_words_by_counting(words: list[list[tuple[int, int]]]) -> None:
    true, predicted = ([[pair[k] for pair in word] for word in words] for k in (0, 1))
    right = [a == b for word in words for a, b in word]
    assert letter_accuracy(true, predicted) == sum(right) / len(right)
    assert word_accuracy(true, predicted) == sum(all(a == b for a, b in word) for word in words) / len(words)


MASKS = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.just(2)), elements=st.integers(0, 1)
)


@given(MASKS)
def test_masks_by_counting(pair: Any) -> None:
    true, predicted = pair[..., 0], pair[..., 1]
    sets = [
        [{(i, int(j), int(k)) for j, k in np.argwhere(image == 1)} for i, image in enumerate(masks)]
        for masks in (true, predicted)
    ]
    ratios = [Fraction(len(a & b), len(a | b)) if a | b else Fraction(1) for a, b in zip(*sets)]
    a, b = (set().union(*images) for images in sets)
    iou = foreground_iou(true, predicted)
    assert_allclose(iou.overall, len(a & b) / len(a | b) if a | b else 1.0, rtol=1e-15)
    assert_allclose(iou.mean, float(sum(ratios) / len(ratios)), rtol=1e-15)
    assert_allclose(pixel_accuracy(true, predicted), 1 - len(a ^ b) / true.size, rtol=1e-14)
    assert foreground_iou(true, true) == (1.0, 1.0)


def test_large_images_weigh_more_overall_than_in_the_mean() -> None:
    true, predicted = np.zeros((2, 2, 4, 4), int)
    true[0], predicted[0] = 1, 1  # 16 of 16
    true[1, 0, 0] = predicted[1, 3, 3] = 1  # 0 of 2
    assert foreground_iou(true, predicted) == (16 / 18, 0.5)
    assert pixel_accuracy(true, predicted) == 30 / 32
    assert pixel_accuracy(true + 3, predicted + 3) == 30 / 32  # any labels


BAD: list[tuple[Any, tuple[Any, Any], str]] = [
    (chunk_f1, ([["O"]], []), r"`predicted` must have one entry per sequence \(1\); got 0"),
    (chunk_f1, ([], []), "`true` must hold at least one sequence"),
    (chunk_f1, ([["O"], ["O"]], [["O"], ["O", "O"]]), "one tag per token; got 2 for 1 tokens in sentence 1"),
    (chunk_f1, ([["O"]], [["NP"]]), "`tags` must be 'O', 'B-type' or 'I-type'; got 'NP' at 0"),
    (chunk_f1, ([["O", "B-"]], [["O", "O"]]), "got 'B-' at 1"),
    (chunk_f1, ([["E-NP"]], [["O"]]), "got 'E-NP' at 0"),
    (chunk_f1, ([[3]], [["O"]]), "got 3 at 0"),
    (chunk_f1, (["B-NP"], ["B-NP"]), r"`true` must hold sentences, each a list of tags; got str at 0; .*: \[tags\]"),
    (chunk_f1, (["O", "O"], ["O", "O"]), "`true` must hold sentences"),
    (chunk_f1, ([["O"]], ["O"]), "`predicted` must hold sentences, each a list of tags; got str at 0"),
    (chunk_f1, ("OO", "OO"), "`true` must be a list of sequences; got str"),
    (chunk_f1, ([["O"]], None), "`predicted` must be a list of sequences; got NoneType"),
    (chunk_f1, (iter([["O"]]), [["O"]]), "`true` must be a list of sequences"),
    (chunk_f1, ([3], [3]), "`true` must hold sentences, each a list of tags; got int at 0"),
    (letter_accuracy, (3, 3), "`true` must be a list of sequences; got int"),
    (word_accuracy, ([[1]], iter([[1]])), "`predicted` must be a list of sequences"),
    (letter_accuracy, ([[1]], [[1], [2]]), r"one entry per sequence \(1\); got 2"),
    (letter_accuracy, ([[1, 2]], [[1]]), r"`predicted` must have shape \(2,\); got shape \(1,\); as in sequence 0"),
    (letter_accuracy, ([[1], []], [[1], []]), "must hold integers|at least one label"),
    (word_accuracy, ([np.zeros(0, int)], [np.zeros(0, int)]), "`true` must have at least one label per sequence"),
    (word_accuracy, ([[0.5]], [[1]]), "`true` must hold integers"),
    (pixel_accuracy, (np.zeros((1, 2), int), np.zeros((1, 2), int)), "`true` must have 3 axes"),
    (pixel_accuracy, (np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int)), r"`predicted` must have shape \(1, 2, 2\)"),
    (pixel_accuracy, (np.zeros((0, 2, 2), int), np.zeros((0, 2, 2), int)), "at least one pixel"),
    (foreground_iou, (np.zeros((1, 2, 2)), np.zeros((1, 2, 2), int)), "`true` must hold integers"),
    (foreground_iou, (np.ones((1, 1, 1), int), np.full((1, 1, 1), 2)), "`predicted` must hold only 0 and 1; got 2"),
]


@pytest.mark.parametrize(("metric", "arguments", "words"), BAD)
def test_bad_labelings_are_named(metric: Any, arguments: tuple[Any, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        metric(*arguments)


@pytest.mark.parametrize("tags", ["O", "", 3, None])
def test_tags_of_one_sentence_are_a_list(tags: Any) -> None:
    with pytest.raises(InputTypeError, match="`tags` must be a sequence of tags"):
        chunk_spans(tags)


def test_arrays_of_tags_are_sentences() -> None:
    tags = np.array([["B-NP", "I-NP"], ["O", "B-VP"]])
    assert chunk_f1(tags, tags) == chunk_f1(tags.tolist(), [list(row) for row in tags])
    assert chunk_f1(tuple(map(tuple, tags)), list(tags)).n_correct == 2


@given(seed=st.integers(0, 10**6))
def test_chunks_counted_in_arrays_are_those_of_each_sentence(seed):
    rng = random.Random(seed)
    tags = ["O", "B-x", "I-x", "B-y", "I-y", "B-z-z", "I-z-z"]
    true = [[rng.choice(tags) for _ in range(rng.randint(0, 7))] for _ in range(rng.randint(1, 4))]
    predicted = [[rng.choice(tags) if rng.random() < 0.3 else tag for tag in sentence] for sentence in true]
    counts = [Counter(), Counter(), Counter()]
    for a, b in zip(true, predicted):
        spans, guesses = set(chunk_spans(a)), set(chunk_spans(b))
        for count, found in zip(counts, (spans, guesses, spans & guesses)):
            count.update(kind for kind, _, _ in found)
    score = chunk_f1(true, predicted)
    assert (score.n_true, score.n_predicted, score.n_correct) == tuple(count.total() for count in counts)
    for kind in counts[0] | counts[1]:
        own = score.by_type[kind]
        assert (own.n_true, own.n_predicted, own.n_correct) == tuple(count[kind] for count in counts)
