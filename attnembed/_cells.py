"""Cells of a sweep: plain values of a grid, their seeds, and the store of their results."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnembed._files import PathLike, versions
from attnembed._identity import fingerprint
from attnembed._store import LineStore
from attnembed._validation import RNGLike, as_rng
from attnembed.errors import DataFileError, InputError, InputTypeError

Cell = dict[str, Any]
Function = Callable[..., Any]
Grid = Mapping[str, Iterable[Any]] | Iterable[Mapping[str, Any]]

_KIND, _VERSION = "attnembed_sweep", 2
_SEEDS = 2**63  # seeds of 63 bits fit the integers of every JSON reader
_LARGEST_ARRAY = 10_000
_LONGEST_NAME = 80


@dataclass(frozen=True, eq=False)
class Task:
    """A pending cell: its place in the grid, its JSON, which identifies it, and its seed."""

    index: int
    cell: Cell
    text: str
    seed: int


# --- the grid ----------------------------------------------------------------------------------------------------


def grid_cells(grid: Grid) -> tuple[Iterable[Mapping[str, Any]], int | None]:
    """The cells, and their number if it is known."""
    if isinstance(grid, Mapping):
        if not grid:
            raise InputError("grid", "must name at least one parameter")
        axes = {}
        for name, values in grid.items():
            if isinstance(values, (str, bytes, Mapping)) or not np.iterable(values):
                raise InputTypeError("grid", f"must give a sequence of values for {name!r}", got=repr(values))
            axes[name] = list(values)
            if not axes[name]:
                raise InputError("grid", f"must give at least one value for {name!r}")
        product = (dict(zip(axes, values)) for values in itertools.product(*axes.values()))
        return product, math.prod(map(len, axes.values()))
    if isinstance(grid, (str, bytes)) or not np.iterable(grid):
        raise InputTypeError("grid", "must be a mapping of names to values, or cells", got=type(grid).__name__)
    return grid, len(grid) if isinstance(grid, Sized) else None


def tasks(function: Function, cells: Iterable[Mapping[str, Any]], root: int) -> Iterator[Task]:
    seen: set[str] = set()
    for index, given in enumerate(cells):
        if not isinstance(given, Mapping):
            raise InputTypeError("grid", "must hold mappings of names to values", got=f"{given!r} at {index}")
        try:
            cell = plain(dict(given))
            text = json.dumps(cell, sort_keys=True)
        except (InputError, ValueError, RecursionError) as error:
            reason = error.expected if isinstance(error, InputError) else str(error)
            raise InputTypeError("grid", "must hold numbers and text", got=f"cell {index}: {reason}") from error
        if "rng" in cell:
            raise InputError("grid", "must not name a parameter 'rng'", hint="each cell gets its own generator")
        if text in seen:
            raise InputError("grid", "must not hold a cell twice", got=text)
        seen.add(text)
        if index == 0:
            _check_signature(function, cell)
        yield Task(index, cell, text, cell_seed(root, text))
    if not seen:
        raise InputError("grid", "must hold at least one cell")


def plain(value: Any) -> Any:
    """Convert to numbers, text, lists and dicts, without NumPy; InputError for anything else."""
    if isinstance(value, np.ndarray) and value.size > _LARGEST_ARRAY:
        raise InputError("value", f"an array of {value.size} entries is too large; return a summary")
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: plain(item) for name, item in value.items()}
    what = "dicts whose keys are not text" if isinstance(value, dict) else f"{type(value).__name__} values"
    raise InputError("value", f"{what} cannot be kept; numbers, text, lists and dicts of them can")


def _check_signature(function: Function, cell: Cell) -> None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # compiled functions have no signature
        return
    try:
        signature.bind(**cell, rng=None)
    except TypeError as error:
        hint = f"it is called with {', '.join(f'{name}=' for name in (*cell, 'rng'))}"
        raise InputError("function", "must accept the cells and rng", got=str(error), hint=hint) from error


# --- seeds -------------------------------------------------------------------------------------------------------


def root_seed(rng: RNGLike) -> int | None:
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(_SEEDS))
    as_rng(rng)  # rejects anything else
    return None if rng is None else int(rng)


def fresh_seed() -> int:
    return int(np.random.default_rng().integers(_SEEDS))


def cell_seed(root: int, text: str) -> int:
    """Seed by hashing, which does not depend on the order of the cells."""
    return int.from_bytes(hashlib.sha256(f"[{root}, {text}]".encode()).digest()[:8]) >> 1


# --- the store ---------------------------------------------------------------------------------------------------


def open_store(path: PathLike) -> LineStore:
    """Open the store, lock and read it."""
    return LineStore(path, kind=_KIND, version=_VERSION)


def function_key(function: Function, key: str | None, *, stored: bool) -> str:
    """The key that identifies the function in the store; unused without a store."""
    if key is None:
        hint = "pass key=TEXT to identify it yourself, and change the text after every change of the function"
        return fingerprint(function, name="function", hint=hint)[:16] if stored else ""
    if not isinstance(key, str) or not key:
        raise InputTypeError("key", "must be text", got=repr(key))
    if not stored:
        raise InputError("key", "belongs to a store", hint="pass store=, too")
    return key


def claim(log: LineStore, name: str, key: str, seed: int | None) -> int:
    """The rng of the store; DataFileError if it belongs to another sweep."""
    if log.header is None:
        log.begin(function=name, key=key, rng=fresh_seed() if seed is None else seed)
    header: dict[str, Any] = log.header or {}
    root, theirs, their_name = header.get("rng"), header.get("key"), header.get("function")
    if isinstance(root, bool) or not isinstance(root, int) or root < 0:
        raise DataFileError(log.path, "does not say its rng", line=1)
    if not isinstance(theirs, str) or not isinstance(their_name, str):
        raise DataFileError(log.path, "does not say its function", line=1)
    problem = ""
    if theirs != key and their_name != name:
        problem = f"belongs to the function {their_name}, not {name}; use another store"
    elif theirs != key:
        advice = f"use another store, or pass key={theirs!r} if the stored cells are still valid"
        problem = f"belongs to {name} with other content or in another Python; {advice}"
    elif seed is not None and root != seed:
        problem = f"belongs to the rng {root}, not {seed}; use another store"
    if problem:
        raise DataFileError(log.path, problem, line=1)
    return root


def known_records(log: LineStore, root: int, *, retry_failed: bool) -> dict[str, dict[str, Any]]:
    """The last record of each cell, except for cells to be retried."""
    known = {}
    for number, record in enumerate(log.records, start=2):
        try:
            text = json.dumps(record.get("cell"), sort_keys=True)
            whole = record.pop("digest", None) == _digest(json.dumps(record))
        except RecursionError:
            text, whole = "", False
        outcome = record.keys() & {"value", "error", "traceback"}
        texts = all(isinstance(record[name], str) for name in outcome - {"value"})
        timed = isinstance(record.get("seconds"), (int, float))
        whole &= outcome in ({"value"}, {"error", "traceback"}) and texts and timed
        if not whole or record.get("seed") != cell_seed(root, text):
            raise DataFileError(log.path, "is not a cell of this sweep, or is damaged", line=number)
        known[text] = record
    return {text: record for text, record in known.items() if not (retry_failed and "error" in record)}


def _digest(content: str) -> str:
    """A checksum of a line, against damage, not forgery."""
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def function_name(function: Any) -> str:
    """The name of a function for messages, with the arguments of a partial one, shortened."""
    if isinstance(function, functools.partial):
        arguments = [_short(value) for value in function.args]
        arguments += [f"{name}={_short(value)}" for name, value in function.keywords.items()]
        return f"{function_name(function.func)}({', '.join(arguments)})"
    if dataclasses.is_dataclass(function) and not isinstance(function, type):
        return _short(function, f"{type(function).__module__}.")
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _short(value: Any, before: str = "") -> str:
    try:
        text = before + " ".join(repr(value).split())
    except Exception:  # the user's code
        text = before + type(value).__name__
    return text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + "..."


def line_of(text: str, seed: int, began: float, error: BaseException | None, value: Any = None) -> str:
    outcome: dict[str, Any] = {"value": value}
    if error is not None:
        below = error.__traceback__.tb_next if error.__traceback__ else None  # without the frame of _run
        outcome = {
            "error": " ".join(traceback.format_exception_only(error)[-1].split()),
            "traceback": "".join(traceback.format_exception(type(error), error, below)),
        }
    seconds = round(time.perf_counter() - began, 6)
    record = {"cell": json.loads(text), "seed": seed, **outcome, "seconds": seconds, "versions": versions()}
    content = json.dumps(record)
    return f'{content[:-1]}, "digest": "{_digest(content)}"}}'
