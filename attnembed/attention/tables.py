"""Rows of labelled texts from delimited text and JSON: the roles of the columns and the selection of rows."""

from __future__ import annotations

import csv
import itertools
import json
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnembed._sources import MAX_LINE, Source, read_lines, read_text
from attnembed._validation import check_integer
from attnembed.attention.labels import LABEL_VALUES, Record, Scheme, canonical, shown
from attnembed.errors import DataFileError, InputError, InputTypeError

__all__ = ["Columns", "Where", "json_records", "row_records"]

Column = str | int
Where = Mapping[Column, Any]

_LABEL_NAMES = frozenset(
    {"label", "labels", "sentiment", "stars", "rating", "polarity", "class", "score", "overall", "target"}
)
_TEXT_NAMES = frozenset({"text", "review", "sentence", "content", "comment", "reviewtext", "review_text", "tweet"})
# A column of this name gives the data set of each row. Data sets are mixed only on request.
_ORIGIN_NAMES = frozenset({"source", "dataset", "corpus"})
_DELIMITERS = {"\t": ("\\t", "tab"), ";": (";", "semicolon"), "|": ("|", "bar"), ",": (",", "comma")}
_SVMLIGHT = re.compile(r"[+-]?[0-9.]+( [0-9]+:[0-9.]+)+\s*")
_SHOWN_VALUES = 10


@dataclass(frozen=True)
class Columns:
    """The caller's description of the columns; InputError where it is inconsistent.

    ``where`` maps a column to the value that its rows must hold, or to several values. None keeps all rows, which must
    be of one data set; an empty mapping keeps all rows of all data sets.
    """

    text: Column | None = None
    label: Column | None = None
    where: Mapping[Column, tuple[str, ...]] | None = None
    header: bool | None = None
    labels: Collection[str] = LABEL_VALUES  # values that identify the column of labels

    @classmethod
    def checked(
        cls,
        text: Column | None,
        label: Column | None,
        where: Where | None,
        header: bool | None,
        scheme: Scheme | None,
    ) -> Columns:
        labels = LABEL_VALUES if scheme is None else frozenset(scheme)
        if where is None:
            return cls(text, label, None, header, labels)
        if not isinstance(where, Mapping):
            raise InputTypeError("where", "must map columns to the values to keep", got=type(where).__name__)
        wanted = {}
        for column, value in where.items():
            values = tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)
            for item in values:
                if not isinstance(item, (str, int, float)):
                    expected = "must map columns to a value or a list of values"
                    raise InputTypeError("where", expected, got=f"{type(item).__name__} for {column!r}")
            if not values:
                raise InputError("where", "must name at least one value per column", got=f"none for {column!r}")
            wanted[column] = tuple(map(_spelled, values))
        return cls(text, label, wanted, header, labels)

    @property
    def named(self) -> bool:
        """Whether a column is chosen by name."""
        return any(isinstance(column, str) for column in (self.text, self.label, *(self.where or ())))


@dataclass
class _Selection:
    """The rows to keep: those with the wanted values or, without any, those of the only data set."""

    path: Path
    wanted: Mapping[Any, tuple[str, ...]]  # column -> values
    origins: Sequence[Any] = ()  # columns that must not hold two values
    names: Mapping[Any, str] = field(default_factory=dict)  # of the columns, for messages
    kept: int = 0
    seen: dict[Any, dict[str, None]] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        return not self.wanted and not self.origins

    def keeps(self, value: Callable[[Any], str]) -> bool:
        keep = True
        for column in (*self.wanted, *self.origins):
            found = value(column)
            seen = self.seen.setdefault(column, {})
            if len(seen) <= _SHOWN_VALUES:
                seen[found] = None
            # After a second data set, it only remains to collect the names of the others.
            keep = keep and (found in self.wanted[column] if column in self.wanted else len(seen) == 1)
        self.kept += keep
        return keep

    def finish(self) -> None:
        """Raise if nothing was selected, or if rows of several data sets would have been mixed."""
        for column in self.origins:
            if len(values := self.seen.get(column, {})) > 1:
                name, first = self.names.get(column, column), next(iter(values))
                raise DataFileError(
                    self.path,
                    f"mixes several data sets: its column {name!r} holds {shown(values, _SHOWN_VALUES)}; "
                    f"pass where={{{name!r}: {first!r}}}, or where={{}} for all rows",
                )
        if self.wanted and not self.kept and self.seen:
            asked = " and ".join(f"{self._name(c)} = {shown(values)}" for c, values in self.wanted.items())
            there = "; ".join(f"{self._name(c)} holds {shown(self.seen[c], _SHOWN_VALUES)}" for c in self.wanted)
            raise DataFileError(self.path, f"has no row that `where` selects ({asked}): {there}")

    def _name(self, column: Any) -> str:
        name = self.names.get(column, column)
        return repr(name) if isinstance(name, str) else f"column {name}"


def _spelled(value: Any) -> str:
    """A value as a delimited file would hold it; true and false as JSON writes them."""
    return str(value).casefold() if isinstance(value, bool) else str(value).strip()


# ------------------------------------------------------------------------------------------------------ delimited text


def row_records(
    source: Source, encoding: str | None, kind: str, delimiter: str | None, columns: Columns
) -> Iterator[Record]:
    """Records of a delimited file; ``kind`` "csv" has quotation marks, "tsv" has none."""
    path, delimiter = source.path, delimiter or {"tsv": "\t", "csv": ","}[kind]
    lines = read_lines(source, encoding)
    rows = _split_rows(lines, delimiter) if kind == "tsv" else _quoted_rows(path, lines, delimiter)
    start, first = next(rows, (0, []))
    if not start:
        raise DataFileError(path, "is empty")
    layout = _Layout.of(path, start, first, kind, delimiter, columns)
    selection, text, label, width = layout.selection, layout.text, layout.label, len(first)
    idle = selection.idle
    for line, row in rows if layout.header else itertools.chain([(start, first)], rows):
        if len(row) != width:
            raise DataFileError(path, f"has {len(row)} columns where the first has {width}", line=line)
        if idle or selection.keeps(lambda column, row=row: row[column].strip()):  # type: ignore[misc]
            yield path, line, row[text].replace("\\n", "\n"), canonical(row[label])
    selection.finish()


def _split_rows(lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        if line := line.rstrip("\r\n"):
            yield number, line.split(delimiter)


# The limit of the csv module is global to the process: it is raised for one row and restored.
_csv_limit = threading.Lock()


def _quoted_rows(path: Path, lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a file with quotation marks, each with the number of its first line."""
    held: list[str] = []  # the lines of this row
    last = 0

    def feed() -> Iterator[str]:
        nonlocal last
        for last, line in lines:  # noqa: B007
            held.append(line)
            yield line

    rest = feed()

    def reader(lines: Iterator[str]) -> Any:
        # strict: otherwise a quotation mark that is never closed swallows the rest of the file.
        return csv.reader(lines, delimiter=delimiter, strict=True)

    rows = reader(rest)
    while True:
        held.clear()
        start = last + 1
        try:
            try:
                row = next(rows)
            except csv.Error as error:
                if "field limit" not in str(error):
                    raise
                rows = reader(itertools.chain(tuple(held), rest))
                with _csv_limit:
                    limit = csv.field_size_limit(MAX_LINE)
                    try:
                        row = next(rows)
                    finally:
                        csv.field_size_limit(limit)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"is not well-formed CSV: {error}"
            if "new-line character" in str(error):
                problem = "is not well-formed CSV: a carriage return stands outside quotation marks, within a line"
            raise DataFileError(path, problem, line=start) from error
        if row:
            yield start, row


@dataclass(frozen=True)
class _Layout:
    """Whether the first row is a header, and the positions of text, label and the columns that select rows."""

    header: bool
    text: int
    label: int
    selection: _Selection

    @classmethod
    def of(cls, path: Path, line: int, first: list[str], kind: str, delimiter: str, columns: Columns) -> _Layout:
        cells = [cell.strip() for cell in first]
        folded = [cell.casefold() for cell in cells]
        labelled = [canonical(cell) in columns.labels for cell in cells]
        hint = _other_delimiter(delimiter.join(first), kind, delimiter)
        if len(cells) == 1 and (hint or columns.label is None):
            if _SVMLIGHT.fullmatch(cells[0]):
                raise DataFileError(path, "holds counts in the SVMlight format, not texts; use load_counts", line=line)
            _, name = _DELIMITERS.get(delimiter, ("", repr(delimiter)))
            problem = f"has only one column, as no {name} separates any; {hint or 'pass delimiter'}"
            raise DataFileError(path, problem, line=line)
        header = columns.header
        if header is None:
            header = columns.named or (not any(labelled) and not _LABEL_NAMES.isdisjoint(folded))
        elif columns.named and not header:
            raise InputError("header", "must not be False where a column is chosen by name", got=header)

        def position(name: str, column: Column) -> int:
            if isinstance(column, str):
                if column not in cells:
                    raise DataFileError(path, f"has no column {column!r}; its columns are {shown(cells)}", line=line)
                return cells.index(column)
            if check_integer(name, column, minimum=0) >= len(cells):
                raise DataFileError(path, f"has no column {column}; it has {len(cells)} columns", line=line)
            return column

        def only(name: str, fits: list[int]) -> int:
            if len(fits) != 1:
                problem = f"does not show which of its {len(cells)} columns is which; {hint or f'pass {name}'}"
                raise DataFileError(path, problem, line=line)
            return fits[0]

        text = None if columns.text is None else position("text_column", columns.text)
        others = [k for k in range(len(cells)) if k != text]
        if columns.label is not None:
            label = position("label_column", columns.label)
        else:
            fits = [k for k in others if (folded[k] in _LABEL_NAMES if header else labelled[k])]
            label = only("label_column", fits)
        if text is None:
            others = [k for k in others if k != label]
            text = only("text_column", [k for k in others if header and folded[k] in _TEXT_NAMES] or others)
        wanted = {position("where", column): values for column, values in (columns.where or {}).items()}
        origins = []
        if header and columns.where is None:
            origins = [k for k, name in enumerate(folded) if name in _ORIGIN_NAMES and k not in (text, label)]
        names = {k: cells[k] for k in (*wanted, *origins)} if header else {}
        return cls(bool(header), text, label, _Selection(path, wanted, origins, names))


def _other_delimiter(line: str, kind: str, delimiter: str) -> str:
    """A hint naming the delimiter of this line, if it is not the one in use."""
    for other, (written, _) in _DELIMITERS.items():
        cells = [cell.strip().strip('"') for cell in line.split(other)]
        known = any(canonical(cell) in LABEL_VALUES or cell.casefold() in _LABEL_NAMES for cell in cells)
        if other != delimiter and len(cells) > 1 and known:
            asked = f'delimiter="{written}"'
            if kind == "tsv" and other != "\t":  # quotation marks are common there
                asked = 'format="csv"' if other == "," else f'format="csv", {asked}'
            return f"pass {asked}"
    return ""


# ---------------------------------------------------------------------------------------------------------------- JSON


def json_records(source: Source, encoding: str | None, columns: Columns) -> Iterator[Record]:
    """Records of JSON: an object per line, or one array of objects."""
    path = source.path
    fields: tuple[Any, Any] | None = None
    selection = _Selection(path, columns.where or {})
    for line, item in _json_items(source, encoding):
        if not isinstance(item, dict):
            raise DataFileError(path, f"must hold JSON objects; got {type(item).__name__}", line=line)
        if fields is None:
            fields = _json_fields(path, line, item, columns)
            if columns.where is None:
                origins = [k for k in item if k.casefold() in _ORIGIN_NAMES and k not in fields]
                selection.origins = [k for k in origins if _is_plain(item[k])]
        text, label = fields
        for name in (text, label, *selection.wanted, *selection.origins):
            if name not in item:
                raise DataFileError(path, f"has no field {name!r}", line=line)
        if not isinstance(item[text], str):
            raise DataFileError(path, f"must hold text under {text!r}", line=line)
        if not _is_plain(item[label]):
            raise DataFileError(path, f"must hold a number or text under {label!r}", line=line)
        if selection.idle or selection.keeps(lambda name, item=item: _spelled(item[name])):  # type: ignore[misc]
            yield path, line, item[text], canonical(item[label])
    selection.finish()
    if fields is None:
        raise DataFileError(path, "is empty")


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _json_fields(path: Path, line: int, item: dict[str, Any], columns: Columns) -> tuple[Any, Any]:
    """The names of the text and the label in the first object."""

    def find(name: str, given: Column | None, usual: str, known: Collection[str], taken: Any = None) -> Any:
        if given is not None:
            return given
        fits = [usual] if usual in item else [key for key in item if key.casefold() in known and key != taken]
        if len(fits) > 1:
            raise DataFileError(path, f"has the fields {shown(fits)}; pass {name}", line=line)
        if not fits:
            raise DataFileError(path, f"has no field {usual!r}; its fields are {shown(item)}; pass {name}", line=line)
        return fits[0]

    text = find("text_column", columns.text, "text", _TEXT_NAMES)
    return text, find("label_column", columns.label, "stars", _LABEL_NAMES, text)


def _json_items(source: Source, encoding: str | None) -> Iterator[tuple[int, Any]]:
    """The values of the lines, or of the array that makes up the file, with the line number where each begins."""
    lines = read_lines(source, encoding)
    for line, content in lines:
        if not content.strip():
            continue
        if content.lstrip().startswith("["):
            yield from _array_items(source, encoding)
            return
        try:
            item = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataFileError(source.path, "is not valid JSON", line=line) from error
        yield line, item


_SPACE = re.compile(r"[ \t\r\n]*")


def _array_items(source: Source, encoding: str | None) -> Iterator[tuple[int, Any]]:
    """Items of an array; the whole text is in memory, but only one item at a time."""
    text = read_text(source, encoding)
    decoder = json.JSONDecoder()
    place = counted = 0
    line = 1

    def skip(to: int, expected: str = "") -> int:
        nonlocal counted, line
        to = _SPACE.match(text, to).end()  # type: ignore[union-attr]
        line += text.count("\n", counted, to)
        counted = to
        if expected and (to >= len(text) or text[to] not in expected):
            raise DataFileError(source.path, "is not valid JSON", line=line)
        return to

    place = skip(skip(0, "[") + 1)
    if text[place : place + 1] == "]":
        return
    while True:
        try:
            item, after = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise DataFileError(source.path, "is not valid JSON", line=line) from error
        yield line, item
        place = skip(after, ",]")
        if text[place] == "]":
            if skip(place + 1) < len(text):
                raise DataFileError(source.path, "is not valid JSON", line=line)
            return
        place = skip(place + 1)
