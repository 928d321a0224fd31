"""Theorems as registered claims: `claims` lists them, `verify` measures them."""

from attnembed.verify.evidence import Evidence, by_construction
from attnembed.verify.page import claims_page
from attnembed.verify.registry import Claim, claim, claims
from attnembed.verify.run import verify
from attnembed.verify.verdict import ClaimResult, Report

__all__ = [
    "Claim", "ClaimResult", "Evidence", "Report", "by_construction", "claim", "claims", "claims_page", "verify",
]  # fmt: skip
