"""The command line: what it prints, its exit codes, and one-line errors without a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attnembed.__main__ import _COMMANDS, main
from attnembed._arguments import command_parser
from attnembed.evidence import Evidence, claims

pytestmark = pytest.mark.usefixtures("plain_layout")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list_names_every_claim_and_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines()]
    assert [entry.id for entry in claims()] == names[: len(claims())]
    for name in ("alignment", "selection", "phase-diagram", "reviews", "imdb", "yelp"):
        assert f"reproduce {name} " in out


def test_list_can_print_pages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # The page itself, which takes half a second, is compared in test_docs.py.
    monkeypatch.setattr("attnembed.api_page.api_page", lambda: "# Public names\n")
    for option, title in (("--markdown", "# Claims"), ("--api", "# Public names")):
        code, out, err = run(capsys, "list", option)
        assert (code, err) == (0, "")
        assert out.splitlines()[0] == title


def test_verify_prints_a_table_and_writes_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    code, out, err = run(
        capsys, "verify", "attention", "--ids", "attention/step-in-span", "alpha-phi-delta", "--json", str(target)
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == [
        "claim",
        "measured",
        "bound",
        "ratio",
        "control",
        "held",
        "verdict",
        "seconds",
    ]
    assert [result["id"] for result in json.loads(target.read_text())["results"]] == [
        "attention/step-in-span",
        "attention/alpha-phi-delta",
    ]


def test_verify_exits_with_1_when_a_claim_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from attnembed.evidence import registry

    entry = registry._registry["attention/step-in-span"]
    failing = Evidence(measured=2.0, bound=1.0, control=3.0)
    changed = {**vars(entry), "measure": lambda rng: failing}
    monkeypatch.setitem(registry._registry, entry.id, registry.Claim(**changed))
    assert run(capsys, "verify", "--ids", entry.id)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "physics"), "'all', or a file FILE.py; got 'physics'"),
        (("verify", ""), "'all', or a file FILE.py; got ''"),
        (("verify", "--ids", "nothing"), "`--ids` must name registered claims; got 'nothing'; see `attnembed list`"),
        (("verify", "--ids", ""), "`--ids` must name registered claims; got ''"),
        (
            ("verify", "structured", "--ids", "attention/alpha-phi-delta"),
            "`--ids` must name claims of 'structured'; got 'attention/alpha-phi-delta'; or leave the subject out",
        ),
        (
            ("verify", "structured", "--ids", "alpha-phi-delta"),
            "got 'alpha-phi-delta', which is attention/alpha-phi-delta",
        ),
        (("verify", "--seed", "-1"), "argument --seed: must be at least 0; got -1"),
        (("verify", "--seed", "many"), "argument --seed: must be a whole number; got 'many'"),
        (("verify", "--seed", ""), "argument --seed: must be a whole number; got ''"),
        (("verify", "--json", ""), "argument --json: must name a file or folder; got ''"),
        (("reproduce", "nothing"), "argument NAME: must be one of 'alignment', "),
        (("reproduce", "imdb", "--data", ""), "argument --data: must name a file or folder; got ''"),
        (("reproduce", "alignment", "--data", "here"), "`--data` is not used by alignment; got here; leave it out"),
        (
            ("reproduce", "selection", "--repetitions", "3"),
            "`--repetitions` is not used by selection; got 3; leave it out",
        ),
        (("reproduce", "ocr", "--repetitions", "0"), "argument --repetitions: must be at least 1; got 0"),
        (("reproduce", "imdb"), "--data"),
        (("reproduce", "imdb", "--data", "missing-file"), "missing-file"),
        (("reproduce", "alignment", "--seed", "-3"), "argument --seed: must be at least 0; got -3"),
        (("reproduce", "alignment", "--name", "mine"), "belongs to imdb, reviews, yelp; got 'mine' for alignment"),
        (("reproduce", "reviews", "--data", __file__, "--name", "../mine"), "must be a word"),
        (("reproduce", "selection", "--encoding", "utf-8"), "`encoding` belongs to imdb, reviews, yelp"),
        (("reproduce", "imdb", "--data", __file__, "--where", "source"), "COLUMN=VALUE"),
        (("reproduce", "imdb", "--data", __file__, "--labels", "good=2"), "LABEL=SIGN"),
        (("reproduce", "imdb", "--data", __file__, "--format", "xml"), "--format"),
        (("report",), "--out"),
        (("report", "--out", __file__), "test_cli.py"),
        (("report", "--out", "unused", "--seed", "-3"), "argument --seed: must be at least 0; got -3"),
        (("list", "--markdown", "--api"), "--api"),
        ((), "COMMAND"),
        (("dance",), "dance"),
    ],
)
def test_errors_are_one_line_and_exit_with_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.delenv("ATTNEMBED_DATA", raising=False)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert words in err


@pytest.mark.parametrize(
    ("arguments", "old"),
    [(("reproduce", "selection"), "--seeds"), (("sweep", "margin", "--over", "d=1"), "--repeats")],
)
def test_repetitions_under_their_old_names(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], old: str
) -> None:
    """They are read as before, with one line about it; the help does not list them."""
    parser = command_parser(_COMMANDS, readers=False)
    assert parser.parse_args([*arguments, "--repetitions", "3"]).repetitions == 3
    assert capsys.readouterr().err == ""
    assert parser.parse_args([*arguments, old, "3"]).repetitions == 3
    assert capsys.readouterr().err == f"attnembed: {old} is deprecated and will be removed; use --repetitions\n"
    code, out, _ = run(capsys, arguments[0], "--help")
    assert code == 0
    assert "--repetitions" in out
    assert old not in out


def test_a_malformed_review_file_is_named_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "reviews.tsv"
    file.write_text("1\tgood\n0\tbad\n7\tugly\n")
    code, out, err = run(capsys, "reproduce", "imdb", "--data", str(file), "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "reviews.tsv, line 3" in err


def test_reviews_have_the_name_that_they_are_given(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, out = tmp_path / "some.tsv", tmp_path / "out"
    words = ("warm", "witty", "fine", "dull", "cold", "poor")
    rows = [
        f"{int(k % 6 < 3)}\tthe film was {words[k % 6]} and {words[(k * k) % 6]} number {k % 5}\n" for k in range(60)
    ]
    file.write_text("".join(rows))
    code, text, err = run(
        capsys, "reproduce", "reviews", "--data", str(file), "--name", "films", "--out", str(out), "--quick"
    )
    assert (code, err) == (0, "")
    assert {path.name for path in out.iterdir() if path.is_file()} == {"films-quick.png", "films-quick.json"}
    assert "+-" not in text
    assert "reviews, quick run: " in text

    file.write_text("".join(rows[2:4]))
    code, text, err = run(capsys, "reproduce", "reviews", "--data", str(file), "--out", str(out))
    assert (code, text) == (2, "")
    assert "some.tsv: holds too few reviews" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"text,label,source\na,1,x\nb,0,y\nc,0,x\n", (), "pass where={'source': 'x'}"),
        (b"text,label,source\na,1,x\nb,0,y\nc,0,x\n", ("--where", "source=z"), "'source' holds 'x', 'y'"),
        (b"label;text\n1;a\n", (), 'pass delimiter=";"'),
        ("1\tcaf\u00e9\n0\tb\n".encode("latin-1"), ("--format", "tsv"), "pass its encoding"),
    ],
)
def test_what_is_wrong_with_reviews_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, options: tuple[str, ...], words: str
) -> None:
    file = tmp_path / "reviews.csv"
    file.write_bytes(content)
    code, out, err = run(capsys, "reproduce", "imdb", "--data", str(file), *options, "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert words in err


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ("text,label,source\ngood,1,x\nugly,1,y\nbad,0,z\n", ("--where", "source=x", "source=z")),
        ("text,label,source\ngood,1,x\nbad,0,y\n", ("--where",)),
        ("a,b,c\n0,good,1\n0,bad,0\n", ("--text-column", "b", "--label-column", "c")),
        ("0,good,1\n0,bad,0\n", ("--text-column", "1", "--label-column", "2")),
        ("label;text\n1;good\n0;bad\n", ("--delimiter", ";")),
        ("label\ttext\n1\tgood\n0\tbad\n", ("--delimiter", "tab")),
        ("1\tgood\n0\tbad\n", ("--format", "tsv")),
        ("joy,good\nfear,bad\nawe,so so\n", ("--labels", "joy=+1", "fear=-1", "awe=0")),
        ("2,good\n1,bad\n", ("--labels", "1/2", "--encoding", "ascii")),
    ],
)
def test_options_of_the_reader(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, arguments: tuple[str, ...]
) -> None:
    from attnembed.attention.reviews import load_reviews
    from attnembed.experiments import registry, review_corpus, reviews

    file = tmp_path / "reviews.csv"
    file.write_text(content)
    read = []

    def fake(request: registry.Request, *_: object, **__: object) -> registry.Outcome:
        corpus = review_corpus.load_corpus(file, (), vocabulary=9, cache=tmp_path / "cache", reader=request.reader)
        read.append((corpus.train.n_samples, load_reviews(corpus.source[0], **corpus.source[1])))
        return registry.Outcome({}, {}, {})

    monkeypatch.setattr(reviews, "study", fake)
    monkeypatch.setattr(review_corpus, "_FEWEST_REVIEWS", (1, 1))
    assert main(["reproduce", "imdb", "--data", str(file), *arguments, "--out", str(tmp_path / "out")]) == 0
    ((size, (documents, labels)),) = read
    assert (size, documents, labels.tolist()) == (2, ["good", "bad"], [1, -1])


def test_a_folder_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, _, err = run(capsys, "reproduce", "selection", "--quick", "--out", str(blocked))
    assert code == 2
    assert str(blocked) in err


def test_a_link_in_a_circle_is_called_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    for command in (
        ("reproduce", "alignment", "--out"),
        ("report", "--out"),
        ("sweep", "margin", "--over", "d=8", "--out"),
        ("sweep", "margin", "--over", "d=8", "--out", str(tmp_path), "--store"),
        ("verify", "--ids", "alpha-phi-delta", "--json"),
    ):
        code, _, err = run(capsys, *command, str(circle))
        assert (code, len(err.splitlines())) == (2, 1)
        assert f"{circle}: cannot be " in err
        assert err.endswith("Too many levels of symbolic links\n")
    assert circle.is_symlink()


def test_sigterm_ends_it_as_ctrl_c_does(tmp_path: Path) -> None:
    """In the middle of writing a figure; no temporary file stays."""
    program = """
import sys, time
from matplotlib.figure import Figure
import attnembed.experiments.registry as registry
from attnembed.__main__ import _COMMANDS, main
from attnembed._arguments import command_parser
def draw():
    figure = Figure()
    figure.savefig = lambda *args, **options: (print("drawing", flush=True), time.sleep(120))
    return figure
entry = registry.Experiment("alignment", "", lambda request: registry.Outcome({}, {}, {"figure": draw}))
registry._MODULES = ()
registry._registry["alignment"] = entry
sys.exit(main(["reproduce", "alignment", "--out", sys.argv[1]]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "drawing\n"
    assert len(os.listdir(tmp_path)) == 1
    process.send_signal(signal.SIGTERM)
    try:
        out, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:  # an exception is lost where the signal comes while a destructor runs
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    message = "attnembed: error: interrupted; finished files are whole, run the same command again to continue\n"
    assert (process.returncode, out, err) == (2, "", message)
    assert os.listdir(tmp_path) == []


def test_an_interrupt_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["attnembed.evidence"], "verify", interrupted)
    code, out, err = run(capsys, "verify")
    assert (code, out) == (2, "")
    assert err.startswith("attnembed: error: interrupted")


def test_a_closed_pipe_is_silent() -> None:
    command = f"{sys.executable} -m attnembed list | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("attention/")


def test_module_and_script_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    out = subprocess.run(
        [sys.executable, "-m", "attnembed", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert out == run(capsys, "--version")[1]
