"""Every registered claim holds, with its negative control caught, on more instances than the default one."""

from __future__ import annotations

from pathlib import Path

import pytest

import attnembed as ae
from attnembed.verify import Claim

# These train several models; the others take a second at most.
SLOW = {"structured/scale-decides"}
DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    "entry",
    [pytest.param(entry, id=entry.id, marks=[pytest.mark.slow] * (entry.id in SLOW)) for entry in ae.claims()],
)
def test_claim_holds(entry: Claim) -> None:
    report = ae.verify(entry.subject, ids=[entry.id], rng=1)
    assert report.results[0].passed, str(report)
    assert report.results[0].control_failed, f"the negative control was not caught\n{report}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_claims_hold_for_other_seeds(seed: int) -> None:
    report = ae.verify(rng=seed)
    assert report.passed, str(report)


@pytest.mark.parametrize("entry", ae.claims(), ids=lambda entry: entry.id)
def test_claim_is_documented(entry: Claim) -> None:
    assert entry.statement
    assert entry.tex
    assert entry.control
    assert entry.reference
    assert (DOCS / entry.derivation).is_file(), f"{entry.id} refers to a page that does not exist"
