"""The arguments of the command line: the options of each command, and their parsing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias

from attnembed._declared import EXPLORE_MODULE, declared
from attnembed._version import __version__
from attnembed.errors import InputError

__all__ = ["USAGE_ERROR", "command_parser", "is_file"]

USAGE_ERROR = 2

_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {' '.join(message.split())} (see `{self.prog} --help`)\n")


class _OldName(argparse.Action):
    """An option under its old name, hidden and kept for one release; ``const`` is the new name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        sys.stderr.write(f"attnembed: {option_string} is deprecated and will be removed; use {self.const}\n")
        setattr(namespace, self.dest, values)


def is_file(text: str) -> bool:
    """Whether the subject given is the name of a file."""
    return text.endswith(".py") or os.sep in text


def _checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """``check`` as the type of an option: the parser puts the option, as typed, before the expectation."""

    def convert(text: str) -> Any:
        try:
            return check(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"`{error.name}` ")) from error

    return convert


def _integer(minimum: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        try:
            number = int(text)
        except ValueError as error:
            raise InputError("N", "must be a whole number", got=repr(text)) from error
        from attnembed._validation import check_integer  # here, because listing and help do without NumPy

        return check_integer("N", number, minimum=minimum)

    return _checked(check)


def _chosen(choices: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    """One of the names, which are looked up when needed, because listing experiments imports them."""

    def check(text: str) -> str:
        from attnembed._validation import check_choice

        return check_choice("name", text, choices())

    return _checked(check)


@_checked
def _path(text: str) -> str:
    if not text:
        raise InputError("path", "must name a file or folder", got=text)
    return text


@_checked
def _subject(text: str) -> str:
    from attnembed._validation import check_choice
    from attnembed.evidence.registry import SUBJECTS

    if is_file(text):
        return text
    try:
        return check_choice("name", text, (*SUBJECTS, "all"))
    except InputError as error:
        raise InputError("name", f"{error.expected}, or a file FILE.py", got=error.got) from error


def _experiments() -> Iterable[str]:
    from attnembed.experiments import experiments

    return [entry.name for entry in experiments()]


def _pages() -> Iterable[str]:
    found = declared([EXPLORE_MODULE], "ExplorePage", 1)
    if found is not None:
        return [name for name, _ in found]
    from attnembed.explore import PAGES

    return PAGES


def _swept() -> Iterable[str]:
    from attnembed.experiments.sweeps import GRID_EXPERIMENTS

    return GRID_EXPERIMENTS


@_checked
def _values(text: str) -> str:
    from attnembed.experiments.sweeps import parse_values

    parse_values(text)
    return text


# --- the commands -----------------------------------------------------------------------------------------------------


def command_parser(
    commands: Mapping[str, Callable[[argparse.Namespace], int]], *, readers: bool
) -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``run`` to its function.

    ``readers`` says whether the options of `reproduce` and `audit` are wanted that need the readers.
    """
    parser = _Parser(prog="attnembed", description="Theorems about learning as executable code.")
    parser.add_argument("--version", action="version", version=f"attnembed {__version__}")
    added = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in (
        ("list", _add_list(added)),
        ("verify", _add_verify(added)),
        ("falsify", _add_falsify(added)),
        ("show", _add_show(added)),
        ("explore", _add_explore(added)),
        ("reproduce", _add_reproduce(added, readers)),
        ("report", _add_report(added)),
        ("sweep", _add_sweep(added)),
        ("audit", _add_audit(added, readers)),
    ):
        command.set_defaults(run=commands[name])
    return parser


def _add_repetitions(parser: argparse.ArgumentParser, old: str, default: int | None, help: str) -> None:
    parser.add_argument("--repetitions", type=_integer(1), default=default, metavar="N", help=help)
    parser.add_argument(
        old,
        type=_integer(1),
        action=_OldName,
        const="--repetitions",
        dest="repetitions",
        default=default,
        help=argparse.SUPPRESS,
    )


def _add_list(commands: _Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("list", help="claims, experiments, sweeps and pages, one line each")
    pages = parser.add_mutually_exclusive_group()
    pages.add_argument("--markdown", action="store_true", help="the claims as a Markdown page")
    pages.add_argument("--api", action="store_true", help="the public names and their docstrings as a Markdown page")
    parser.add_argument(
        "--verdicts", type=_path, metavar="FILE.json", help="with --markdown: add those of `verify --json FILE.json`"
    )
    return parser


def _add_verify(commands: _Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("verify", help="measure the claims; exit code 1 if one fails")
    parser.add_argument(
        "subject",
        type=_subject,
        nargs="?",
        default="all",
        metavar="SUBJECT",
        help="attention, structured, all (default), or a Python file with your own claims",
    )
    parser.add_argument("--ids", nargs="+", metavar="ID", help="only these claims")
    parser.add_argument("--json", type=_path, metavar="FILE", help="also write the report as JSON")
    parser.add_argument(
        "--instances", type=_integer(1), metavar="N", help="random instances of each claim (default 20)"
    )
    parser.add_argument(
        "--seed", type=_integer(0), default=0, metavar="N", help="seed of the random instances (default 0)"
    )
    parser.add_argument(
        "--instance", type=_integer(0), metavar="SEED", help="only the instance with this seed, as given in a report"
    )
    parser.add_argument("--workers", type=_integer(1), metavar="N", help="processes (default: one per core)")
    return parser


def _add_falsify(commands: _Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "falsify", help="search for a counterexample to a statement; exit code 1 if one is found, printed as a script"
    )
    parser.add_argument(
        "target", metavar="FILE.py::NAME", help="a function of a problem that returns True, False, a ratio or Evidence"
    )
    parser.add_argument(
        "--max-examples", type=_integer(1), default=1000, metavar="N", help="largest number of instances (default 1000)"
    )
    parser.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="seed of the search (default 0)")
    return parser


def _add_show(commands: _Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("show", help="one claim: statement, hypotheses, control, and the code it covers")
    parser.add_argument("id", metavar="ID", help="a claim of `attnembed list`")
    parser.add_argument("--claims", type=_path, metavar="FILE.py", help="a file with your own claims")
    return parser


def _add_explore(commands: _Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("explore", help="write a page with sliders, as one HTML file that needs no network")
    parser.add_argument("name", type=_chosen(_pages), metavar="NAME", help="one of the pages of `attnembed list`")
    parser.add_argument("--out", type=_path, metavar="FILE.html", help="where to write (default: NAME.html)")
    parser.add_argument("--quick", action="store_true", help="a coarser page, for a first look")
    parser.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="seed of data and models (default 0)")
    return parser


def _add_reproduce(commands: _Commands, readers: bool) -> argparse.ArgumentParser:
    parser = commands.add_parser("reproduce", help="run an experiment; writes figures (PNG) and numbers (JSON)")
    parser.add_argument(
        "name", type=_chosen(_experiments), metavar="NAME", help="one of the experiments of `attnembed list`"
    )
    parser.add_argument(
        "--data", type=_path, metavar="PATH", help="folder or file of real data (default: $ATTNEMBED_DATA)"
    )
    parser.add_argument("--out", type=_path, metavar="DIR", default="results", help="where to write (default: results)")
    parser.add_argument("--quick", action="store_true", help="a smaller version, for a first look")
    parser.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="seed (default 0)")
    _add_repetitions(parser, "--seeds", None, "repetitions (default: the experiment's own number)")
    parser.add_argument(
        "--name", dest="data_name", metavar="WORD", default="", help="name of the reviews in titles and files"
    )
    parser.add_argument(
        "--split", metavar="NAME", default="", help="of ocr: folds (default), or words, which holds out word types"
    )
    parser.add_argument(
        "--workers", type=_integer(1), metavar="N", help="processes of the structured tasks (default: one per core)"
    )
    if readers:
        from attnembed.experiments.reading import add_reader_options

        add_reader_options(parser)
    return parser


def _add_report(commands: _Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("report", help="write one HTML page of all claims and experiments, with figures")
    parser.add_argument("--out", type=_path, metavar="DIR", required=True, help="writes DIR/report.html")
    parser.add_argument(
        "--data", type=_path, metavar="PATH", help="folder or file of real data (default: $ATTNEMBED_DATA)"
    )
    parser.add_argument("--claims", type=_path, metavar="FILE.py", help="a file with your own claims, measured as well")
    parser.add_argument(
        "--instances", type=_integer(1), default=20, metavar="N", help="random instances of each claim (default 20)"
    )
    parser.add_argument("--quick", action="store_true", help="smaller versions of the experiments")
    parser.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="seed of everything (default 0)")
    return parser


def _add_sweep(commands: _Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "sweep",
        help="run an experiment over a grid, in parallel; writes a figure (PNG) and numbers (JSON)",
        epilog="VALUES are numbers with commas between them; LOW:HIGH:COUNT stands for COUNT numbers from LOW to HIGH "
        "in geometric progression. Names are eta (step size), d (width), n (sequences), T (length), V (vocabulary) "
        "and scale (of E and p).",
    )
    parser.add_argument("experiment", type=_chosen(_swept), metavar="EXPERIMENT", help="a sweep of `attnembed list`")
    parser.add_argument(
        "--over", type=_values, nargs="+", action="extend", required=True, metavar="NAME=VALUES", help="see below"
    )
    parser.add_argument(
        "--store", type=_path, metavar="FILE", help="file of finished cells, from which a rerun continues"
    )
    parser.add_argument("--out", type=_path, metavar="DIR", default="results", help="where to write (default: results)")
    parser.add_argument("--workers", type=_integer(1), metavar="N", help="processes (default: one per core)")
    _add_repetitions(parser, "--repeats", 1, "repetitions of each cell (default 1)")
    parser.add_argument("--quick", action="store_true", help="smaller data, for a first look")
    parser.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="seed (default 0)")
    return parser


def _add_audit(commands: _Commands, readers: bool) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "audit", help="what is in a data set before anything is learned: duplicates, contradictions, baselines"
    )
    parser.add_argument(
        "data", type=_path, metavar="DATA", help="file or folder of letters, sentences, masks or reviews"
    )
    parser.add_argument("--test", type=_path, metavar="PATH", help="the test part, where it is a file of its own")
    parser.add_argument(
        "--kind",
        choices=("letters", "sentences", "masks", "reviews"),
        help="only these, of a folder that holds several kinds (default: all of them)",
    )
    parser.add_argument("--out", type=_path, metavar="DIR", default="results", help="where to write (default: results)")
    if readers:
        from attnembed.experiments.reading import add_reader_options

        add_reader_options(parser)
    return parser
