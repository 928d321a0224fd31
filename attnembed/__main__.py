"""The command line: `attnembed list | verify | reproduce | sweep` (or `python -m attnembed`); all that prints."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from attnembed._declared import CLAIM_MODULES, EXPERIMENT_MODULES, SWEEP_MODULE, declared
from attnembed._version import __version__
from attnembed._workers import interrupted_by
from attnembed.errors import AttnembedError, InputError

USAGE_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {' '.join(message.split())} (see `{self.prog} --help`)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 fine, 1 a claim or a cell failed, 2 an error).

    SIGTERM (and SIGHUP, where a terminal is closed) end it as Ctrl-C does.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser(readers="reproduce" in arguments).parse_args(arguments)
    try:
        with interrupted_by("SIGTERM", "SIGHUP"):
            code: int = options.run(options)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of a pipe has left (`attnembed list | head`): nothing more to say, also not at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted; finished files are whole, run the same command again to continue")
    except AttnembedError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:
        return _fail("not enough memory; try --quick or a smaller data set")


def _fail(message: str) -> int:
    with suppress(OSError):  # the terminal may be gone
        print(f"attnembed: error: {' '.join(message.split())}", file=sys.stderr)
    return USAGE_ERROR


def _checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """``check`` as the type of an option: the parser names the option, as it was typed, before what was expected."""

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
        from attnembed._validation import check_integer  # here: what lists and explains does without NumPy

        return check_integer("N", number, minimum=minimum)

    return _checked(check)


def _chosen(choices: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    """One of the names, which are looked up when they are needed: listing experiments imports them."""

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

    if _is_file(text):
        return text
    try:
        return check_choice("name", text, (*SUBJECTS, "all"))
    except InputError as error:
        raise InputError("name", f"{error.expected}, or a file FILE.py", got=error.got) from error


def _experiments() -> Iterable[str]:
    from attnembed.experiments import experiments

    return [entry.name for entry in experiments()]


def _swept() -> Iterable[str]:
    from attnembed.experiments.sweeps import GRID_EXPERIMENTS

    return GRID_EXPERIMENTS


@_checked
def _values(text: str) -> str:
    from attnembed.experiments.sweeps import parse_values

    parse_values(text)
    return text


def _parser(*, readers: bool) -> argparse.ArgumentParser:
    """The command line; ``readers`` says whether the options of `reproduce` are wanted that need the readers."""
    parser = _Parser(prog="attnembed", description="Theorems about learning as executable code.")
    parser.add_argument("--version", action="version", version=f"attnembed {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="claims and experiments, one line each")
    pages = listing.add_mutually_exclusive_group()
    pages.add_argument("--markdown", action="store_true", help="the claims as a Markdown page")
    pages.add_argument("--api", action="store_true", help="the public names and their docstrings as a Markdown page")
    listing.add_argument(
        "--verdicts", type=_path, metavar="FILE.json", help="with --markdown: add those of `verify --json FILE.json`"
    )
    listing.set_defaults(run=_list)

    verifying = commands.add_parser("verify", help="measure the claims; exit code 1 if one fails")
    verifying.add_argument(
        "subject",
        type=_subject,
        nargs="?",
        default="all",
        metavar="SUBJECT",
        help="attention, structured, all (default), or a Python file with claims of your own",
    )
    verifying.add_argument("--ids", nargs="+", metavar="ID", help="only these claims")
    verifying.add_argument("--json", type=_path, metavar="FILE", help="also write the report as JSON")
    verifying.add_argument(
        "--instances", type=_integer(1), metavar="N", help="random instances of each claim (default 20)"
    )
    verifying.add_argument(
        "--seed", type=_integer(0), default=0, metavar="N", help="seed of the random instances (default 0)"
    )
    verifying.add_argument(
        "--instance", type=_integer(0), metavar="SEED", help="only the instance of this seed, as a report names it"
    )
    verifying.add_argument("--workers", type=_integer(1), metavar="N", help="processes (default: one per core)")
    verifying.set_defaults(run=_verify)

    falsifying = commands.add_parser(
        "falsify", help="search for a counterexample to a statement; exit code 1 if one is found, printed as a script"
    )
    falsifying.add_argument(
        "target", metavar="FILE.py::NAME", help="a function of a problem that returns True, False, a ratio or Evidence"
    )
    falsifying.add_argument(
        "--max-examples", type=_integer(1), default=1000, metavar="N", help="instances at most (default 1000)"
    )
    falsifying.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="seed of the search (default 0)")
    falsifying.set_defaults(run=_falsify)

    showing = commands.add_parser("show", help="one claim: statement, hypotheses, control, and the code it is about")
    showing.add_argument("id", metavar="ID", help="one of those of `attnembed list`")
    showing.add_argument("--claims", type=_path, metavar="FILE.py", help="a file with claims of your own")
    showing.set_defaults(run=_show)

    reproducing = commands.add_parser("reproduce", help="run an experiment; writes figures (PNG) and numbers (JSON)")
    reproducing.add_argument(
        "name", type=_chosen(_experiments), metavar="NAME", help="one of the experiments of `attnembed list`"
    )
    reproducing.add_argument(
        "--data", type=_path, metavar="PATH", help="folder or file of real data (default: $ATTNEMBED_DATA)"
    )
    reproducing.add_argument(
        "--out", type=_path, metavar="DIR", default="results", help="where to write (default: results)"
    )
    reproducing.add_argument("--quick", action="store_true", help="a smaller version, for a first look")
    reproducing.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="seed (default 0)")
    reproducing.add_argument("--seeds", type=_integer(1), metavar="N", help="repetitions of the structured tasks")
    reproducing.add_argument(
        "--name", dest="data_name", metavar="WORD", default="", help="what to call the reviews, in titles and files"
    )
    if readers:
        from attnembed.experiments.reading import add_reader_options

        add_reader_options(reproducing)
    reproducing.set_defaults(run=_reproduce)

    reporting = commands.add_parser("report", help="one HTML page of all claims and experiments, with their figures")
    reporting.add_argument("--out", type=_path, metavar="DIR", required=True, help="writes DIR/report.html")
    reporting.add_argument(
        "--data", type=_path, metavar="PATH", help="folder or file of real data (default: $ATTNEMBED_DATA)"
    )
    reporting.add_argument("--claims", type=_path, metavar="FILE.py", help="a file with claims of your own, as well")
    reporting.add_argument(
        "--instances", type=_integer(1), default=20, metavar="N", help="random instances of each claim (default 20)"
    )
    reporting.add_argument("--quick", action="store_true", help="smaller versions of the experiments")
    reporting.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="seed of everything (default 0)")
    reporting.set_defaults(run=_report)

    sweeping = commands.add_parser(
        "sweep",
        help="run an experiment over a grid, in parallel; writes a figure (PNG) and numbers (JSON)",
        epilog="VALUES are numbers with commas between them; LOW:HIGH:COUNT stands for COUNT numbers from LOW to HIGH "
        "in geometric progression. Names are eta (step size), d (width), n (sequences), T (length), V (vocabulary) "
        "and scale (of E and p).",
    )
    sweeping.add_argument(
        "experiment", type=_chosen(_swept), metavar="EXPERIMENT", help="one of those of `attnembed list`"
    )
    sweeping.add_argument(
        "--over", type=_values, nargs="+", action="extend", required=True, metavar="NAME=VALUES", help="see below"
    )
    sweeping.add_argument(
        "--store", type=_path, metavar="FILE", help="keep finished cells, and go on from those it holds"
    )
    sweeping.add_argument(
        "--out", type=_path, metavar="DIR", default="results", help="where to write (default: results)"
    )
    sweeping.add_argument("--workers", type=_integer(1), metavar="N", help="processes (default: one per core)")
    sweeping.add_argument(
        "--repeats", type=_integer(1), default=1, metavar="R", help="repetitions of each cell (default 1)"
    )
    sweeping.add_argument("--quick", action="store_true", help="smaller data, for a first look")
    sweeping.add_argument("--seed", type=_integer(0), default=0, metavar="N", help="seed (default 0)")
    sweeping.set_defaults(run=_sweep)
    return parser


def _list(options: argparse.Namespace) -> int:
    if options.api:
        from attnembed.api_page import api_page

        print(api_page(), end="")
        return 0
    if options.markdown:
        from attnembed.evidence import claims_page

        print(claims_page(_verdicts(options.verdicts) if options.verdicts else None), end="")
        return 0
    if options.verdicts:
        raise InputError("--verdicts", "belongs to --markdown", got=str(options.verdicts), hint="add --markdown")
    rows = _listed()
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")
    return 0


def _verdicts(path: str) -> dict[str, str]:
    import json

    from attnembed.errors import DataFileError
    from attnembed.evidence.page import verdict_texts

    try:
        with open(path, encoding="utf-8") as stream:
            return verdict_texts(json.load(stream))
    except (ValueError, KeyError, TypeError):
        raise DataFileError(path, "is not a report; make one with: attnembed verify --json FILE.json") from None


def _listed() -> list[tuple[str, str]]:
    """What `list` prints, read from the sources; imported where someone may have declared more in this process."""
    if "attnembed.evidence.registry" not in sys.modules and "attnembed.experiments.registry" not in sys.modules:
        found = declared(CLAIM_MODULES.values(), "claim", "statement")
        runs = declared(EXPERIMENT_MODULES, "experiment", 1)
        sweeps = declared([SWEEP_MODULE], "GridExperiment", 1)
        if found is not None and runs is not None and sweeps is not None:
            return found + [(f"reproduce {n}", s) for n, s in sorted(runs)] + [(f"sweep {n}", s) for n, s in sweeps]
    from attnembed.evidence import claims
    from attnembed.experiments import experiments
    from attnembed.experiments.sweeps import GRID_EXPERIMENTS

    rows = [(entry.id, entry.statement) for entry in claims()]
    rows += [(f"reproduce {entry.name}", entry.summary) for entry in experiments()]
    return rows + [(f"sweep {entry.name}", entry.summary) for entry in GRID_EXPERIMENTS.values()]


def _verify(options: argparse.Namespace) -> int:
    from attnembed._files import write_json
    from attnembed.evidence import verify

    entries = _claims_of(options.subject)
    if options.ids:
        _check_ids(options.subject, entries, options.ids)
    if options.instance is not None and options.instances is not None:
        raise InputError("--instance", "is one instance", got=f"--instances {options.instances} too")
    report = verify(
        entries,
        ids=options.ids,
        instances=1 if options.instance is not None else options.instances or 20,
        rng=options.seed if options.instance is None else options.instance,
        workers=_workers(options),
    )
    print(report)
    if options.json:
        write_json(options.json, report.to_dict())
    return 0 if report.passed else 1


def _is_file(text: str) -> bool:
    return text.endswith(".py") or os.sep in text


def _claims_of(subject: str) -> tuple[Any, ...]:
    """The claims of a subject, or those of a file."""
    from attnembed.evidence import claims
    from attnembed.evidence.files import load_claims

    return load_claims(subject) if _is_file(subject) else claims(subject)


def _workers(options: argparse.Namespace) -> int:
    """The processes to use: those asked for, or one per core where the work is worth starting them."""
    few = options.instance is not None or (options.ids is not None and len(options.ids) < 4)
    return int(options.workers or (1 if few or (options.instances or 20) < 4 else os.cpu_count() or 1))


def _check_ids(subject: str, entries: Iterable[Any], ids: Sequence[str]) -> None:
    from attnembed.evidence import claims

    everywhere = {name: entry.subject for entry in claims() for name in (entry.id, entry.short_id)}
    known = {name for entry in entries for name in (entry.id, entry.short_id)}
    for id in ids:
        if id not in everywhere:
            raise InputError("--ids", "must name registered claims", got=repr(id), hint="see `attnembed list`")
        if id not in known:
            got = f"{id!r}, one of {everywhere[id]}"
            raise InputError("--ids", f"must name claims of {subject}", got=got, hint="or leave the subject out")


def _falsify(options: argparse.Namespace) -> int:
    from attnembed.evidence.files import load_function
    from attnembed.evidence.instances import check_problem_parameter

    predicate = load_function(options.target)
    check_problem_parameter(predicate)
    try:
        from attnembed.testing import falsify
    except ImportError as error:
        return _fail(str(error))
    found = falsify(predicate, max_examples=options.max_examples, rng=options.seed)
    if found is None:
        print(f"no counterexample among {options.max_examples} instances")
        return 0
    print(found)
    return 1


def _show(options: argparse.Namespace) -> int:
    from attnembed.evidence.files import load_claims
    from attnembed.evidence.show import find_claim, show

    if options.claims:
        load_claims(options.claims)
    print(show(find_claim(options.id)))
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from attnembed.experiments import experiments, reproduce
    from attnembed.experiments.reading import reader_options

    ignored = next(entry.ignores for entry in experiments() if entry.name == options.name)
    for option, what, value in (("--data", "data", options.data), ("--seeds", "repetitions", options.seeds)):
        if what in ignored and value is not None:
            raise InputError(option, f"is not used by {options.name}", got=value, hint="leave it out")
    outcome = reproduce(
        options.name,
        data=options.data,
        out=options.out,
        quick=options.quick,
        repetitions=options.seeds,
        reader=reader_options(options),
        rng=options.seed,
        data_name=options.data_name,
    )
    print(outcome)
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from attnembed.experiments.sweeps import run_sweep, sweep_grid
    from attnembed.results import Status

    try:
        sweep_grid(options.experiment, options.over, repeats=options.repeats, quick=options.quick)
    except InputError as error:
        raise InputError("--over", error.expected, got=error.got, hint=error.hint) from error

    outcome = run_sweep(
        options.experiment,
        options.over,
        store=options.store,
        out=options.out,
        workers=options.workers,
        repeats=options.repeats,
        quick=options.quick,
        rng=options.seed,
    )
    if not outcome.files:
        return _fail(outcome.result.message)
    print(outcome)
    return 0 if outcome.result.status is Status.REACHED_END else 1


def _report(options: argparse.Namespace) -> int:
    from attnembed.report import write_report

    outcome = write_report(
        options.out,
        data=options.data,
        quick=options.quick,
        rng=options.seed,
        claims_file=options.claims,
        instances=options.instances,
        workers=os.cpu_count() or 1,
    )
    print(outcome)
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())
