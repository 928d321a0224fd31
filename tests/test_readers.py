"""Every reader of data, given whatever people pass: the files of other readers, foreign formats, damage, folders."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attnembed as ae
from attnembed.attention.text import Tokenizer, count_reviews
from attnembed.errors import AttnembedError, DataFileError
from attnembed.structured.corpora import load_conll2000


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


REVIEWS = b"label\ttext\n1\tgood, good film\n0\tbad film\n"
PIXELS = "\t".join("01" * 64)
IMAGE, MASK = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 32, 32), np.uint8)

# name of a file that a reader takes -> its content
GOOD: dict[str, bytes] = {
    "reviews.tsv": REVIEWS,
    "reviews.csv": b'label,text\n1,"good, good\nfilm"\n0,bad\n',
    "reviews.jsonl": b'{"text": "a", "stars": 5}\n{"text": "b", "stars": 1.0}\n',
    "reviews.json": b'[{"text": "a", "label": true},\n {"text": "b", "label": false}]\n',
    "wide.csv": 'label,text\n1,"good"\n0,bad\n'.encode("utf-16"),
    "folders.zip": zipped(**{"pos/1.txt": b"good", "neg/1.txt": b"bad"}),
    "reviews.zip": zipped(**{"reviews.tsv": REVIEWS, "readme.txt": b"about"}),
    "reviews.tgz": tarred("reviews.tsv", REVIEWS),
    "labeledBow.feat": b"9 0:9 1:1\n2 1:3 # bad\n",
    "letter.data": f"1\ta\t2\t1\t1\t0\t{PIXELS}\t\n2\tb\t-1\t1\t2\t0\t{PIXELS}\t\n".encode(),
    "ocr_letters.npz": npz(pixels=np.eye(5, 128), labels=[2, 0, 1, 0, 3], lengths=[3, 2], folds=[0, 9]),
    "letters.pickle": pickle.dumps(
        {"data": [np.eye(2, 128, dtype=np.uint8)], "labels": [np.array([0, 1])], "folds": np.array([3])}, protocol=4
    ),
    "train.txt": b"-DOCSTART- O\n\nHe PRP B-NP\nran VBD B-VP\n\nStop VB B-VP\n",
    "weizmann32.npz": npz(x_train=IMAGE, y_train=MASK, x_test=IMAGE, y_test=MASK),
}
FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "a null byte": b"\0",
    "null bytes": bytes(2000),
    "all bytes": bytes(range(256)) * 20,
    "blank lines": b"\n\r\n \t\n",
    "marks alone": b"\xff\xfe",
    "half a mark": b"\xef\xbb",
    "UTF-32": "1\tgood\n".encode("utf-32"),
    "deep JSON": b"[" * 200_000,
    "deep JSON objects": b'{"a":' * 100_000,
    "a huge integer": b'{"text": "a", "stars": ' + b"9" * 5000 + b"}\n",
    "a huge integer in an array": b'[{"text": "a", "stars": ' + b"9" * 5000 + b"}]",
    "huge integers": b"9" * 5000 + b"\t" + b"9" * 5000 + b"\n",
    "a huge exponent": b'{"text": "a", "stars": 1e999}\n',
    "a lone surrogate": b'{"text": "\\ud800", "stars": 5}\n{"text": "b", "stars": 1}\n',
    "a quotation mark": b'"',
    "an xlsx": zipped(**{"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<x/>"}),
    "a parquet": b"PAR1" + bytes(100) + b"PAR1",
    "a png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "an npy": b"\x93NUMPY\1\0" + bytes(60),
    "an sqlite": b"SQLite format 3\0" + bytes(90),
    "html": b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
    "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "an empty gzip": gzip.compress(b""),
    "an empty bzip2": bz2.compress(b""),
    "an empty xz": lzma.compress(b""),
    "gzip in gzip": gzip.compress(gzip.compress(REVIEWS)),
    "an xz that wants 4 GiB": lzma.compress(b"x", preset=0)[:12] + bytes(40),
    "json of numbers": json.dumps(list(range(10))).encode(),
}

READERS: dict[str, Callable[[Path], Any]] = {
    "load_reviews": ae.load_reviews,
    "load_reviews, labels": lambda path: ae.load_reviews(path, labels="stars"),
    "load_reviews, jsonl": lambda path: ae.load_reviews(path, format="jsonl"),
    "load_reviews, csv": lambda path: ae.load_reviews(path, format="csv"),
    "load_reviews, member": lambda path: ae.load_reviews(path, member="reviews.tsv"),
    "load_reviews, latin-1": lambda path: ae.load_reviews(path, encoding="latin-1"),
    "count_reviews": lambda path: count_reviews(path, Tokenizer()),
    "load_counts": ae.load_counts,
    "load_counts, vocab": lambda path: ae.load_counts(path, path),
    "load_ocr": ae.load_ocr,
    "load_sentences": ae.load_sentences,
    "load_sentences, utf-16": lambda path: ae.load_sentences(path, encoding="utf-16"),
    "load_conll2000": load_conll2000,
    "load_horses": ae.load_horses,
}
SUFFIXES = ("", ".tsv", ".csv", ".json", ".npz", ".pickle", ".zip", ".gz", ".feat", ".data")


def read_or_refuse(reader: str, path: Path) -> Any:
    """What a reader returns, or None; anything but a result or an error of one line about this file gets out."""
    try:
        return READERS[reader](path)
    except AttnembedError as error:  # InputError: an option that does not go with such a file
        message, about_file = str(error), isinstance(error, DataFileError)
    assert message.startswith(str(path)) == about_file
    assert "\n" not in message
    assert len(message) < 1000 + 2 * len(str(path))
    return None


@pytest.mark.parametrize("name", GOOD)
def test_some_reader_takes_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(GOOD[name])
    assert any(read_or_refuse(reader, path) is not None for reader in READERS)


@pytest.mark.parametrize("reader", READERS)
def test_files_of_others_and_foreign_formats(tmp_path: Path, reader: str) -> None:
    for number, (name, content) in enumerate((GOOD | FOREIGN).items()):
        path = tmp_path / (name if name in GOOD else f"{number}{SUFFIXES[number % len(SUFFIXES)]}")
        path.write_bytes(content)
        read_or_refuse(reader, path)
    for suffix in SUFFIXES:
        (tmp_path / f"folder{suffix}").mkdir()
        read_or_refuse(reader, tmp_path / f"folder{suffix}")
    for odd in (tmp_path / "nowhere.tsv", tmp_path / "0" / "below", Path("a\0b"), Path("x" * 5000)):
        assert read_or_refuse(reader, odd) is None


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="symbolic links")
def test_links(tmp_path: Path, reader: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("loop", "dangling"):
        assert read_or_refuse(reader, tmp_path / name) is None


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good or a foreign file, some bytes changed, cut out, doubled or put in; perhaps compressed or cut."""
    out = bytearray(draw(st.sampled_from([*GOOD.values(), FOREIGN["all bytes"], FOREIGN["UTF-32"]])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(out)))
        to = min(len(out), at + draw(st.integers(0, 9)))
        out[at:to] = draw(
            st.sampled_from(
                [b"", b"\0", b"\n", b"\r", b'"', b"-1", b"9" * 30, b"nan", b"\xff\xfe", b"{", b"[", b":", b"\t"]
            )
            | st.binary(max_size=4)
        )
    content = draw(st.sampled_from([bytes, bytes, gzip.compress, bz2.compress, partial(lzma.compress, preset=0)]))(
        bytes(out)
    )
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


@pytest.mark.parametrize("reader", READERS)
@given(content=damaged(), suffix=st.sampled_from(SUFFIXES))
def test_damaged_bytes(reader: str, content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file{suffix}")
        path.write_bytes(content)
        read_or_refuse(reader, path)
