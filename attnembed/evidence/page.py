"""docs/claims.md, made from the registry."""

from __future__ import annotations

import re

from attnembed.evidence.measurement import by_construction
from attnembed.evidence.registry import SUBJECTS, Claim, claims

__all__ = ["capitalised", "claims_page"]

_HEAD = """# Claims

Every statement below is measured by `attnembed verify`. A claim passes when its hypotheses hold on the instance and
the measured value is at most its bound, or its tolerance where it is what rounding or finite time may leave. Its
negative control, the same measurement where the statement does not apply, must exceed that limit; else the claim is
blind. A claim whose hypotheses do not hold on the instance is vacuous. Neither counts as passed. This page is
generated: `attnembed list --markdown > docs/claims.md`.
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
    lines = [f"### {entry.id}", "", f"{capitalised(entry.statement)}.", ""]
    if entry.tex:
        lines += [f"$${entry.tex}$$", ""]
    if entry.hypotheses:
        lines.append(f"- Hypotheses: {'; '.join(_hypothesis(text) for text in entry.hypotheses)}")
    lines.append(f"- Negative control: {entry.control}")
    page = f"see [{entry.derivation}]({entry.derivation})" if entry.derivation else ""
    if entry.reference or page:
        lines.append(f"- Source: {'; '.join(part for part in (entry.reference, page) if part)}")
    return "\n".join([*lines, ""])


def _hypothesis(text: str) -> str:
    return f"{text} (by construction: `{text.code}`)" if isinstance(text, by_construction) else text


# First words that are mathematics although they look like words: with a capital letter they would be something else.
_FUNCTIONS = "log exp max min argmax argmin sup inf lim sin cos tan tanh arg det diag sign span rank softmax sigmoid"
_GREEK = (
    "alpha beta gamma delta epsilon eps zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega"
)
_SYMBOLS = frozenset(f"{_FUNCTIONS} {_GREEK}".split())


def capitalised(text: str) -> str:
    """The text with a capital first letter, where it begins with a word; a symbol stays as it is.

    >>> capitalised("the loss falls"), capitalised("a balanced pair"), capitalised("t (L - L*) converges")
    ('The loss falls', 'A balanced pair', 't (L - L*) converges')
    """
    first = re.match(r"[a-z]+(?:[-'’][a-z]+)*(?=[\s,:;]|$)", text)
    if first is None or (len(first[0]) == 1 and first[0] != "a") or first[0] in _SYMBOLS:
        return text
    return text[0].upper() + text[1:]
