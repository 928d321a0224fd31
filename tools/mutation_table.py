"""The outcomes of mutants, and their tables in docs/evidence.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.mutation_targets import EQUIVALENT, INTERNAL

__all__ = ["Outcome", "read_outcomes", "summary", "table"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a mutant: ``caught_by`` names a check, or is "" for a survivor; ``detail`` is its last line."""

    mutant: str
    module: str
    caught_by: str
    detail: str
    seconds: float

    @property
    def reason(self) -> str:
        """The recorded reason why it means the same as the original, unless a check has shown otherwise."""
        return EQUIVALENT.get(self.mutant, "") if not self.caught_by else ""

    @property
    def internal(self) -> str:
        """The decision of its line, if that is not a public result, whether or not a check caught the change."""
        return next((why for line, why in INTERNAL.items() if self.mutant.startswith(f"{line} [")), "")

    @property
    def survived(self) -> bool:
        """Whether nothing caught it, and no reason is recorded."""
        return not self.caught_by and not self.reason and not self.internal

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def read_outcomes(file: Path) -> list[Outcome]:
    """The outcomes in a file written by `tools.mutants`."""
    return [Outcome(**row) for row in json.loads(file.read_text(encoding="utf-8"))["outcomes"]]


def table(outcomes: Sequence[Outcome]) -> str:
    """The numbers of mutants of each module that were caught, and by what, in Markdown."""
    rows = [
        "| module | mutants | no public result | mean the same | caught by claims | by tests | survived |",
        "|---|---|---|---|---|---|---|",
    ]
    for module in [*sorted({outcome.module for outcome in outcomes}), ""]:
        own = [outcome for outcome in outcomes if module in ("", outcome.module)]
        public = [outcome for outcome in own if not outcome.internal]
        same = sum(bool(outcome.reason) for outcome in public)
        claims, tests = (sum(outcome.caught_by == check for outcome in public) for check in ("claims", "tests"))
        name = f"`{module}`" if module else "all"
        counts = (len(own), len(own) - len(public), same, claims, tests, len(public) - same - claims - tests)
        rows.append(f"| {name} | {' | '.join(map(str, counts))} |")
    return "\n".join(rows)


def summary(outcomes: Sequence[Outcome]) -> str:
    """The table, the share caught by the claims, and the names of the others."""
    internal = [outcome for outcome in outcomes if outcome.internal]
    differ = [outcome for outcome in outcomes if not outcome.reason and not outcome.internal]
    by_claims = sum(outcome.caught_by == "claims" for outcome in differ)
    seconds = sum(outcome.seconds for outcome in outcomes)
    lines = [table(outcomes), ""]
    if differ:
        lines += [
            f"Of {len(differ)} mutants that change a public result the claims alone catch {by_claims} "
            f"({100 * by_claims / len(differ):.0f} %). A mutant took {seconds / len(outcomes):.1f} s."
        ]
    if internal:
        claims, tests = (sum(outcome.caught_by == check for outcome in internal) for check in ("claims", "tests"))
        lines += [f"Of {len(internal)} that change none the claims catch {claims} and the tests {tests} more."]
    groups = {
        "Only the tests see": [(o.mutant, "") for o in differ if o.caught_by == "tests"],
        "No public result": [(o.mutant, o.internal) for o in internal if o.caught_by != "claims"],
        "Mean the same": [(o.mutant, o.reason) for o in outcomes if o.reason and not o.internal],
        "Survived": [(o.mutant, "") for o in outcomes if o.survived],
    }
    for heading, entries in groups.items():
        if entries:
            told = (f"- `{name}`{f': {why}' if why else ''}" for name, why in sorted(entries))
            lines += ["", f"{heading}:", *told]
    return "\n".join(lines)
