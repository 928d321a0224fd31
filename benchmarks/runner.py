"""Runs the candidates of one case side by side, each in its own process, and tabulates their times.

A candidate is a function ``prepare(problem, threads) -> call``; ``call()`` does the work once and returns named arrays.
It raises ImportError where its package is missing. In every process the call is first checked against the reference of
the case; only those that agree are timed, in rounds that take each candidate once (A, B, C, A, B, C, ...), so that a
change of the machine's load hits all of them. Process and thread pool of a candidate rest while another one works.

With `measure_against`, each candidate of this package has a twin, the same function with the package of another
checkout, in a process of its own and in the same rounds; the ratios of the two are taken round by round.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Row = dict[str, Any]
T = TypeVar("T")

THREAD_VARIABLES = (
    "ATTNEMBED_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
LIMIT = 600  # seconds that a candidate may take for one answer, compilation included
TURN = 0.05  # seconds: a short call is repeated until its turn has lasted about so long
PEERS = (
    *("numpy", "scipy", "torch", "jax", "numba", "diffrax", "torchdiffeq", "daqp", "quadprog", "cvxpy", "clarabel"),
    *("scikit-learn", "pytorch-crf", "python-crfsuite", "hmmlearn"),
)
HERE = Path(__file__).parents[1]
_against: list[Path] = []  # the other checkout, where there is one


def measure_against(path: Path) -> None:
    """Run the candidates of this package also with the one in the folder ``path``."""
    root = path.resolve()
    if not (root / "attnembed" / "__init__.py").is_file():
        raise SystemExit(f"--against: {path} is not a checkout: there is no attnembed/__init__.py")
    _against[:] = [root]


def twins(candidates: Mapping[str, str], own: str) -> dict[str, tuple[str, str, Path]]:
    """The arms: name -> (candidate, target, checkout), each own candidate followed by its twin."""
    arms = {}
    for name, target in candidates.items():
        arms[name] = (name, target, HERE)
        if _against and name.startswith(own):
            arms[f"{name} [{_against[0].name}]"] = (name, target, _against[0])
    return arms


def compare(
    suite: str,
    case: str,
    problem: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    candidates: Mapping[str, str],
    *,
    own: str,
    folder: Path,
    threads: int = 1,
    tolerance: float = 1e-10,
    rounds: int = 9,
    limits: Mapping[str, int] | None = None,
    patience: float = LIMIT,
) -> list[Row]:
    """Check, then time the candidates ("module:function") of one case.

    ``limits`` caps the rounds of slow ones, ``patience`` is how many seconds one answer may take.
    """
    np.savez(folder / "problem.npz", **problem)
    np.savez(folder / "reference.npz", **reference)
    rows, workers = [], {}
    arms = twins(candidates, own)
    for name, (_, target, root) in arms.items():
        row: Row = {"benchmark": suite, "case": case, "candidate": name, "threads": threads}
        rows.append(row)
        worker = _Worker(target, folder, threads, patience, root)
        reply = worker.ask("check")
        progress(f"  {name}: {reply}")
        if ended := reply.keys() & {"missing", "failed"}:
            (status,) = ended
            row |= {"status": status, "note": reply[status]}
            worker.close()
            continue
        error = reply["error"]
        row |= {"status": "ok" if error <= tolerance else "differs", "error": error, "first": reply["seconds"]}
        if error <= tolerance:
            workers[name] = worker
        else:
            worker.close()
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for k in range(rounds):
        for name, worker in workers.items():
            if k < (limits or {}).get(arms[name][0], rounds):
                seconds[name].append(worker.ask("run")["seconds"])
    for row in rows:
        if (name := row["candidate"]) in workers:
            row |= workers[name].ask("memory")
            taken = seconds[name]
            row |= {"median": statistics.median(taken), "min": min(taken), "max": max(taken), "rounds": len(taken)}
            workers[name].close()
    for row in rows:
        name, _, root = arms[row["candidate"]]
        if root != HERE and name in seconds and row["candidate"] in seconds:
            ratios = [there / here for here, there in zip(seconds[name], seconds[row["candidate"]], strict=True)]
            twin = next(other for other in rows if other["candidate"] == name)
            twin["speedup"] = [statistics.median(ratios), min(ratios), max(ratios)]
    add_ratios([row for row in rows if arms[row["candidate"]][2] == HERE], own)
    return rows


def add_ratios(rows: Sequence[Row], own: str) -> None:
    """``ratio``: the median divided by that of the fastest peer, for rows of one case."""
    peers = [row["median"] for row in rows if not row["candidate"].startswith(own) and row.get("median")]
    for row in rows:
        if peers and row.get("median"):
            row["ratio"] = row["median"] / min(peers)


@contextmanager
def _started_with(threads: int) -> Iterator[None]:
    """Processes that start here have so many threads: the variables are read when the libraries are imported."""
    saved = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def one_thread(function: Callable[..., T], *args: Any) -> T:
    """The value of a call in a process of its own, whose libraries use one thread."""
    with _started_with(1), ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


class _Worker:
    """A process that holds one candidate."""

    def __init__(self, target: str, folder: Path, threads: int, patience: float, root: Path) -> None:
        self.patience = patience
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_serve, args=(theirs, target, folder, threads, root), daemon=True)
        with _started_with(threads):
            self.process.start()
        theirs.close()

    def ask(self, what: str) -> Row:
        try:
            self.pipe.send(what)
            if self.pipe.poll(self.patience):
                return self.pipe.recv()
            self.process.terminate()
            return {"failed": f"no answer in {self.patience:g} s"}
        except (EOFError, ConnectionError):
            return {"failed": "its process ended"}

    def close(self) -> None:
        self.pipe.close()
        self.process.join(10)


def _serve(pipe: Any, target: str, folder: Path, threads: int, root: Path) -> None:
    module, function = target.split(":")
    sys.path.insert(0, str(root))  # the package of this checkout; that of the benchmarks is loaded already
    os.environ["PYTHONPATH"] = str(root)  # for processes that a candidate starts
    package = importlib.import_module("attnembed.attention.flow")  # loading it does not count as memory used
    if not Path(str(package.__file__)).is_relative_to(root):
        raise RuntimeError(f"{package.__file__} is not in {root}")
    before = 0
    try:
        prepare: Callable[..., Callable[[], Mapping[str, Any]]] = getattr(importlib.import_module(module), function)
        with np.load(folder / "problem.npz") as file:
            problem = dict(file)
        given = sum(array.nbytes for array in problem.values())
        before = _memory("VmRSS") - given
        call = prepare(problem, threads)
        del problem
    except ImportError as error:
        pipe.recv()
        ours = (error.name or "").startswith("attnembed")  # another version of it
        pipe.send({"missing": str(error) if ours else f"{error.name or error} is not installed"})
        return
    except (AttributeError, TypeError) as error:  # names that another version lacks
        pipe.recv()
        pipe.send({"failed": str(error)})
        return
    repeats, stated = 1, {}
    while True:
        try:
            what = pipe.recv()
        except EOFError:
            return
        if what == "memory":  # of the last run
            own = (_memory("VmHWM") - before) / 2**20 if before > 0 else None
            pipe.send({"peak_mib": stated.get("peak_mib", own)})
            continue
        _reset_peak()
        start = time.perf_counter()
        for _ in range(repeats):
            out = call()
        reply: Row = {"seconds": (time.perf_counter() - start) / repeats}
        # What a call states of itself: of processes that it has started, only it knows the processor time.
        stated = {name: float(out[name]) for name in ("seconds", "peak_mib") if name in out}
        reply |= stated
        if what == "check":
            with np.load(folder / "reference.npz") as reference:
                reply["error"] = max(_relative_error(np.asarray(out[name]), reference[name]) for name in reference)
            for _ in range(3 if reply["seconds"] < 20 else 0):  # what is compiled or allocated late
                start = time.perf_counter()
                call()
                repeats = int(np.clip(TURN / (time.perf_counter() - start), 1, 1000))
        del out
        pipe.send(reply)


def _relative_error(value: np.ndarray, reference: np.ndarray) -> float:
    error = float(np.linalg.norm(value - reference) / np.linalg.norm(reference))
    return error if np.isfinite(error) else float("inf")


def _memory(field: str) -> int:
    """Bytes of resident memory, or its peak, on Linux; 0 elsewhere."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(rf"{field}:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def machine() -> str:
    """One paragraph: processor, cores, Python and the versions of everything compared."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8"))):
        name = found[1]
    versions = []
    for peer in PEERS:
        try:
            versions.append(f"{peer} {metadata.version(peer)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{peer} missing")
    system = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    return f"{name}, {system}; {', '.join(versions)}."


COLUMNS = {
    "candidate": "candidate",
    "threads": "threads",
    "median": "median ms",
    "min": "min",
    "max": "max",
    "ratio": "to best peer",
    "speedup": "times as fast as the other checkout (min, max)",
    "peak_mib": "peak MiB",
    "bandwidth": "of bandwidth",
    "error": "rel. error",
    "note": "note",
}


def markdown(rows: Sequence[Row]) -> str:
    """A table per case; empty columns are left out."""
    parts = []
    for case in dict.fromkeys((row["benchmark"], row["case"]) for row in rows):
        chosen = [row for row in rows if (row["benchmark"], row["case"]) == case]
        columns = [key for key in COLUMNS if any(row.get(key) is not None for row in chosen)]
        parts.append(f"**{case[0]}**: {case[1]}\n")
        parts.append("| " + " | ".join(COLUMNS[key] for key in columns) + " |")
        parts.append("|" + "---|" * len(columns))
        parts += ["| " + " | ".join(_cell(row, key) for key in columns) + " |" for row in chosen]
        parts.append("")
    return "\n".join(parts)


def _cell(row: Row, key: str) -> str:
    value = row.get(key)
    if key == "median" and value is None:
        return str(row["status"])
    if value is None:
        return ""
    if key in ("median", "min", "max"):
        return f"{1e3 * value:.3g}" if value < 100 else f"{1e3 * value:.0f}"
    if key == "speedup":
        return "{:.3g} ({:.3g}, {:.3g})".format(*value)
    if key == "bandwidth":
        return f"{100 * value:.0f} %"
    if key == "error":
        return f"{value:.0e}"
    if key == "peak_mib":
        return f"{value:.0f}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def refresh(page: Path, suite: str, text: str) -> None:
    """Replace the text between the markers of a suite in a page."""
    begin, end = f"<!-- {suite}: begin -->", f"<!-- {suite}: end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """All rows, with the machine they were measured on."""
    path.write_text(json.dumps({"machine": machine(), "rows": list(rows)}, indent=1, default=float), encoding="utf-8")


def progress(message: str) -> None:
    """One line to stderr."""
    print(message, file=sys.stderr, flush=True)
