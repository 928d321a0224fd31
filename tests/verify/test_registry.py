"""The registry tells right from wrong, and says so."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

import attnembed as ae
from attnembed.errors import InputError
from attnembed.verify import registry
from attnembed.verify.registry import Claim, Evidence, Report, _run


def _claim(evidence: Evidence | Exception) -> Claim:
    def measure(rng: np.random.Generator) -> Evidence:
        if isinstance(evidence, Exception):
            raise evidence
        return evidence

    return Claim("attention/made-up", "attention", "s", "t", "r", (), "c", "d", measure)


def _result(evidence: Evidence | Exception) -> registry.ClaimResult:
    return _run(_claim(evidence), np.random.default_rng(0))


GOOD = Evidence(measured=0.5, bound=1.0, control=2.0)


def test_a_claim_passes_only_if_measured_bound_control_and_hypotheses_agree() -> None:
    good = _result(GOOD)
    assert (good.passed, good.control_failed, good.ratio, good.verdict) == (True, True, 0.5, "passed")
    assert not _result(dataclasses.replace(GOOD, measured=1.5)).passed
    assert not _result(dataclasses.replace(GOOD, measured=math.nan)).passed
    assert not _result(dataclasses.replace(GOOD, hypotheses={"h": False})).passed
    blind = _result(dataclasses.replace(GOOD, control=0.9))
    assert (blind.passed, blind.control_failed, blind.verdict) == (True, False, "blind")
    assert not _result(dataclasses.replace(GOOD, control=math.nan)).control_failed
    assert not _result(dataclasses.replace(GOOD, control=1.5, control_bound=1.6)).control_failed


def test_a_claim_that_cannot_be_measured_fails_and_says_why() -> None:
    broken = _result(ValueError("no such thing"))
    assert not broken.passed
    assert "no such thing" in broken.note
    report = Report((broken, _result(GOOD)), 0, {})
    assert not report.passed
    assert "no such thing" in str(report)
    assert str(report).splitlines()[-1].startswith("1 of 2 claims hold")


def test_the_report_fails_when_a_control_is_not_caught() -> None:
    assert Report((_result(GOOD),), 0, {}).passed
    assert not Report((_result(GOOD), _result(dataclasses.replace(GOOD, control=0.0))), 0, {}).passed


def test_numbers_of_a_claim_do_not_depend_on_which_others_run() -> None:
    alone = ae.verify(ids=["attention/gradient-factors"], rng=3)
    both = ae.verify(ids=["attention/step-in-span", "gradient-factors"], rng=3)
    assert alone.results[0].measured == both.results[1].measured
    assert alone.results[0].measured != ae.verify(ids=["gradient-factors"], rng=4).results[0].measured


def test_json_has_the_fields_and_is_valid() -> None:
    content = json.loads(ae.verify(ids=["attention/step-in-span"]).to_json())
    assert content["passed"] is True
    (result,) = content["results"]
    assert {"id", "passed", "measured", "bound", "ratio", "control_failed", "seconds", "verdict"} <= set(result)


@pytest.mark.parametrize("ids", [["attention/nothing"], ["nothing"], "nowhere"])
def test_unknown_ids_are_named(ids: list[str] | str) -> None:
    with pytest.raises(InputError, match="`ids` must name registered claims"):
        ae.verify(ids=ids)


def test_unknown_subject_is_named() -> None:
    with pytest.raises(InputError, match="`subject` must be one of"):
        ae.verify("physics")


def test_a_generator_and_none_serve_as_rng() -> None:
    assert ae.verify(ids=["gradient-factors"], rng=np.random.default_rng(5)).passed
    assert ae.verify(ids=["gradient-factors"], rng=None).passed
    with pytest.raises(InputError, match="`rng`"):
        ae.verify(ids=["gradient-factors"], rng=-1)


def test_registering_an_id_twice_is_refused() -> None:
    with pytest.raises(InputError, match="unique"):
        registry.claim("attention/gradient-factors", statement="", tex="", reference="", control="", derivation="")(
            lambda rng: GOOD
        )
