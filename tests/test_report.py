"""The HTML page of evidence: whole, self-contained, escaped, accessible, and written whatever an experiment does."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnembed import _report_page as page_module
from attnembed import report as module
from attnembed.__main__ import main
from attnembed.errors import DataFileError, InputError, RunFailedError
from attnembed.evidence import Claim, ClaimResult, Evidence, Report, by_construction, claims
from attnembed.evidence.run import _measure, _summary
from attnembed.experiments import experiments
from attnembed.experiments.registry import Experiment, Outcome, Request, _registry, require_data, unavailable
from attnembed.report import WrittenReport, write_report

HOSTILE = "<script>alert('x')</script> & \"quotes\" $name ${name}"
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page, and whatever is wrong with their nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.problems: list[str] = []
        self._texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    @cached_property
    def text(self) -> str:
        return "".join(self._texts)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def outside(self) -> list[str]:
        """What a browser would fetch or run, links to the cited papers aside."""
        found = [
            f"<{tag}>" for tag, _ in self.elements if tag in ("script", "iframe", "link", "object", "embed", "base")
        ]
        for tag, attributes in self.elements:
            found += [f"{tag} {name}" for name in attributes if name.startswith("on")]
            if not attributes.get("src", "data:").startswith("data:image/png;base64,"):
                found += [attributes["src"]] if "src" in attributes else []
            if not re.match(r"#|https://arxiv\.org/abs/[\d.]+$", attributes.get("href", "#")):
                found.append(attributes["href"])
            found += [f"{tag} style"] if "url(" in attributes.get("style", "") else []
        return found

    @property
    def barriers(self) -> list[str]:
        """What a reader with a screen reader would stumble over."""
        found = [] if self.all("html")[0].get("lang") == "en" else ["no language"]
        found += ["an image without a text"] * sum(not image.get("alt", "").strip() for image in self.all("img"))
        found += ["a header without a scope"] * sum(cell.get("scope") not in ("col", "row") for cell in self.all("th"))
        found += ["a table without a caption"] * (len(self.all("table")) - len(self.all("caption")))
        found += ["not one h1"] * (len(self.all("h1")) != 1)
        found += ["no viewport"] * all(meta.get("name") != "viewport" for meta in self.all("meta"))
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        found += ["an id twice"] * (len(ids) != len(set(ids)))
        targets = {a["href"][1:] for a in self.all("a") if a.get("href", "").startswith("#")}
        targets |= {attributes["aria-labelledby"] for _, attributes in self.elements if "aria-labelledby" in attributes}
        return found + [f"no element {target}" for target in sorted(targets - set(ids))]


def made_up(name: str, evidence: Evidence) -> Claim:
    return Claim(
        f"attention/{name}",
        "attention",
        f"made up: {HOSTILE}",
        HOSTILE,
        f"[WSOM25], {HOSTILE}; [other]",
        (HOSTILE,),
        HOSTILE,
        "notation.md",
        lambda rng: evidence,
    )


CLAIMS = (
    made_up("right", Evidence(measured=0.25, bound=1.0, control=5.0, hypotheses={HOSTILE: True}, note="rather tight")),
    made_up("wrong", Evidence(measured=2.0, tolerance=1.0, control=5.0, note=HOSTILE, hypotheses={HOSTILE: True})),
    made_up("blind", Evidence(measured=0.5, bound=1.0, control=0.7)),
    made_up("empty", Evidence(measured=0.5, bound=1.0, control=5.0, hypotheses={HOSTILE: False})),
)


def good(request: Request) -> Outcome:
    def draw() -> Any:
        from attnembed.plotting import new_figure

        figure, axes = new_figure()
        axes[0, 0].plot([0, request.seed])
        return figure

    return Outcome({"size": 3, "note": HOSTILE}, {"slope": 0.123456789, "words": [HOSTILE]}, {"drawn": draw})


def broken(request: Request) -> Outcome:
    raise ZeroDivisionError(f"{HOSTILE}\nsecond line")


def needy(request: Request) -> Outcome:
    require_data(request, "the letters")
    raise AssertionError


def unlucky(request: Request) -> Outcome:
    raise InputError("data", "must let every run finish")


def damaged(request: Request) -> Outcome:
    raise DataFileError(require_data(request, "letters") / "letters.npz", "is damaged")


def incomplete(request: Request) -> Outcome:
    raise RunFailedError("a run of letters", "ValueError: bad fold")


def replacing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What replaces the claims and the experiments by a few that take no time."""
    monkeypatch.delenv("ATTNEMBED_DATA", raising=False)

    def replace(entries: tuple[Claim, ...], files: tuple[str, ...] = (), **runs: Callable[[Request], Outcome]) -> None:
        groups = tuple((name,) for name in files)
        found = tuple(Experiment(name, f"about {name}: {HOSTILE}", run, files=groups) for name, run in runs.items())
        experiments()  # the registry is filled once; the made-up ones come on top
        for entry in found:
            monkeypatch.setitem(_registry, entry.name, entry)
        monkeypatch.setattr(module, "experiments", lambda: found)
        monkeypatch.setattr(module, "claims", lambda: entries)

        def measured(subject: str, rng: int, instances: int, workers: int) -> Report:
            results = tuple(_summary(entry, [_measure(entry, rng)]) for entry in entries)
            return Report(results, rng, {"attnembed": "0"})

        monkeypatch.setattr(module, "verify", measured)

    return replace


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return replacing(monkeypatch)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[WrittenReport, str]:
    with pytest.MonkeyPatch.context() as patch:
        replacing(patch)(CLAIMS, good=good, broken=broken, needy=needy)
        result = write_report(tmp_path_factory.mktemp("report") / "a folder", quick=True, rng=7)
    return result, result.path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_self_contained_and_accessible(written: tuple[WrittenReport, str]) -> None:
    page = Page(written[1])
    assert page.problems == []
    assert page.outside == []
    assert page.barriers == []
    assert written[1].startswith("<!DOCTYPE html>")
    assert "prefers-color-scheme: dark" in written[1]
    assert "@media print" in written[1]
    assert "@import" not in written[1]
    assert "url(" not in written[1]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (("</article>", ""), "problems"),
        (("<main>", "<main></p>"), "problems"),
        (("<main>", "<main><script>1</script>"), "outside"),
        (("<main>", '<main><img alt="x" src="https://example.org/x.png">'), "outside"),
        (("<main>", '<main><a href="http://example.org">x</a>'), "outside"),
        (("<main>", '<main onclick="x()">'), "outside"),
        ((' lang="en"', ""), "barriers"),
        ((' alt="', ' title="'), "barriers"),
        ((' scope="row"', ""), "barriers"),
        (('id="claims"', 'id="claim"'), "barriers"),
        (('id="claims"', 'id="experiments"'), "barriers"),
    ],
)
def test_a_broken_page_is_caught(written: tuple[WrittenReport, str], change: tuple[str, str], where: str) -> None:
    assert change[0] in written[1]
    assert getattr(Page(written[1].replace(*change)), where) != []


def test_everything_is_escaped(written: tuple[WrittenReport, str]) -> None:
    text, page = written[1], Page(written[1])
    assert "<script" not in text
    # Statement, source, hypothesis and control of four claims; summaries of three experiments.
    assert page.text.count(HOSTILE) >= 4 * 4 + 3
    assert HOSTILE in page.all("img")[0]["alt"]


def test_claims_are_told_with_their_verdicts(written: tuple[WrittenReport, str]) -> None:
    result, text = written
    page = Page(text)
    verdicts = {"right": "✓ passed", "wrong": "✗ failed", "blind": "! blind", "empty": "? vacuous"}
    for name, verdict in verdicts.items():
        assert f"attention/{name} {verdict}" in page.text
        assert f"attnembed verify --ids attention/{name} --instance 7" in page.text
        assert f"{verdict}: " in page.text  # what the verdict means
    for phrase in (
        "1 of 4 claims hold",
        "does not exceed 1: the measurement is blind",
        "exceeds 1, as it must",
        "0.25",
        f"✗ {HOSTILE}",
        f"✓ {HOSTILE}",
        f"? {HOSTILE} (not measured)",
        "Measured 2 exceeds the tolerance 1.",
        f"Hypothesis fails: {HOSTILE}.",
    ):
        assert phrase in page.text
    assert [link["href"] for link in page.all("a") if link["href"].startswith("https")] == [
        "https://arxiv.org/abs/2505.17282"
    ] * 4
    assert "[other]" in page.text
    assert not result.passed


def test_only_what_is_wrong_is_red(written: tuple[WrittenReport, str]) -> None:
    red = re.findall(r'<p class="(?:reason|failed)">(.*?)</p>', written[1])
    assert not any("ather tight" in text for text in red)
    assert '<p class="quiet">Rather tight.</p>' in written[1]
    assert len(red) == 3 + 1  # three claims that have not passed, one experiment that has failed


def test_nothing_is_ticked_that_nobody_measured(small: Callable[..., None], tmp_path: Path) -> None:
    code = "held = " + "True"
    declared = ("eta beta < 2", by_construction("n is even", code=code), "p_0 is zero")

    def measure(rng: np.random.Generator) -> Evidence:
        held = True
        return Evidence(measured=0.5, bound=1.0, control=2.0, hypotheses={"p_0 is zero: ||p_0||": held})

    def raising(rng: np.random.Generator) -> Evidence:
        raise ValueError

    def listed(function: Any) -> list[str]:
        small((Claim("mine/x", "mine", "x", "", "", declared, "c", "", function),))
        page = write_report(tmp_path).path.read_text(encoding="utf-8")
        items = re.findall(r"<dt>Hypotheses</dt><dd><ul>(.*?)</ul></dd>", page, flags=re.DOTALL)[0]
        return re.findall(r"\S .*?(?= *$)", re.sub(r"<[^>]*>", "", items), flags=re.MULTILINE)

    assert [text.partition("test_report")[0] for text in listed(measure)] == [
        "? eta beta &lt; 2 (not measured)",
        f"• n is even (by construction: {code}, ",
        "✓ p_0 is zero: ||p_0||",
    ]
    assert listed(raising) == [f"? {text} (not measured)" for text in ("eta beta &lt; 2", "n is even", "p_0 is zero")]


def test_experiments_are_told_also_where_they_fail(written: tuple[WrittenReport, str]) -> None:
    result, text = written
    page = Page(text)
    assert [run.state for run in result.experiments] == ["done", "failed", "not run"]
    for phrase in ("Not run: `data` must name the letters", "0.123457", "size = 3", "quick version, seed 7"):
        assert phrase in page.text
    assert f"Failed: {HOSTILE} second line" in page.text
    assert "attnembed reproduce good --seed 7 --quick" in page.text
    assert "a folder' --seed 7 --quick" in page.text
    (image,) = page.all("img")
    embedded = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert embedded == (result.path.parent / "drawn-quick.png").read_bytes()
    assert str(result).splitlines()[1:4] == [
        "good: done",
        f"broken: failed ({HOSTILE} second line)",
        "needy: not run (`data` must name the letters; got none; pass --data PATH or set ATTNEMBED_DATA)",
    ]


def test_missing_data_are_no_failure(small: Callable[..., None], tmp_path: Path) -> None:
    small(CLAIMS[:1], files=("letters.npz", "letters.data"), needy=needy)
    assert write_report(tmp_path).passed
    result = write_report(tmp_path, data=tmp_path)
    assert result.passed
    assert result.experiments[0].error == f"{tmp_path}: holds none of letters.npz, letters.data"
    assert "1 was not run for want of data" in result.path.read_text(encoding="utf-8")


def test_data_that_do_not_exist_are_an_error_before_the_work(small: Callable[..., None], tmp_path: Path) -> None:
    small(CLAIMS[:1], needy=needy)
    with pytest.raises(DataFileError, match="nowhere: does not exist"):
        write_report(tmp_path, data=tmp_path / "nowhere")


@pytest.mark.parametrize("run", [unlucky, damaged, incomplete, broken], ids=lambda run: run.__name__)
def test_what_fails_is_never_called_not_run(
    small: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Callable[[Request], Outcome]
) -> None:
    (tmp_path / "letters.npz").write_bytes(b"not an archive")
    small(CLAIMS[:1], files=("letters.npz",), wanted=run)
    assert main(["report", "--out", str(tmp_path), "--data", str(tmp_path)]) == 1
    assert "wanted: failed (" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "0 of 1 experiments were run, 1 failed" in page
    assert "not run" not in page


@pytest.mark.parametrize(
    ("name", "files", "found"),
    [
        ("ocr", ["ocr_letters.npz"], True),
        ("ocr", ["weizmann32.npz"], False),
        ("chunking", ["conll2000/train.txt.gz", "conll2000/test.txt"], True),
        ("chunking", ["train.txt"], False),
        ("segmentation", ["rgb/1.png", "figure_ground/1.png"], True),
        ("imdb", ["imdb_train.tsv.gz", "imdb_test.tsv.gz"], True),
        ("imdb", ["aclImdb/train/pos/1.txt", "aclImdb/train/neg/1.txt"], True),
        ("imdb", ["yelp.csv"], False),
        ("yelp", ["yelp.csv"], True),
        ("reviews", ["pos/1.txt", "neg/1.txt"], True),
        ("selection", [], True),
    ],
)
def test_which_folders_hold_the_data(name: str, files: list[str], found: bool, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (entry,) = (entry for entry in experiments() if entry.name == name)
    assert (unavailable(entry, tmp_path) == "") == found


def test_a_single_file_is_for_the_experiment_that_knows_it_and_else_for_the_reviews(tmp_path: Path) -> None:
    def run(name: str) -> set[str]:
        (tmp_path / name).touch()
        return {entry.name for entry in experiments() if entry.files and not unavailable(entry, tmp_path / name)}

    assert run("mine.csv") == {"reviews"}
    assert run("yelp.csv") == {"yelp"}
    assert run("letter.data") == {"ocr"}


def test_every_registered_claim_and_experiment_has_its_place() -> None:
    def result(entry: Claim) -> ClaimResult:
        return ClaimResult(entry.id, entry.statement, True, 0.5, 1.0, 0.5, 2.0, True, {}, 0.1)

    report = Report(tuple(result(entry) for entry in claims()), 0, {})
    runs = [module.ExperimentRun(entry.name, entry.summary, "not run", "no data") for entry in experiments()]
    page = Page(page_module.report_page(report, claims(), runs, ["--seed", "0"], "attnembed report --out x", 1.0))
    assert page.problems == page.outside == page.barriers == []
    formulas = {svg.get("aria-label") for svg in page.all("svg")}
    for entry in claims():
        plain = entry.reference.replace("\n", " ")
        for phrase in (
            entry.id,
            entry.statement[1:],
            entry.control,
            entry.derivation,
            plain,
            *map(str, entry.hypotheses),
        ):
            assert phrase in page.text
        assert entry.tex in formulas
    for run in runs:
        assert run.summary[1:] in page.text


def test_claims_are_filtered_by_subject_and_verdict(written: tuple[WrittenReport, str]) -> None:
    page = Page(written[1])
    buttons = {(one["name"], one["id"]): "checked" in one for one in page.all("input")}
    verdicts = {("verdict", f"verdict-{name}") for name in ("passed", "failed", "blind", "vacuous")}
    assert set(buttons) == {("verdict", "verdict-all"), *verdicts}  # one subject only: nothing to choose
    assert [name for name, checked in buttons.items() if checked] == [("verdict", "verdict-all")]
    assert {label["for"] for label in page.all("label")} == {name for _, name in buttons}
    cards = [one for one in page.all("details") if "card" in one.get("class", "").split()]
    for _, name in verdicts:
        assert f"section:has(#{name}:checked) .card:not(.{name}) {{ display: none; }}" in written[1]
        assert sum(name in one["class"].split() for one in cards) == 1


def test_the_callback_hears_of_each_part(small: Callable[..., None], tmp_path: Path) -> None:
    small(CLAIMS[:1], good=good, broken=broken)
    heard: list[tuple[str, int, int]] = []
    write_report(tmp_path, callback=lambda *part: heard.append(part))
    assert heard == [("claims", 0, 3), ("good", 1, 3), ("broken", 2, 3)]


def test_errors_come_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(module, "verify", never)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFileError, match="cannot be created"):
        write_report(tmp_path / "file")
    with pytest.raises(InputError, match="rng"):
        write_report(tmp_path, rng=-1)


def test_an_old_page_stays_whole_until_the_new_one_is(
    small: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small(CLAIMS[:1])
    (tmp_path / "report.html").write_text("old")

    def half(self: Path, text: str, **options: Any) -> int:
        self.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(DataFileError, match="No space left"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_command(small: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(CLAIMS[:1], needy=needy)
    assert main(["report", "--out", str(tmp_path), "--quick", "--seed", "3"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("1 of 1 claims hold")
    assert out[-1].startswith(f"written: {tmp_path / 'report.html'}")
    small(CLAIMS)
    assert main(["report", "--out", str(tmp_path)]) == 1


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium to measure the page")
@pytest.mark.parametrize("width", [1200, 1400])
def test_the_claims_fit_in_a_page_of_desktop_width(width: int, tmp_path: Path) -> None:
    """All claims below one another, closed: less than 8,000 of the 10,000 pixels of the whole page."""
    results = tuple(
        ClaimResult(
            entry.id, entry.statement, True, 1.2345e-12, 1e-10, np.nan, 1.234, True, {}, 0.1,
            kind="tolerance", control_bound=1.2e-10, instances=20, held=20, caught=20,
        )
        for entry in claims()
    )  # fmt: skip
    report = Report(results, 0, {})
    page = page_module.report_page(report, claims(), [], [], "attnembed report", 1.0)
    policy = re.compile(r"<meta http-equiv=.Content-Security-Policy.*>")
    assert len(policy.findall(page)) == 1
    script = "<script>document.title = document.documentElement.scrollHeight</script></body>"
    file = tmp_path / "page.html"
    file.write_text(policy.sub("", page).replace("</body>", script), encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},900", "--dump-dom", f"file://{file}"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    (height,) = re.findall(r"<title>(\d+)</title>", shown)
    assert 3000 < int(height) < 8000
