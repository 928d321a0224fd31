"""Files written atomically, the progress line, the checks of arguments and the texts of errors."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from attnembed import _validation as check
from attnembed._files import (
    Member,
    make_folder,
    parse_json,
    read_checked,
    read_npz,
    replacing,
    versions,
    write_json,
    write_npz,
)
from attnembed._progress import Progress
from attnembed._store import LineStore
from attnembed.errors import (
    AttnembedError,
    DataFileError,
    InputError,
    InputTypeError,
    NotSeparableError,
)

# --------------------------------------------------------------------------------------------------------- writing


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "numbers.txt"
    with replacing(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
    assert target.read_text() == "half"
    assert os.listdir(target.parent) == ["numbers.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "numbers.txt"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["numbers.txt"]


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_json(tmp_path / "ours", {})
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path, tmp_path / "file" / "below", "with\0null", tmp_path / ("n" * 300)):
        with pytest.raises(DataFileError, match=r"cannot be written: \w"):
            write_json(target, {})
    assert os.listdir(tmp_path) == ["file"]


KILLED = """
import os, signal, sys
from attnembed._files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
ALIVE = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "sys.stdin.read()")


def writer(program: str, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, str(target)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_a_killed_process_has_left_goes_with_the_next_write(tmp_path: Path) -> None:
    others = [tmp_path / name for name in (".a.png.x1_4yz7q.png", ".b.json", "a.attnembed-12345678-1-abcdefgh")]
    for other in others:
        other.touch()
    dead, alive = writer(KILLED, tmp_path / "a.png"), writer(ALIVE, tmp_path / "b.png")
    left, held = (Path(process.stdout.readline().strip()) for process in (dead, alive) if process.stdout)
    assert dead.wait(60) == -signal.SIGKILL
    dead.communicate()
    assert left.read_text() == held.read_text() == "half"
    assert (left.name[0], left.parent) == (".", tmp_path)
    long_ago = time.time() - 1e6
    for path in (held, *others):
        os.utime(path, (long_ago, long_ago))
    write_json(tmp_path / "c.json", {})
    assert not left.exists()
    assert held.exists(), "its process is alive"
    alive.communicate("", timeout=60)
    assert sorted(os.listdir(tmp_path)) == sorted([*(path.name for path in others), "b.png", "c.json"])


def test_files_of_other_hosts_are_told_by_their_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()

    def left(age: float) -> Path:
        path = tmp_path / f".a.json.attnembed-00000000-1-{age:08.0f}.json"
        path.touch()
        os.utime(path, (now - age, now - age))
        return path

    new, older, held, ancient = left(1), left(100), left(200), left(1e6)
    with open(held, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        write_json(tmp_path / "a.json", {})
        assert [path.exists() for path in (new, older, held, ancient)] == [True, False, True, False]

    def without(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    older, ancient = left(100), left(1e6)
    write_json(tmp_path / "a.json", {})
    assert [path.exists() for path in (new, older, held, ancient)] == [True, True, True, False]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def synced(file: int) -> None:
        steps.append(("sync", os.readlink(f"/proc/self/fd/{file}")))
        sync(file)

    def replaced(old: Any, new: Any) -> None:
        steps.append(("replace", str(old)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_json(tmp_path / "a.json", {"x": 1})
    temporary = steps[1][1]
    assert steps == [("sync", temporary), ("replace", temporary), ("sync", str(tmp_path))]
    steps.clear()
    with LineStore(tmp_path / "b.jsonl", kind="k", version=1) as store:
        store.begin()
    assert steps == [("sync", str(tmp_path / "b.jsonl")), ("sync", str(tmp_path))]


def test_links_are_followed_unless_they_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to("file")
    write_json(tmp_path / "there", {})
    assert sorted(path.name for path in tmp_path.iterdir() if not path.is_symlink()) == ["file"]
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("missing")
    for target in (tmp_path / "circle", tmp_path / "circle" / "below"):
        with pytest.raises(DataFileError, match="cannot be written: Too many levels of symbolic links"):
            write_json(target, {})
    assert (tmp_path / "circle").is_symlink()
    for path, problem in (("circle", "Too many levels"), ("nowhere", "No such file"), ("file", "Not a directory")):
        with pytest.raises(OSError, match=problem):
            make_folder(tmp_path / path)
        with pytest.raises(DataFileError, match=problem):
            LineStore(tmp_path / path / "below", kind="k", version=1)


def test_long_names_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 250 + ".png", "\u00e9" * 125, "n." + "s" * 250):
        write_json(tmp_path / name, {})
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1.5, np.inf, np.nan], "b": np.arange(2), "c": {"d": "é"}})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == {"a": [1.5, "inf", "nan"], "b": [0, 1], "c": {"d": "é"}}
    assert text.endswith("}\n")


def test_versions_are_those_in_use() -> None:
    assert versions()["numpy"] == np.__version__
    assert set(versions()) == {"attnembed", "python", "numpy", "scipy"}


# ---------------------------------------------------------------------------------------------------------- archives


def test_an_archive_comes_back_bit_for_bit(tmp_path: Path) -> None:
    arrays = {
        "E": np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32),
        "n": np.array(3),
        "s": np.array("a"),
    }
    write_npz(tmp_path / "a.npz", **arrays)
    loaded = read_npz(tmp_path / "a.npz", ("E", "n", "s"))
    for name, array in arrays.items():
        assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    assert list(read_npz(tmp_path / "a.npz", ("n",))) == ["n"]


def test_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`E` must not hold Python objects"):
        write_npz(tmp_path / "a.npz", E=np.array([None]))
    assert not os.listdir(tmp_path)
    np.savez(tmp_path / "b.npz", E=np.array([print], dtype=object))
    with pytest.raises(DataFileError):
        read_npz(tmp_path / "b.npz", ("E",))


def archive_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def array_file(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def huge_header() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)})
    return stream.getvalue()


DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is not a readable npz archive"),
    "text": (b"not an archive", "is not a readable npz archive"),
    "a pickle": (pickle.dumps({"E": 1}), "is not a readable npz archive"),
    "one array": (array_file(np.ones(3)), "is not an npz archive"),
    "an empty zip": (archive_of({}), r"lacks the array\(s\) E"),
    "another name": (archive_of({"F.npy": array_file(1.0)}), r"lacks the array\(s\) E"),
    "no array": (archive_of({"E": b"text"}), "holds no array under the name E"),
    "a short array": (archive_of({"E.npy": array_file(np.ones(9))[:-8]}), "is not a readable npz archive"),
    "a bad header": (archive_of({"E.npy": array_file(np.ones(9)).replace(b"(9,)", b"(9,]")}), "is not a readable"),
    "more than memory": (archive_of({"E.npy": huge_header()}), "is not a readable npz archive"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_archives_are_named(tmp_path: Path, name: str) -> None:
    content, problem = DAMAGED[name]
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=problem) as caught:
        read_npz(path, ("E",))
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="No such file"):
        read_npz(tmp_path / "absent.npz", ("E",))
    with pytest.raises(DataFileError, match="directory"):
        read_npz(tmp_path, ("E",))


@given(st.data())
def test_an_archive_with_any_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    good = bytearray(archive_of({"E.npy": array_file(np.arange(6.0)), "p.npy": array_file(np.arange(2))}))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(good[: data.draw(st.integers(0, len(good)))] if data.draw(st.booleans()) else good)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.npz")
        path.write_bytes(content)
        with contextlib.suppress(DataFileError):
            assert all(isinstance(array, np.ndarray) for array in read_npz(path, ("E", "p")).values())


# ----------------------------------------------------------------------------------------------- contents of archives

SCHEMA = {
    "E": Member((np.float32, np.float64), ("V", "d")),
    "p": Member("f", ("d",)),
    "steps": Member("iu", (), low=0, high=9),
    "loss": Member("f", ("V",), finite=False, low=0),
    "note": Member("U", ()),
}
FITTING: dict[str, Any] = {
    "E": np.ones((3, 2), np.float32),
    "p": np.zeros(2),
    "steps": np.array(9, np.uint8),
    "loss": np.array([0.0, 1.0, np.inf]),
    "note": np.array("x"),
}


def test_an_archive_that_fits_is_returned_as_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{**FITTING, "E": FITTING["E"].astype(">f4"), "more": np.array("ignored")})
    arrays = read_checked(tmp_path / "a.npz", SCHEMA)
    assert list(arrays) == list(SCHEMA)
    for name, array in FITTING.items():
        assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype  # native, whatever the byte order of the file
    content = (tmp_path / "a.npz").read_bytes()
    assert read_checked("nowhere", SCHEMA, content=content)["steps"] == 9


@pytest.mark.parametrize(
    ("name", "array", "problem"),
    [
        ("E", np.ones((3, 2), np.float16), "E of type float32 or float64; got float16"),
        ("E", np.ones((3, 2), int), "E of type float32 or float64; got int64"),
        ("E", np.array(1.0), r"E of shape \(V, d\); got \(\)"),
        ("E", np.array([[1.0, np.nan], [0, 0], [0, 0]]), "E that is finite; got nan"),
        ("p", np.zeros(1), r"p of shape \(2,\); got \(1,\)"),
        ("p", np.zeros((1, 2)), r"p of shape \(2,\); got \(1, 2\)"),
        ("p", np.zeros(2, int), "p of floats; got int64"),
        ("p", np.array([0, -np.inf]), "p that is finite; got -inf"),
        ("steps", np.array(-1), "steps of at least 0; got -1"),
        ("steps", np.array(2**63, np.uint64), "steps of at most 9; got 9223372036854775808"),
        ("steps", np.array(1.0), "steps of integers or of unsigned integers; got float64"),
        ("steps", np.array(True), "steps of integers or of unsigned integers; got bool"),
        ("loss", np.array([0.0, np.nan, 1.0]), "loss of at least 0; got nan"),
        ("note", np.array(b"x"), r"note of text; got \|S1"),
        ("note", np.frombuffer(b"\xff\xff\xff\xff", "<U1").reshape(()), "note of text; got invalid code points"),
    ],
)
def test_an_array_that_does_not_fit_is_named(tmp_path: Path, name: str, array: Any, problem: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{**FITTING, name: array})
    with pytest.raises(DataFileError, match=f"^{path}: must hold {problem}$"):
        read_checked(path, SCHEMA)


def test_a_size_named_twice_in_one_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", W=np.ones((2, 3)))
    with pytest.raises(DataFileError, match=r"must hold W of shape \('d', 'd'\); got \(2, 3\)"):
        read_checked(tmp_path / "a.npz", {"W": Member("f", ("d", "d"))})


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{name: array for name, array in FITTING.items() if name != "steps"})
    with pytest.raises(DataFileError, match=r"lacks the array\(s\) steps"):
        read_checked(tmp_path / "a.npz", SCHEMA)


@pytest.mark.parametrize("text", ["[" * 10**6, "{", '{"a": ' * 10**5, "9" * 10**4, "", b"\xff"], ids=len)
def test_json_that_is_none(text: str | bytes) -> None:
    with pytest.raises(DataFileError, match=r"^f, line 3: holds a state that is not valid JSON$"):
        parse_json("f", text, what="a state", line=3)
    assert parse_json("f", '{"a": [1]}') == {"a": [1]}


# ---------------------------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(terminal: Terminal) -> list[str]:
    return [line.rstrip() for line in terminal.getvalue().split("\r")]


def test_progress_rewrites_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 10.05, 30.0, 40.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    terminal = Terminal()
    with Progress("training", total=4, stream=terminal) as progress:
        progress.update(1, "a long note")
        progress.update(1.5, "too soon after")
        progress.update(3)
        progress.update(4, "done")
    lines = shown(terminal)
    assert lines == [
        "",
        "training   25 %  30 s left  10 s  a long note",
        "training   75 %  10 s left  30 s",
        "training  100 %  40 s  done",
        "",
        "",
    ]
    # a shorter line covers the longer one, and at the end the line is empty
    widths = [len(line) for line in terminal.getvalue().split("\r")[1:-1]]
    assert widths[1] >= widths[0]
    assert terminal.getvalue().endswith(" \r")


def test_the_last_update_is_always_shown() -> None:
    terminal = Terminal()
    with Progress("claims", total=2, stream=terminal, every=1e9) as progress:
        progress.update(1)
        progress.update(1.9)
        progress.update(2)
    assert shown(terminal)[1:3] == ["claims   50 %  0 s left  0 s", "claims  100 %  0 s"]


def test_progress_without_a_total_or_a_terminal() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with Progress("reading", stream=stream, every=0.0) as progress:
            progress.update(7)
    assert shown(terminal)[1] == "reading  0 s"
    assert file.getvalue() == ""
    with Progress("nothing", stream=terminal):
        pass
    assert "nothing" not in terminal.getvalue()


def test_nested_jobs_share_the_line() -> None:
    terminal = Terminal()
    with Progress("report", total=2, stream=terminal, every=0.0) as outer:
        outer.update(0, "a note that is rather long")
        with Progress("claims", stream=terminal, every=0.0) as inner:
            inner.update(1)
        outer.update(1)
    parts = terminal.getvalue().split("\r")
    assert [part.strip() for part in parts] == [
        "",
        "report    0 %  0 s  a note that is rather long",
        "claims  0 s",
        "",
        "",
        "report   50 %  0 s left  0 s",
        "",
        "",
    ]
    assert len(parts[2]) == len(parts[1])


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("I/O operation on closed file")])
def test_a_terminal_that_is_gone_does_not_end_the_job(error: Exception) -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise error

    with Progress("x", total=2, stream=Gone(), every=0.0) as progress:
        for done in (1, 2):
            progress.update(done)


def test_progress_leaves_errors_alone() -> None:
    terminal = Terminal()

    def fail() -> None:
        with Progress("x", total=2, stream=terminal) as progress:
            progress.update(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert terminal.getvalue().endswith("\r")


# ------------------------------------------------------------------------------------------------ checks of arguments


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: check.as_rng("seed"), "`rng` must be an int, a numpy.random.Generator or None; got str"),
    (lambda: check.as_rng(True), "`rng` must be an int, a numpy.random.Generator or None; got bool"),
    (lambda: check.as_rng(-1), "`rng` must be a non-negative integer seed; got -1"),
    (
        lambda: check.as_real_array("x", [[1.0], [1.0, 2.0]], ndim=2),
        "`x` must be an array, with rows of one length; got list",
    ),
    (lambda: check.as_real_array("x", "text", ndim=1), "`x` must be a real numeric array; got dtype <U4"),
    (lambda: check.as_real_array("x", [1j], ndim=1), "`x` must be a real numeric array; got dtype complex128"),
    (lambda: check.as_real_array("x", [None], ndim=1), "`x` must be a real numeric array; got dtype object"),
    (lambda: check.as_real_array("x", sp.eye_array(2), ndim=2), "`x` must be a real numeric array; got dtype object"),
    (lambda: check.as_real_array("x", [1.0], ndim=2), "`x` must have 2 axes; got shape (1,)"),
    (
        lambda: check.as_real_array("x", [0.0, np.nan], ndim=1),
        "`x` must be finite; got nan at index (1,); remove NaN and inf",
    ),
    (
        lambda: check.as_real_array("x", [1e300], ndim=1, dtype=np.float32),
        "`x` must be finite; got inf at index (0,); remove NaN and inf",
    ),
    (lambda: check.as_integer_array("ids", [0.5], ndim=1), "`ids` must hold integers; got dtype float64"),
    (lambda: check.as_integer_array("ids", [True], ndim=1), "`ids` must hold integers; got dtype bool"),
    (lambda: check.as_integer_array("ids", 3, ndim=1), "`ids` must have 1 axes; got shape ()"),
    (lambda: check.check_shape("p", np.ones(3), (2,), "so"), "`p` must have shape (2,); got shape (3,); so"),
    (lambda: check.check_positive("eta", 0), "`eta` must be finite and > 0; got 0.0"),
    (lambda: check.check_positive("eta", -1, zero_ok=True), "`eta` must be finite and >= 0; got -1.0"),
    (lambda: check.check_positive("eta", 10**400), "`eta` must be finite and > 0; got inf"),
    (lambda: check.check_positive("eta", np.nan), "`eta` must be finite and > 0; got nan"),
    (lambda: check.check_positive("eta", "1"), "`eta` must be a real number; got '1'"),
    (lambda: check.check_positive("eta", True), "`eta` must be a real number; got True"),
    (lambda: check.check_positive("eta", 1j), "`eta` must be a real number; got 1j"),
    (lambda: check.check_between("s", 2.0, 0, 1, hint="why"), "`s` must lie between 0 and 1; got 2.0; why"),
    (lambda: check.check_between("s", np.nan, 0, 1), "`s` must lie between 0 and 1; got nan"),
    (lambda: check.check_between("s", -(10**400), 0, 1), "`s` must lie between 0 and 1; got -inf"),
    (lambda: check.check_between("s", None, 0, 1), "`s` must be a real number; got None"),
    (lambda: check.check_integer("n", 1.0), "`n` must be an integer; got 1.0"),
    (lambda: check.check_integer("n", False), "`n` must be an integer; got False"),
    (lambda: check.check_integer("n", 1, minimum=2), "`n` must be at least 2; got 1"),
    (lambda: check.check_choice("way", "c", ("a", "b")), "`way` must be one of 'a', 'b'; got 'c'"),
    (lambda: check.check_choice("way", ["a"], ("a", "b")), "`way` must be one of 'a', 'b'; got ['a']"),
    (
        lambda: check.as_signs("labels", [0, 1]),
        "`labels` must contain only -1 and +1; got values {0, 1}; use `2*labels - 1`",
    ),
    (
        lambda: check.as_signs("labels", [1, 2, 3]),
        "`labels` must contain only -1 and +1; got values {1, 2, 3}; map the two classes to -1 and +1",
    ),
    (
        lambda: check.as_signs("labels", [1, np.nan]),
        "`labels` must be finite; got nan at index (1,); remove NaN and inf",
    ),
    (lambda: check.as_signs("labels", [1, -1], n=3), "`labels` must have one entry per sequence (3); got 2"),
    (
        lambda: check.as_signs("labels", [1, 1]),
        "`labels` must contain both classes, -1 and +1; got only +1; one-class data has no separating direction",
    ),
    (
        lambda: check.as_signs("labels", []),
        "`labels` must contain both classes, -1 and +1; got no labels; one-class data has no separating direction",
    ),
    (lambda: check.as_signs("labels", [[1], [-1, 1]]), "`labels` must be an array, with rows of one length; got list"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_messages_name_the_argument_what_came_and_what_to_do(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError) == isinstance(caught.value, InputTypeError)


def test_good_arguments_come_back_converted() -> None:
    generator = np.random.default_rng(3)
    assert check.as_rng(generator) is generator
    assert check.as_rng(np.int64(3)).random() == np.random.default_rng(3).random()
    assert check.as_rng(None).random() != check.as_rng(None).random()
    for given_dtype, dtype in (
        (np.float32, np.float32),
        (np.float16, np.float64),
        (np.int8, np.float64),
        (bool, np.float64),
    ):
        assert check.as_real_array("x", np.ones(2, dtype=given_dtype), ndim=1).dtype == dtype
    assert check.as_real_array("x", np.ones(2, dtype=np.longdouble), ndim=1).dtype == np.float64
    assert check.as_integer_array("n", np.array([1, 2], dtype=np.uint8), ndim=1).dtype == np.int64
    assert check.check_positive("x", np.float32(0.5)) == 0.5
    assert type(check.check_positive("x", np.int64(2))) is float
    assert check.check_between("x", 1, 0, 1) == 1.0
    assert type(check.check_integer("n", np.int8(2), minimum=2)) is int
    assert check.check_choice("way", "a", ("a",)) == "a"
    assert check.as_signs("y", np.array([1, -1], dtype=np.int8)).tolist() == [1.0, -1.0]
    frozen = check.freeze(np.ones(2))
    with pytest.raises(ValueError, match="read-only"):
        frozen[0] = 2


def test_signs_are_a_copy() -> None:
    labels = np.array([1.0, -1.0])
    check.freeze(check.as_signs("labels", labels))
    labels[0] = -1.0


def test_the_tree_of_errors() -> None:
    for error in (InputError("a", "b"), DataFileError("f", "b"), NotSeparableError("m", np.ones(2))):
        assert isinstance(error, AttnembedError)
        assert isinstance(error, ValueError)
    assert str(InputError("a", "must be b")) == "`a` must be b"
    error = DataFileError("f.tsv", "is bad", line=3)
    assert (error.path, error.line, str(error)) == (Path("f.tsv"), 3, "f.tsv, line 3: is bad")
    assert NotSeparableError("m", np.ones(2)).certificate.tolist() == [1, 1]
