"""Audits as files: a page, a figure and JSON for every kind of data in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attnembed._files import PathLike, versions, writable_folder, write_json, write_text
from attnembed.attention.reviews import ReaderOptions
from attnembed.auditing.front import audit, kinds_of
from attnembed.auditing.record import Audit
from attnembed.results import Record

__all__ = ["WrittenAudit", "audit_files"]


@dataclass(frozen=True, eq=False, repr=False)
class WrittenAudit(Record):
    """An audit and its files; ``str`` gives its page."""

    audit: Audit
    files: tuple[Path, ...]
    seconds: float

    def __str__(self) -> str:
        lines = [str(self.audit), "", *(f"written: {path}" for path in self.files)]
        return "\n".join([*lines, f"audit of {self.audit.kind}: {self.seconds:.1f} s"])


def audit_files(
    data: PathLike,
    *,
    test: PathLike | None = None,
    kind: str | None = None,
    out: PathLike = "results",
    reader: ReaderOptions | None = None,
) -> Iterator[WrittenAudit]:
    """Audit every kind of data in ``data``, or one, and write OUT/audit-KIND.md, .png and .json."""
    folder = writable_folder(out)
    for one in (kind,) if kind is not None else kinds_of(data) or (None,):
        start = time.perf_counter()
        found = audit(data, test, kind=one, **(reader or {} if one == "reviews" else {}))
        base = folder / f"audit-{found.kind}"
        page, figure, numbers = (base.with_suffix(suffix) for suffix in (".md", ".png", ".json"))
        write_text(page, f"{found}\n")
        _draw(found, figure)
        seconds = time.perf_counter() - start
        write_json(numbers, {**found.to_dict(), "versions": versions(), "seconds": round(seconds, 2)})
        yield WrittenAudit(found, (page, figure, numbers), seconds)


def _draw(found: Audit, path: Path) -> None:
    from attnembed.plotting import new_figure, save_figure, style

    with style():
        figure, axes = new_figure(panel=(9.0, found.figure_height))
        found.plot(axes[0, 0])
        save_figure(figure, path)
