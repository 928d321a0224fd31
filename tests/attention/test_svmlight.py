"""Counts in the SVMlight format, against scikit-learn's reader where that is right."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import attnembed as ae
from attnembed.attention.svmlight import load_counts
from attnembed.attention.text import drop_empty
from attnembed.errors import DataFileError, InputError

VOCAB = "the\nand\na\nfine\n"
FEAT = "9 0:9 1:1 3:4\n10 0:2\n7\n5 2:1\n1 2:7 1:1\n4 3:1\n"
COUNTS = [[9, 1, 0, 4], [2, 0, 0, 0], [0, 0, 0, 0], [0, 1, 7, 0], [0, 0, 0, 1]]
SIGNS = [1, 1, 1, -1, -1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "imdb.vocab").write_text(VOCAB)
    (tmp_path / "labeledBow.feat").write_text(FEAT)
    return tmp_path


def test_counts_and_their_words(folder: Path) -> None:
    result = load_counts(folder / "labeledBow.feat", folder / "imdb.vocab")
    counts, labels, vocabulary = result
    assert_array_equal(counts.toarray(), COUNTS)
    assert counts.dtype == np.float64
    assert counts.has_canonical_format
    assert labels.tolist() == SIGNS
    assert vocabulary == ("the", "and", "a", "fine")
    assert repr(result) == "LabelledCounts(5 texts, 4 words, 7 counts, 1 neutral dropped)"
    assert load_counts(folder / "labeledBow.feat", vocabulary).vocabulary == vocabulary
    data = ae.TokenDataset.from_counts(*drop_empty(counts, labels)[:2], vocab=vocabulary)
    assert (data.n_samples, data.vocab) == (4, vocabulary)


def test_without_words_the_largest_id_decides(folder: Path) -> None:
    counts, labels, vocabulary = ae.load_counts(folder / "labeledBow.feat")
    assert counts.shape == (5, 4)
    assert vocabulary is None
    kept, signs, _ = drop_empty(counts, labels)
    assert ae.TokenDataset.from_counts(kept, signs, vocab=vocabulary).vocab is None


def test_a_file_without_id_0_is_not_shifted(tmp_path: Path) -> None:
    """scikit-learn's reader guesses where ids start, and moves such a file by a column."""
    path = tmp_path / "a.feat"
    path.write_text("1 1:5 2:1\n0 2:3\n")
    assert_array_equal(load_counts(path, ["a", "b", "c"]).counts.toarray(), [[0, 5, 1], [0, 0, 3]])
    assert_array_equal(load_counts(path, zero_based=False).counts.toarray(), [[5, 1], [0, 3]])
    with pytest.raises(DataFileError, match=r"line 1: must hold ids from 1 to 1; got 2"):
        load_counts(path, ["a"], zero_based=False)
    path.write_text("1 1:5 0:1\n0 2:3\n")
    with pytest.raises(DataFileError, match=r"line 1: holds the id 0.*; pass zero_based=True"):
        load_counts(path, zero_based=False)


@pytest.mark.parametrize(
    "content",
    [
        "1 qid:3 0:2 1:1 # a comment\n# another\n\n0  1:3.0 \n",
        "+1\t0:2\t1:1\r\n0 1:3 0:0\r\n",
        "\ufeff1 1:1 0:2\r0 1:3",
    ],
    ids=["comments, query, blanks", "tabs, a count of 0", "mark, line ends of old Macs, ids in any order"],
)
def test_other_spellings(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.feat"
    path.write_bytes(content.encode())
    counts, labels, _ = load_counts(path)
    assert_array_equal(counts.toarray(), [[2, 1], [0, 3]])
    assert counts.nnz == 3
    assert labels.tolist() == [1, -1]


def test_counts_in_an_archive(folder: Path) -> None:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "labeledBow.feat", "aclImdb/train/labeledBow.feat")
        archive.writestr("aclImdb/test/labeledBow.feat", "9 0:1\n2 1:1\n")
        archive.writestr("aclImdb/train/pos/0_9.txt", "a text")
    with pytest.raises(DataFileError, match=r"holds several files called 'labeledBow\.feat'"):
        load_counts(path)
    assert_array_equal(load_counts(path, member="train/labeledBow.feat").counts.toarray(), COUNTS)
    with pytest.raises(InputError, match="`member` does not apply"):
        load_counts(folder / "labeledBow.feat", member="labeledBow.feat")


BAD: dict[str, tuple[str, dict[str, Any], int | None, str]] = {
    "empty": ("", {}, None, "is empty"),
    "only comments": ("# 1 0:2\n", {}, None, "is empty"),
    "text": ("1\tgood film\n", {}, 1, "a label and pairs id:count of whole numbers, .*; got '1 good film'"),
    "a fraction": ("1 0:2\n0 0:2.5\n", {}, 2, "whole numbers, .*; got '0 0:2.5'"),
    "negative": ("1 0:-2\n", {}, 1, "whole numbers"),
    "not a number": ("1 0:nan\n", {}, 1, "whole numbers"),
    "negative id": ("1 -1:2\n", {}, 1, "whole numbers"),
    "a long id": ("1 99999999999:2\n", {}, 1, "whole numbers"),
    "a large id": ("1 2147483647:2\n", {}, 1, "must hold ids from 0 to 2147483646; got 2147483647"),
    "other digits": ("1 0:\u0662\n", {}, 1, "whole numbers"),
    "an id beyond the words": ("1 0:2\n0 3:1\n", {"vocab": ["a", "b", "c"]}, 2, "ids from 0 to 2; got 3"),
    "an id twice": ("1 0:2 5:1 0:3\n", {}, 1, "holds the id 0 twice"),
    "an id twice, from 1": ("1 5:1 5:3\n", {"zero_based": False}, 1, "holds the id 5 twice"),
    "no scheme": ("11 0:2\n", {}, 1, "labels '11', which fit none of"),
    "not the scheme": ("1 0:2\n2 0:1\n", {"labels": "0/1"}, 2, "label '2'; expected '0', '1'"),
    "one class": ("1 0:2\n1 0:1\n", {}, None, "must hold both classes; its labels are '1'"),
    "unlabelled": ("0 0:2\n0 0:1\n", {"labels": "0/1"}, None, "must hold both classes; it holds only one"),
    "all neutral": ("3 0:2\n3 0:1\n", {"labels": "stars"}, None, "it holds no text"),
    "no words": ("1\n0\n", {}, None, "at least one word"),
    "encoding": ("1 0:2 # \udce9\n", {}, 1, "is not utf-8 text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_with_their_line(tmp_path: Path, case: str) -> None:
    content, options, line, words = BAD[case]
    path = tmp_path / "a.feat"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataFileError, match=words) as caught:
        load_counts(path, **options)
    assert (caught.value.line, caught.value.path) == (line, path)


def test_bad_vocabularies(folder: Path) -> None:
    file, vocab = folder / "labeledBow.feat", folder / "imdb.vocab"
    for content, words in (("", "is empty"), ("the\n\nand\n", "line 2: must hold one word per line")):
        vocab.write_text(content)
        with pytest.raises(DataFileError, match=words):
            load_counts(file, vocab)
    with pytest.raises(DataFileError, match="does not exist"):
        load_counts(file, folder / "nowhere")
    with pytest.raises(InputError, match="`vocab` must be a sequence of words, or a file that holds them; got int"):
        load_counts(file, 3)  # type: ignore[arg-type]
    with pytest.raises(DataFileError, match="is a folder, not a file"):
        load_counts(folder)
    vocab.write_bytes("the\nand\ncaf\u00e9\nfine\n".encode("latin-1"))
    assert load_counts(file, vocab, encoding="latin-1").vocabulary == ("the", "and", "caf\u00e9", "fine")


matrices = st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=2, max_size=6)


@given(rows=matrices, zero_based=st.booleans())
def test_the_same_as_scikit_learn(rows: list[list[int]], zero_based: bool) -> None:
    svmlight = pytest.importorskip("sklearn.datasets")
    counts = sp.csr_array(np.array([[1, 0, 0, 1], [0, 0, 0, 1], *rows]))
    labels = np.arange(counts.shape[0]) % 2
    stream = io.BytesIO()
    svmlight.dump_svmlight_file(sp.csr_matrix(counts), labels, stream, zero_based=zero_based, comment="counts")
    stream.seek(0)
    expected, _ = svmlight.load_svmlight_file(stream, zero_based=zero_based)  # right if it need not guess
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.feat")
        path.write_bytes(stream.getvalue())
        result = load_counts(path, zero_based=zero_based)
    assert_array_equal(result.counts.toarray(), expected.toarray())
    assert result.labels.tolist() == (2.0 * labels - 1).tolist()


pieces = st.sampled_from(
    ["1 0:2\n", "0 1:1\n", "9", " ", ":", "\n", "0:", "1:1 ", "#", "qid:1 ", "-", ".", "99999999999"]
)


@given(content=st.lists(pieces | st.text(max_size=3), max_size=8).map("".join))
def test_arbitrary_text_is_read_or_refused(content: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.feat")
        path.write_bytes(content.encode(errors="surrogatepass"))
        message = ""
        try:
            counts, labels, _ = load_counts(path)
            assert counts.shape[0] == labels.size
            assert counts.has_canonical_format
        except DataFileError as error:
            message = str(error)
        assert "\n" not in message
