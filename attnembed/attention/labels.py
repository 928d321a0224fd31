"""The meaning of text labels: the schemes that data sets use, and the caller's own.

A scheme maps each label to -1, +1, or to 0 for a neutral text, which is dropped. Where two schemes fit, the first in
`SCHEMES` wins: the labels 1 and 2 alone are two classes, not stars.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from attnembed._validation import check_choice
from attnembed.errors import DataFileError, InputError

__all__ = ["LABEL_VALUES", "SCHEMES", "Labels", "Scheme", "canonical", "check_labels", "find_scheme", "shown", "signed"]

Scheme = Mapping[str, float]
Labels = str | Mapping[Any, float | None]
Record = tuple[Path, int | None, str, str]  # file, line, text, label as `canonical` writes it


def _scale(negative: Iterable[float], neutral: Iterable[float], positive: Iterable[float]) -> dict[str, float]:
    parts = ((negative, -1.0), (neutral, 0.0), (positive, 1.0))
    return {f"{value:g}": sign for values, sign in parts for value in values}


SCHEMES: dict[str, dict[str, float]] = {
    "0/1": _scale([0], [], [1]),
    "1/2": _scale([1], [], [2]),
    "-1/+1": _scale([-1], [0], [1]),
    "neg/pos": {"neg": -1.0, "negative": -1.0, "neutral": 0.0, "pos": 1.0, "positive": 1.0},
    "true/false": {"false": -1.0, "true": 1.0},
    "0/4": _scale([0], [2], [4]),  # Sentiment140
    "stars": _scale([1, 2], [3], [4, 5]),
    "half stars": _scale([0.5, 1, 1.5, 2], [2.5, 3, 3.5], [4, 4.5, 5]),
    "0-4": _scale([0, 1], [2], [3, 4]),  # the five classes of the Stanford Sentiment Treebank
    "1-10": _scale([1, 2, 3, 4], [5, 6], [7, 8, 9, 10]),  # Maas et al., ACL 2011
}
# Without a 0, labels such as 1, 2 and 3 could equally be the lower stars: such a scheme has to be named.
_NEEDED = {"0-4": "0"}
LABEL_VALUES = frozenset().union(*SCHEMES.values())

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")


def canonical(label: Any) -> str:
    """One spelling per label: " +1", 1 and 1.0 are "1", "POS" is "pos". Only plain ASCII numbers are numbers.

    >>> [canonical(label) for label in (" +1", 2.50, "POS", True, "0_1", "1e0")]
    ['1', '2.5', 'pos', 'true', '0_1', '1e0']
    """
    return _canonical(str(label))


@lru_cache(maxsize=256)
def _canonical(label: str) -> str:
    text = label.strip().casefold()
    # Longer ones are ids; and float() would accept "0_1" and digits of other scripts.
    if len(text) > 15 or not _NUMBER.fullmatch(text):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() else repr(number)


def check_labels(labels: Labels | None) -> Scheme | None:
    """The scheme named, or given as a mapping; None if it is to be found. InputError for anything else.

    >>> check_labels({"Good": 1, "Bad": -1, "Mixed": None})
    {'good': 1.0, 'bad': -1.0, 'mixed': 0.0}
    """
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        return SCHEMES[check_choice("labels", labels, SCHEMES)]
    scheme: dict[str, float] = {}
    for label, sign in labels.items():
        value = 0 if sign is None else sign
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in (-1, 0, 1):
            expected = "must map labels to -1, +1, or to 0 for texts to drop"
            raise InputError("labels", expected, got=f"{sign!r} for {label!r}")
        if scheme.setdefault(canonical(label), float(value)) != value:
            raise InputError("labels", "must not give one label two meanings", got=repr(canonical(label)))
    if not {-1.0, 1.0} <= set(scheme.values()):
        raise InputError("labels", "must map to both -1 and +1", got=repr(dict(labels)))
    return scheme


def find_scheme(path: Path, records: Iterable[Record]) -> Scheme:
    """The scheme of these labels: the first in `SCHEMES` that covers all of them and both classes."""
    fitting, seen = SCHEMES, dict[str, None]()
    for file, line, _, label in records:
        if label in seen:
            continue
        seen[label] = None
        fitting = {name: scheme for name, scheme in fitting.items() if label in scheme}
        if not fitting:
            hint = f'pass your own, such as labels={{{_quoted(label)}: 1, "...": -1}}'
            problem = f"has the labels {shown(seen)}, which fit none of {', '.join(SCHEMES)}; {hint}"
            raise DataFileError(file, problem, line=line)
    for name, scheme in fitting.items():
        if {-1.0, 1.0} <= {scheme[label] for label in seen} and _NEEDED.get(name) in (None, *seen):
            return scheme
    hint = "; say what they mean with labels=" if len(seen) > 1 else ""
    raise DataFileError(path, f"must hold both classes; its labels are {shown(seen) or 'missing'}{hint}")


def signed(path: Path, records: Iterable[Record], scheme: Scheme, dropped: list[int]) -> Iterator[tuple[str, float]]:
    """Texts with their signs; ``dropped[0]`` counts the neutral ones, which are left out."""
    signs = set()
    for file, line, text, label in records:
        if label not in scheme:
            raise DataFileError(file, f"has the label {label!r}; expected {shown(scheme)}", line=line)
        if (sign := scheme[label]) == 0.0:
            dropped[0] += 1
            continue
        if not text or text.isspace():
            raise DataFileError(file, "has an empty text", line=line)
        signs.add(sign)
        yield text, sign
    if len(signs) < 2:
        raise DataFileError(path, "must hold both classes; it holds " + ("only one" if signs else "no review"))


def shown(labels: Iterable[str], limit: int = 12) -> str:
    """Labels for a message: only the first few, long ones cut."""
    every = list(labels)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(map(_quoted, every[:limit])) + more


def _quoted(label: str) -> str:
    return repr(label) if len(label) < 20 else repr(label[:20]) + "..."
