"""How much the checks see: apply small changes of meaning, run the claims, then the nearest tests, print what survives.

    python -m tools.mutants [--module NAME ...] [--jobs N] [--per-function N] [--match TEXT]
                            [--all-claims] [--list] [--json FILE]

The package is copied into a temporary folder and changed there. A mutant is *caught* by the first check that fails on
it, crashes or takes too long: the nearest claims first, one after another (with --all-claims the others of the
subject too), then the nearest tests. What no check catches *survives*,
unless `tools.mutation_targets` says in a sentence why it means the same. docs/evidence.md has the table of the last
run.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from tools.mutation_rules import Mutant, chosen, mutants_of
from tools.mutation_targets import EQUIVALENT, NOT_RUN, TARGETS, Target

__all__ = ["Check", "Outcome", "Sandbox", "examine", "main"]

ROOT = Path(__file__).parents[1]
PARTS = ("attnembed", "tests", "docs", "examples", "pyproject.toml", "README.md")

# Claims by name first, then the others of the subject, until one fails; few instances where there may be many.
_CLAIMS = """
import inspect, sys
from attnembed.evidence import claims, verify
subject, first, skipped = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")
few = {"instances": 2} if "instances" in inspect.signature(verify).parameters else {}
ids = [entry.id for entry in claims(subject)]
order = [f"{subject}/{name}" for name in first if name]
unknown = set(order) - set(ids)
if unknown:
    print("no claim", *unknown)
    sys.exit(3)
if skipped != ["*"]:
    order += [id for id in ids if id not in order and id.partition("/")[2] not in skipped]
for id in order:
    if not verify(subject, ids=[id], **few).passed:
        print(id)
        sys.exit(1)
"""


@dataclass(frozen=True)
class Check:
    """A command that must succeed in the copy; "{python}" in it is the interpreter."""

    name: str
    command: tuple[str, ...]
    timeout: float = 240.0


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: ``caught_by`` names a check, or is "" for a survivor; ``detail`` is its last line."""

    mutant: Mutant
    caught_by: str
    detail: str
    seconds: float

    @property
    def reason(self) -> str:
        """Why a survivor means the same as the original, if somebody has said so."""
        return EQUIVALENT.get(self.mutant.name, "") if not self.caught_by else ""


class Sandbox:
    """A copy of some files and folders in which one module at a time is changed and put back."""

    def __init__(self, folder: Path, root: Path = ROOT, parts: Sequence[str] = PARTS) -> None:
        self.folder = folder
        for part in parts:
            if (root / part).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.png", "*.gif")
                shutil.copytree(root / part, folder / part, ignore=ignored)
            else:
                shutil.copy2(root / part, folder / part)
        # Compiled once: afterwards nothing writes bytecode, which could be that of a mutant.
        compileall.compile_dir(folder, quiet=2)

    @contextmanager
    def changed(self, mutant: Mutant, package: str = "attnembed") -> Iterator[None]:
        """The copy with one mutant in it."""
        path = self.folder / package / mutant.module
        original = path.read_bytes()
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()
        path.write_text(mutant.source, encoding="utf-8")
        try:
            yield
        finally:
            path.write_bytes(original)

    def fails(self, check: Check) -> str | None:
        """The last line of what a check said when it failed, or None."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
        }
        command = [part.replace("{python}", sys.executable) for part in check.command]
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(check.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return f"no answer in {check.timeout:g} s"
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
            output.seek(0)
            lines = [line for line in output.read().decode(errors="replace").splitlines() if line.strip()]
        failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return None if code == 0 else (failures or lines or [f"exit code {code}"])[-1].strip()


def examine(mutant: Mutant, checks: Iterable[Check], sandbox: Sandbox, package: str = "attnembed") -> Outcome:
    """Run the checks on a mutant until one fails."""
    start = time.perf_counter()
    with sandbox.changed(mutant, package):
        for check in checks:
            said = sandbox.fails(check)
            if said is not None:
                return Outcome(mutant, check.name, said, time.perf_counter() - start)
    return Outcome(mutant, "", "", time.perf_counter() - start)


def checks_of(target: Target, all_claims: bool = False) -> tuple[Check, ...]:
    """The claims nearest to the target (then the others of its subject), and its examples and tests."""
    source = f"attnembed/{target.module}"
    tests = ("{python}", "-m", "pytest", "-x", "-p", "no:cacheprovider", "--doctest-modules", source, *target.tests)
    return claims_check(target.subject, target.claims, NOT_RUN if all_claims else ("*",)), Check("tests", tests)


def claims_check(subject: str, first: Sequence[str], skipped: Sequence[str]) -> Check:
    """The claims of a subject one after another, those named ``first`` and then those not ``skipped`` ("*": all)."""
    return Check("claims", ("{python}", "-c", _CLAIMS, subject, ",".join(first), ",".join(skipped)))


def collect(modules: Sequence[str], per_function: int, match: str) -> list[tuple[Mutant, Target]]:
    """The mutants of the targets whose module contains one of the names, in the order of the list."""
    found = []
    for target in TARGETS:
        if modules and not any(name in target.module for name in modules):
            continue
        source = (ROOT / "attnembed" / target.module).read_text(encoding="utf-8")
        own = mutants_of(source, target.module, target.functions)
        picked = own if match else chosen(own, per_function)
        found += [(mutant, target) for mutant in picked if match in mutant.name]
    return found


def run(work: Sequence[tuple[Mutant, Target]], root: Path, jobs: int, say: Callable[[Outcome], None]) -> list[Outcome]:
    """Examine every mutant, ``jobs`` at a time, each worker in a copy of ``root``; in the order of ``work``."""
    queue: Queue[int] = Queue()
    for k in range(len(work)):
        queue.put(k)
    outcomes: dict[int, Outcome] = {}
    errors: list[BaseException] = []

    def worker(folder: Path) -> None:
        try:
            sandbox = Sandbox(folder, root)
            while not queue.empty() and not errors:
                k = queue.get()
                outcomes[k] = examine(*work[k], sandbox)
                say(outcomes[k])
        except BaseException as error:
            errors.append(error)

    with tempfile.TemporaryDirectory(prefix="mutants-") as copies:
        folders = [Path(copies) / str(k) for k in range(jobs)]
        for folder in folders:
            folder.mkdir()
        threads = [threading.Thread(target=worker, args=(folder,)) for folder in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [outcomes[k] for k in sorted(outcomes)]


def table(outcomes: Sequence[Outcome]) -> str:
    """How many mutants of each module were caught, and by what, in Markdown."""
    rows = [
        "| module | mutants | caught by claims | by tests | mean the same | survived |",
        "|---|---|---|---|---|---|",
    ]
    for module in [*dict.fromkeys(outcome.mutant.module for outcome in outcomes), ""]:
        own = [outcome for outcome in outcomes if module in ("", outcome.mutant.module)]
        claims = sum(outcome.caught_by == "claims" for outcome in own)
        tests = sum(outcome.caught_by == "tests" for outcome in own)
        same = sum(bool(outcome.reason) for outcome in own)
        name = f"`{module}`" if module else "all"
        rows.append(f"| {name} | {len(own)} | {claims} | {tests} | {same} | {len(own) - claims - tests - same} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if nothing survives, 1 if something does, 2 if the checks fail on the package as it is."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--module", nargs="+", default=[], metavar="NAME", help="only modules with NAME in their path")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="mutants at a time (default 2)")
    parser.add_argument("--per-function", type=int, default=2, metavar="N", help="mutants of a function (default 2)")
    parser.add_argument("--match", default="", metavar="TEXT", help="only mutants, of all, with TEXT in their name")
    parser.add_argument("--all-claims", action="store_true", help="all claims of the subject, not only the nearest")
    parser.add_argument("--list", action="store_true", help="print the names of the mutants and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what became of each")
    options = parser.parse_args(arguments)
    work = collect(options.module, options.per_function, options.match)
    if options.list:
        print(*(mutant.name for mutant, _ in work), f"{len(work)} mutants", sep="\n")
        return 0

    def say(outcome: Outcome) -> None:
        verdict = outcome.caught_by or ("the same" if outcome.reason else "SURVIVED")
        print(f"{verdict:<9} {outcome.seconds:6.1f} s  {outcome.mutant.name}", flush=True)
        if outcome.caught_by:
            print(f"{'':<9}           {outcome.detail[:140]}", flush=True)

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        # What is copied now is what is examined, whatever happens to the working tree meanwhile.
        sandbox = Sandbox(Path(folder))
        skipped = NOT_RUN if options.all_claims else ("*",)
        named: dict[str, list[str]] = {}
        for _, target in work:
            named.setdefault(target.subject, []).extend(target.claims)
        for subject, names in named.items():
            said = sandbox.fails(claims_check(subject, tuple(dict.fromkeys(names)), skipped))
            if said is not None:
                print(f"a claim fails on the package as it is: {said}", file=sys.stderr)
                return 2
        checks = [(mutant, checks_of(target, options.all_claims)) for mutant, target in work]
        outcomes = run(checks, Path(folder), max(1, options.jobs), say)
    if options.json:
        rows = [
            {"mutant": o.mutant.name, "caught_by": o.caught_by, "detail": o.detail, "same": o.reason} for o in outcomes
        ]
        options.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    survivors = [outcome for outcome in outcomes if not outcome.caught_by and not outcome.reason]
    print("", table(outcomes), "", sep="\n")
    print(f"{len(survivors)} of {len(outcomes)} mutants survived", *(o.mutant.name for o in survivors), sep="\n")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
