"""The start-up cost of a new process: importing the package, and the command line, against importing NumPy.

Times are processor seconds of the new process, user and system: other work on the machine delays them, but does not
count. Each run starts a fresh interpreter in an empty folder; its byte code is cached before the first round.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runner import Row, compare

CANDIDATES = {
    "attnembed, import": "import_attnembed",
    "attnembed, command line, list": "command_line",
    "numpy, import": "import_numpy",
    "scipy.sparse, import": "import_scipy_sparse",
    "python, nothing imported": "nothing",
}


def run(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(
            "start",
            "a new process, processor time",
            {"nothing": np.zeros(1)},
            {"done": np.ones(1)},
            {name: f"benchmarks.start:{function}" for name, function in CANDIDATES.items()},
            own="attnembed",
            folder=Path(folder),
            rounds=3 if quick else 9,
        )
    numpy = next(row for row in rows if row["candidate"] == "numpy, import")
    for row in rows:
        row["ratio"] = row["median"] / numpy["median"] if "median" in row and "median" in numpy else None
        row["note"] = row.get("note", "ratio to importing numpy" if row is rows[0] else "")
    return rows


def _process(*arguments: str) -> Callable[[], dict[str, Any]]:
    def call() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
            if not hasattr(os, "wait4"):  # Windows: the time that passes
                process.wait()
                return {"done": np.ones(1) if process.returncode == 0 else np.zeros(1)}
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        kilobytes = used.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        return {
            "done": np.full(1, float(process.returncode == 0)),
            "seconds": used.ru_utime + used.ru_stime,
            "peak_mib": kilobytes / 1024,
        }

    return call


def import_attnembed(problem: Any, threads: int) -> Callable[[], dict[str, Any]]:
    return _process("-c", "import attnembed")


def command_line(problem: Any, threads: int) -> Callable[[], dict[str, Any]]:
    return _process("-m", "attnembed", "list")


def import_numpy(problem: Any, threads: int) -> Callable[[], dict[str, Any]]:
    return _process("-c", "import numpy")


def import_scipy_sparse(problem: Any, threads: int) -> Callable[[], dict[str, Any]]:
    return _process("-c", "import scipy.sparse")


def nothing(problem: Any, threads: int) -> Callable[[], dict[str, Any]]:
    return _process("-c", "pass")
