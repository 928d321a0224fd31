"""The word rule and the counts against naive oracles, saved tokenizers, and the cache under damage."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from attnembed.attention import text as text_module
from attnembed.attention.data import TokenDataset
from attnembed.attention.text import ReviewCounts, Tokenizer, count_reviews, drop_empty
from attnembed.errors import AttnembedError, DataFileError, InputError

# Signs on which the rule turns are drawn often enough to meet.
signs = st.sampled_from("aAbz09'’_ -.\n<br />é\u0301İßΣς½²\u00a0\u4e2d")
texts = st.lists(st.one_of(signs, st.characters(), st.sampled_from(["<br />", "<BR/>", "''", "don't"]))).map("".join)
few_words = ["a", "b", "c", "d", "e'", "don't", "É", "_"]
corpora = st.lists(st.lists(st.sampled_from(few_words), max_size=8).map(" ".join), max_size=12)


def words_of(text: str) -> list[str]:
    """The rule as a regular expression."""
    text = unicodedata.normalize("NFC", re.sub("<br */?>", " ", text.lower())).replace("’", "'")
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text)


def words_with_marks(text: str) -> list[str]:
    """The rule with marks, as a regular expression over the kinds of the signs."""
    text = unicodedata.normalize("NFC", re.sub("<br */?>", " ", text.lower())).replace("’", "'")
    kinds = ""
    for sign in text:
        mark = unicodedata.category(sign) in ("Mn", "Mc", "Me") or sign in "\N{ZERO WIDTH JOINER}\u200c"
        kinds += "L" if sign.isalnum() else "M" if mark else "'" if sign == "'" else " "
    return [text[found.start() : found.end()] for found in re.finditer("L[LM]*(?:'L[LM]*)*", kinds)]


def counts_of(documents: list[str], vocabulary: tuple[str, ...]) -> np.ndarray:
    return np.array([[Counter(words_of(text))[word] for word in vocabulary] for text in documents])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("<br /><br />", []),
        ("One<br />two<BR/>three<br>four", ["one", "two", "three", "four"]),
        ("Don't 'quote' the 90's rock'n'roll ''", ["don't", "quote", "the", "90's", "rock'n'roll"]),
        ("it’s a''b '' c' 'd e'''f", ["it's", "a", "b", "c", "d", "e", "f"]),
        ("snake_case _emphasis_ 3.5/5", ["snake", "case", "emphasis", "3", "5", "5"]),
        ("CAFÉ cafe\u0301 ΣΑΣ 中文", ["café", "café", "σας", "中文"]),
        ("tab\tand\u00a0no-break", ["tab", "and", "no", "break"]),
        ("a\ud800b", ["a", "b"]),
    ],
)
def test_rule(text: str, words: list[str]) -> None:
    assert Tokenizer().tokenize(text) == words
    assert Tokenizer(max_length=2).tokenize(text) == words[:2]


@given(texts)
def test_rule_is_the_regular_expression(text: str) -> None:
    words = Tokenizer().tokenize(text)
    assert words == words_of(text)
    assert Tokenizer().tokenize(" ".join(words)) == words  # saved vocabularies are checked by this


@given(
    documents=corpora,
    others=corpora,
    min_documents=st.integers(1, 3),
    max_vocabulary=st.none() | st.integers(1, 4),
    max_length=st.none() | st.integers(1, 5),
    batch=st.integers(1, 20),
)
def test_counts_are_those_of_the_oracle(
    documents: list[str],
    others: list[str],
    min_documents: int,
    max_vocabulary: int | None,
    max_length: int | None,
    batch: int,
) -> None:
    cut = [words_of(text)[:max_length] for text in documents]
    totals = Counter(word for words in cut for word in words)
    holders = Counter(word for words in cut for word in set(words))
    expected = sorted((word for word in totals if holders[word] >= min_documents), key=lambda w: (-totals[w], w))
    tokenizer = Tokenizer(min_documents=min_documents, max_vocabulary=max_vocabulary, max_length=max_length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "_BATCH_WORDS", batch)
        if not expected:
            with pytest.raises(InputError, match="`documents` must leave at least one word"):
                tokenizer.fit(documents)
            return
        together = tokenizer.fit_transform(iter(documents))
        assert tokenizer.vocabulary == tuple(expected[:max_vocabulary])
        assert Tokenizer(**tokenizer._options()).fit(iter(documents)).vocabulary == tokenizer.vocabulary
        again, new = tokenizer.transform(iter(documents)), tokenizer.transform(others)
    for counts, source in ((together, documents), (again, documents), (new, others)):
        assert isinstance(counts, sp.csr_array)
        assert counts.dtype == np.float64
        assert counts.indices.dtype == np.int32
        assert np.all(counts.data > 0)
        assert sp.csr_array((counts.data, counts.indices, counts.indptr), shape=counts.shape).has_canonical_format
        oracle = counts_of([" ".join(words_of(text)[:max_length]) for text in source], tokenizer.vocabulary)
        np.testing.assert_array_equal(counts.toarray(), oracle.reshape(counts.shape))


def test_texts_without_a_known_word_keep_their_row() -> None:
    tokenizer = Tokenizer().fit(["good film", "bad film"])
    counts = tokenizer.transform(["good", "unknown", "", "bad bad"])
    labels = np.array([1.0, 1.0, -1.0, -1.0])
    np.testing.assert_array_equal(counts.sum(axis=1), [1, 0, 0, 2])
    kept_counts, kept_labels, kept = drop_empty(counts, labels)
    np.testing.assert_array_equal(kept, [0, 3])
    np.testing.assert_array_equal(kept_labels, [1, -1])
    data = TokenDataset.from_counts(kept_counts, kept_labels, vocab=tokenizer.vocabulary)
    np.testing.assert_array_equal(data.counts.toarray(), counts.toarray()[[0, 3]])
    with pytest.raises(InputError):
        TokenDataset.from_counts(counts, labels, vocab=tokenizer.vocabulary)
    with pytest.raises(InputError, match=r"`labels` must have one entry per row \(4\)"):
        drop_empty(counts, labels[:3])
    assert tokenizer.transform([]).shape == (0, 3)


@pytest.mark.parametrize("name", ["min_documents", "max_vocabulary", "max_length"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_unusable_options(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"`{name}`"):
        Tokenizer(**{name: value})  # type: ignore[arg-type]


def test_unusable_documents() -> None:
    tokenizer = Tokenizer()
    for call in (tokenizer.fit, tokenizer.fit_transform):
        for documents, message in (
            ("one text", "must be a collection of texts; got str"),
            (None, "must be a collection of texts; got NoneType"),
            (["a", b"b"], "must hold text; got bytes at 1"),
            ([], "must leave at least one word"),
            (["!", "?"], "must leave at least one word"),
        ):
            with pytest.raises(InputError, match=f"`documents` {message}"):
                call(documents)  # type: ignore[arg-type]
    for use in (lambda: tokenizer.vocabulary, lambda: tokenizer.transform(["a"]), lambda: tokenizer.save("x.json")):
        with pytest.raises(AttnembedError, match="no vocabulary yet"):
            use()


def test_a_failed_fit_keeps_the_vocabulary() -> None:
    tokenizer = Tokenizer().fit(["good film"])
    with pytest.raises(InputError):
        tokenizer.fit(["other words", 5])  # type: ignore[list-item]
    assert tokenizer.vocabulary == ("film", "good")
    assert (
        repr(tokenizer) == "Tokenizer(min_documents=1, max_vocabulary=None, max_length=None, keep_marks=False; 2 words)"
    )


@given(documents=st.lists(texts, min_size=1, max_size=5), options=st.tuples(*[st.none() | st.integers(1, 9)] * 2))
def test_saved_and_loaded(documents: list[str], options: tuple[int | None, int | None]) -> None:
    documents.append("Don't")
    tokenizer = Tokenizer(max_vocabulary=options[0], max_length=options[1]).fit(documents)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        tokenizer.save(path)
        loaded = Tokenizer.load(path)
    assert loaded.vocabulary == tokenizer.vocabulary
    assert loaded._options() == tokenizer._options()
    np.testing.assert_array_equal(loaded.transform(documents).toarray(), tokenizer.transform(documents).toarray())


SAVED = {
    "attnembed_tokenizer": 1,
    "min_documents": 1,
    "max_vocabulary": None,
    "max_length": None,
    "vocabulary": ["good", "don't"],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attnembed_tokenizer": 2}, "is not a tokenizer of version 1"),
        ({"min_documents": 0}, "options that cannot be used: `min_documents`"),
        ({"max_words": 3}, "options that cannot be used"),
        ({"vocabulary": None}, "distinct words"),
        ({"vocabulary": []}, "distinct words"),
        ({"vocabulary": ["good", 5]}, "distinct words"),
        ({"vocabulary": ["good", "good"]}, "distinct words"),
        ({"vocabulary": ["good", "Don't"]}, "distinct words"),
        ({"vocabulary": ["good film"]}, "distinct words"),
    ],
)
def test_altered_tokenizers_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(SAVED))
    assert Tokenizer.load(path).vocabulary == ("good", "don't")
    path.write_text(json.dumps(SAVED | change))
    with pytest.raises(DataFileError, match=message):
        Tokenizer.load(path)


@given(
    st.one_of(st.binary(max_size=30), st.sampled_from([b"[" * 100_000, b"[]", b"5", json.dumps(SAVED).encode()[:-1]]))
)
def test_arbitrary_bytes_are_no_tokenizer(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        path.write_bytes(content)
        with pytest.raises(DataFileError):
            Tokenizer.load(path)
        with pytest.raises(DataFileError, match="cannot be read"):
            Tokenizer.load(folder)


REVIEWS = "1\tA good, good film.\n0\tA bad film\n1\tgood\n0\tBAD plot\n"


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.tsv"
    path.write_text(REVIEWS)
    return path


def assert_same(one: ReviewCounts, other: ReviewCounts) -> None:
    assert one.vocabulary == other.vocabulary
    np.testing.assert_array_equal(one.labels, other.labels)
    for part in ("data", "indices", "indptr"):
        mine, theirs = getattr(one.counts, part), getattr(other.counts, part)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert one.counts.shape == other.counts.shape
    assert other.counts.has_canonical_format


def test_file_to_counts(reviews: Path) -> None:
    tokenizer = Tokenizer()
    result = count_reviews(reviews, tokenizer)
    counts, labels, vocabulary = result
    assert vocabulary == tokenizer.vocabulary == ("good", "a", "bad", "film", "plot")
    np.testing.assert_array_equal(
        counts.toarray(), [[2, 1, 0, 1, 0], [0, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 1]]
    )
    np.testing.assert_array_equal(labels, [1, -1, 1, -1])
    assert repr(result) == "ReviewCounts(4 texts, 5 words, 9 counts, cache off)"
    data = TokenDataset.from_counts(counts, labels, vocab=vocabulary)
    assert data.vocab_size == 5
    with pytest.raises(InputError, match="`tokenizer` must be a Tokenizer"):
        count_reviews(reviews, {})  # type: ignore[arg-type]
    with pytest.raises(DataFileError, match="line 2: has the label '0'"):
        count_reviews(reviews, Tokenizer(), labels="stars")


def test_cache_is_found_by_content_options_and_vocabulary(reviews: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tokenizer = Tokenizer()
    first = count_reviews(reviews, tokenizer, cache=cache)
    assert first.cache == "written"
    fresh = Tokenizer()
    second = count_reviews(reviews, fresh, cache=cache)
    assert second.cache == "read"
    assert fresh.vocabulary == tokenizer.vocabulary
    assert_same(first, second)
    moved = reviews.rename(tmp_path / "moved.txt")
    assert count_reviews(moved, Tokenizer(), cache=cache).cache == "read"
    for result in (
        count_reviews(moved, tokenizer, cache=cache),  # with a vocabulary, words are not learned
        count_reviews(moved, Tokenizer(min_documents=2), cache=cache),
        count_reviews(moved, Tokenizer(max_length=1), cache=cache),
        count_reviews(moved, Tokenizer(), cache=cache, labels="0/1"),
        count_reviews(moved, Tokenizer().fit(["film"]), cache=cache),
    ):
        assert result.cache == "written"
        assert result.counts.shape == (4, len(result.vocabulary))
    moved.write_text(REVIEWS.replace("plot", "film"))
    changed = count_reviews(moved, Tokenizer(), cache=cache)
    assert changed.cache == "written"
    assert "plot" not in changed.vocabulary
    # The same bytes mean something else under a name that says csv.
    with pytest.raises(DataFileError):
        count_reviews(moved.rename(tmp_path / "moved.csv"), Tokenizer(), cache=cache)


def test_cache_of_a_folder_with_splits(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("pos", "neg"):
            (tmp_path / part / label).mkdir(parents=True)
            (tmp_path / part / label / "1.txt").write_text(f"{part} {label}")
    tokenizer, cache = Tokenizer(), tmp_path / "cache"
    train = count_reviews(tmp_path, tokenizer, cache=cache, split="train")
    test = count_reviews(tmp_path, tokenizer, cache=cache, split="test")
    assert (train.cache, test.cache) == ("written", "written")
    assert train.vocabulary == test.vocabulary == ("train", "neg", "pos")
    np.testing.assert_array_equal(test.counts.toarray(), [[0, 1, 0], [0, 0, 1]])
    assert_same(train, count_reviews(tmp_path, Tokenizer(), cache=cache, split="train"))


@given(st.data())
def test_damaged_cache_is_made_anew(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "reviews.tsv")
        path.write_text(REVIEWS)
        good = count_reviews(path, Tokenizer(), cache=folder)
        (entry,) = Path(folder).glob("counts-*.npz")
        content = bytearray(entry.read_bytes())
        where = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[where] ^= data.draw(st.integers(1, 255))
        else:
            del content[where:]
        entry.write_bytes(content)
        again = count_reviews(path, Tokenizer(), cache=folder)
        assert again.cache == "rebuilt"
        assert_same(good, again)
        assert count_reviews(path, Tokenizer(), cache=folder).cache == "read"


def test_interrupted_writing_leaves_what_was_there(reviews: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    target = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer().fit(["good film"])
    tokenizer.save(target)
    before = target.read_bytes()
    with pytest.MonkeyPatch.context() as patch:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Tokenizer().fit(["other"]).save(target)
        with pytest.raises(KeyboardInterrupt):
            count_reviews(reviews, Tokenizer(), cache=cache)
    assert target.read_bytes() == before
    assert list(cache.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "reviews.tsv", "tokenizer.json"]


@pytest.mark.skipif(os.name == "nt", reason="the test ends a process by a signal")
def test_killed_writing_leaves_no_entry(reviews: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    code = (
        "import os, signal, sys; from attnembed.attention.text import Tokenizer, count_reviews\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "count_reviews(sys.argv[1], Tokenizer(), cache=sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(reviews), str(cache)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(cache.glob("counts-*")) == []
    result = count_reviews(reviews, Tokenizer(), cache=cache)
    assert result.cache == "written"
    assert_same(result, count_reviews(reviews, Tokenizer(), cache=cache))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("यह फ़िल्म अच्छी है।", ["यह", "फ़िल्म", "अच्छी", "है"]),
        ("İSTANBUL Iğdır", ["i\u0307stanbul", "iğdır"]),
        ("நல்ல படம்", ["நல்ல", "படம்"]),
        ("\u0301a \u0301 b\u0301", ["a", "b\u0301"]),
        ("d\u0301\u0302'e\u0302x don't", ["d\u0301\u0302'êx", "don't"]),
        ("a'\u0301b", ["a", "b"]),
        ("क\u094d\u200dष \u200dक", ["क\u094d\u200dष", "क"]),
    ],
)
def test_marks_belong_to_words_where_that_is_asked_for(text: str, words: list[str], tmp_path: Path) -> None:
    tokenizer = Tokenizer(keep_marks=True)
    expected = [unicodedata.normalize("NFC", word) for word in words]
    assert tokenizer.tokenize(text) == expected
    assert Tokenizer().tokenize(text) == words_of(text)
    tokenizer.fit([text]).save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").vocabulary == tokenizer.vocabulary
    assert Tokenizer.load(tmp_path / "tokenizer.json").keep_marks


@given(texts | st.text(st.sampled_from("aI'’ \u0301\u093f\u200d-é")))
def test_marks_against_a_regular_expression(text: str) -> None:
    assert Tokenizer(keep_marks=True).tokenize(text) == words_with_marks(text)
    if words_of(text):
        vocabulary = Tokenizer(keep_marks=True).fit([text]).vocabulary
        assert Tokenizer(keep_marks=True).tokenize(" ".join(vocabulary)) == list(vocabulary)


def test_a_saved_tokenizer_without_the_option_is_one_that_does_not_keep_marks(tmp_path: Path) -> None:
    content = {"attnembed_tokenizer": 1, "min_documents": 1, "max_vocabulary": None, "max_length": None}
    (tmp_path / "t.json").write_text(json.dumps({**content, "vocabulary": ["a"]}))
    assert not Tokenizer.load(tmp_path / "t.json").keep_marks
    (tmp_path / "t.json").write_text(json.dumps({**content, "keep_marks": 1, "vocabulary": ["a"]}))
    with pytest.raises(DataFileError, match="has options that cannot be used: `keep_marks` must be True or False"):
        Tokenizer.load(tmp_path / "t.json")


@pytest.mark.parametrize("content", ["[" * 10**5, '{"a":' * 10**5])
def test_a_tokenizer_of_brackets(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(DataFileError, match="is not valid JSON"):
        Tokenizer.load(tmp_path / "t.json")


def entry_with(content: bytes, **changes: Any) -> bytes:
    """A cache entry with some arrays exchanged (None: left out), and the digest that belongs to it."""
    with np.load(io.BytesIO(content[:-32])) as archive:
        arrays = {**archive, **changes}
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in arrays.items() if array is not None})
    return stream.getvalue() + hashlib.sha256(stream.getvalue()).digest()


@pytest.mark.parametrize("words", [10, 2**16 + 1])
def test_columns_are_kept_in_two_bytes_where_they_fit(words: int, tmp_path: Path) -> None:
    """Whatever they are kept in, and in entries with four bytes as well, the counts are the same."""
    text = " ".join(f"w{k}" for k in range(words))
    (tmp_path / "reviews.tsv").write_text(f"1\t{text}\n0\tw1\n")
    counted = [count_reviews(tmp_path / "reviews.tsv", Tokenizer(), cache=tmp_path / "cache") for _ in range(2)]
    (entry,) = (tmp_path / "cache").glob("*.npz")
    with np.load(io.BytesIO(entry.read_bytes()[:-32])) as archive:
        columns = archive["columns"]
    assert columns.itemsize == (2 if words <= 2**16 else 4)
    entry.write_bytes(entry_with(entry.read_bytes(), columns=columns.astype(np.int32)))
    counted.append(count_reviews(tmp_path / "reviews.tsv", Tokenizer(), cache=tmp_path / "cache"))
    assert [found.cache for found in counted] == ["written", "read", "read"]
    for found in counted[1:]:
        assert found.counts.indices.dtype == counted[0].counts.indices.dtype == np.int32
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(found.counts, part), getattr(counted[0].counts, part))


# The good entry: 4 texts, 5 words (a, bad, film, good, one), 9 counts.
FOREIGN: dict[str, dict[str, Any]] = {
    "shifted columns": {"columns": np.arange(9, dtype=np.int32) + 1},
    "columns beyond": {"columns": np.full(9, 5, np.int32)},
    "negative columns": {"columns": np.full(9, -1, np.int32)},
    "repeated columns": {"columns": np.zeros(9, np.int32)},
    "falling columns in two bytes": {"columns": np.arange(9, dtype=np.uint16)[::-1] % 5},
    "fewer columns": {"columns": np.zeros(8, np.int32)},
    "float columns": {"columns": np.zeros(9)},
    "NaN": {"counts": np.full(9, np.nan)},
    "negative counts": {"counts": np.full(9, -1, np.int8)},
    "zero counts": {"counts": np.zeros(9, np.uint8)},
    "large counts": {"counts": np.full(9, 2**53, np.uint64)},
    "object counts": {"counts": np.array([None])},
    "reversed ends": {"ends": np.array([9, 7, 5, 3, 0], np.int32)},
    "falling ends": {"ends": np.array([0, 7, 5, 3, 9], np.int32)},
    "ends beyond": {"ends": np.array([0, 3, 5, 7, 10**6], np.int32)},
    "ends too few": {"ends": np.array([0, 9], np.int32)},
    "no ends": {"ends": np.zeros(0, np.int32)},
    "labels of 7": {"labels": np.array([7, 1, -1, 1], np.int8)},
    "labels of 0": {"labels": np.array([0, 1, -1, 1], np.int8)},
    "one class": {"labels": np.ones(4, np.int8)},
    "float labels": {"labels": np.array([1.0, -1, 1, -1])},
    "too few labels": {"labels": np.array([1, -1], np.int8)},
    "bad UTF-8": {"words": np.frombuffer(b"a b\xff c d e", np.uint8)},
    "a word twice": {"words": np.frombuffer(b"a a bad film good", np.uint8)},
    "no words": {"words": np.frombuffer(b"", np.uint8)},
    "words too few": {"words": np.frombuffer(b"a bad", np.uint8)},
    "words that the rule cannot make": {"words": np.frombuffer(b"a BAD film good one", np.uint8)},
    **{f"no {name}": {name: None} for name in ("counts", "columns", "ends", "labels", "words")},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_an_entry_with_a_digest_is_still_looked_at(reviews: Path, tmp_path: Path, name: str) -> None:
    good = count_reviews(reviews, Tokenizer(), cache=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry_with(entry.read_bytes(), **FOREIGN[name]))
    again = count_reviews(reviews, Tokenizer(), cache=tmp_path / "cache")
    assert again.cache == "rebuilt"
    assert_same(good, again)
    assert count_reviews(reviews, Tokenizer(), cache=tmp_path / "cache").cache == "read"


def test_an_entry_of_other_words_than_the_tokenizer_has(reviews: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer().fit(["film good"])
    good = count_reviews(reviews, tokenizer, cache=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry_with(entry.read_bytes()))
    assert count_reviews(reviews, tokenizer, cache=tmp_path / "cache").cache == "read"
    entry.write_bytes(entry_with(entry.read_bytes(), words=np.frombuffer(b"good film", np.uint8)))
    again = count_reviews(reviews, tokenizer, cache=tmp_path / "cache")
    assert again.cache == "rebuilt"
    assert_same(good, again)


def test_counts_of_reviews_cannot_be_written(reviews: Path) -> None:
    result = count_reviews(reviews, Tokenizer())
    for found in (result, copy.deepcopy(result)):
        for array in (found.counts.data, found.counts.indices, found.counts.indptr, found.labels):
            assert not array.flags.writeable


def test_cache_that_cannot_be_written(reviews: Path) -> None:
    with pytest.raises(DataFileError, match="cannot be written"):
        count_reviews(reviews, Tokenizer(), cache=reviews / "folder")


def test_memory_is_the_counts_not_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """One MB of text in batches of 0.03 MB, of which only 0.02 MB of counts stay."""
    monkeypatch.setattr(text_module, "_BATCH_WORDS", 1 << 12)
    content = " ".join(f"word{k}" for k in range(20))

    def documents() -> Iterator[str]:
        for number in range(200):
            yield f"{number} {content} " * 100

    tracemalloc.start()
    counts = Tokenizer().fit_transform(documents())
    streamed = tracemalloc.get_traced_memory()[1]
    texts = list(documents())
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.sum() == 200 * 100 * 21
    assert streamed < held / 5, f"{streamed / 1e6:.1f} MB streamed, {held / 1e6:.1f} MB with {len(texts)} texts held"


@pytest.mark.slow
def test_the_rule_is_stable_on_every_character() -> None:
    """A word of the rule is again a word of the rule, which the check of saved vocabularies rests on."""
    every = " ".join(map(chr, range(sys.maxunicode + 1)))
    words = Tokenizer().tokenize(every)
    assert words == words_of(every)
    assert len(words) > 100_000
    assert Tokenizer().tokenize(" ".join(words)) == words


@pytest.mark.slow
def test_real_reviews(data_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(min_documents=5)
    train = count_reviews(data_folder / "imdb_train.tsv.gz", tokenizer, cache=tmp_path)
    assert train.counts.shape[0] == 25_000
    assert tokenizer.vocabulary[:3] == ("the", "and", "a")
    test = count_reviews(data_folder / "imdb_test.tsv.gz", tokenizer, cache=tmp_path)
    assert test.counts.shape == (25_000, len(tokenizer.vocabulary))
    assert drop_empty(test.counts, test.labels)[2].size == 25_000
    assert_same(test, count_reviews(data_folder / "imdb_test.tsv.gz", tokenizer, cache=tmp_path))
