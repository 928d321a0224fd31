"""Archives of reviews: what is read from them, what is left out, and what is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnembed import _archives, _sources
from attnembed.attention.reviews import iter_reviews, load_reviews
from attnembed.attention.text import Tokenizer, count_reviews
from attnembed.errors import DataFileError, InputError

Files = dict[str, bytes]


def as_zip(files: Files, **options: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **{"compression": zipfile.ZIP_DEFLATED, **options}) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def as_tar(files: Files, mode: str = "w", **options: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, **options) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


PACK: dict[str, Callable[[Files], bytes]] = {
    ".zip": as_zip,
    ".tar": as_tar,
    ".tar.gz": lambda files: as_tar(files, "w:gz"),
    ".tgz": lambda files: as_tar(files, "w:gz", format=tarfile.USTAR_FORMAT),
    ".tar.bz2": lambda files: as_tar(files, "w:bz2", format=tarfile.GNU_FORMAT),
    ".tar.xz": lambda files: as_tar(files, "w:xz"),
}

ACL_IMDB: Files = {
    "aclImdb/README": b"about",
    "aclImdb/imdb.vocab": b"the\nand\n",
    "aclImdb/test/pos/1_9.txt": b"test good",
    "aclImdb/test/neg/0_2.txt": b"test bad",
    "aclImdb/train/labeledBow.feat": b"9 0:1\n",
    "aclImdb/train/pos/10_9.txt": "caf\u00e9".encode(),
    "aclImdb/train/pos/0_10.txt": b"good\nfilm",
    "aclImdb/train/unsup/0_0.txt": b"unknown",
    "aclImdb/train/neg/0_3.txt": b"bad",
}
# What a Mac and Windows add.
LEFT_BEHIND: Files = {
    "__MACOSX/aclImdb/train/pos/._0_10.txt": b"\0\5\x16\7",
    "aclImdb/train/pos/._0_10.txt": b"\0\5\x16\7",
    "aclImdb/train/pos/.DS_Store": b"\0",
    "aclImdb/train/neg/Thumbs.db": b"\0",
    "aclImdb/.git/train/pos/0_1.txt": b"not a review",
}


def write(folder: Path, files: Files, suffix: str) -> Path:
    path = folder / f"archive{suffix}"
    path.write_bytes(PACK[suffix](files))
    return path


@pytest.mark.parametrize("prefix", ["", "./", "some/where/"])
@pytest.mark.parametrize("suffix", PACK)
def test_an_archive_is_read_as_its_folder(tmp_path: Path, suffix: str, prefix: str) -> None:
    path = write(tmp_path, {prefix + name: content for name, content in (ACL_IMDB | LEFT_BEHIND).items()}, suffix)
    for name, content in ACL_IMDB.items():  # what it would be unpacked
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    for split in ("train", "test", None):
        documents, labels = load_reviews(path, split=split)
        unpacked, signs = load_reviews(tmp_path / "aclImdb", split=split)
        assert documents == unpacked
        assert labels.tolist() == signs.tolist()
    assert documents == ["bad", "good\nfilm", "caf\u00e9", "test bad", "test good"]
    assert sorted(tmp_path.rglob("*")) == before  # nothing was written


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("inner", ["data/reviews.csv", "reviews.csv.gz"])
def test_one_file_in_an_archive(tmp_path: Path, suffix: str, inner: str) -> None:
    content = 'label,text\n1,"good, very"\n0,bad\n'.encode("utf-16")
    files = {"readme.txt": b"1\tabout", inner: gzip.compress(content) if inner.endswith("gz") else content}
    path = write(tmp_path, files, suffix)
    assert load_reviews(path).documents == ["good, very", "bad"]
    assert load_reviews(path, label_column="label", member=inner).documents == ["good, very", "bad"]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_several_files_in_an_archive(tmp_path: Path, suffix: str) -> None:
    """yelp_review_polarity_csv.tgz holds readme.txt, train.csv and test.csv."""
    files = {f"p/{part}.csv": f'"2","{part} good"\n"1","bad"\n'.encode() for part in ("train", "test")}
    path = write(tmp_path, {**files, "p/readme.txt": b"about"}, suffix)
    with pytest.raises(
        DataFileError, match=r"several files: 'p/train.csv', 'p/test.csv'; pass one, such as member='tra"
    ):
        load_reviews(path)
    for options in ({"member": "test.csv"}, {"member": "p/test.csv"}, {"split": "test"}):
        assert load_reviews(path, **options).documents == ["test good", "bad"]  # type: ignore[arg-type]
    with pytest.raises(
        DataFileError, match=r"holds no 'dev.csv'; its files are 'p/train.csv', 'p/test.csv', 'p/readme"
    ):
        load_reviews(path, member="dev.csv")
    with pytest.raises(InputError, match="`split` must be one of"):
        load_reviews(path, split="dev")


def test_counting_an_archive(tmp_path: Path) -> None:
    path = write(tmp_path, ACL_IMDB, ".tar.gz")
    cached = [count_reviews(path, Tokenizer(), cache=tmp_path / "cache", split="train") for _ in range(2)]
    assert [counts.cache for counts in cached] == ["written", "read"]
    assert cached[1].vocabulary == ("bad", "caf\u00e9", "film", "good")


def test_names_can_do_no_harm(tmp_path: Path) -> None:
    """Neither a name that leads out of the folder nor a link nor a device is followed."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in (
            "../train/pos/9.txt",
            "/train/pos/8.txt",
            "train/pos/0.txt",
            "train/neg/0.txt",
            "train/neg/\n1.txt",
        ):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
        for kind, name in ((tarfile.SYMTYPE, "train/pos/1.txt"), (tarfile.LNKTYPE, "train/pos/2.txt")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../secret.txt"
            archive.addfile(info)
        info = tarfile.TarInfo("train/pos/3.txt")
        info.type = tarfile.CHRTYPE
        archive.addfile(info)
    path = inside / "a.tar"
    path.write_bytes(stream.getvalue())
    documents, _ = load_reviews(path)
    assert documents == ["train/neg/\n1.txt", "train/neg/0.txt", "train/pos/0.txt", "/train/pos/8.txt"]
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a.tar", "inside", "secret.txt"]
    path.write_bytes(as_zip({"../pos/1.txt": b"a", "C:\\neg\\1.txt": b"b"}))
    with pytest.raises(DataFileError, match="holds only one"):
        load_reviews(path)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a.tar", "inside", "secret.txt"]


SPACES = b" " * 3_000_000
BOMBS = {
    "gzip": gzip.compress(b"1\tgood\n" + SPACES),
    "zip": as_zip({"r.tsv": b"1\tgood\n" + SPACES}),
    "zip of folders": as_zip({"pos/1.txt": SPACES, "neg/1.txt": b"bad"}),
    "tar": as_tar({"r.tsv": b"1\tgood\n" + SPACES}, "w:xz"),
    "tar, behind": as_tar({"a.bin": SPACES, "r.tsv": b"1\tgood\n0\tbad\n"}, "w:bz2"),
    "gzip in zip": as_zip({"r.tsv.gz": gzip.compress(SPACES)}),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: str) -> None:
    monkeypatch.setattr(_sources, "FREE_BYTES", 100_000)
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[bomb])
    assert len(BOMBS[bomb]) < 3_000_000 / 201
    with pytest.raises(DataFileError, match="unpacks to more than 200 times its size"):
        load_reviews(path)


def test_what_unpacks_as_text_does_is_not_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sources, "FREE_BYTES", 0)
    content = "".join(f"{k % 2}\tfilm number {k * k}\n" for k in range(2000)).encode()
    path = tmp_path / "r.tsv.gz"
    path.write_bytes(gzip.compress(content))
    assert len(load_reviews(path).documents) == 2000


def test_what_is_held_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archives, "MAX_HELD", 5000)
    files = {f"{label}/{k}.txt": b"good" * 300 for label in ("pos", "neg") for k in range(2)}
    assert len(load_reviews(write(tmp_path, files, ".zip")).documents) == 4
    with pytest.raises(DataFileError, match="holds more than"):
        load_reviews(write(tmp_path, {**files, "neg/9.txt": b"bad" * 100}, ".zip"))
    monkeypatch.setattr(_archives, "_MAX_MEMBERS", 3)
    with pytest.raises(DataFileError, match="holds more than 3 files"):
        load_reviews(write(tmp_path, files, ".tar"))


def encrypted() -> bytes:
    content = bytearray(as_zip({"r.tsv": b"1\tgood\n0\tbad\n"}))
    content[content.find(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def unknown_compression() -> bytes:
    content = bytearray(as_zip({"r.tsv": b"1\tgood\n0\tbad\n"}))
    content[content.find(b"PK\x01\x02") + 10] = 99
    return bytes(content)


REFUSED = {
    "empty zip": (as_zip({}), {}, "neither pos/ and neg/ nor a file of reviews; its files are none"),
    "nothing to read": (as_zip({"a.png": b""}), {}, "nor a file of reviews; its files are 'a.png'"),
    "a spreadsheet": (as_zip({"xl/workbook.xml": b"", "[Content_Types].xml": b""}), {}, "is an Office document"),
    "one class": (as_zip({"pos/1.txt": b"good"}), {}, "both classes; it holds only one"),
    "no such part": (as_zip({"train/pos/1.txt": b"a"}), {"split": "test"}, "test: does not exist"),
    "encrypted": (encrypted(), {}, "is encrypted"),
    "unknown compression": (unknown_compression(), {}, "is a damaged or truncated archive"),
    "wrong checksum": (
        as_zip({"r.tsv": b"1\tgood\n0\tbad\n"}, compression=zipfile.ZIP_STORED).replace(b"good", b"gold", 1),
        {},
        "is a damaged or truncated archive",
    ),
    "two of a name": (as_zip({"a/r.tsv": b"", "b/r.tsv": b""}), {"member": "r.tsv"}, "several files called 'r.tsv'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    content, options, words = REFUSED[case]
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=words):
        load_reviews(path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["format", "where", "labels", "delimiter"])
def test_options_that_folders_do_not_take(tmp_path: Path, name: str) -> None:
    value = {"format": "csv", "where": {"a": "b"}, "labels": "stars", "delimiter": ";"}[name]
    with pytest.raises(InputError, match=f"`{name}` does not apply"):
        load_reviews(write(tmp_path, ACL_IMDB, ".zip"), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("files", [ACL_IMDB, {"r.tsv": b"1\tgood\n0\tbad\n" * 40}], ids=["folders", "file"])
def test_no_beginning_of_an_archive_is_read(tmp_path: Path, suffix: str, files: Files) -> None:
    """An archive that lacks its end is refused, except where it lacks only what fills up the last block."""
    content = PACK[suffix](files)
    whole = load_reviews(write(tmp_path, files, suffix)).documents
    path = tmp_path / "cut"
    for size in sorted({*range(0, len(content), 1 + len(content) // 40), *range(0, len(content), 512)}):
        path.write_bytes(content[:size])
        try:
            documents = load_reviews(path).documents
        except DataFileError:
            continue
        assert documents == whole
        assert suffix.startswith(".t")


@pytest.mark.parametrize("suffix", PACK)
@given(data=st.data())
def test_damaged_archives_are_read_or_refused(suffix: str, data: st.DataObject) -> None:
    content = bytearray(PACK[suffix](data.draw(st.sampled_from([ACL_IMDB, {"r.tsv": b"1\tgood\n0\tbad\n"}]))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(
            st.binary(max_size=9) | st.sampled_from([b"\0" * 512, b"9" * 12, b"PK\1\2", b"\xff" * 8, b"PK\5\6"])
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
        for options in ({}, {"split": "train"}, {"member": "r.tsv"}):
            message = ""
            try:
                list(iter_reviews(path, **options))  # type: ignore[arg-type]
            except (DataFileError, InputError) as error:
                message = str(error)
            assert "\n" not in message
