"""Theorems as registered claims: `claims` lists them, `verify` measures them."""

from attnembed.evidence.measurement import Evidence, by_construction
from attnembed.evidence.page import claims_page
from attnembed.evidence.registry import Claim, claim, claims
from attnembed.evidence.run import verify
from attnembed.evidence.verdict import ClaimResult, Report

__all__ = [
    "Claim", "ClaimResult", "Evidence", "Report", "by_construction", "claim", "claims", "claims_page", "verify",
]  # fmt: skip
