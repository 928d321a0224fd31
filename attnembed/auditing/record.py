"""The result of an audit: facts in sections, with a page, a figure and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnembed._validation import check_choice
from attnembed.results import Record, Result, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Audit", "Fact"]


@dataclass(frozen=True, eq=False, repr=False)
class Fact(Record):
    """One number about a data set.

    Attributes
    ----------
    name : what is counted
    value : the count, or a score in [0, 1] if ``of`` is None
    of : the total, if the fact is a count out of a total, else 0
    section : "size", "duplicates", "contradictions", "shared", "balance", "length", "tokens" or
        "baselines"
    """

    section: str
    name: str
    value: float
    of: int | None = 0

    @property
    def share(self) -> float | None:
        """The count as a share of the whole, or the score; None for a plain count."""
        if self.of is None:
            return float(self.value)
        return self.value / self.of if self.of else None

    def __str__(self) -> str:
        if self.of is None:
            return f"{100 * self.value:.2f} %"
        number = f"{int(self.value):,}" if float(self.value).is_integer() else f"{self.value:,.4g}"
        return number + (f" of {self.of:,} ({100 * self.value / self.of:.2f} %)" if self.of else "")


SECTIONS: Mapping[str, str] = {
    "size": "Size",
    "duplicates": "Duplicates",
    "contradictions": "Contradictions: one input, several labels",
    "shared": "Shared between the parts",
    "balance": "Balance of the classes",
    "length": "Lengths",
    "tokens": "What gives the label away",
    "baselines": "Baselines and ceilings",
}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Audit(Result):
    """The facts about one data set; ``str`` prints the page, ``audit[name]`` is the value of a fact.

    Attributes
    ----------
    kind : "letters", "sentences", "masks", "reviews", "chains", "grids" or "counts"
    source : the file or folder, or a description of the data
    facts : in the order of the page
    """

    kind: str
    source: str
    facts: tuple[Fact, ...]

    def __getitem__(self, name: str) -> float:
        found = {fact.name: fact.value for fact in self.facts}
        return found[check_choice("name", name, found)]

    def __str__(self) -> str:
        lines = [f"# Audit of {self.source} ({self.kind})"]
        for section, title in SECTIONS.items():
            facts = [fact for fact in self.facts if fact.section == section]
            if facts:
                lines += ["", f"## {title}", "", *(f"- {fact.name}: {fact}" for fact in facts)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON: facts by section and name."""
        sections: dict[str, dict[str, Any]] = {}
        for fact in self.facts:
            sections.setdefault(fact.section, {})[fact.name] = {
                "value": float(fact.value),
                "of": fact.of,
                "share": fact.share,
            }
        plain = {"status": self.status.value, "message": self.message, "success": self.success}
        return {**plain, "kind": self.kind, "source": self.source, "facts": sections}

    @property
    def _shares(self) -> list[Fact]:
        return [fact for fact in self.facts if fact.share is not None]

    @property
    def figure_height(self) -> float:
        """The height, in inches, of a figure with room for every bar."""
        return 0.8 + 0.33 * len(self._shares)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the facts that are shares as bars, in percent, on new axes if none are given."""
        from attnembed import figures, plotting

        shown, titles = self._shares, list(SECTIONS)
        if ax is None:
            ax = plotting.new_figure(panel=(9.0, self.figure_height))[1][0, 0]
        names, shares = [fact.name for fact in shown], [100 * float(fact.share or 0) for fact in shown]
        return figures.plot_shares(names, shares, [titles.index(fact.section) for fact in shown], ax=ax)


def make_audit(kind: str, source: str, facts: list[Fact]) -> Audit:
    """A completed audit."""
    return Audit(status=Status.REACHED_END, message=f"{len(facts)} facts", kind=kind, source=source, facts=tuple(facts))
