"""Audits of data sets before any learning: duplicates, contradictions, shared types and baselines."""

from typing import TYPE_CHECKING

from attnembed._lazy import attach

if TYPE_CHECKING:
    from attnembed.auditing.front import audit
    from attnembed.auditing.record import Audit, Fact

__all__ = ["Audit", "Fact", "audit"]

attach(__name__, {"attnembed.auditing.front": ("audit",), "attnembed.auditing.record": ("Audit", "Fact")})
