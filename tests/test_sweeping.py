"""Sweeps: seeds that belong to cells, a store that survives, failures that stay where they are."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnembed._identity import fingerprint
from attnembed._store import LineStore
from attnembed.errors import DataFileError, InputError
from attnembed.results import Status
from attnembed.sweeping import CellResult, sweep
from tests import sweep_cells
from tests.sweep_cells import draw

GRID: dict[str, list[Any]] = {"x": [1, 2, 3], "y": [0.5, 1.5]}


class Now(Executor):
    """Runs everything at once, in this thread; counts."""

    def __init__(self) -> None:
        self.count = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        self.count += 1
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*args, **options))
        except (Exception, KeyboardInterrupt) as error:  # SystemExit would end a worker of some executors
            future.set_exception(error)
        return future


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cells.jsonl"


# --- grids and results -------------------------------------------------------------------------------------------


def test_the_product_in_order_with_its_table(threads: ThreadPoolExecutor) -> None:
    result = sweep(draw, GRID, executor=threads, rng=0)
    assert result.success
    assert result.errors == ()
    assert result.cells == tuple({"x": x, "y": y} for x in (1, 2, 3) for y in (0.5, 1.5))
    table = result.table()
    assert list(table) == ["x", "y", "sum", "noise"]
    assert table["sum"] == [x + y for x, y in zip(table["x"], table["y"])]
    assert len(set(table["noise"])) == 6
    assert json.loads(json.dumps(result.to_dict()))["values"] == list(result.values)


def test_cells_of_a_generator_and_columns_of_unequal_cells() -> None:
    def odd(rng: Any, **cell: Any) -> Any:
        return {"x": 9} if "x" in cell else 5

    result = sweep(odd, ({name: 1} for name in "axb"), executor=Now())
    assert result.table() == {
        "a": [1, None, None],
        "x": [None, 1, None],
        "b": [None, None, 1],
        "value": [5, None, 5],
        "value.x": [None, 9, None],
    }


def test_arrays_and_numpy_scalars_reach_the_function_as_plain_values() -> None:
    def kinds(x: Any, y: Any, rng: Any) -> str:
        return f"{type(x).__name__} {type(y).__name__}"

    grid = {"x": np.array([1, 2]), "y": [np.float32(0.5), np.ones(2), (1, 2), None, "text"]}
    result = sweep(kinds, grid, executor=Now())
    assert result.values == ("int float", "int list", "int list", "int NoneType", "int str") * 2


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.1), 0.1),
        (np.int8(3), 3),
        (np.bool_(True), True),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        ((1, [np.float32(0.5), None], {"a": np.array("b")}), [1, [0.5, None], {"a": "b"}]),
        ("é\n\ud800", "é\n\ud800"),
        (-0.0, -0.0),
        (float("inf"), float("inf")),
        (2**80, 2**80),
    ],
    ids=repr,
)
def test_values_are_the_same_live_and_from_the_store(value: Any, plain: Any, store: Path) -> None:
    def cell(x: int, rng: Any) -> Any:
        return value

    live, stored = (sweep(cell, {"x": [1]}, executor=Now(), store=store, rng=0).values[0] for _ in range(2))
    assert repr(live) == repr(stored) == repr(plain)


def circle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "object values cannot be kept"),
        (1j, "complex values cannot be kept"),
        (np.array([1j]), "complex values cannot be kept"),
        ({1: 2}, "dicts whose keys are not text cannot be kept"),
        ([{1, 2}], "set values cannot be kept"),
        (np.zeros(10_001), "an array of 10001 entries is too large"),
        (circle(), "RecursionError"),
        (10**5000, "ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_cannot_be_kept_are_errors_of_their_cell(value: Any, reason: str, store: Path) -> None:
    def cell(x: int, rng: Any) -> Any:
        return value if x else 7

    result = sweep(cell, {"x": [1, 0]}, executor=Now(), store=store)
    assert result.values == (None, 7)
    assert reason in str(result.errors[0].error)
    assert result.status is Status.FAILED


# --- seeds -------------------------------------------------------------------------------------------------------


def test_a_cell_gives_the_same_whatever_runs_it_and_beside_what(threads: ThreadPoolExecutor) -> None:
    alone = sweep(draw, GRID, executor=Now(), rng=7)
    processes = sweep(draw, GRID, workers=2, rng=7)
    backwards = sweep(draw, list(reversed(alone.cells)), executor=threads, rng=7)
    wider = sweep(draw, {"y": [0.25, 1.5, 0.5], "x": [3, 2, 1, 0]}, executor=threads, rng=7)
    assert alone.values == processes.values == backwards.values[::-1]
    by_cell = {(cell["x"], cell["y"]): value for cell, value in zip(wider.cells, wider.values)}
    assert alone.values == tuple(by_cell[cell["x"], cell["y"]] for cell in alone.cells)
    assert len({value["noise"] for value in by_cell.values()}) == 12
    other = sweep(draw, GRID, executor=Now(), rng=8)
    assert not {value["noise"] for value in other.values} & {value["noise"] for value in alone.values}


def test_the_seed_repeats_the_cell() -> None:
    result = sweep(draw, GRID, executor=Now(), rng=0)
    for cell, value, seed in zip(result.cells, result.values, result.seeds):
        assert draw(**cell, rng=np.random.default_rng(seed)) == value
        assert 0 <= seed < 2**63
    # The rule of the docstring, by hand.
    digest = hashlib.sha256(b'[0, {"x": 1, "y": 0.5}]').digest()
    assert result.seeds[0] == int.from_bytes(digest, "big") >> (256 - 63)


def test_generators_and_no_rng() -> None:
    one, two = (sweep(draw, GRID, executor=Now(), rng=np.random.default_rng(3)) for _ in range(2))
    assert one.values == two.values
    assert sweep(draw, GRID, executor=Now()).values != sweep(draw, GRID, executor=Now()).values


# --- failures ----------------------------------------------------------------------------------------------------


def test_failures_are_recorded_with_their_traceback_and_the_rest_goes_on(store: Path) -> None:
    def picky(x: int, rng: Any) -> int:
        if x == 1:
            raise ZeroDivisionError("one\nis too few")
        if x == 2:
            sys.exit("two")
        return x

    result = sweep(picky, {"x": range(4)}, executor=Now(), store=store, rng=0)
    assert result.values == (0, None, None, 3)
    assert [error.error for error in result.errors] == ["ZeroDivisionError: one is too few", "SystemExit: two"]
    assert result.errors[0].cell == {"x": 1}
    trace = str(result.errors[0].traceback)
    assert 'raise ZeroDivisionError("one' in trace
    assert "sweeping.py" not in trace.replace("test_sweeping.py", "")
    assert "4 cells done, 2 of them failed: ZeroDivisionError" in result.message
    assert not result.success
    assert [entry.error for entry in sweep(picky, {"x": [1]}, executor=Now(), store=store).errors] == [
        "ZeroDivisionError: one is too few"
    ]


def test_failed_cells_are_tried_again_or_not(store: Path, tmp_path: Path) -> None:
    flag = str(tmp_path / "mended")

    def flaky(x: int, rng: Any) -> int:
        if x and not os.path.exists(flag):
            raise RuntimeError
        return x

    assert len(sweep(flaky, {"x": [0, 1]}, executor=Now(), store=store, rng=0).errors) == 1
    Path(flag).touch()
    again = Now()
    kept = sweep(flaky, {"x": [0, 1]}, executor=again, store=store, retry_failed=False)
    assert (len(kept.errors), again.count) == (1, 0)
    mended = sweep(flaky, {"x": [0, 1]}, executor=again, store=store)
    assert (mended.values, mended.success, again.count) == ((0, 1), True, 1)
    # The last of the two lines counts.
    assert sweep(flaky, {"x": [0, 1]}, executor=again, store=store).values == (0, 1)
    assert again.count == 1


def test_a_dead_worker_is_reported_and_what_is_done_is_kept(store: Path, tmp_path: Path) -> None:
    grid = {"x": range(6), "file": [str(tmp_path / "flag")]}
    died = sweep(sweep_cells.die_unless, grid, workers=1, store=store, rng=0)
    assert died.status is Status.FAILED
    assert "workers are gone" in died.message
    assert died.values == (0, 1, 2)
    assert died.errors == ()
    (tmp_path / "flag").touch()
    counted = Now()
    assert sweep(sweep_cells.die_unless, grid, executor=counted, store=store).values == (0, 1, 2, 3, 4, 5)
    assert counted.count == 3


def test_an_executor_that_ends_on_the_way() -> None:
    pool = ThreadPoolExecutor(1)

    def cell(x: int, rng: Any) -> int:
        if x == 2:
            pool.shutdown(wait=False, cancel_futures=True)
        return x

    result = sweep(cell, {"x": range(50)}, executor=pool, max_pending=10)
    assert result.status is Status.FAILED
    assert result.values == (0, 1, 2)
    assert "workers are gone" in sweep(draw, GRID, executor=pool).message


def test_an_interrupt_keeps_what_is_done(store: Path, threads: ThreadPoolExecutor) -> None:
    def interrupt(result: CellResult) -> None:
        if result.cell["x"] == 2:
            raise KeyboardInterrupt

    for where in ({"executor": threads}, {"workers": 1}):
        stopped = sweep(draw, GRID, **where, store=store, rng=0, callback=interrupt)
        assert stopped.status is Status.INTERRUPTED
        assert "run it again to continue from the store" in stopped.message
        assert len(stopped.cells) >= 1
        store.unlink()
    assert not multiprocessing.active_children()

    def cell(x: int, rng: Any) -> int:
        raise KeyboardInterrupt

    assert sweep(cell, {"x": [1]}, executor=Now()).message == "interrupted; 0 cells done"


def test_an_interrupt_while_the_workers_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.process._ExecutorManagerThread.start", interrupt)
    assert sweep(draw, GRID, workers=1).message == "interrupted; 0 cells done"
    for killed in multiprocessing.active_children():
        killed.join(60)
        assert killed.exitcode is not None


def test_an_interrupt_does_not_wait_for_what_runs() -> None:
    def interrupt(result: CellResult) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    cells = [{"x": 0, "seconds": 0}, {"x": 1, "seconds": 600}]
    stopped = sweep(sweep_cells.slow, cells, workers=2, callback=interrupt)
    assert stopped.cells == ({"x": 0, "seconds": 0},)
    assert time.monotonic() - began < 300


def test_cells_that_wait_are_cancelled(threads: ThreadPoolExecutor) -> None:
    calls = []

    def cell(x: int, rng: Any) -> None:
        calls.append(x)
        time.sleep(0.01)

    sweep(cell, {"x": range(90)}, executor=threads, callback=lambda result: True)
    threads.shutdown()
    assert len(calls) < 20


def test_the_callback_sees_stored_cells_and_stops(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CellResult] = []
    on_disk = 0

    def sync(file: int) -> None:
        nonlocal on_disk
        on_disk = store.read_bytes().count(b"\n")

    def stop(result: CellResult) -> bool:
        seen.append(result)
        assert on_disk > len(seen)
        return len(seen) == 2

    monkeypatch.setattr(os, "fsync", sync)

    result = sweep(draw, GRID, executor=Now(), store=store, callback=stop, rng=0)
    assert result.status is Status.STOPPED
    assert [entry.cell for entry in seen] == list(result.cells)
    assert len(seen) == 2
    assert not result.errors


def test_quick_cells_share_a_sync_and_all_are_on_the_disk_in_the_end(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size if store.exists() else 0))
    monkeypatch.setattr(sys.modules["attnembed.sweeping"], "_WINDOW", 60.0)
    result = sweep(draw, {"x": range(100)}, executor=Now(), store=store, rng=0)
    assert len(result.values) == 100
    assert len(synced) <= 4  # the header, its folder, the end
    assert synced[-1] == store.stat().st_size


def test_lines_reach_the_disk_within_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[float] = []
    done = threading.Event()

    def sync(file: int) -> None:
        synced.append(time.monotonic())
        if len(synced) > 2:
            done.set()

    monkeypatch.setattr(os, "fsync", sync)
    with LineStore(tmp_path / "a.jsonl", kind="k", version=1) as log:
        log.begin()
        start = time.monotonic()
        for _ in range(50):
            log.append("{}")
            log.sync_within(0.2)
        assert done.wait(30)  # without another line, and without its end
    assert len(synced) == 3
    assert synced[2] - start >= 0.1


def test_a_sync_that_failed_on_the_way_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def fail(file: int) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    log = LineStore(tmp_path / "a.jsonl", kind="k", version=1)
    log.begin()
    monkeypatch.setattr(os, "fsync", fail)
    log.append("{}")
    log.sync_within(0.2)  # longer than the lines above take on a busy machine: else the sync is at once
    assert tried.wait(30)
    with pytest.raises(DataFileError, match="No space left"):
        log.close()


# --- executors ---------------------------------------------------------------------------------------------------


def test_own_processes_have_one_blas_thread_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    result = sweep(sweep_cells.environment, {"x": range(4)}, workers=1)
    assert {value["blas"] for value in result.values} == {"1"}
    assert os.getpid() not in {value["pid"] for value in result.values}
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    assert not multiprocessing.active_children()


def test_a_given_executor_stays_open(threads: ThreadPoolExecutor) -> None:
    sweep(draw, GRID, executor=threads)
    assert threads.submit(int, "3").result() == 3


def test_few_cells_are_under_way_at_a_time() -> None:
    made, running = 0, threading.Semaphore(0)

    def cells() -> Iterator[dict[str, int]]:
        nonlocal made
        for x in range(40):
            made += 1
            yield {"x": x}

    def wait(x: int, rng: Any) -> int:
        running.acquire()
        return x

    ahead = []

    def callback(result: CellResult) -> None:
        ahead.append(made - len(ahead))
        running.release()

    with ThreadPoolExecutor(2) as pool:
        threading.Timer(0.05, running.release).start()
        result = sweep(wait, cells(), executor=pool, max_pending=5, callback=callback)
        assert len(result.values) == 40
    assert max(ahead) <= 6


def test_a_function_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(InputError, match="must be defined at the top level of a module to reach other processes"):
        sweep(lambda x, rng: x, {"x": [1]})
    with ProcessPoolExecutor(1) as pool, pytest.raises(InputError, match="ThreadPoolExecutor"):
        sweep(lambda x, rng: x, {"x": [1]}, executor=pool)


def test_what_an_executor_cannot_send_fails_its_cell() -> None:
    class Picky(Now):
        def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
            if '"x": 2' in args[1]:
                future: Future[Any] = Future()
                future.set_exception(TypeError("cannot pickle"))
                return future
            return super().submit(function, *args, **options)

    result = sweep(draw, {"x": [1, 2, 3]}, executor=Picky())
    assert [error.error for error in result.errors] == ["TypeError: cannot pickle"]


def test_dask_runs_the_same_cells() -> None:
    distributed = pytest.importorskip("distributed", reason='dask: pip install "attnembed[sweep]"')
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with distributed.Client(**options) as client:
        result = sweep(draw, GRID, executor=client.get_executor(), rng=0)
        assert client.submit(int, "3").result() == 3
    assert result.values == sweep(draw, GRID, executor=Now(), rng=0).values


# --- the store ---------------------------------------------------------------------------------------------------


def test_the_store_is_lines_of_json(store: Path) -> None:
    result = sweep(draw, GRID, executor=Now(), store=store, rng=0)
    header, *lines = (json.loads(line) for line in store.read_text(encoding="ascii").splitlines())
    assert header == {"attnembed_sweep": 2, "function": "tests.sweep_cells.draw", "key": DRAW, "rng": 0}
    assert [line["cell"] for line in lines] == list(result.cells)
    assert [line["value"] for line in lines] == list(result.values)
    assert [line["seed"] for line in lines] == list(result.seeds)
    assert {"numpy", "attnembed"} <= set(lines[0]["versions"])


def test_only_what_is_missing_is_computed(store: Path) -> None:
    sweep(draw, {"x": [1, 2], "y": [0.5]}, executor=Now(), store=store, rng=0)
    counted = Now()
    result = sweep(draw, GRID, executor=counted, store=store)  # the rng of the store
    assert counted.count == 4
    assert result.values == sweep(draw, GRID, executor=Now(), rng=0).values


def test_a_store_without_an_rng_keeps_its_own(store: Path) -> None:
    first = sweep(draw, {"x": [1]}, executor=Now(), store=store)
    second = sweep(draw, {"x": [1, 2]}, executor=Now(), store=store)
    assert first.values == second.values[:1]


def test_a_torn_end_is_repaired_wherever_it_is_torn(store: Path) -> None:
    whole = sweep(draw, GRID, executor=Now(), store=store, rng=0)
    content = store.read_bytes()
    starts = [0, *(k + 1 for k, byte in enumerate(content) if byte == 10)]
    for cut in [*range(0, starts[1] + 2, 5), *range(starts[-2] - 2, len(content), 9), len(content) - 1]:
        store.write_bytes(content[:cut])
        again = sweep(draw, GRID, executor=Now(), store=store, rng=0)
        assert again.values == whole.values, cut
        lines = store.read_bytes().split(b"\n")
        assert len(lines) == len(starts)
        assert all(json.loads(line) for line in lines[:-1])
    store.write_bytes(content + b"\0" * 50)  # what some file systems leave behind after a loss of power
    assert sweep(draw, GRID, executor=Now(), store=store, rng=0).values == whole.values
    assert store.read_bytes() == content


@dataclass
class Multiply:
    factor: int

    def __call__(self, x: int, rng: Any) -> int:
        return self.factor * x


def test_stores_of_other_sweeps_are_refused(store: Path) -> None:
    sweep(functools.partial(sweep_cells.scaled, factor=2.0), {"x": [1]}, executor=Now(), store=store, rng=0)
    before = store.read_bytes()
    with pytest.raises(DataFileError, match=r"line 1: belongs to the rng 0, not 1; use another store"):
        sweep(functools.partial(sweep_cells.scaled, factor=2.0), {"x": [1]}, executor=Now(), store=store, rng=1)
    for function in (functools.partial(sweep_cells.scaled, factor=3.0), draw, Multiply(2)):
        with pytest.raises(DataFileError, match=r"belongs to the function tests.sweep_cells.scaled\(factor=2.0\)"):
            sweep(function, {"x": [1]}, executor=Now(), store=store, rng=0)
    assert store.read_bytes() == before
    store.unlink()
    sweep(Multiply(2), {"x": [1]}, executor=Now(), store=store)
    with pytest.raises(DataFileError, match=r"Multiply\(factor=2\), not "):
        sweep(Multiply(3), {"x": [1]}, executor=Now(), store=store)


def scaling(c: Any) -> Callable[..., Any]:
    return lambda x, rng: float(np.sum(c) * x)


class Scaling:
    def __init__(self, c: Any) -> None:
        self.c = c

    def __call__(self, x: int, rng: Any) -> float:
        return float(np.sum(self.c) * x)

    def method(self, x: int, rng: Any) -> float:
        return float(np.sum(self.c) * x)


def scaling_partial(c: Any) -> Callable[..., Any]:
    return functools.partial(sweep_cells.scaled_sum, factors=c)


def of_a_notebook(c: Any) -> Any:
    """A function of a global variable, which a notebook changes between two cells."""
    space: dict[str, Any] = {"c": c, "__name__": "__main__"}
    exec("def f(x, rng):\n    return float(sum(c) * x)", space)
    return space["f"]


ONES = np.ones(2000)  # the text of a long array leaves out its middle
OTHERS = np.where(np.arange(2000) == 1000, 100.0, 1.0)


@pytest.mark.parametrize(
    "make",
    [scaling, Scaling, lambda c: Scaling(c).method, scaling_partial, of_a_notebook],
    ids=["closure", "object", "method", "partial", "global"],
)
def test_a_store_knows_a_function_by_its_content(make: Callable[[Any], Any], store: Path) -> None:
    assert sweep(make(ONES), {"x": [1]}, executor=Now(), store=store, rng=0).values == (2000,)
    counted = Now()
    assert sweep(make(ONES.copy()), {"x": [1]}, executor=counted, store=store, rng=0).values == (2000,)
    assert counted.count == 0
    with pytest.raises(DataFileError, match="with other content or in another Python; use another store, or pass key="):
        sweep(make(OTHERS), {"x": [1]}, executor=Now(), store=store, rng=0)
    store.unlink()
    assert sweep(make(OTHERS), {"x": [1]}, executor=Now(), store=store, rng=0).values == (2099,)


def test_a_key_stands_for_the_content(store: Path) -> None:
    sweep(scaling(1), {"x": [1]}, executor=Now(), store=store, rng=0)
    key = json.loads(store.read_text().splitlines()[0])["key"]
    with pytest.raises(DataFileError, match=f"pass key='{key}' if the stored cells are still valid"):
        sweep(scaling(2), {"x": [1, 3]}, executor=Now(), store=store, rng=0)
    assert sweep(scaling(2), {"x": [1, 3]}, executor=Now(), store=store, rng=0, key=key).values == (1, 6)
    with pytest.raises(DataFileError, match="with other content"):
        sweep(scaling(1), {"x": [1]}, executor=Now(), store=store, rng=0, key="second")


def test_what_cannot_be_recognised_needs_a_key(store: Path) -> None:
    lock = threading.Lock()

    def locked(x: int, rng: Any) -> int:
        with lock:
            return x

    assert sweep(locked, {"x": [1]}, executor=Now()).success
    with pytest.raises(InputError) as caught:
        sweep(locked, {"x": [1]}, executor=Now(), store=store, rng=0)
    assert str(caught.value) == (
        "`function` must be known by its content; got a lock object in function -> locked, variable lock; "
        "pass key=TEXT to identify it yourself, and change the text after every change of the function"
    )
    assert not store.exists()
    for _ in range(2):
        assert sweep(locked, {"x": [1]}, executor=Now(), store=store, rng=0, key="locked 1").success


def test_the_name_in_the_header_is_short(store: Path) -> None:
    sweep(scaling_partial(ONES.reshape(20, 100)), {"x": [1]}, executor=Now(), store=store, rng=0)
    name = json.loads(store.read_text().splitlines()[0])["function"]
    assert name.startswith("tests.sweep_cells.scaled_sum(factors=array([[1.")
    assert "\n" not in name
    assert len(name) < 150


DRAW = fingerprint(draw)[:16]
HEADER = b'{"attnembed_sweep": 2, "function": "tests.sweep_cells.draw", "key": "%s", "rng": 0}\n' % DRAW.encode()
EARLIER = b'{"attnembed_sweep": 1, "function": "tests.sweep_cells.draw", "rng": 0}\n'
OTHER_VERSION = "version of attnembed (attnembed_sweep is %s, this version has 2); use another file"
CELL = {"cell": {"x": 5}, "seed": 1, "value": 1, "seconds": 0.1, "versions": {}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"my notes", "line 1: is not a file of the kind attnembed_sweep"),
        (b"my notes\n", "line 1: is not valid JSON"),
        (b"[1]\n", "line 1: must hold a JSON object; got list"),
        (b'{"a": 1}\n', "line 1: is not a file of the kind attnembed_sweep"),
        (EARLIER, "line 1: belongs to an earlier " + OTHER_VERSION % 1),
        (HEADER.replace(b" 2,", b" 3,"), "line 1: belongs to another " + OTHER_VERSION % 3),
        (HEADER.replace(b" 2,", b' "\\u00e9",'), "line 1: belongs to another " + OTHER_VERSION % '"\\u00e9"'),
        (HEADER.replace(b'"key"', b'"lock"'), "line 1: does not say its function"),
        (HEADER.replace(b" 0}", b" true}"), "line 1: does not say its rng"),
        (HEADER.replace(b" 0}", b' "0"}'), "line 1: does not say its rng"),
        (HEADER + b'{"cell": {"x": \n', "line 2: is not valid JSON"),
        (HEADER + b"\xff\n", "line 2: is not valid JSON"),
        (HEADER + b"[" * 100_000 + b"\n", "line 2: is not valid JSON"),
        (HEADER + b"\n", "line 2: is not valid JSON"),
        (HEADER + b"{}\n", "line 2: is not a cell of this sweep, or is damaged"),
        (HEADER + json.dumps(CELL).encode() + b"\n", "line 2: is not a cell of this sweep, or is damaged"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_is_no_store_is_refused_and_left_alone(store: Path, content: bytes, problem: str) -> None:
    store.write_bytes(content)
    with pytest.raises(DataFileError) as caught:
        sweep(draw, {"x": [5]}, executor=Now(), store=store, rng=0)
    assert str(caught.value) == f"{store}, {problem}"
    assert store.read_bytes() == content


@pytest.mark.parametrize("change", [{"seed": 2}, {"value": 1}, {"error": "e"}, {"seconds": "long"}, {"cell": {"x": 6}}])
def test_a_record_must_be_one(store: Path, change: dict[str, Any]) -> None:
    sweep(draw, {"x": [5]}, executor=Now(), store=store, rng=0)
    record = json.loads(store.read_text().splitlines()[1])
    if "value" in change:
        record = {**record, "error": "E", "traceback": "T"}
    store.write_bytes(HEADER + json.dumps(record | change).encode() + b"\n")
    with pytest.raises(DataFileError, match="line 2: is not a cell of this sweep, or is damaged"):
        sweep(draw, {"x": [5]}, executor=Now(), store=store, rng=0)


def test_two_sweeps_do_not_share_a_store(store: Path) -> None:
    script = f"from tests.test_sweeping import *; sweep(draw, GRID, executor=Now(), store={str(store)!r}, rng=0)"

    def nested(result: CellResult) -> None:
        with pytest.raises(DataFileError, match="is in use by another run"):
            sweep(draw, GRID, executor=Now(), store=store, rng=0)
        if result.cell == {"x": 1, "y": 0.5}:
            other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
            assert "is in use by another run" in other.stderr

    assert sweep(draw, GRID, executor=Now(), store=store, rng=0, callback=nested).success
    assert sweep(draw, GRID, executor=Now(), store=store, rng=0).success


def test_a_forked_worker_does_not_keep_the_lock(store: Path) -> None:
    script = """
import os, sys, time
from attnembed._identity import fingerprint
from attnembed._store import LineStore
store = LineStore(sys.argv[1], kind="k", version=1)
there, here = os.pipe()
if not (child := os.fork()):
    os.write(here, b"x")
    time.sleep(60)
os.read(there, 1)
store.close()
try:
    LineStore(sys.argv[1], kind="k", version=1)
finally:
    os.kill(child, 9)
print("open again")
"""
    done = subprocess.run([sys.executable, "-c", script, str(store)], capture_output=True, text=True, check=False)
    assert done.stdout == "open again\n", done.stderr


def test_a_full_disk_ends_the_sweep_with_a_whole_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sweep(draw, GRID, executor=Now(), rng=0).values
    room, write = 700, os.write

    def limited(file: int, content: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        written = write(file, content[:room])
        room -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", limited)
        with pytest.raises(DataFileError, match=r"cells.jsonl: cannot be written: No space left on device"):
            sweep(draw, GRID, executor=Now(), store=store, rng=0)
    lines = store.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert 1 < len(lines) < 7
    counted = Now()
    assert sweep(draw, GRID, executor=counted, store=store, rng=0).values == expected
    assert counted.count == 7 - len(lines)


def test_a_store_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path, "cannot be written: Is a directory"),
        (tmp_path / "file" / "below", "cannot be written: "),
        (tmp_path / "pipe", "is not a regular file"),
        (Path("/dev/full"), "is not a regular file"),
        ("a\0b", "cannot be written: .*embedded null"),
    ):
        with pytest.raises(DataFileError, match=problem):
            LineStore(path, kind="k", version=1)
    with LineStore(tmp_path / "new" / "store", kind="k", version=1) as store:
        assert store.header is None


records = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["cell", "seed", "error", "x"]), inner),
    max_leaves=5,
)
pieces = st.one_of(
    st.binary(max_size=9), st.sampled_from([HEADER, b"\n", HEADER[:20]]), records.map(lambda r: json.dumps(r).encode())
)


@given(st.lists(pieces, max_size=5).map(b"".join))
def test_arbitrary_stores_are_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    store = tmp_path_factory.mktemp("fuzz") / "s"
    store.write_bytes(content)
    try:
        done, message = sweep(draw, {"x": [5]}, executor=Now(), store=store, rng=0).success, ""
    except DataFileError as error:
        done, message = False, str(error)
    assert done != bool(message)
    assert "\n" not in message
    assert store.read_bytes().startswith(HEADER) if done else store.read_bytes() == content or HEADER in content


# --- arguments ---------------------------------------------------------------------------------------------------


BAD: list[tuple[dict[str, Any], str]] = [
    ({"function": 3}, "`function` must be callable; got int"),
    ({"function": sweep_cells.scaled}, "`function` must accept the cells and rng; got missing a required argument"),
    ({"function": lambda x: x}, "`function` must accept the cells and rng; got got an unexpected keyword"),
    ({"grid": {}}, "`grid` must name at least one parameter"),
    ({"grid": []}, "`grid` must hold at least one cell"),
    ({"grid": {"x": []}}, "`grid` must give at least one value for 'x'"),
    ({"grid": {"x": 1}}, "`grid` must give a sequence of values for 'x'; got 1"),
    ({"grid": {"x": "abc"}}, "`grid` must give a sequence of values for 'x'; got 'abc'"),
    ({"grid": "abc"}, "`grid` must be a mapping of names to values, or cells; got str"),
    ({"grid": 7}, "`grid` must be a mapping of names to values, or cells; got int"),
    ({"grid": [3]}, "`grid` must hold mappings of names to values; got 3 at 0"),
    ({"grid": {"x": [1, 2, 1]}}, '`grid` must not hold a cell twice; got {"x": 1}'),
    (
        {"grid": {"x": [print]}},
        "`grid` must hold numbers and text; got cell 0: builtin_function_or_method values cannot",
    ),
    ({"grid": [{1: 2}]}, "`grid` must hold numbers and text; got cell 0: dicts whose keys are not text"),
    ({"grid": {"rng": [1]}}, "`grid` must not name a parameter 'rng'; each cell gets its own generator"),
    ({"executor": 3}, "`executor` must be a concurrent.futures.Executor; got int"),
    ({"workers": 2}, "`workers` belongs to the default executor; leave executor or workers"),
    ({"executor": None, "workers": 0}, "`workers` must be at least 1; got 0"),
    ({"key": ""}, "`key` must be text; got ''"),
    ({"key": 3}, "`key` must be text; got 3"),
    ({"key": "mine"}, "`key` belongs to a store; pass store=, too"),
    ({"max_pending": 0}, "`max_pending` must be at least 1; got 0"),
    ({"callback": 3}, "`callback` must be a function; got int"),
    ({"rng": -1}, "`rng` must be a non-negative integer seed; got -1"),
    ({"rng": "seed"}, "`rng` must be an int, a numpy.random.Generator or None; got str"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"function": draw, "grid": {"x": [1]}, "executor": Now(), **arguments}
    with pytest.raises(InputError) as caught:
        sweep(options.pop("function"), options.pop("grid"), **options)
    assert str(caught.value).startswith(message)
