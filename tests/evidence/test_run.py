"""Verdicts: what passes, fails, is blind or vacuous, and that one bad claim never ends a run."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import attnembed as ae
from attnembed.attention.theory import Hypothesis
from attnembed.errors import InputError, InputTypeError
from attnembed.evidence import Claim, ClaimResult, Evidence, Report, by_construction, verify
from attnembed.evidence.run import _measure, _summary

GOOD = Evidence(measured=0.5, bound=1.0, control=2.0)


def made_up(evidence: Any, *, name: str = "made-up", hypotheses: tuple[str, ...] = ()) -> Claim:
    def measure(rng: np.random.Generator) -> Any:
        if isinstance(evidence, BaseException):
            raise evidence
        return evidence

    return Claim(f"mine/{name}", "mine", "s", "", "", hypotheses, "c", "", measure)


def result(evidence: Any, **options: Any) -> ClaimResult:
    entry = made_up(evidence, **options)
    return _summary(entry, [_measure(entry, 0)])


def test_a_claim_passes_only_if_measured_limit_control_and_hypotheses_agree() -> None:
    good = result(GOOD)
    assert (good.passed, good.control_failed, good.ratio, good.verdict, good.reason) == (True, True, 0.5, "passed", "")
    assert not result(dataclasses.replace(GOOD, measured=1.5)).passed
    assert not result(dataclasses.replace(GOOD, measured=math.nan)).passed
    blind = result(dataclasses.replace(GOOD, control=0.9))
    assert (blind.passed, blind.control_failed, blind.verdict) == (True, False, "blind")
    assert blind.reason == "the negative control, 0.9, does not exceed 1"
    assert not result(dataclasses.replace(GOOD, control=math.nan)).control_failed
    assert not result(dataclasses.replace(GOOD, control=1.5, control_bound=1.6)).control_failed


def test_a_claim_whose_hypothesis_fails_is_vacuous_and_not_passed() -> None:
    found = result(Evidence(measured=0.5, bound=1.0, control=2.0, hypotheses={"h": False, "k": True}))
    assert (found.verdict, found.passed, found.reason) == ("vacuous", False, "hypothesis fails: h")
    report = Report((found,), 0, {})
    assert not report.passed
    assert "vacuous: a hypothesis does not hold on any instance" in str(report)


def test_only_a_bound_has_a_ratio() -> None:
    exact = result(Evidence(measured=2e-38, tolerance=1e-6, control=1.0))
    assert (exact.verdict, exact.kind, exact.bound) == ("passed", "tolerance", 1e-6)
    assert math.isnan(exact.ratio)
    line = str(Report((exact,), 0, {})).splitlines()[1]
    assert line.split()[1:5] == ["2.000e-38", "~1.000e-06", "-", "1.000e+00"]
    assert json.loads(Report((exact,), 0, {}).to_json())["results"][0]["ratio"] is None
    loose = result(Evidence(measured=1e-6, bound=1.0, control=2.0))
    assert (loose.ratio, loose.loose, exact.loose) == (1e-6, True, False)
    assert "loose, measured below 0.001 of the bound: mine/made-up" in str(Report((loose,), 0, {}))


@pytest.mark.parametrize(
    ("measured", "bound", "ratio"), [(-1.0, 2.0, -0.5), (0.0, 0.0, 0.0), (1.0, 0.0, math.inf), (-2.0, -1.0, math.nan)]
)
def test_the_ratio_at_the_edges(measured: float, bound: float, ratio: float) -> None:
    assert result(Evidence(measured=measured, bound=bound, control=5.0)).ratio == pytest.approx(ratio, nan_ok=True)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (ValueError("no such\nthing"), "ValueError: no such thing"),
        (SystemExit(3), "SystemExit: 3"),
        (RecursionError(), "RecursionError"),
        (0.5, "must return Evidence; got float"),
        (None, "must return Evidence; got NoneType"),
        ((True, 0.5), "must return Evidence; got tuple"),
    ],
)
def test_a_claim_that_cannot_be_measured_is_one_failed_line(returned: Any, words: str) -> None:
    claims = [made_up(GOOD, name="a"), made_up(returned, name="b"), made_up(GOOD, name="c")]
    report = verify(claims)
    assert [entry.verdict for entry in report.results] == ["passed", "failed", "passed"]
    assert words in report.results[1].reason
    assert sum(words in line for line in str(report).splitlines()) == 1
    assert str(report).splitlines()[-1].startswith("2 of 3 claims hold")
    assert json.loads(report.to_json())["results"][1]["verdict"] == "failed"


def test_an_error_without_a_text_is_told_by_its_class() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert result(Mute()).reason == "Mute"


def test_ctrl_c_ends_the_run() -> None:
    with pytest.raises(KeyboardInterrupt):
        verify([made_up(KeyboardInterrupt())])


def test_evidence_takes_hypothesis_objects() -> None:
    fine, bad = Hypothesis("small: ||p||", 0.0, "<=", 1.0), Hypothesis("large: ||E||", 0.0, ">", 1.0)
    for given in ((fine, bad), [fine, bad], {"small: ||p||": fine, "large: ||E||": np.False_}):
        assert Evidence(measured=0, bound=1, control=2, hypotheses=given).held == {
            "small: ||p||": True,
            "large: ||E||": False,
        }
    assert Evidence(measured=0, bound=1, control=2, hypotheses=fine).held == {"small: ||p||": True}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"bound": None}, InputError, "`bound` or else `tolerance` must be given; got neither"),
        ({"tolerance": 1.0}, InputError, "got both"),
        ({"measured": "0.5"}, InputTypeError, "`measured` must be a real number; got str"),
        ({"measured": np.ones(2)}, InputTypeError, r"got ndarray of shape \(2,\)"),
        ({"measured": None}, InputTypeError, "`measured`"),
        ({"control": 1j}, InputTypeError, "`control`"),
        ({"hypotheses": "h"}, InputTypeError, "`hypotheses` must say which hypotheses hold"),
        ({"hypotheses": {"h": 0.3}}, InputTypeError, "got float"),
        ({"hypotheses": [True]}, InputTypeError, "got bool"),
        ({"hypotheses": [Hypothesis("h", 0, "<", 1)] * 2}, InputError, "'h' twice"),
        ({"note": 3}, InputTypeError, "`note`"),
    ],
)
def test_wrong_evidence_is_named(options: dict[str, Any], error: type[InputError], words: str) -> None:
    with pytest.raises(error, match=words):
        Evidence(**{"measured": 0.5, "bound": 1.0, "control": 2.0, **options})


def test_evidence_takes_the_numbers_of_numpy_and_of_python() -> None:
    for value in (np.float32(0.5), np.array(0.5), Fraction(1, 2), np.int64(0), False, np.True_, 10**400):
        assert type(Evidence(measured=value, bound=1.0, control=2.0).measured) is float
    assert Evidence(measured=-(10**400), bound=1.0, control=2.0).measured == -math.inf


def test_a_hypothesis_that_was_not_measured_is_said_to_be_so() -> None:
    declared = ("eta beta < 2", by_construction("n is even", code="n = 2 * m"))
    measured = result(dataclasses.replace(GOOD, hypotheses={"eta beta < 2: eta beta": True}), hypotheses=declared)
    assert measured.unmeasured == ()
    silent = result(GOOD, hypotheses=declared)
    assert (silent.verdict, silent.unmeasured) == ("passed", ("eta beta < 2",))
    assert "hypothesis not measured: eta beta < 2" in str(Report((silent,), 0, {}))
    assert result(ValueError("x"), hypotheses=declared).unmeasured == ("eta beta < 2", "n is even")


def test_the_report_explains_the_verdicts_that_it_gives() -> None:
    assert "blind" not in str(Report((result(GOOD),), 0, {}))
    assert Report((result(GOOD),), 0, {}).passed
    blind = Report((result(GOOD), result(dataclasses.replace(GOOD, control=0.0))), 0, {})
    assert not blind.passed
    assert "blind: the negative control was caught on no instance" in str(blind)
    assert not Report((), 0, {}).passed


def test_check_tells_the_whole_story() -> None:
    made_up(GOOD).check(rng=3)
    wrong = made_up(Evidence(measured=3.0, bound=1.0, control=9.0), hypotheses=("eta beta < 2",))
    with pytest.raises(AssertionError) as caught:
        wrong.check()
    for words in ("mine/made-up failed", "hypothesis: eta beta < 2", "control: c", "measured 3 exceeds the bound 1"):
        assert words in str(caught.value)
    assert str(wrong) == "mine/made-up"


def test_numbers_of_a_claim_do_not_depend_on_which_others_run() -> None:
    alone = ae.verify(ids=["attention/gradients-exact"], instances=1, rng=3)
    both = ae.verify(ids=["attention/step-in-span", "gradients-exact"], instances=1, rng=3)
    assert alone.results[0].control == both.results[1].control
    assert alone.results[0].control != ae.verify(ids=["gradients-exact"], instances=1, rng=4).results[0].control
    (entry,) = (entry for entry in ae.claims("attention") if entry.id == "attention/gradients-exact")
    assert verify([entry], instances=1, rng=3).results[0].control == alone.results[0].control


def test_json_has_the_fields_and_is_valid() -> None:
    content = json.loads(ae.verify(ids=["attention/step-in-span"]).to_json())
    assert content["passed"] is True
    (found,) = content["results"]
    assert {"id", "passed", "measured", "bound", "ratio", "control_failed", "seconds", "verdict"} <= set(found)


@pytest.mark.parametrize("ids", [["attention/nothing"], ["nothing"], "nowhere"])
def test_unknown_ids_are_named(ids: list[str] | str) -> None:
    with pytest.raises(InputError, match="`ids` must name registered claims"):
        ae.verify(ids=ids)


def test_ids_that_cannot_be_used_are_named() -> None:
    with pytest.raises(InputError, match="at least one claim; got none"):
        ae.verify(ids=[])
    with pytest.raises(InputError, match="at least one claim; got none"):
        ae.verify([])
    with pytest.raises(InputTypeError, match="`ids` must be texts"):
        ae.verify(ids=[3])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match="`subject` must be a sequence of claims, or the name"):
        ae.verify(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="claims of 'structured'; got 'step-in-span', which is attention/step-in-span"):
        ae.verify("structured", ids="step-in-span")


def test_a_short_id_of_several_claims_is_refused() -> None:
    two = [made_up(GOOD), dataclasses.replace(made_up(GOOD), id="yours/made-up", subject="yours")]
    with pytest.raises(InputError, match="must name one claim each; got 'made-up'; use one of mine/made-up, yours/"):
        verify(two, ids="made-up")
    assert [entry.id for entry in verify(two, ids=["yours/made-up"]).results] == ["yours/made-up"]


def test_unknown_subject_is_named() -> None:
    with pytest.raises(InputError, match="`subject` must be one of"):
        ae.verify("physics")


def test_a_generator_and_none_serve_as_rng() -> None:
    assert ae.verify(ids=["gradient-factors"], rng=np.random.default_rng(5)).passed
    assert ae.verify(ids=["gradient-factors"], rng=None).passed
    for wrong in (-1, True, "0"):
        with pytest.raises(InputError, match="`rng`"):
            ae.verify(ids=["gradient-factors"], rng=wrong)  # type: ignore[arg-type]
