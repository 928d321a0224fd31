"""docs/claims.md, made from the registry."""

from __future__ import annotations

from attnembed.verify.registry import SUBJECTS, Claim, claims

__all__ = ["claims_page"]

_HEAD = """# Claims

Every statement below is measured by `attnembed verify`. A claim passes when its hypotheses hold on the instance and
the measured value is at most its bound; its negative control, the same measurement where the statement does not apply,
must exceed that bound. This page is generated: `attnembed list --markdown > docs/claims.md`.
"""


def claims_page() -> str:
    """The claims as one Markdown page, a section each: statement, formula, hypotheses, control, source."""
    parts = [_HEAD]
    for subject in SUBJECTS:
        entries = claims(subject)
        if entries:
            parts.append(f"## {subject.capitalize()}\n")
            parts += [_section(entry) for entry in entries]
    return "\n".join(parts)


def _section(entry: Claim) -> str:
    lines = [f"### {entry.id}", "", f"{entry.statement[0].upper()}{entry.statement[1:]}.", "", f"$${entry.tex}$$", ""]
    if entry.hypotheses:
        lines.append(f"- Hypotheses: {'; '.join(entry.hypotheses)}")
    lines += [
        f"- Negative control: {entry.control}",
        f"- Source: {entry.reference}; see [{entry.derivation}]({entry.derivation})",
        "",
    ]
    return "\n".join(lines)
