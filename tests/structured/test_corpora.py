"""Every form in which the three data sets come, and every way in which a file can be wrong."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import pickletools
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imsave
from numpy.testing import assert_allclose, assert_array_equal

from attnembed import _sources
from attnembed.errors import DataFileError, InputError, InputTypeError
from attnembed.structured import horses
from attnembed.structured.corpora import Letters, Sentence, load_conll2000, load_horses, load_ocr, load_sentences
from attnembed.structured.features import WindowFeatures

rng = np.random.default_rng(0)
LENGTHS = [3, 1, 4]
PIXELS = rng.integers(0, 2, (8, 128), dtype=np.uint8)
LABELS = np.array([2, 0, 25, 7, 1, 1, 0, 3])
FOLDS = np.array([0, 9, 3])
ARRAYS: dict[str, Any] = {"pixels": PIXELS, "labels": LABELS, "lengths": np.array(LENGTHS, np.int16), "folds": FOLDS}


def npz(**changes: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: array for name, array in (ARRAYS | changes).items() if array is not None})
    return stream.getvalue()


def rows() -> list[list[str]]:
    table, word = [], 0
    for number, (pixels, label) in enumerate(zip(PIXELS, LABELS), start=11):
        ends = np.cumsum(LENGTHS) + 10
        last = number in ends
        after, letter = -1 if last else number + 1, chr(ord("a") + label)
        table.append([str(x) for x in (number, letter, after, word, 1, FOLDS[word], *pixels)])
        word += last
    return table


def text(table: list[list[str]]) -> bytes:
    return "".join("\t".join(row) + "\t\n" for row in table).encode()


def changed(row: int, column: int, value: str) -> bytes:
    table = rows()
    table[row][column] = value
    return text(table)


def split(array: Any) -> list[Any]:
    return np.split(array, np.cumsum(LENGTHS)[:-1])


def object_array(items: list[Any]) -> Any:
    array = np.empty(len(items), object)
    array[:] = items
    return array


CONTENT = {"data": split(PIXELS), "labels": split(LABELS), "folds": FOLDS}


def python2_pickle() -> bytes:
    """What Python 2 and NumPy 1 wrote: bytes without a mark that tells them from text, and the old module names."""

    def short(code: bytes) -> bytes:
        return b"U" + bytes([len(code)]) + code

    def number(n: int) -> bytes:
        return b"M" + n.to_bytes(2, "little")

    def plain(array: Any) -> bytes:
        code, order = array.dtype.str[1:].encode(), array.dtype.str[:1].encode()
        dtype = (
            b"cnumpy\ndtype\n("
            + short(code)
            + b"K\x00K\x01tR(K\x03"
            + short(order)
            + b"NNN"
            + 2 * b"J\xff\xff\xff\xff"
            + b"K\x00tb"
        )
        shape = b"(" + b"".join(map(number, array.shape)) + b"t"
        raw = array.tobytes()
        data = b"T" + len(raw).to_bytes(4, "little") + raw
        new = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + short(b"b") + b"tR"
        return new + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"

    parts = [
        short(b"data") + b"](" + b"".join(map(plain, CONTENT["data"])) + b"e",
        short(b"labels") + b"](" + b"".join(map(plain, CONTENT["labels"])) + b"e",
        short(b"folds") + plain(FOLDS),
    ]
    return b"\x80\x02}(" + b"".join(parts) + b"u."


OCR_FORMS: dict[str, tuple[str, bytes]] = {
    "npz": ("ocr_letters.npz", npz()),
    "npz, pixels as floats": ("ocr_letters.npz", npz(pixels=PIXELS.astype(float))),
    "text": ("letter.data", text(rows())),
    "text, no tab at the end, line ends of Windows": ("letter.data", text(rows()).replace(b"\t\n", b"\r\n")),
    "text, blank lines": ("letter.data", text(rows()).replace(b"\n", b"\n\n")),
    "gzip": ("letter.data.gz", gzip.compress(text(rows()))),
    "pickle of Python 2": ("letters.pickle", python2_pickle()),
    **{f"pickle, protocol {p}": ("letters.pickle", pickle.dumps(CONTENT, protocol=p)) for p in range(5)},
    "pickle of object arrays": (
        "letters.pickle",
        pickle.dumps({**CONTENT, "data": object_array(split(PIXELS)), "labels": object_array(split(LABELS))}, 4),
    ),
    "pickle, by columns": (
        "letters.pickle",
        pickle.dumps({**CONTENT, "data": [np.asfortranarray(word) for word in split(PIXELS)]}, protocol=4),
    ),
    "pickle, other byte order": (
        "letters.pickle",
        pickle.dumps({**CONTENT, "labels": [word.astype(">i2") for word in split(LABELS)]}, protocol=4),
    ),
}


def assert_same(letters: Letters) -> None:
    assert [len(word) for word in letters.labels] == LENGTHS
    assert_array_equal(np.concatenate(letters.words), PIXELS, strict=True)
    assert_array_equal(np.concatenate(letters.labels), LABELS)
    assert_array_equal(letters.folds, FOLDS)
    assert len(letters) == 3
    assert repr(letters) == "Letters(3 words, 8 letters)"
    for array in (*letters.words, *letters.labels, letters.folds):
        assert not array.flags.writeable


@pytest.mark.parametrize("form", OCR_FORMS)
def test_every_form_of_the_letters_is_the_same(tmp_path: Path, form: str) -> None:
    name, content = OCR_FORMS[form]
    path = tmp_path / name
    path.write_bytes(content)
    assert_same(load_ocr(path))
    assert_same(load_ocr(str(tmp_path)))


def test_the_handmade_pickle_is_one_of_python_2() -> None:
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(python2_pickle())}
    assert {"BINSTRING", "SHORT_BINSTRING", "GLOBAL"} <= opcodes
    assert not opcodes & {"BINUNICODE", "BINBYTES", "STACK_GLOBAL"}


class Evil:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        (os.mkdir, ("done",), f"{os.mkdir.__module__}.mkdir"),
        (eval, ("__import__('os').mkdir('done')",), "builtins.eval|__builtin__.eval"),
        (np.fromfile, ("letters.pickle",), "numpy.*fromfile"),
        (np.ndarray.tofile, (np.ones(1), "done"), ".*getattr|numpy.ndarray.tofile"),
    ],
)
def test_a_pickle_that_asks_for_anything_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, call: Callable[..., Any], arguments: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({**CONTENT, "extra": Evil(call, *arguments)}, protocol=protocol)
    Path("letters.pickle").write_bytes(content)
    with pytest.raises(DataFileError, match=f"^letters.pickle: asks for '({name})'; .* NumPy arrays only$"):
        load_ocr("letters.pickle")
    assert not Path("done").exists()
    if call is os.mkdir:  # the control: an unpickler that refuses nothing makes the folder
        pickle.loads(content)
        assert Path("done").exists()


def test_numpy_itself_is_never_called(tmp_path: Path) -> None:
    # With numpy.ndarray itself, this would ask for 8 EB of memory; here it is only a word without a shape.
    path = tmp_path / "letters.pickle"
    path.write_bytes(pickle.dumps({**CONTENT, "data": [Evil(np.ndarray, (10**18,))]}, protocol=4))
    with pytest.raises(DataFileError, match="is not a readable pickle of words"):
        load_ocr(path)


BAD_OCR: dict[str, tuple[str, bytes, int | None, str]] = {
    "npz, truncated": ("ocr_letters.npz", npz()[:-30], None, "is not a readable npz archive"),
    "npz, wrong keys": ("ocr_letters.npz", npz(folds=None), None, r"lacks the array\(s\) folds"),
    "npz, pixels of another shape": (
        "a.npz",
        npz(pixels=PIXELS[:, 1:]),
        None,
        r"shape \(8, 128\).* got shape \(8, 127",
    ),
    "npz, as images": ("a.npz", npz(pixels=PIXELS.reshape(8, 16, 8)), None, r"got shape \(8, 16, 8\)"),
    "npz, grey pixels": ("a.npz", npz(pixels=PIXELS / 2), None, r"pixels that are integers in 0\.\.1; got 0\.5"),
    "npz, pixels are text": ("a.npz", npz(pixels=PIXELS.astype(str)), None, "as numbers; got .* <U3"),
    "npz, missing label": ("a.npz", npz(labels=LABELS[1:]), None, r"labels of shape \(8,\), .* got shape \(7,\)"),
    "npz, label 26": ("a.npz", npz(labels=LABELS + 1), None, r"labels that are integers in 0\.\.25; got 26"),
    "npz, fold 10": ("a.npz", npz(folds=FOLDS + 1), None, r"folds that are integers in 0\.\.9; got 10"),
    "npz, fold missing": ("a.npz", npz(folds=FOLDS[1:]), None, r"folds of shape \(3,\)"),
    "npz, empty word": ("a.npz", npz(lengths=np.array([0, 4, 4])), None, "words of at least one letter"),
    "npz, no word": ("a.npz", npz(lengths=np.zeros(0, int)), None, "at least one word"),
    "npz, one length": ("a.npz", npz(lengths=np.array(8)), None, "words of at least one letter"),
    "text, empty": ("letter.data", b"", None, "at least one word"),
    "text, a column missing": (
        "letter.data",
        text([rows()[0], rows()[1][:-1]]),
        2,
        "id, letter, next_id, .* 128 pixels .* got 133 columns",
    ),
    "text, spaces": ("letter.data", text(rows()).replace(b"\t", b" "), 1, "got 1 columns"),
    "text, capital": ("letter.data", changed(3, 1, "A"), 4, "a letter a to z; got 'A'"),
    "text, two letters": ("letter.data", changed(3, 1, "ab"), 4, "a letter a to z; got 'ab'"),
    "text, fold": ("letter.data", changed(0, 5, "10"), 1, "a fold 0 to 9; got '10'"),
    "text, pixel": ("letter.data", changed(7, 50, "2"), 8, "pixels 0 and 1"),
    "text, two pixels in one": ("letter.data", changed(7, 50, "01"), 8, "pixels 0 and 1"),
    "text, lines in another order": ("letter.data", text(rows()[:1] + rows()[2:]), 2, "id 12 and fold 0.*; got id 13"),
    "text, fold changes within a word": ("letter.data", changed(1, 5, "4"), 2, "got id 12 and fold 4"),
    "text, ends within a word": ("letter.data", text(rows()[:-1]), None, "the letter with id 18 is missing"),
    "text, gzip truncated": ("letter.data.gz", gzip.compress(text(rows()))[:-9], 9, "truncated"),
    "pickle, empty": ("letters.pickle", b"", None, "is not a readable pickle of words"),
    "pickle, truncated": ("letters.pickle", pickle.dumps(CONTENT)[:-30], None, "is not a readable pickle of words"),
    "pickle, not a dict": ("letters.pickle", pickle.dumps([1]), None, "is not a readable pickle of words under data"),
    "pickle, no folds": ("letters.pickle", pickle.dumps({"data": [], "labels": []}), None, "data, labels and folds"),
    "pickle, words of two shapes": (
        "letters.pickle",
        pickle.dumps({**CONTENT, "data": [PIXELS[:3], PIXELS[:1, 1:], PIXELS[:4]]}, protocol=4),
        None,
        "is not a readable pickle of words",
    ),
    "pickle, labels of another length": (
        "letters.pickle",
        pickle.dumps({**CONTENT, "labels": split(LABELS)[::-1]}, protocol=4),
        None,
        "one label for each letter",
    ),
    "pickle, array that lacks bytes": (
        "letters.pickle",
        python2_pickle().replace(b"T\x18\x00\x00\x00", b"T\x17\x00\x00\x00", 1),
        None,
        "is not a readable pickle",
    ),
    "pickle, protocol 5": ("a.pkl", pickle.dumps(CONTENT, protocol=5), None, r"asks for 'numpy\..*_frombuffer'"),
}


@pytest.mark.parametrize("case", BAD_OCR)
def test_bad_letters_are_named(tmp_path: Path, case: str) -> None:
    name, content, line, words = BAD_OCR[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=words) as caught:
        load_ocr(path)
    assert caught.value.line == line
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["npz", "gzip", "pickle of Python 2", "pickle, protocol 0", "pickle, protocol 4"])
def test_no_beginning_of_a_file_is_read(tmp_path: Path, form: str) -> None:
    name, content = OCR_FORMS[form]
    path = tmp_path / name
    for size in range(0, len(content), 1 + len(content) // 60):
        path.write_bytes(content[:size])
        with pytest.raises(DataFileError):
            load_ocr(path)


def test_folders_without_the_file(tmp_path: Path) -> None:
    hints = {
        load_ocr: "holds none of ocr_letters.npz, letter.data, letter.data.gz, letters.pickle",
        load_conll2000: "holds none of train.txt, train.txt.gz, conll2000/train.txt, conll2000/train.txt.gz",
        load_sentences: "holds none of train.txt, train.txt.gz",
        load_horses: "holds none of weizmann32.npz, horse, rgb",
    }
    for load, hint in hints.items():
        with pytest.raises(DataFileError, match=hint):
            load(tmp_path)
        with pytest.raises(DataFileError, match="nowhere: does not exist"):
            load(tmp_path / "nowhere")
        with pytest.raises(DataFileError, match="does not exist"):
            load("a\0b")
        with pytest.raises(InputTypeError, match="`path` must be a path; got list"):
            load([tmp_path])  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------------- chunks

SENTENCES = (
    Sentence(("He", "ran", "."), ("PRP", "VBD", "."), ("B-NP", "B-VP", "O")),
    Sentence(("caf\xe9\xa0bar",), ("NN",), ("I-NP",)),
)


@pytest.mark.parametrize(
    "content",
    [
        "He PRP B-NP\nran VBD B-VP\n. . O\n\ncaf\xe9\xa0bar NN I-NP\n",
        "He PRP B-NP\nran VBD B-VP\n. . O\n\ncaf\xe9\xa0bar NN I-NP",
        "\n\nHe\tPRP\tB-NP\r\nran  VBD B-VP \r\n. . O\r\n\r\n \r\ncaf\xe9\xa0bar NN I-NP\r\n\r\n",
    ],
    ids=["as handed out", "no line end at the end", "tabs, blanks, line ends of Windows"],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_sentences(tmp_path: Path, content: str, zipped: bool) -> None:
    raw = content.encode("latin-1")
    path = tmp_path / ("train.txt" + ".gz" * zipped)
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    assert load_sentences(path) == SENTENCES
    assert load_sentences(tmp_path) == SENTENCES


@pytest.mark.parametrize("inner", ["", "conll2000"])
def test_training_and_test_sentences(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    (folder / "train.txt").write_text("He PRP B-NP\nran VBD B-VP\n. . O\n")
    with pytest.raises(DataFileError, match=r"holds none of test\.txt"):
        load_conll2000(tmp_path)
    (folder / "test.txt.gz").write_bytes(gzip.compress("caf\xe9\xa0bar NN I-NP\n".encode("latin-1")))
    assert load_conll2000(tmp_path) == (SENTENCES[:1], SENTENCES[1:])
    with pytest.raises(
        DataFileError, match=r"must be a folder with train\.txt and test\.txt; load_sentences reads one"
    ):
        load_conll2000(folder / "train.txt")


BAD_SENTENCES: dict[str, tuple[bytes, int | None, str]] = {
    "empty": (b"", None, "is empty"),
    "only blank lines": (b"\n\n", None, "is empty"),
    "one column": (b"a\n", 1, "a word and its tag, .*; got 'a'"),
    "five columns": (b"a NN O O O\n", 1, "a word and its tag, with its POS tag or .*; got 'a NN O O O'"),
    "fewer columns": (b"a NN O\n\nb NN\n", 3, "2 columns where the first line has 3; got 'b NN'"),
    "more columns": (b"a O\n\nb NN O\n", 3, "3 columns where the first line has 2; got 'b NN O'"),
    "only document marks": (b"-DOCSTART- -X- O O\n\n", None, "is empty"),
    "half a character of UTF-16": (b"\xff\xfea\0 \0O\0\n\0b", 2, "is not utf-16-le text"),
    "UTF-8 by its mark, and damaged": (b"\xef\xbb\xbfa O\nb\xe9 O\n", 2, "is not utf-8 text"),
    "zip": (b"PK\3\4" + bytes(30), None, "is a zip archive; unpack it first"),
    "not a chunk tag": (b"a NN O\nb NN NP\n", 2, "a chunk tag O, B-type or I-type; got 'NP'"),
    "a tag without type": (b"a NN B-\n", 1, "got 'B-'"),
    "truncated": (gzip.compress(b"a NN O\n")[:-5], 2, "truncated"),
}


@pytest.mark.parametrize("case", BAD_SENTENCES)
def test_bad_sentences_are_named_with_their_line(tmp_path: Path, case: str) -> None:
    content, line, words = BAD_SENTENCES[case]
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=words) as caught:
        load_sentences(path)
    assert caught.value.line == line


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "latin-1", "cp1252"])
def test_encodings_of_sentences(tmp_path: Path, encoding: str) -> None:
    """UTF-8, UTF-16 and latin-1 are told apart; all others have to be named."""
    path = tmp_path / "train.txt"
    words = ("caf\xe9", "na\xefve", "\u20ac" if encoding != "latin-1" else "\xa3")
    path.write_bytes("".join(f"{word} NN B-NP\n" for word in words).encode(encoding))
    expected = (Sentence(words, ("NN",) * 3, ("B-NP",) * 3),)
    assert load_sentences(path, encoding=encoding) == expected
    if encoding == "utf-16-be":
        with pytest.raises(DataFileError, match=r'looks like UTF-16 .*; pass encoding="utf-16-be"'):
            load_sentences(path)
        path.write_bytes(b"\xfe\xff" + path.read_bytes())
    if encoding != "cp1252":
        assert load_sentences(path) == expected


def test_the_encoding_of_both_parts(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / f"{part}.txt").write_bytes("\u0436 NN O\n".encode("koi8-r"))
    train, test = load_conll2000(tmp_path, encoding="koi8-r")
    assert train == test == (Sentence(("\u0436",), ("NN",), ("O",)),)
    with pytest.raises(InputError, match="`encoding` must name a text encoding"):
        load_sentences(tmp_path, encoding="klingon")


CONLL2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
-DOCSTART- -X- O O
German JJ B-NP B-MISC
"""


def test_other_numbers_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "eng.train"
    path.write_text(CONLL2003)
    first, second = load_sentences(path)
    assert first == Sentence(("EU", "rejects"), ("NNP", "VBZ"), ("B-ORG", "O"))
    assert second == Sentence(("German",), ("JJ",), ("B-MISC",))
    assert [sentence.chunks for sentence in load_sentences(path, tag_column=2)] == [("B-NP", "B-VP"), ("B-NP",)]
    with pytest.raises(DataFileError, match=r"line 3: has no column 4; got 'EU NNP"):
        load_sentences(path, tag_column=4)
    with pytest.raises(InputError, match="`tag_column` must be at least 1"):
        load_sentences(path, tag_column=0)
    path.write_text("-DOCSTART-\tO\n\nEU\tB-ORG\nrejects\tO\n")
    assert load_sentences(path) == (Sentence(("EU", "rejects"), ("_", "_"), ("B-ORG", "O")),)
    assert WindowFeatures().fit(load_sentences(path)).transform(load_sentences(path))[0].shape == (2, 28)


@pytest.mark.parametrize("suffix", [".bz2", ".xz"])
def test_other_compressions(tmp_path: Path, suffix: str) -> None:
    pack = {".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
    (tmp_path / f"train.txt{suffix}").write_bytes(pack(b"a NN O\r"))  # with the line end of old Macs
    assert load_sentences(tmp_path / f"train.txt{suffix}") == (Sentence(("a",), ("NN",), ("O",)),)
    (tmp_path / f"letter.data{suffix}").write_bytes(pack(text(rows())))
    assert_same(load_ocr(tmp_path / f"letter.data{suffix}"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for load, content, size in ((load_sentences, b"a NN O\xe9\n"[:-2] + b"\n", 1), (load_ocr, text(rows()), 3)):
        writer = threading.Thread(target=path.write_bytes, args=[content])
        writer.start()
        assert len(load(path)) == size
        writer.join()
    monkeypatch.setattr(_sources, "PIPE_PATIENCE", 0.05)
    with pytest.raises(DataFileError, match="an empty pipe"):
        load_sentences(path)
    for name, load in (("a.npz", load_ocr), ("a.pickle", load_ocr), ("a.npz", load_horses)):
        place = tmp_path / name
        if not place.exists():
            os.mkfifo(place)
        with pytest.raises(DataFileError, match="must be a regular file"):
            load(place)


pieces = st.one_of(
    st.binary(max_size=20), st.sampled_from([b"a NN B-NP\n", b"b VB O\n", b"\n", b" ", b"\t", text(rows())])
)


@given(content=st.lists(pieces, max_size=6).map(b"".join), zipped=st.booleans())
def test_arbitrary_bytes_are_read_or_refused(content: bytes, zipped: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, load in (("train.txt", load_sentences), ("letter.data", load_ocr), ("a.npz", load_horses)):
            path = Path(folder, name)
            path.write_bytes(gzip.compress(content) if zipped else content)
            message, size = "", 1
            try:
                size = len(load(path))
            except DataFileError as error:
                message = str(error)
            assert "\n" not in message
            assert size


# -------------------------------------------------------------------------------------------------------------- horses

HORSES = {
    "x_train": rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8),
    "y_train": rng.integers(0, 2, (3, 32, 32), dtype=np.uint8),
    "x_test": rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8),
    "y_test": rng.integers(0, 2, (2, 32, 32), dtype=np.uint8),
}


def save_horses(path: Path, **changes: Any) -> Path:
    np.savez(path, **(HORSES | changes))
    return path


def test_horses_from_the_archive(tmp_path: Path) -> None:
    path = save_horses(tmp_path / "weizmann32.npz")
    for source in (path, tmp_path):
        train, test = load_horses(source)
        for name, array in (("train", train), ("test", test)):
            assert_array_equal(array.images, HORSES[f"x_{name}"], strict=True)
            assert_array_equal(array.labels, HORSES[f"y_{name}"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": HORSES["x_train"][..., 0]}, r"x_train of shape \('n', 32, 32, 3\).*; got shape \(3, 32, 32\)"),
        ({"x_train": HORSES["x_train"] / 255}, "type uint8; .* type float64"),
        ({"x_test": HORSES["x_test"][:, :31]}, r"got shape \(2, 31, 32, 3\)"),
        ({"y_test": np.array(1, np.uint8)}, r"got shape \(\)"),
        ({"y_test": 255 * HORSES["y_test"]}, "y_test of 0 and 1; got 255"),
        ({"y_train": HORSES["y_train"][1:]}, "a mask for each image; x_train has 3, y_train has 2"),
        ({"x_test": HORSES["x_test"][:0], "y_test": HORSES["y_test"][:0]}, r"got shape \(0, 32, 32, 3\)"),
    ],
)
def test_bad_archives_of_horses(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataFileError, match=words):
        load_horses(save_horses(tmp_path / "weizmann32.npz", **changes))


def picture_folders(root: Path, n: int, names: tuple[str, str], suffix: str = ".png", grey: int = 255) -> Path:
    """Images of 64 x 96 whose blocks of 2 x 3 have one colour each, and masks; the number is in the first block."""
    for folder in names:
        (root / folder).mkdir()
    for k in range(n):
        small, mask = np.full((32, 32, 3), 17 * k, np.uint8), np.zeros((32, 32), np.uint8)
        small[k:, 3] = (250, 0, 100)
        mask[k:, 5:9] = grey
        imsave(root / names[0] / f"horse{k:03}{suffix}", small.repeat(2, axis=0).repeat(3, axis=1))
        imsave(root / names[1] / f"horse{k:03}.png", np.stack(3 * [mask.repeat(2, 0).repeat(3, 1)], axis=2))
    (root / names[0] / "notes.txt").write_text("not an image")
    for folder in names:  # what a Mac and Windows leave
        (root / folder / f"._horse000{suffix}").write_bytes(b"\0\5\x16\7")
        (root / folder / "Thumbs.db").write_bytes(b"\0")
    (root / names[0] / ".hidden.png").write_bytes(b"")
    return root


@pytest.mark.parametrize("grey", [255, 1])
@pytest.mark.parametrize("names", [("horse", "mask"), ("rgb", "figure_ground")])
def test_horses_from_folders(tmp_path: Path, names: tuple[str, str], grey: int) -> None:
    train, test = load_horses(picture_folders(tmp_path, 15, names, grey=grey))
    assert test.images[:, 0, 0, 0].tolist() == [17 * 6, 17 * 13]
    assert train.images[:, 0, 0, 0].tolist() == [17 * k for k in range(15) if k not in (6, 13)]
    assert test.images.dtype == np.uint8
    assert test.images[0, 10, 3].tolist() == [250, 0, 100]
    expected = np.zeros((32, 32), int)
    expected[13:, 5:9] = 1
    assert_array_equal(test.labels[1], expected)


def test_horses_from_other_formats(tmp_path: Path) -> None:
    train, _ = load_horses(picture_folders(tmp_path, 7, ("horse", "mask"), suffix=".jpg"))
    assert np.abs(train.images[:, 20, 20].astype(int) - 17 * np.arange(6)[:, None]).max() < 8  # lossy
    assert train.labels.mean() == pytest.approx(np.mean([4 * (32 - k) / 1024 for k in range(6)]), rel=1e-12)


def test_transparent_and_grey_images(tmp_path: Path) -> None:
    root = picture_folders(tmp_path, 7, ("horse", "mask"))
    imsave(root / "horse" / "horse000.png", np.full((40, 50, 4), (200, 100, 0, 9), np.uint8))
    grey = np.full((33, 47), 0.2, np.float32)
    imsave(root / "horse" / "horse001.png", grey, cmap="gray", vmin=0, vmax=1)
    imsave(
        root / "horse" / "horse002.png",
        np.tile(np.array([[100, 101], [101, 101]], np.uint8), (32, 32))[..., None].repeat(3, 2),
    )
    train, _ = load_horses(root)
    assert_array_equal(train.images[2], np.full((32, 32, 3), 101))  # the mean is 100.75
    assert_array_equal(train.images[0], np.full((32, 32, 3), (200, 100, 0)))
    assert_array_equal(train.images[1], np.full((32, 32, 3), 51))


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (45, 33), (7, 100), (1, 1)])
def test_resizing_averages_over_areas(shape: tuple[int, int]) -> None:
    image = rng.random((*shape, 3))
    # Written 32 times as large, the image divides into the areas without a rest.
    large = image.repeat(32, axis=0).repeat(32, axis=1)
    blocks = large.reshape(32, shape[0], 32, shape[1], 3)
    assert_allclose(horses._resized(image), blocks.mean(axis=(1, 3)), rtol=1e-12)


def test_a_mask_of_one_half_is_the_horse(tmp_path: Path) -> None:
    root = picture_folders(tmp_path, 7, ("horse", "mask"))
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[::2, :32] = 255  # one half of each area
    mask[:1, 32:34] = 255
    mask[0, 34] = 255  # a quarter
    imsave(root / "mask" / "horse000.png", mask)
    train, _ = load_horses(root)
    assert train.labels[0, :, :16].all()
    assert train.labels[0, 0, 16:19].tolist() == [1, 0, 0]


def test_bad_folders_of_horses(tmp_path: Path) -> None:
    (tmp_path / "horse").mkdir()
    with pytest.raises(DataFileError, match="mask: does not exist"):
        load_horses(tmp_path)
    (tmp_path / "horse").rmdir()
    root = picture_folders(tmp_path, 7, ("horse", "mask"))
    (root / "mask" / "horse003.png").rename(root / "kept")
    with pytest.raises(DataFileError, match="mask: holds no mask of horse003"):
        load_horses(root)
    (root / "kept").rename(root / "mask" / "horse003.png")
    (root / "horse" / "horse004.png").rename(root / "kept")
    with pytest.raises(DataFileError, match="horse: holds no horse004"):
        load_horses(root)
    (root / "mask" / "horse004.png").unlink()
    with pytest.raises(DataFileError, match="at least 7 images; got 6"):
        load_horses(root)


@pytest.mark.parametrize("damage", ["text", "nothing", "cut"])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, damage: str) -> None:
    file = picture_folders(tmp_path, 7, ("horse", "mask")) / "horse" / "horse005.png"
    content = file.read_bytes()
    file.write_bytes({"text": b"not an image", "nothing": b"", "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(DataFileError, match=r"horse005\.png: is not an image that Matplotlib can read"):
        load_horses(tmp_path)


# ----------------------------------------------------------------------------------------------------------- real data


def test_real_letters(data_folder: Path) -> None:
    letters = load_ocr(data_folder)
    assert len(letters) == 6877
    assert sum(map(len, letters.words)) == 52152
    words = {"".join(chr(97 + label) for label in word) for word in letters.labels}
    assert len(words) == 55
    assert "ommanding" in words


def test_real_sentences(data_folder: Path) -> None:
    train, test = load_conll2000(data_folder)
    assert [len(part) for part in (train, test)] == [8936, 2012]
    assert [sum(len(sentence.words) for sentence in part) for part in (train, test)] == [211727, 47377]
    assert len({tag for sentence in train for tag in sentence.chunks}) == 22
    with gzip.open(data_folder / "conll2000" / "train.txt.gz", "rt", encoding="latin-1") as stream:
        rows = [line.split(" ") for line in stream.read().split("\n") if line]
    assert [[*row] for sentence in train for row in zip(*sentence)] == rows


def test_real_horses(data_folder: Path) -> None:
    train, test = load_horses(data_folder)
    assert (len(train), len(test)) == (278, 49)
    assert 0.2 < train.labels.mean() < 0.3
