"""Which claims call which functions: measured once on the package as it is, so that a mutant is shown to those alone.

    python -m tools.mutation_reach JOBS INSTANCES FILE

writes {claim: {"passed": ..., "seconds": ..., "calls": [[file below attnembed/, first line], ...]}} as JSON. Every
claim runs in a process of its own: what one has cached must not hide the calls of another.
"""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Reach", "first_lines", "main"]

PACKAGE = "attnembed"


class Reach:
    """The claims that call a function, from what `main` has written."""

    def __init__(self, measured: Mapping[str, Mapping[str, Any]]) -> None:
        self.measured = measured
        self._claims: dict[tuple[str, int], list[str]] = {}
        for id, entry in measured.items():
            for file, line in entry["calls"]:
                self._claims.setdefault((file, line), []).append(id)

    @property
    def not_passed(self) -> list[str]:
        """The claims that do not pass on the package as it is."""
        return [id for id, entry in self.measured.items() if not entry["passed"]]

    def seconds(self, id: str) -> float:
        """What the claim took, with the profiler beside it; 0 for one that was not measured."""
        return float(self.measured[id]["seconds"]) if id in self.measured else 0.0

    def claims(self, source: str, module: str, function: str) -> list[str]:
        """The claims that call the function, the fast ones first."""
        found = self._claims.get((module, first_lines(source).get(function, 0)), [])
        return sorted(found, key=self.seconds)


def first_lines(source: str) -> dict[str, int]:
    """Where each function of a module begins, decorators included: what ``co_firstlineno`` says."""
    found = {}
    for node in ast.parse(source).body:
        inside = [(node, "")] if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.ClassDef):
            inside = [(part, f"{node.name}.") for part in node.body if isinstance(part, ast.FunctionDef)]
        for part, prefix in inside:
            found[prefix + part.name] = min([part.lineno, *(at.lineno for at in part.decorator_list)])
    return found


def _measure(task: tuple[str, int]) -> tuple[str, dict[str, Any]]:
    from attnembed import __file__ as own
    from attnembed.evidence import claims, verify

    id, instances = task
    (entry,) = (entry for entry in claims() if entry.id == id)
    root, seen = str(Path(str(own)).parent) + os.sep, set()

    def called(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_code)

    start = time.perf_counter()
    sys.setprofile(called)
    try:
        passed = verify([entry], instances=instances).passed
    finally:
        sys.setprofile(None)
    seconds = time.perf_counter() - start
    calls = {
        (code.co_filename[len(root) :].replace(os.sep, "/"), code.co_firstlineno)
        for code in seen
        if code.co_filename.startswith(root)
    }
    return id, {"passed": passed, "seconds": round(seconds, 3), "calls": sorted(calls)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every claim of the package."""
    jobs, instances, file = sys.argv[1:] if arguments is None else arguments
    from attnembed.evidence import claims

    tasks = [(entry.id, int(instances)) for entry in claims()]
    with multiprocessing.get_context("fork").Pool(int(jobs), maxtasksperchild=1) as pool:
        found = dict(pool.imap_unordered(_measure, tasks, chunksize=1))
    Path(file).write_text(json.dumps({id: found[id] for id, _ in tasks}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
