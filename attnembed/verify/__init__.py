"""Theorems as registered claims: `claims` lists them, `verify` measures them."""

from attnembed.verify.page import claims_page
from attnembed.verify.registry import Claim, ClaimResult, Evidence, Report, claim, claims, verify

__all__ = ["Claim", "ClaimResult", "Evidence", "Report", "claim", "claims", "claims_page", "verify"]
