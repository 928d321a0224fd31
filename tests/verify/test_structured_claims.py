"""Every claim about structured prediction holds, and every negative control is caught, on several seeds."""

from __future__ import annotations

import pytest

from attnembed.verify import claims
from attnembed.verify.registry import Claim, verify

CLAIMS = {claim.id: claim for claim in claims("structured")}
# Trains six models; the others take a second at most.
SLOW = {"structured/scale-decides"}


@pytest.mark.parametrize("id", [pytest.param(id, marks=[pytest.mark.slow] * (id in SLOW)) for id in CLAIMS])
def test_claim_holds_and_its_control_is_caught(id):
    report = verify("structured", ids=[id], rng=0)
    assert report.passed, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_claims_hold_on_other_seeds(seed):
    report = verify("structured", rng=seed)
    assert report.passed, str(report)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_claims_are_described(claim: Claim, pytestconfig):
    assert claim.control
    assert claim.tex
    assert (pytestconfig.rootpath / "docs" / claim.derivation).is_file()
