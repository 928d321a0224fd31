"""Command-line options of the readers of reviews: columns, rows, labels and encoding."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, cast

from attnembed.attention.labels import SCHEMES
from attnembed.attention.reviews import ReaderOptions
from attnembed.errors import InputError

__all__ = ["add_reader_options", "reader_options"]

_TAB = {"tab", "\\t"}  # a tab itself is hard to type in a shell


def add_reader_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command that reads reviews."""
    group = parser.add_argument_group("reviews", "how to read a file of reviews; see `attnembed.load_reviews`")
    group.add_argument(
        "--where",
        nargs="*",
        action="extend",
        metavar="COLUMN=VALUE",
        help="only the rows with this value; may be repeated for other values of a column; default: all rows",
    )
    group.add_argument("--text-column", metavar="COLUMN", help="name, or position from 0, of the texts")
    group.add_argument("--label-column", metavar="COLUMN", help="name, or position from 0, of the labels")
    group.add_argument("--delimiter", metavar="CHARACTER", help="between columns; write tab for a tab")
    group.add_argument(
        "--labels",
        nargs="+",
        metavar="SCHEME|LABEL=SIGN",
        help=f"one of {', '.join(map(repr, SCHEMES))}; or the sign of each label: 1, -1, or 0 to drop the text",
    )
    group.add_argument("--encoding", metavar="NAME", help="of the text (default: by its byte order mark, else utf-8)")
    group.add_argument("--format", choices=("tsv", "csv", "jsonl"), help="default: by the name of the file")
    group.add_argument("--member", metavar="NAME", help="one file of an archive that holds several")


def reader_options(options: argparse.Namespace) -> ReaderOptions:
    """The options that were given, as keyword arguments of `iter_reviews`."""
    delimiter = options.delimiter
    given: dict[str, Any] = {
        "where": None if options.where is None else _where(options.where),
        "text_column": _column(options.text_column),
        "label_column": _column(options.label_column),
        "delimiter": "\t" if delimiter in _TAB else delimiter,
        "labels": None if options.labels is None else _labels(options.labels),
        "encoding": options.encoding,
        "format": options.format,
        "member": options.member,
    }
    return cast(ReaderOptions, {name: value for name, value in given.items() if value is not None})


def _column(name: str | None) -> str | int | None:
    return int(name) if name is not None and re.fullmatch("[0-9]{1,9}", name) else name


def _where(pairs: Sequence[str]) -> dict[str | int, list[str]]:
    wanted: dict[str | int, list[str]] = {}
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not equals or not column:
            raise InputError("where", "must be COLUMN=VALUE", got=repr(pair))
        key = _column(column)
        assert key is not None
        wanted.setdefault(key, []).append(value)
    return wanted


def _labels(words: Sequence[str]) -> str | dict[str, float]:
    if len(words) == 1 and "=" not in words[0]:
        return words[0]
    signs: dict[str, float] = {}
    for word in words:
        label, equals, sign = word.rpartition("=")
        if not equals or sign not in ("1", "+1", "-1", "0"):
            raise InputError("labels", "must be a scheme, or LABEL=SIGN with a sign 1, -1 or 0", got=repr(word))
        signs[label] = float(sign)
    return signs
