"""The command line: `attnembed list | verify | reproduce | audit | ...` (or `python -m attnembed`); all that prints."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from attnembed._arguments import USAGE_ERROR, command_parser, is_file
from attnembed._declared import CLAIM_MODULES, EXPERIMENT_MODULES, EXPLORE_MODULE, SWEEP_MODULE, declared
from attnembed._workers import interrupted_by
from attnembed.errors import AttnembedError, InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (0 success, 1 a claim or a cell failed, 2 an error).

    SIGTERM, and SIGHUP when the terminal is closed, end it as Ctrl-C does.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may contain what the terminal cannot show
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = command_parser(_COMMANDS, readers=bool({"reproduce", "audit"} & set(arguments))).parse_args(arguments)
    try:
        with interrupted_by("SIGTERM", "SIGHUP"):
            code: int = options.run(options)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of a pipe has closed it (`attnembed list | head`): print nothing more, not even at shutdown.
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
    with suppress(OSError):  # the terminal may have closed
        print(f"attnembed: error: {' '.join(message.split())}", file=sys.stderr)
    return USAGE_ERROR


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
    """The rows of `list`, read from the sources; imported if more may have been declared in this process."""
    if "attnembed.evidence.registry" not in sys.modules and "attnembed.experiments.registry" not in sys.modules:
        found = declared(CLAIM_MODULES.values(), "claim", "statement")
        runs = declared(EXPERIMENT_MODULES, "experiment", 1)
        sweeps = declared([SWEEP_MODULE], "GridExperiment", 1)
        pages = declared([EXPLORE_MODULE], "ExplorePage", 1)
        if found is not None and runs is not None and sweeps is not None and pages is not None:
            named = {"reproduce": sorted(runs), "sweep": sweeps, "explore": pages}
            return found + [(f"{command} {name}", text) for command, rows in named.items() for name, text in rows]
    from attnembed.evidence import claims
    from attnembed.experiments import experiments
    from attnembed.experiments.sweeps import GRID_EXPERIMENTS
    from attnembed.explore import PAGES

    rows = [(entry.id, entry.statement) for entry in claims()]
    rows += [(f"reproduce {entry.name}", entry.summary) for entry in experiments()]
    rows += [(f"sweep {entry.name}", entry.summary) for entry in GRID_EXPERIMENTS.values()]
    return rows + [(f"explore {page.name}", page.summary) for page in PAGES.values()]


def _verify(options: argparse.Namespace) -> int:
    from attnembed._files import write_json
    from attnembed.evidence import verify
    from attnembed.evidence.registry import EVERY, named_claims

    entries = _claims_of(options.subject)
    if options.ids:
        entries = named_claims("--ids", options.ids, entries, "" if options.subject == EVERY else options.subject)
    if options.instance is not None and options.instances is not None:
        raise InputError("--instance", "selects one instance", got=f"--instances {options.instances} too")
    report = verify(
        entries,
        instances=1 if options.instance is not None else options.instances or 20,
        rng=options.seed if options.instance is None else options.instance,
        workers=_workers(options),
    )
    print(report)
    if options.json:
        write_json(options.json, report.to_dict())
    return 0 if report.passed else 1


def _explore(options: argparse.Namespace) -> int:
    from attnembed.explore import save_page

    suffix = "-quick" if options.quick else ""
    path = save_page(options.name, options.out or f"{options.name}{suffix}.html", quick=options.quick, rng=options.seed)
    print(path)
    return 0


def _claims_of(subject: str) -> tuple[Any, ...]:
    """The claims of a subject, or those of a file."""
    from attnembed.evidence import claims
    from attnembed.evidence.files import load_claims

    return load_claims(subject) if is_file(subject) else claims(subject)


def _workers(options: argparse.Namespace) -> int:
    """The number of processes: as requested, or one per core if the work is worth starting them."""
    few = options.instance is not None or (options.ids is not None and len(options.ids) < 4)
    return int(options.workers or (1 if few or (options.instances or 20) < 4 else os.cpu_count() or 1))


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
    for option, what, value in (
        ("--data", "data", options.data),
        ("--repetitions", "repetitions", options.repetitions),
    ):
        if what in ignored and value is not None:
            raise InputError(option, f"is not used by {options.name}", got=value, hint="leave it out")
    outcome = reproduce(
        options.name,
        data=options.data,
        out=options.out,
        quick=options.quick,
        repetitions=options.repetitions,
        reader=reader_options(options),
        rng=options.seed,
        data_name=options.data_name,
        workers=options.workers,
        split=options.split,
    )
    print(outcome)
    return 0


def _audit(options: argparse.Namespace) -> int:
    from attnembed.auditing.files import audit_files
    from attnembed.experiments.reading import reader_options

    for written in audit_files(
        options.data, test=options.test, kind=options.kind, out=options.out, reader=reader_options(options)
    ):
        print(written)
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from attnembed.experiments.sweeps import run_sweep, sweep_grid
    from attnembed.results import Status

    try:
        sweep_grid(options.experiment, options.over, repetitions=options.repetitions, quick=options.quick)
    except InputError as error:
        raise InputError("--over", error.expected, got=error.got, hint=error.hint) from error

    outcome = run_sweep(
        options.experiment,
        options.over,
        store=options.store,
        out=options.out,
        workers=options.workers,
        repetitions=options.repetitions,
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


_COMMANDS = {
    "list": _list,
    "verify": _verify,
    "falsify": _falsify,
    "show": _show,
    "explore": _explore,
    "reproduce": _reproduce,
    "report": _report,
    "sweep": _sweep,
    "audit": _audit,
}


if __name__ == "__main__":
    sys.exit(main())
