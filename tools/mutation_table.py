"""What became of mutants: one `Outcome` each, and the tables that docs/evidence.md shows of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.mutation_targets import EQUIVALENT

__all__ = ["Outcome", "read_outcomes", "summary", "table"]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``caught_by`` names a check, or is "" for a survivor; ``detail`` is its last line."""

    mutant: str
    module: str
    caught_by: str
    detail: str
    seconds: float

    @property
    def reason(self) -> str:
        """Why it means the same as the original, if somebody has said so and no check has shown otherwise."""
        return EQUIVALENT.get(self.mutant, "") if not self.caught_by else ""

    @property
    def survived(self) -> bool:
        """Whether nothing caught it, and nobody has said why."""
        return not self.caught_by and not self.reason

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def read_outcomes(file: Path) -> list[Outcome]:
    """The outcomes of a file that `tools.mutants` has written."""
    return [Outcome(**row) for row in json.loads(file.read_text(encoding="utf-8"))["outcomes"]]


def table(outcomes: Sequence[Outcome]) -> str:
    """How many mutants of each module were caught, and by what, in Markdown."""
    rows = [
        "| module | mutants | caught by claims | by tests | mean the same | survived |",
        "|---|---|---|---|---|---|",
    ]
    for module in [*sorted({outcome.module for outcome in outcomes}), ""]:
        own = [outcome for outcome in outcomes if module in ("", outcome.module)]
        claims, tests = (sum(outcome.caught_by == check for outcome in own) for check in ("claims", "tests"))
        same = sum(bool(outcome.reason) for outcome in own)
        name = f"`{module}`" if module else "all"
        rows.append(f"| {name} | {len(own)} | {claims} | {tests} | {same} | {len(own) - claims - tests - same} |")
    return "\n".join(rows)


def summary(outcomes: Sequence[Outcome]) -> str:
    """The table, the share that the claims catch, and by name what they do not."""
    differ = [outcome for outcome in outcomes if not outcome.reason]
    by_claims = sum(outcome.caught_by == "claims" for outcome in differ)
    seconds = sum(outcome.seconds for outcome in outcomes)
    lines = [table(outcomes), ""]
    if differ:
        lines += [
            f"Of {len(differ)} mutants that do not mean the same the claims alone catch {by_claims} "
            f"({100 * by_claims / len(differ):.0f} %). A mutant took {seconds / len(outcomes):.1f} s."
        ]
    groups = {
        "Only the tests see": [(outcome.mutant, "") for outcome in outcomes if outcome.caught_by == "tests"],
        "Mean the same": [(outcome.mutant, outcome.reason) for outcome in outcomes if outcome.reason],
        "Survived": [(outcome.mutant, "") for outcome in outcomes if outcome.survived],
    }
    for heading, entries in groups.items():
        if entries:
            told = (f"- `{name}`{f': {why}' if why else ''}" for name, why in sorted(entries))
            lines += ["", f"{heading}:", *told]
    return "\n".join(lines)
