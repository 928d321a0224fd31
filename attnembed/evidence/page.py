"""docs/claims.md, made from the registry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attnembed.evidence.measurement import by_construction
from attnembed.evidence.registry import SUBJECTS, Claim, claims

__all__ = ["capitalised", "claims_page", "verdict_texts"]

_HEAD = """# Claims

Every statement below is measured by `attnembed verify`. A claim passes when its hypotheses hold on the instance and
the measured value is at most its bound, or its tolerance where it is what rounding or finite time may leave. Its
negative control, the same measurement where the statement does not apply, must exceed that limit; else the claim is
blind. A claim whose hypotheses do not hold on the instance is vacuous. Neither counts as passed. This page is
generated: `attnembed list --markdown > docs/claims.md`, with the verdicts of a run where `--verdicts` names its file.

Of each claim the table has the statement, where it is from and the verdict; below it come the formulas, hypotheses and
controls. F1 to F8 are the statements about the flow that the derivation pages prove.
"""

_SOURCES = """## Sources

- [WSOM25] Wu, Shevchenko, Oymak, Mondelli: *Attention with Trained Embeddings Provably Selects Important Tokens*, arXiv
  2505.17282.
- [TLTO23] Tarzanagh, Li, Zhang, Oymak: *Max-Margin Token Selection in Attention Mechanism*, arXiv 2306.13596.
- [VDT24] Vasudeva, Deora, Thrampoulidis, arXiv 2402.05738.
- [JTA24] Julistiono, Tarzanagh, Azizan, arXiv 2410.14581.
- [SO19] Shevchenko, Osokin: *Scaling Matters in Deep Structured-Prediction Models*, arXiv 1902.11088.
"""


def claims_page(verdicts: Mapping[str, str] | None = None) -> str:
    """The claims as one Markdown page: a table of all, then a section each with formula, hypotheses and control.

    ``verdicts`` has a text for each id, as `verdict_texts` makes them; without it the table has no such column.
    """
    parts = [_HEAD]
    groups = {subject: claims(subject) for subject in SUBJECTS}
    for subject, entries in groups.items():
        if entries:
            parts.append(_table(subject, entries, verdicts))
    parts.append(_SOURCES)
    for subject, entries in groups.items():
        if entries:
            parts.append(f"## {subject.capitalize()}\n")
            parts += [_section(entry) for entry in entries]
    return "\n".join(parts)


def verdict_texts(report: Mapping[str, Any]) -> dict[str, str]:
    """The verdicts of a report in plain values, as `attnembed verify --json` writes them, in a few words each."""
    texts = {}
    for result in report["results"]:
        ratio = result["best_ratio"]
        near = "" if ratio is None else f", within {ratio:.2g} of its bound"
        skipped = f", {result['skipped']} skipped" if result["skipped"] else ""
        texts[result["id"]] = f"{result['verdict']}: {result['held']} of {result['instances']}{skipped}{near}"
    return texts


def _table(subject: str, entries: tuple[Claim, ...], verdicts: Mapping[str, str] | None) -> str:
    heads = ["claim", "statement", "source", *(["verdict"] if verdicts is not None else [])]
    lines = [f"## All claims: {subject}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for entry in entries:
        page = entry.derivation.rpartition("/")[2].removesuffix(".md")
        proof = f"[{page}]({entry.derivation})" if entry.derivation else ""
        source = "; ".join(part for part in (entry.reference, proof) if part)
        cells = [f"[{entry.short_id}](#{_anchor(entry.id)})", f"{capitalised(entry.statement)}.", source]
        if verdicts is not None:
            cells.append(verdicts.get(entry.id, "not measured"))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _anchor(id: str) -> str:
    """That of a heading on GitHub: lower case, hyphens for blanks, no punctuation."""
    return re.sub(r"[^\w\- ]", "", id.lower()).replace(" ", "-")


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
