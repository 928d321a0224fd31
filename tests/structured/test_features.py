"""Window features against the same features spelled out as text."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from attnembed.errors import AttnembedError, InputError, InputTypeError
from attnembed.structured.corpora import Sentence, load_conll2000
from attnembed.structured.features import TEMPLATES, WindowFeatures


def sentence(*tokens: str) -> Sentence:
    """From "word/TAG" texts."""
    words, tags = zip(*(token.split("/") for token in tokens))
    return Sentence(words, tags, ("O",) * len(words))


def shape(word: str) -> str:
    out = ""
    for c in word:
        kind = "A" if c.isupper() else "a" if c.islower() else "0" if c.isdigit() else c
        out += kind if not out.endswith(kind) else ""
    return out


def spelled(sentence: Sentence) -> list[list[tuple[Any, ...]]]:
    """For each token its 28 features as text; None stands beyond the sentence."""

    def at(values: tuple[str, ...], i: int) -> str | None:
        return values[i] if 0 <= i < len(values) else None

    rows = []
    lower = tuple(word.lower() for word in sentence.words)
    for i, word in enumerate(sentence.words):
        read = {
            "word": lambda k, i=i: at(lower, i + k),
            "pos": lambda k, i=i: at(sentence.pos, i + k),
            "shape": lambda k, word=word: shape(word),
            **{f"prefix{n}": lambda k, i=i, n=n: lower[i][:n] for n in range(1, 5)},
            **{f"suffix{n}": lambda k, i=i, n=n: lower[i][max(len(lower[i]) - n, 0) :] for n in range(1, 5)},
        }
        rows.append([(slot, *(read[name](k) for k in places)) for slot, (name, places) in enumerate(TEMPLATES)])
    return rows


TOKENS = st.tuples(
    st.sampled_from(["a", "A", "b-", "Bb", "x9", "x8", "--", "\xe9a", "abcde", "ABCDF"]), st.sampled_from("NVD")
)
SENTENCES = st.lists(
    st.lists(TOKENS, min_size=1, max_size=6).map(lambda tokens: Sentence(*zip(*tokens), ())), min_size=1, max_size=5
)


@given(train=SENTENCES, test=SENTENCES, min_count=st.integers(1, 2))
def test_ids_stand_for_the_features_as_text(train: list[Sentence], test: list[Sentence], min_count: int) -> None:
    counts = Counter(feature for item in train for row in spelled(item) for feature in row)
    kept = {feature for feature, n in counts.items() if n >= min_count}
    if not kept:
        with pytest.raises(InputError, match="`min_count` must leave at least one feature; got 2"):
            WindowFeatures(min_count=min_count).fit(train)
        return
    features = WindowFeatures(min_count=min_count).fit(train)
    assert features.n_features == 1 + len(kept)
    seen: dict[int, tuple[Any, ...]] = {}
    for part in (train, test):
        ids = features.transform(part)
        assert [array.shape for array in ids] == [(len(item.words), len(TEMPLATES)) for item in part]
        for item, array in zip(part, ids):
            for row, numbers in zip(spelled(item), array.tolist()):
                for feature, number in zip(row, numbers):
                    assert (number > 0) == (feature in kept)
                    if number:
                        assert seen.setdefault(number, feature) == feature
    assert sorted(seen) == list(range(1, features.n_features))


def test_the_templates() -> None:
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 28
    names = Counter(name.rstrip("1234") for name, _ in TEMPLATES)
    assert names == {"word": 7, "pos": 12, "prefix": 4, "suffix": 4, "shape": 1}


def test_neighbours_end_with_the_sentence() -> None:
    features = WindowFeatures().fit([sentence("a/N", "b/V"), sentence("c/D")])
    ids = features.transform([sentence("a/N", "b/V"), sentence("c/D")])
    swapped = features.transform([sentence("c/D"), sentence("a/N", "b/V")])
    assert_array_equal(swapped[1], ids[0])
    assert_array_equal(swapped[0], ids[1])
    together = features.transform([sentence("a/N", "b/V", "c/D")])[0]
    slot = TEMPLATES.index(("word", (1,)))
    assert ids[0][1, slot] != together[1, slot]


def test_unknown_words_and_tags_are_zero_wherever_they_are_read() -> None:
    features = WindowFeatures().fit([sentence("the/D", "cat/N", "ran/V")] * 2)
    known = features.transform([sentence("the/D", "cat/N", "ran/V")])[0]
    assert (known > 0).all()
    ids = features.transform([sentence("the/D", "emu/X", "ran/V")])[0]
    unseen = {TEMPLATES[slot] for slot in np.flatnonzero(ids[0] == 0)}
    assert unseen == {(name, places) for name, places in TEMPLATES if name in ("word", "pos") and 1 in places}
    unseen = {TEMPLATES[slot] for slot in np.flatnonzero(ids[1] == 0)}
    assert unseen == {(name, places) for name, places in TEMPLATES if name != "shape" and 0 in places}


def test_fitting_again_forgets() -> None:
    features = WindowFeatures().fit([sentence("a/N", "b/V")])
    fresh = WindowFeatures().fit([sentence("c/D")])
    again = features.fit(item for item in [sentence("c/D")])
    assert again is features
    assert again.n_features == fresh.n_features
    assert_array_equal(again.transform([sentence("c/D")])[0], fresh.transform([sentence("c/D")])[0], strict=True)
    assert features.transform([]) == []


BAD: list[tuple[Any, type[Exception], str]] = [
    ([], InputError, "`sentences` must hold at least one"),
    (sentence("a/N"), InputTypeError, "`sentences` must hold Sentence objects; got tuple at 0"),
    ([sentence("a/N"), ("b", "V")], InputTypeError, "got tuple at 1"),
    ([Sentence((), (), ())], InputError, "a word and a tag per token, at least one; got 0 and 0 in sentence 0"),
    ([Sentence(("a",), (), ())], InputError, "got 1 and 0 in sentence 0"),
    ([Sentence((3,), ("N",), ("O",))], InputTypeError, "words and tags that are text; got 3"),  # type: ignore[arg-type]
    ([Sentence(("a",), (None,), ("O",))], InputTypeError, "words and tags that are text; got None"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("sentences", "error", "words"), BAD)
def test_what_is_no_sentence_is_named(sentences: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        WindowFeatures().fit(sentences)
    if len(sentences):
        with pytest.raises(error, match=words):
            WindowFeatures().fit([sentence("a/N")]).transform(sentences)


def test_before_fitting() -> None:
    for use in (lambda: WindowFeatures().n_features, lambda: WindowFeatures().transform([])):
        with pytest.raises(AttnembedError, match="no vocabulary yet: call fit"):
            use()
    with pytest.raises(InputError, match="`min_count` must be at least 1; got 0"):
        WindowFeatures(min_count=0)


def test_real_sentences(data_folder: Path) -> None:
    train, test = load_conll2000(data_folder)
    start = time.perf_counter()
    features = WindowFeatures(min_count=3).fit(train)
    train_ids, test_ids = (np.concatenate(features.transform(part)) for part in (train, test))
    assert time.perf_counter() - start < 10  # measured: 1 s
    counts = np.bincount(train_ids.ravel(), minlength=features.n_features)
    assert counts[1:].min() == 3
    assert (test_ids == 0).mean() < 0.08
    tags = test_ids[:, TEMPLATES.index(("pos", (0,)))]
    assert (tags == 0).mean() < 1e-3
