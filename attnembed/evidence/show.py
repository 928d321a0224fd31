"""One claim in words: its statement, its hypotheses and the location of the code it covers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

from attnembed.evidence.measurement import by_construction
from attnembed.evidence.page import capitalised
from attnembed.evidence.registry import Claim, claims, named_claims, place

__all__ = ["find_claim", "measured_code", "show"]

_PACKAGE = Path(__file__).parents[1]
_APPARATUS = ("attnembed.evidence", "attnembed.reference", "attnembed.errors", "attnembed.gradcheck")


def find_claim(id: str) -> Claim:
    """The claim with this id, which may leave out its subject if no other claim has its name."""
    (entry,) = named_claims("ID", [id], claims())
    return entry


def show(entry: Claim) -> str:
    """The statement, formula, hypotheses, control, source, and the files and lines behind them, as text."""
    rows = [("statement", f"{capitalised(entry.statement)}.")]
    rows += [("formula", entry.tex)] if entry.tex else []
    rows += [("hypothesis", _hypothesis(entry, text)) for text in entry.hypotheses] or [("hypotheses", "none")]
    rows += [("control", entry.control)]
    rows += [("source", entry.reference)] if entry.reference else []
    rows += [("derivation", f"docs/{entry.derivation}")] if entry.derivation else []
    where = place(entry.measure)
    rows += [("measured by", f"{where} {getattr(entry.measure, '__name__', '')}".rstrip())] if where else []
    rows += [("code", line) for line in measured_code(entry)]
    return "\n".join([entry.id, *(f"  {name:<11}  {text}" for name, text in rows)])


def _hypothesis(entry: Claim, text: str) -> str:
    if isinstance(text, by_construction):
        return f"{text} (by construction: {text.code}, {place(entry.measure, text.code) or 'no source'})"
    return text


def measured_code(entry: Claim) -> list[str]:
    """FILE:LINE NAME of the package's functions and classes that the measurement calls, except its own helpers."""
    found: dict[str, None] = {}
    _collect(entry.measure, found, set())
    return list(found)


def _collect(function: Callable[..., Any], found: dict[str, None], seen: set[Any]) -> None:
    """Collect the names used by a function, and by the helpers in its module."""
    code, space = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if code is None or function in seen:
        return
    seen.add(function)
    for value in _named(code, space):
        module = getattr(value, "__module__", None) or ""
        if not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        if module == getattr(function, "__module__", "") or module.startswith("attnembed.evidence.attention"):
            for part in [value] if inspect.isfunction(value) else vars(value).values():
                _collect(getattr(part, "__func__", part), found, seen)
        elif module.startswith("attnembed.") and not module.startswith(_APPARATUS):
            where = _where(value)
            if where:
                found[where] = None


def _named(code: CodeType, space: dict[str, Any]) -> list[Any]:
    """The values of the names in a code object, including attributes of modules (``ae.one_step``)."""
    values = []
    for name in code.co_names:
        value = space.get(name)
        if inspect.ismodule(value) and value.__name__.startswith("attnembed"):
            values += [getattr(value, other, None) for other in code.co_names]
        elif value is not None:
            values.append(value)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            values += _named(constant, space)
    return values


def _where(value: Any) -> str:
    try:
        file = Path(inspect.getsourcefile(value) or "")
        line = inspect.getsourcelines(value)[1]
    except (OSError, TypeError):
        return ""
    inside = file.relative_to(_PACKAGE.parent).as_posix() if file.is_relative_to(_PACKAGE) else file.name
    return f"{inside}:{line} {value.__name__}"
