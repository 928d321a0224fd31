"""How much the checks see: apply small changes of meaning, run the claims, then the nearest tests, print what survives.

    python -m tools.mutants [--module NAME ...] [--match TEXT] [--per-function N] [--sample N] [--jobs N]
                            [--instances N] [--seconds S] [--claims-only] [--again FILE] [--list] [--json FILE]
    python -m tools.mutants --table FILE

The package is copied into a temporary folder and changed there. A mutant is *caught* by the first check that fails on
it, crashes or takes too long: the claims that call its function, the nearest first and then the fast ones
(`tools.mutation_reach` finds them), and then the nearest tests. What no check catches *survives*, unless
`tools.mutation_targets` says in a sentence why it means the same. With --json the run is written to a file as it
goes, and goes on from there if it is started again; --table prints what docs/evidence.md shows of such a file.
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from tools.mutation_reach import Reach
from tools.mutation_rules import Mutant, checksum, chosen, mutants_of
from tools.mutation_table import Outcome, read_outcomes, summary, table
from tools.mutation_targets import TARGETS, Target

__all__ = ["Check", "Outcome", "Sandbox", "examine", "main", "table"]

ROOT = Path(__file__).parents[1]
PACKAGE = "attnembed"
PARTS = (PACKAGE, "tests", "tools", "docs", "examples", "pyproject.toml", "README.md")

# Claims one after another, until one fails.
_CLAIMS = """
import sys
from attnembed.evidence import claims, verify
entries = {entry.id: entry for entry in claims(sys.argv[1])}
for id in sys.argv[3:]:
    if not verify([entries[id]], instances=int(sys.argv[2])).passed:
        print(id)
        sys.exit(1)
"""


@dataclass(frozen=True)
class Check:
    """A command that must succeed in the copy; "{python}" in it is the interpreter."""

    name: str
    command: tuple[str, ...]
    timeout: float = 240.0


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
    def changed(self, mutant: Mutant, package: str = PACKAGE) -> Iterator[None]:
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


def examine(mutant: Mutant, checks: Iterable[Check], sandbox: Sandbox, package: str = PACKAGE) -> Outcome:
    """Run the checks on a mutant until one fails."""
    start = time.perf_counter()
    with sandbox.changed(mutant, package):
        for check in checks:
            said = sandbox.fails(check)
            if said is not None:
                return Outcome(mutant.name, mutant.module, check.name, said, time.perf_counter() - start)
    return Outcome(mutant.name, mutant.module, "", "", time.perf_counter() - start)


def checks_of(mutant: Mutant, target: Target, reach: Reach, instances: int, tests: bool = True) -> list[Check]:
    """The claims that call the mutant's function, those of the target first, and its examples and nearest tests."""
    near = [f"{target.subject}/{name}" for name in target.claims]
    reached = reach.claims(mutant.original, mutant.module, mutant.function)
    ids = [id for id in near if id in reached] + [id for id in reached if id not in near]
    checks = []
    # Claims of one subject are found without importing the other's.
    for subject in dict.fromkeys(id.partition("/")[0] for id in ids):
        own = [id for id in ids if id.startswith(f"{subject}/")]
        command = ("{python}", "-c", _CLAIMS, subject, str(instances), *own)
        checks.append(Check("claims", command, 30 + 3 * sum(map(reach.seconds, own))))
    if tests:
        source = f"attnembed/{target.module}"
        options = ("-x", "-p", "no:cacheprovider", "--doctest-modules")
        checks.append(Check("tests", ("{python}", "-m", "pytest", *options, source, *target.tests), 120.0))
    return checks


def collect(modules: Sequence[str], per_function: int, match: str) -> list[tuple[Mutant, Target]]:
    """The mutants of the targets whose module contains one of the names, in an order as good as chance."""
    found = []
    for target in TARGETS:
        if modules and not any(name in target.module for name in modules):
            continue
        source = (ROOT / PACKAGE / target.module).read_text(encoding="utf-8")
        own = mutants_of(source, target.module, target.functions)
        picked = own if match else chosen(own, per_function)
        found += [(mutant, target) for mutant in picked if match in mutant.name]
    return sorted(found, key=lambda pair: checksum(pair[0]))


Work = Sequence[tuple[Mutant, Sequence[Check]]]


def run(work: Work, root: Path, jobs: int, say: Callable[[Outcome], None], seconds: float = float("inf")) -> None:
    """Examine every mutant, ``jobs`` at a time, each worker in a copy of ``root``; none is begun after ``seconds``."""
    queue: Queue[int] = Queue()
    for k in range(len(work)):
        queue.put(k)
    errors: list[BaseException] = []
    start, lock = time.perf_counter(), threading.Lock()

    def worker(folder: Path) -> None:
        try:
            sandbox = Sandbox(folder, root)
            while not errors and time.perf_counter() - start < seconds:
                try:
                    k = queue.get_nowait()
                except Empty:
                    return
                outcome = examine(*work[k], sandbox)
                with lock:
                    say(outcome)
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


def measured_reach(sandbox: Sandbox, jobs: int, instances: int) -> dict[str, Any]:
    """What `tools.mutation_reach` writes about the copy of the package."""
    file = sandbox.folder / "reach.json"
    command = ("{python}", "-m", "tools.mutation_reach", str(jobs), str(instances), str(file))
    said = sandbox.fails(Check("reach", command, timeout=1200.0))
    if said is not None:
        raise RuntimeError(f"the claims cannot be measured on the package as it is: {said}")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def failing(checks: Iterable[Check], sandbox: Sandbox, jobs: int) -> list[str]:
    """What the checks that fail on the package as it is say, each once: they would seem to catch every mutant."""
    every = list({check.command: check for check in checks}.values())
    with ThreadPoolExecutor(jobs) as pool:
        return [said for said in pool.map(sandbox.fails, every) if said is not None]


def digest(folder: Path) -> str:
    """A checksum of the files that the outcomes depend on."""
    found = hashlib.sha256()
    for part in (PACKAGE, "tests"):
        for path in sorted((folder / part).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


def _write(file: Path, state: Mapping[str, Any]) -> None:
    temporary = file.with_name(f"{file.name}.part")
    temporary.write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(file)


def _started(file: Path | None, sandbox: Sandbox, jobs: int, instances: int) -> dict[str, Any]:
    """What an earlier run of the same code with as many instances has found, or a new beginning."""
    key = {"digest": digest(sandbox.folder), "instances": instances}
    if file is not None and file.is_file():
        found = dict(json.loads(file.read_text(encoding="utf-8")))
        if {name: found.get(name) for name in key} == key:
            return found
    return {**key, "reach": measured_reach(sandbox, jobs, instances), "outcomes": []}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--module", nargs="+", default=[], metavar="NAME", help="only modules with NAME in their path")
    parser.add_argument("--match", default="", metavar="TEXT", help="only mutants, of all, with TEXT in their name")
    parser.add_argument("--per-function", type=int, default=2, metavar="N", help="mutants of a function (default 2)")
    parser.add_argument("--sample", type=int, metavar="N", help="only the first N in the order of their checksums")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="mutants at a time (default 2)")
    parser.add_argument("--instances", type=int, default=2, metavar="N", help="instances of each claim (default 2)")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S", help="begin none after S seconds")
    parser.add_argument("--claims-only", action="store_true", help="no tests: what the claims do not see survives")
    parser.add_argument("--again", type=Path, metavar="FILE", help="only those that no claim caught in such a file")
    parser.add_argument("--list", action="store_true", help="print the names of the mutants and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what became of each in FILE, and go on from it")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the tables of such a file and stop")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if nothing survives, 1 if something does, 2 if claims or tests fail on the package as it is."""
    options = _parser().parse_args(arguments)
    if options.table:
        print(summary(read_outcomes(options.table)))
        return 0
    work = collect(options.module, options.per_function, options.match)[: options.sample]
    if options.again:
        left = {outcome.mutant for outcome in read_outcomes(options.again) if outcome.caught_by != "claims"}
        work = [pair for pair in work if pair[0].name in left]
    if options.list:
        print(*(mutant.name for mutant, _ in work), f"{len(work)} mutants", sep="\n")
        return 0
    jobs = max(1, options.jobs)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        # What is copied now is what is examined, whatever happens to the working tree meanwhile.
        sandbox = Sandbox(Path(folder))
        state = _started(options.json, sandbox, jobs, options.instances)
        reach = Reach(state["reach"])
        if reach.not_passed:
            print("these claims do not pass on the package as it is:", *reach.not_passed, sep="\n", file=sys.stderr)
            return 2

        def say(outcome: Outcome) -> None:
            verdict = outcome.caught_by or ("the same" if outcome.reason else "SURVIVED")
            print(f"{verdict:<9} {outcome.seconds:6.1f} s  {outcome.mutant}", flush=True)
            if outcome.caught_by:
                print(f"{'':<9}           {outcome.detail[:140]}", flush=True)
            state["outcomes"].append(outcome.to_dict())
            if options.json:
                _write(options.json, state)

        known = {row["mutant"] for row in state["outcomes"]}
        todo = [
            (mutant, checks_of(mutant, target, reach, options.instances, not options.claims_only))
            for mutant, target in work
            if mutant.name not in known
        ]
        if not state.get("tests_pass"):
            wrong = failing((check for _, checks in todo for check in checks if check.name == "tests"), sandbox, jobs)
            if wrong:
                print("these tests fail on the package as it is:", *wrong, sep="\n", file=sys.stderr)
                return 2
            state["tests_pass"] = not options.claims_only and not options.module and not options.match
        run(todo, Path(folder), jobs, say, options.seconds)
    names = {mutant.name for mutant, _ in work}
    outcomes = [Outcome(**row) for row in state["outcomes"] if row["mutant"] in names]
    print("", summary(outcomes), "", sep="\n")
    if len(outcomes) < len(work):
        print(f"{len(work) - len(outcomes)} mutants are left; the same command with --json goes on")
    return int(any(outcome.survived for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
