"""What the world does to a long run: kills, interrupts, full disks, damaged files and any command line.

A run that was killed goes on, to the same numbers. Everything else ends in an `AttnembedError`, or, on the command
line, in exit code 0, 1 or 2 and one line on stderr.
"""

from __future__ import annotations

import copy
import dataclasses
import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import attnembed as ae
from attnembed.__main__ import main
from attnembed._files import write_json
from attnembed.attention.text import count_reviews
from attnembed.errors import AttnembedError, DataFileError
from attnembed.evidence import registry as claim_registry
from attnembed.experiments import Outcome, reproduce
from attnembed.experiments import registry as experiment_registry
from attnembed.experiments.sweeps import GRID_EXPERIMENTS, run_sweep
from attnembed.structured import corpora

pytestmark = pytest.mark.usefixtures("plain_layout")

# --- files that are damaged --------------------------------------------------------------------------------------

DATA = ae.make_balanced_dataset(n_samples=8, length=4, n_irrelevant=3, rng=0)
MODEL = ae.AttentionModel.random(DATA.vocab_size, 3, rng=0)
CHAINS = ae.make_chain_dataset(6, 3, 2, 2, rng=0)
CRF = ae.ChainCRF(ae.mlp(2, (3,), 2, rng=0), np.zeros((2, 2)))
LETTERS = "".join(f"{k}\ta\t{-1 if k % 2 else k + 1}\t{k // 2}\t{k % 2}\t0" + 128 * "\t1" + "\n" for k in range(4))
REVIEWS = "label\ttext\n" + "1\ta good, good film\n0\ta bad one\n" * 3


def train_on(path: Path) -> Any:
    return ae.train(MODEL, DATA, n_epochs=2, validation=0.4, checkpoint=path, rng=0)


def train_structured_on(path: Path) -> Any:
    return ae.train_structured(CRF, CHAINS, n_epochs=2, checkpoint=path, rng=0)


def write_letters(path: Path) -> None:
    np.savez(path, pixels=np.eye(5, 128), labels=[2, 0, 1, 0, 3], lengths=[3, 2], folds=[0, 9])


def write_horses(path: Path) -> None:
    x, y = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 32, 32), np.uint8)
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)


# name of a file -> its text, or what writes it; and what reads it
FILES: dict[str, tuple[str | Callable[[Path], Any], Callable[[Path], Any]]] = {
    "model.npz": (MODEL.save, ae.AttentionModel.load),
    "train.npz": (train_on, train_on),
    "crf.npz": (CRF.save, CRF.restore),
    "structured.npz": (train_structured_on, train_structured_on),
    "ocr_letters.npz": (write_letters, corpora.load_ocr),
    "weizmann32.npz": (write_horses, corpora.load_horses),
    "tokenizer.json": (ae.Tokenizer().fit(["a b", "c"]).save, ae.Tokenizer.load),
    "reviews.tsv": (REVIEWS, ae.load_reviews),
    "reviews.csv": (REVIEWS.replace("\t", ",").replace("good,", ""), ae.load_reviews),
    "reviews.jsonl": ('{"text": "a", "stars": 5}\n{"text": "b", "stars": 1.0}\n', ae.load_reviews),
    "letter.data": (LETTERS, corpora.load_ocr),
    "train.txt": ("He PRP B-NP\nran VBD B-VP\n\nStop VB B-VP\n", corpora.load_sentences),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of a good file of each kind, which its reader accepts."""
    folder = tmp_path_factory.mktemp("good")
    for name, (content, read) in FILES.items():
        _ = (folder / name).write_text(content) if isinstance(content, str) else content(folder / name)
        read(folder / name)
    return {name: (folder / name).read_bytes() for name in FILES}


def read_or_refuse(name: str, content: bytes) -> None:
    """Read a file of this content; anything but a result or a one-line AttnembedError gets out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            FILES[name][1](path)
        except AttnembedError as error:
            message = str(error)
        else:
            message = ""
    assert "\n" not in message


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes changed, cut out, doubled or put in."""
    out = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(out)))
        to = min(len(out), at + draw(st.integers(0, 9)))
        out[at:to] = draw(
            st.sampled_from(
                [b"", bytes(out[at:to]) * 2, b"\0", b"\n", b'"', b"-1", b"9" * 30, b"nan", b"\xff", b"{", b"["]
            )
            | st.binary(max_size=4)
        )
    return bytes(out[: draw(st.integers(0, len(out)))] if draw(st.booleans()) else out)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_damaged_bytes(good: dict[str, bytes], name: str, data: st.DataObject) -> None:
    read_or_refuse(name, data.draw(damaged(good[name])))


ODD: list[Any] = [
    np.zeros(0), np.zeros((0, 3)), np.array(1), np.array(-1), np.array(2.5), np.array(np.nan), np.array([np.inf]),
    np.array("text"), np.array(b"x"), np.array(["a", "b"]), np.array(1j), np.ones((2, 3)), np.ones((9, 3)), np.ones(3),
    np.full(3, np.nan), np.full((9, 3), 1e300), np.array([2**62]), np.arange(8), -np.ones(2, int), np.ones((2, 2, 2)),
    np.array(True), np.array(2**63, np.uint64), np.zeros(3, [("epoch", int)]), np.array("NaT", "M8[s]"),
    np.array('{"bit_generator": "PCG64"}'), np.array("null"), np.array('{"bit_generator": []}'), np.array("[1]"),
]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".npz")])
@given(data=st.data())
def test_archives_of_other_arrays(good: dict[str, bytes], name: str, data: st.DataObject) -> None:
    with np.load(io.BytesIO(good[name])) as content:
        arrays = dict(content)
    for key in data.draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=2)):
        original = arrays[key]
        odd = [*ODD, original.astype("U40") if original.dtype.names is None else original[:0], original[..., None]]
        arrays[key] = data.draw(st.sampled_from(odd))
    read_or_refuse(name, archive(good[name], **arrays))


ODD_VALUES = (None, True, -1, 0, 1.5, 10**30, 1e308, np.nan, "", "text", "1", [], [1], {}, {"x": 1}, [[]], "MT19937")


@st.composite
def altered(draw: st.DrawFn, content: Any) -> Any:
    """JSON with one value, at any depth, replaced or removed."""
    content = copy.deepcopy(content)
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return content
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
            place = place[key]
        elif draw(st.booleans()) and draw(st.booleans()):
            del place[key]
            return content
        else:
            place[key] = draw(st.sampled_from(ODD_VALUES))
            return content


@given(data=st.data())
def test_tokenizers_of_other_json(good: dict[str, bytes], data: st.DataObject) -> None:
    content = data.draw(altered(json.loads(good["tokenizer.json"])))
    read_or_refuse("tokenizer.json", json.dumps(content).encode())


@given(data=st.data())
def test_reviews_of_other_json(good: dict[str, bytes], data: st.DataObject) -> None:
    lines = [json.loads(line) for line in good["reviews.jsonl"].splitlines()]
    content = data.draw(altered(lines))
    read_or_refuse("reviews.jsonl", "\n".join(json.dumps(line) for line in content).encode())


@pytest.mark.parametrize(
    ("name", "key"),
    [("structured.npz", "rng"), ("structured.npz", "identity"), ("train.npz", "rng"), ("train.npz", "rng_start")],
)
@given(data=st.data())
def test_checkpoints_of_other_json(good: dict[str, bytes], name: str, key: str, data: st.DataObject) -> None:
    with np.load(io.BytesIO(good[name])) as content:
        text = str(content[key])
    changed = json.dumps(data.draw(altered(json.loads(text))))
    read_or_refuse(name, archive(good[name], **{key: np.array(changed)}))


def archive(content: bytes, **changes: Any) -> bytes:
    """The archive with some arrays exchanged."""
    with np.load(io.BytesIO(content)) as arrays:
        changed = {**arrays, **changes}
    stream = io.BytesIO()
    np.savez(stream, **changed)
    return stream.getvalue()


def json_array(content: bytes, key: str, *path: str, value: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The JSON text that an archive holds under a key, with the value at a path exchanged."""
    with np.load(io.BytesIO(content)) as arrays:
        whole = json.loads(str(arrays[key]))
    place = whole
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return {key: np.array(json.dumps(whole))}


@pytest.mark.parametrize("name", ["train.npz", "structured.npz"])
@pytest.mark.parametrize(
    ("key", "path", "value"),
    [
        ("rng", ("bit_generator",), "seed"),
        ("rng", ("bit_generator",), "BitGenerator"),
        ("rng", ("bit_generator",), "MT19937"),
        ("rng", ("has_uint32",), 1e308),
        ("rng", ("state",), {}),
        ("identity", ("data",), [1]),
        ("identity", ("model",), None),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else None,
)
def test_what_was_found_in_checkpoints(
    good: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    key: str,
    path: tuple[str, ...],
    value: Any,
) -> None:
    monkeypatch.setattr(np.random, "seed", sys.exit)  # a file must not choose what is called
    file = tmp_path / name
    file.write_bytes(archive(good[name], **json_array(good[name], key, *path, value=value)))
    with pytest.raises(AttnembedError):
        FILES[name][1](file)


@pytest.mark.parametrize("value", ["text", 1j, np.nan, np.datetime64("NaT")], ids=str)
def test_what_was_found_in_parameters(good: dict[str, bytes], tmp_path: Path, value: Any) -> None:
    (tmp_path / "crf.npz").write_bytes(archive(good["crf.npz"], unary_scale=np.array(value)))
    with pytest.raises(DataFileError, match="must hold finite numbers under unary_scale"):
        CRF.restore(tmp_path / "crf.npz")


OPTIONS = {
    "format": ["tsv", "csv", "jsonl", "xml", 3],
    "delimiter": [",", "\t", "", "ab", "\n", 3, "é"],
    "header": [True, False, 3],
    "text_column": ["text", "nothing", 0, 1, 7, -1, 1.5, True],
    "label_column": ["label", "text", 0, 1, 7, -1, None],
    "labels": ["0/1", "stars", "none", 3],
    "where": [{"label": "1"}, {0: "1"}, {9: "1"}, {"x": "1"}, {}, 3, ["label"]],
    "encoding": ["utf-8", "utf-16", "latin-1", "ascii", "nothing", "", 3, "rot13", "base64", "idna", "punycode"],
    "split": ["train", "none", 3],
}


@given(
    name=st.sampled_from(["reviews.tsv", "reviews.csv", "reviews.jsonl"]),
    options=st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in OPTIONS.items()}),
)
@example(name="reviews.tsv", options={"where": 3})
@example(name="reviews.csv", options={"where": ["label"]})
def test_readers_with_any_options(good: dict[str, bytes], name: str, options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(good[name])
        with suppress(AttnembedError):
            ae.load_reviews(path, **options)


# --- any command line --------------------------------------------------------------------------------------------

PLAIN_WORDS = """
list verify reproduce report sweep attention structured all alignment selection phase-diagram imdb yelp margin one-step
--ids --json --seed --data --out --quick --over --store --workers --repetitions --markdown --api --version --help -h --
- 0 1 -1 2.5 nan 1e400 file out file/below nowhere d=1,2 eta=1:10:3 n=41 T=2 V=5 scale=0 d= =1 d=0x1 eta=1:2 d=1:2:3:4
asymptote alpha-phi-delta attention/step-in-span é % {}"""
WORDS = [
    *PLAIN_WORDS.split(),
    *("", " ", "\n", "a b\nc", "\udcff", "a\0b", "x" * 300, "9" * 5000),
]
COMMANDS = """
verify
verify --ids
reproduce
reproduce selection
list
sweep
sweep margin --over
sweep one-step --over d=1,2 --store
report --out out"""


def trivial_cell(*, rng: np.random.Generator, **parameters: float) -> dict[str, float]:
    if parameters["n"] % 2:
        raise ValueError("must be\neven")
    return dict.fromkeys(("separable", "margin", "alignment", "error", "selected", "predictive"), 1.0)


@contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """In the place of new processes."""
    with ThreadPoolExecutor(min(workers, 2)) as pool:
        yield pool


@pytest.fixture(scope="module")
def cheap_commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Claims, experiments and cells that take no time, in a folder of their own."""

    folder = tmp_path_factory.mktemp("commands")
    (folder / "file").write_text(REVIEWS)
    claims = {
        entry.id: dataclasses.replace(
            entry, measure=lambda rng: claim_registry.Evidence(measured=1.0, bound=2.0, control=3.0)
        )
        for entry in ae.claims()
    }
    runs = {
        entry.name: dataclasses.replace(entry, run=lambda request: Outcome({}, {"x": 1.0}, {}))
        for entry in experiment_registry.experiments()
    }
    cells = {name: dataclasses.replace(entry, cell=trivial_cell) for name, entry in GRID_EXPERIMENTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("ATTNEMBED_DATA", raising=False)
        patch.setattr(sys.modules["attnembed.sweeping"], "_processes", threads)
        patch.setattr(claim_registry, "_registry", claims)
        patch.setattr(experiment_registry, "_registry", runs)
        patch.setattr("attnembed.experiments.sweeps.GRID_EXPERIMENTS", cells)
        yield


def command(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.usefixtures("cheap_commands")
@given(start=st.sampled_from(COMMANDS.splitlines()), rest=st.lists(st.sampled_from(WORDS), max_size=5))
def test_any_command_line_ends_in_0_1_or_2_and_one_line(start: str, rest: list[str]) -> None:
    code, out, err = command([*start.split(), *rest])
    assert code in (0, 1, 2)
    assert len(err.splitlines()) == (code == 2)
    assert out if code < 2 else not out


@pytest.mark.usefixtures("cheap_commands")
def test_good_commands_reach_their_end() -> None:
    """The negative control of the test above: not everything is an error."""
    for line in (
        "list",
        "verify attention --json out/claims.json",
        "reproduce selection --out out",
        "sweep margin --over d=1,2 eta=1:10:3 --repetitions 2 --store out/store --out out",
        "report --out out",
    ):
        assert command(line.split())[::2] == (0, ""), line
    assert command(["sweep", "margin", "--over", "n=41", "--out", "out"])[0] == 1


# --- full disks and places that cannot be written ----------------------------------------------------------------

# what writes, and the file or folder it is given
WRITERS: dict[str, Callable[[Path], Any]] = {
    "json": lambda path: write_json(path, {"x": list(range(1000))}),
    "model": lambda path: ae.AttentionModel.random(100, 10, rng=0).save(path),
    "checkpoint": lambda path: ae.train(MODEL, DATA, n_epochs=2, checkpoint=path, rng=0),
    "parameters": CRF.save,
    "network": CRF.network.save,
    "structured checkpoint": lambda path: ae.train_structured(CRF, CHAINS, n_epochs=1, checkpoint=path, rng=0),
    "tokenizer": ae.Tokenizer().fit([" ".join(f"word{k}" for k in range(500))]).save,
    "cache": lambda path: count_reviews(REVIEW_FILE, ae.Tokenizer(), cache=path),
    "experiment": lambda path: reproduce("alignment", out=path, quick=True),
    "sweep": lambda path: run_sweep("margin", ["d=8,16"], quick=True, out=path),
    "store": lambda path: ae.sweep(trivial_cell, {"n": range(0, 40, 2)}, store=path, executor=ThreadPoolExecutor(1)),
    "claims": lambda path: None if main(["verify", "--ids", "alpha-phi-delta", "--json", str(path)]) == 0 else _said(),
}
REVIEW_FILE = Path()


def _said() -> None:
    raise DataFileError("claims", "was said in one line")


@pytest.fixture
def writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["attnembed.sweeping"], "_processes", threads)
    monkeypatch.setitem(globals(), "REVIEW_FILE", tmp_path.with_suffix(".tsv"))
    REVIEW_FILE.write_text(REVIEWS)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let files grow beyond this size, as it does where the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("writers")
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "target"
    with pytest.raises(AttnembedError) as caught, largest_file(200):
        WRITERS[name](target)
    message = str(caught.value) if name != "claims" else capsys.readouterr().err.rstrip("\n")
    assert message.endswith("cannot be written: File too large")
    assert "\n" not in message
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ([target] if name == "store" else []), "no half a file"
    WRITERS[name](target)


@pytest.mark.usefixtures("writers")
@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_cannot_be_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(AttnembedError) as caught:
        WRITERS[name](tmp_path / "file" / "below")
    message = str(caught.value) if name != "claims" else capsys.readouterr().err.rstrip("\n")
    assert str(tmp_path / "file" / "below") in message
    assert len(message.splitlines()) == 1

    def refused(*args: Any, **options: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    if name == "store":
        monkeypatch.setattr(os, "open", refused)
    with pytest.raises(AttnembedError) as caught:
        WRITERS[name](tmp_path / "new")
    message = str(caught.value) if name != "claims" else capsys.readouterr().err
    assert "cannot be written: Permission denied" in message
    assert (tmp_path / "file").read_text() == "kept"


def test_pipes_and_devices_stay_and_links_are_followed(tmp_path: Path) -> None:
    """As root a rename would put a file in the place of /dev/null; a pipe stands for it here."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    for name, problem in (("pipe", "Not a regular file"), ("to-pipe", "Not a regular file"), (".", "Is a directory")):
        with pytest.raises(DataFileError, match=f"cannot be written: {problem}"):
            write_json(tmp_path / name, {})
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_json(tmp_path / "link", {"x": 1})
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "target").read_text()) == {"x": 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*ATTNEMBED, "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "attnembed: error: output: No space left on device\n")


def test_names_that_the_terminal_cannot_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["reproduce", "selection", "--quick", "--out", str(tmp_path / "\udcff")]) == 0
    assert b"\\udcff/selection-quick.json" in screen.buffer.getvalue()  # type: ignore[attr-defined]


# --- kills and interrupts ----------------------------------------------------------------------------------------

ATTNEMBED = (sys.executable, "-m", "attnembed")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def start(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """A process in a group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [*ATTNEMBED, *arguments] if arguments[0] != "-c" else [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that run in the background of a shell ignore SIGINT, and hand that on.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        env=ENVIRONMENT,
        cwd=cwd,
    )


PATIENCE = 600  # seconds, for a machine that is busy with other things


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "timed out"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def numbers(path: Path) -> Any:
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def group_is_gone(group: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return False
    return True


SWEEP = ("sweep", "selection", "--quick", "--over", "eta=1:1000:3", "d=16,32", "--repetitions", "2", "--workers", "2")


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_sweep_goes_on(tmp_path: Path, end: signal.Signals) -> None:
    assert finish(start(*SWEEP, "--out", str(tmp_path / "whole")))[::2] == (0, "")
    store, out = tmp_path / "cells.jsonl", tmp_path / "out"
    arguments = (*SWEEP, "--store", str(store), "--out", str(out))
    for least in (2, 6):
        process = start(*arguments)
        wait_until(lambda least=least: lines(store) > least, process)
        if end is signal.SIGKILL:
            process.kill()  # the parent alone: its workers must end by themselves
            finish(process)
        else:
            os.killpg(process.pid, end)
            code, text, err = finish(process)
            assert (code, text, len(err.splitlines())) == (2, "", 1)
            assert err.startswith("attnembed: error: interrupted; ")
            assert err.endswith("run it again to continue from the store\n")
        wait_until(lambda process=process: group_is_gone(process.pid))
        assert list(out.iterdir()) == []
    done = store.read_bytes()
    assert finish(start(*arguments))[::2] == (0, "")
    assert store.read_bytes().startswith(done[: done.rindex(b"\n") + 1]), "nothing is lost"
    assert lines(store) == 1 + 12, "and nothing is done twice"
    assert numbers(out / "sweep-selection-quick.json") == numbers(tmp_path / "whole" / "sweep-selection-quick.json")


@pytest.mark.slow
def test_an_experiment_that_was_killed_leaves_whole_files(tmp_path: Path) -> None:
    arguments = ("reproduce", "selection", "--quick", "--out")
    assert finish(start(*arguments, str(tmp_path / "whole")))[::2] == (0, "")
    out = tmp_path / "out"
    for after in (0.0, 0.02, 0.1, 0.2, 0.4):  # seconds after the folder appears: at work, drawing, writing
        process = start(*arguments, str(out))
        wait_until(out.is_dir, process)
        time.sleep(after)
        process.kill()
        finish(process)
        for path in out.glob("[!.]*"):
            assert path.suffix != ".json" or json.loads(path.read_text())
            assert path.suffix != ".png" or path.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert finish(start(*arguments, str(out)))[::2] == (0, "")
    assert numbers(out / "selection-quick.json") == numbers(tmp_path / "whole" / "selection-quick.json")
    assert (out / "selection-quick.png").read_bytes() == (tmp_path / "whole" / "selection-quick.png").read_bytes()


TRAINING = """
import sys, attnembed as ae
data = ae.make_balanced_dataset(n_samples=400, length=20, n_irrelevant=200, rng=0)
model = ae.AttentionModel.random(data.vocab_size, 32, rng=1)
result = ae.train(model, data, n_epochs=300, batch_size=50, validation=0.2, rng=2, checkpoint=sys.argv[1],
                  checkpoint_every=5)
result.model.save(sys.argv[2])
"""


@pytest.mark.slow
def test_a_training_goes_on(tmp_path: Path) -> None:
    checkpoint, result = tmp_path / "run.npz", tmp_path / "model.npz"
    assert finish(start("-c", TRAINING, str(tmp_path / "a.npz"), str(tmp_path / "whole.npz")))[::2] == (0, "")
    sizes = []
    for _ in range(3):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start("-c", TRAINING, str(checkpoint), str(result))
        wait_until(lambda before=before: checkpoint.exists() and checkpoint.stat().st_mtime_ns > before, process)
        time.sleep(0.05)
        process.kill()
        finish(process)
        with np.load(checkpoint) as arrays:
            sizes.append(len(arrays["history"]))
    assert 0 < sizes[0] < sizes[1] < sizes[2] < 301, "each run went on from the one before"
    assert not result.exists()
    assert finish(start("-c", TRAINING, str(checkpoint), str(result)))[::2] == (0, "")
    assert result.read_bytes() == (tmp_path / "whole.npz").read_bytes()
