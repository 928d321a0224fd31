"""Progress of long jobs: one line on stderr with the time left, only on a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO


class Progress:
    """A context manager that rewrites one line; silent if ``stream`` is not a terminal. Nested jobs share the line.

    >>> with Progress("training", total=3) as progress:
    ...     for step in range(3):
    ...         progress.update(step + 1, "loss 0.5")
    """

    _width = 0  # of the current line, whoever wrote it

    def __init__(self, title: str, total: float | None = None, *, stream: TextIO | None = None, every: float = 0.1):
        self.title, self.total, self.every = title, total, every
        self.stream = sys.stderr if stream is None else stream
        self.active = bool(getattr(self.stream, "isatty", lambda: False)())
        self.start = time.monotonic()
        self._last = -float("inf")
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def update(self, done: float, note: str = "") -> None:
        """Show ``done`` out of ``total``, the elapsed and remaining time, and a note."""
        now = time.monotonic()
        finished = self.total is not None and done >= self.total
        if not self.active or (now - self._last < self.every and not finished):
            return
        self._last = now
        elapsed = now - self.start
        parts = [self.title]
        if self.total:
            share = min(max(done / self.total, 0.0), 1.0)
            parts.append(f"{100 * share:3.0f} %")
            if 0 < share < 1:
                parts.append(f"{elapsed * (1 - share) / share:.0f} s left")
        parts.append(f"{elapsed:.0f} s")
        if note:
            parts.append(note)
        line = "  ".join(parts)
        self._show("\r" + line.ljust(Progress._width))
        Progress._width = len(line)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.active and Progress._width:
            self._show("\r" + " " * Progress._width + "\r")
            Progress._width = 0

    def _show(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # the terminal has been closed; the job continues
            self.active = False
