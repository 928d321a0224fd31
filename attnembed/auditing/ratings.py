"""Reviews that state their own rating, as in "7/10" or "eight out of ten"."""

from __future__ import annotations

import re

__all__ = ["states_rating"]

_NUMBER = r"(?:10|[0-9](?:\.[0-9]+)?|zero|one|two|three|four|five|six|seven|eight|nine|ten)"
_OF_TEN = re.compile(rf"(?<![\w.,/]){_NUMBER}(?:\s?/\s?10|\s+out\s+of\s+(?:10|ten))(?![\w/])")


def states_rating(text: str) -> bool:
    """Whether a text contains a rating out of ten.

    >>> [states_rating(text) for text in ("A weak 4/10.", "Nine out of ten", "10 out of 12", "on 9/10/2001")]
    [True, True, False, False]
    """
    lower = text.lower()
    if "/" not in lower and " of " not in lower:  # most texts: a search costs a hundred times as much
        return False
    return any(
        _OF_TEN.search(lower, max(place - 12, 0), place + 24) is not None
        for mark in ("/10", "/ 10", " of 10", " of ten")
        for place in _places(lower, mark)
    )


def _places(text: str, mark: str) -> list[int]:
    found, start = [], text.find(mark)
    while start >= 0:
        found.append(start)
        start = text.find(mark, start + 1)
    return found
