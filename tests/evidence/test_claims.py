"""Every registered claim holds, with its negative control caught, on more instances than the default one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import attnembed as ae
from attnembed.__main__ import main
from attnembed.evidence import Claim, by_construction
from attnembed.evidence.page import capitalised
from attnembed.evidence.registry import place
from attnembed.evidence.run import hypothesis_name

# These train models or measure many; the others take a tenth of a second.
SLOW = {
    "structured/scale-decides",
    "structured/certain-labels",
    "attention/small-step",
    "attention/finite-width",
    "attention/gaussian-bound",
}
DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    "entry",
    [pytest.param(entry, id=entry.id, marks=[pytest.mark.slow] * (entry.id in SLOW)) for entry in ae.claims()],
)
def test_claim_holds(entry: Claim) -> None:
    report = ae.verify(entry.subject, ids=[entry.id], instances=1, rng=1)
    assert report.results[0].passed, str(report)
    assert report.results[0].control_failed, f"the negative control was not caught\n{report}"
    # What is declared is what was measured, or quotes the code that makes it so; nothing else is ticked.
    declared = {text for text in entry.hypotheses if not isinstance(text, by_construction)}
    assert {hypothesis_name(text) for text in report.results[0].hypotheses} == declared
    assert report.results[0].unmeasured == ()


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(1, 10))
def test_claims_hold_for_other_seeds(seed: int) -> None:
    report = ae.verify(rng=seed)
    assert report.passed, str(report)


def test_claims_are_documented() -> None:
    problems = []
    for entry in ae.claims():
        texts = {name: getattr(entry, name) for name in ("statement", "tex", "control", "reference")}
        problems += [f"{entry.id} has no {name}" for name, text in texts.items() if not text]
        if not (DOCS / entry.derivation).is_file():
            problems.append(f"{entry.id} refers to a page that does not exist")
        for text in entry.hypotheses:
            if isinstance(text, by_construction) and not place(entry.measure, text.code):
                problems.append(f"{entry.id}: {text.code!r} stands nowhere")
    assert problems == []


# Statements that begin with a symbol, which a capital letter would make another one.
SYMBOLS = {
    "attention/no-critical-point": "-grad_p L",
    "attention/max-margin-direction": "p_t/||p_t||",
    "attention/loss-gap-limit": "t (L - L*)",
    "attention/asymptote": "p_t - p_mm log t",
    "attention/norm-constant": "||p_t||",
    "attention/attention-decay": "t times",
    "structured/chain-enumeration": "log Z",
    "structured/long-chains": "log Z",
}


def test_symbols_keep_their_case() -> None:
    for entry in ae.claims():
        text = capitalised(entry.statement)
        assert text[1:] == entry.statement[1:], entry.id
        if entry.id in SYMBOLS:
            assert text.startswith(SYMBOLS[entry.id]), entry.id
        else:
            assert text[0] == entry.statement[0].upper(), entry.id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a balanced pair", "A balanced pair"),
        ("max-margin directions are unique", "Max-margin directions are unique"),
        ("eta beta < 2 suffices", "eta beta < 2 suffices"),
        ("gamma^2 is positive", "gamma^2 is positive"),
        ("x grows", "x grows"),
        ("n_i is even", "n_i is even"),
        ("f(x) falls", "f(x) falls"),
        ("what's new, it grows", "What's new, it grows"),
        ("Already", "Already"),
        ("", ""),
    ],
)
def test_only_words_get_a_capital(text: str, expected: str) -> None:
    assert capitalised(text) == expected


def test_the_page_has_every_claim_with_its_source_and_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ae.verify(ids=["attention/hessian-bound", "structured/constraints"], instances=2)
    file = tmp_path / "claims.json"
    file.write_text(report.to_json())
    assert main(["list", "--markdown", "--verdicts", str(file)]) == 0
    page = capsys.readouterr().out
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert len(rows) == len(ae.claims())
    bound = next(row for row in rows if "#attentionhessian-bound" in row)
    assert "[smoothness](derivations/smoothness.md)" in bound
    assert " | passed: 2 of 2, within 1 of its bound |" in bound
    exact = next(row for row in rows if "#structuredconstraints" in row)
    assert exact.endswith(" | passed: 2 of 2 |")  # a tolerance has no ratio
    assert sum(row.endswith(" | not measured |") for row in rows) == len(rows) - 2
    keys = set(re.findall(r"\[[A-Z]+\d\d\]", "\n".join(rows)))
    assert all(f"- {key} " in page for key in keys)


@pytest.mark.parametrize("arguments", [("--markdown", "--verdicts", "FILE"), ("--verdicts", "FILE")])
def test_verdicts_that_are_none_are_one_line(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.json").write_text('{"results": 3}')
    assert main(["list", *(str(tmp_path / "odd.json") if x == "FILE" else x for x in arguments)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "is not a report; make one with" in err or "belongs to --markdown" in err


def test_a_result_that_is_not_a_number_fails_its_claim() -> None:
    """What is measured is collected by `largest`: max(0.0, nan) is 0.0."""
    folder = Path(ae.__file__).parent / "evidence"
    for path in [*folder.glob("attention/*.py"), *folder.glob("structured/*.py")]:
        assert not re.search(r"(measured=|worst = |\()max\((worst|measured|off|gaps)", path.read_text()), path
