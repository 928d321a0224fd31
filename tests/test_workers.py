"""Executors that are none, processes that cannot start, and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from attnembed._store import LineStore
from attnembed._workers import interrupted_by, interrupts_deferred
from attnembed.errors import InputError, InputTypeError
from attnembed.results import Status
from attnembed.sweeping import CellResult, sweep
from tests.sweep_cells import draw
from tests.test_sweeping import GRID, Now

# --- executors ---------------------------------------------------------------------------------------------------


def test_an_executor_of_length_zero_is_used() -> None:
    class Sized(Now):
        def __len__(self) -> int:
            return 0

    pool = Sized()
    assert sweep(draw, GRID, executor=pool).success
    assert pool.count == 6


class Uncancellable(Future[Any]):
    def cancel(self) -> bool:
        raise NotImplementedError("cancel")


def test_futures_that_cannot_be_cancelled_do_not_hide_the_result() -> None:
    held = []

    class Pool(Now):
        def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
            held.append((Uncancellable(), function(*args)))
            if len(held) == 3:
                held[0][0].set_result(held[0][1])
            return held[-1][0]

    result = sweep(draw, GRID, executor=Pool(), callback=lambda result: True)
    assert (result.status, len(result.cells)) == (Status.STOPPED, 1)


class TimeoutPool:
    """Its second argument is something else."""

    def submit(self, function: Callable[..., Any], timeout: float | None, /, *args: Any) -> Future[Any]:
        raise AssertionError("not called")


class Job:
    """What a cluster gives instead of a future."""

    cancelled_jobs = 0

    def result(self) -> Any:
        return 1

    def cancel(self) -> None:
        Job.cancelled_jobs += 1


class JobPool:
    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> Job:
        return Job()


class KeywordPool:
    def submit(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Future[Any]:
        raise AssertionError("not called")


class ForgetfulPool(Now):
    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        super().submit(function, *args)
        future: Future[Any] = Future()
        future.set_result(None)
        return future


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (
            TimeoutPool,
            "`executor` must have submit(function, *arguments), as concurrent.futures has it; got "
            "tests.test_workers.TimeoutPool, which has submit(function, timeout, args)",
        ),
        (KeywordPool, "`executor` must have submit(function, *arguments), as concurrent.futures has it; got "),
        (
            JobPool,
            "`executor` must return futures as concurrent.futures does; got tests.test_workers.JobPool, which returns "
            "a tests.test_workers.Job without add_done_callback, cancelled, exception",
        ),
        (
            ForgetfulPool,
            "`executor` must return the function's result; got NoneType values from tests.test_workers.ForgetfulPool",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_pools_that_are_no_executors_are_named(pool: Callable[[], Any], message: str, tmp_path: Path) -> None:
    before = Job.cancelled_jobs
    with pytest.raises(InputTypeError) as caught:
        sweep(draw, GRID, executor=pool(), store=tmp_path / "s", rng=0)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "s").exists() or (tmp_path / "s").read_bytes().count(b"\n") == 1, "no cell counts as failed"
    assert Job.cancelled_jobs == before + (pool is JobPool)


def test_what_was_finished_beside_an_interrupt_is_kept(tmp_path: Path) -> None:
    """The first three cells are handed back together, one of them interrupted."""
    held: list[tuple[Future[Any], Any]] = []

    class Pool(Now):
        def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
            self.count += 1
            future: Future[Any] = Future()
            held.append((future, KeyboardInterrupt() if self.count == 2 else function(*args)))
            if self.count == 3:
                for waiting, outcome in held:
                    (waiting.set_exception if isinstance(outcome, KeyboardInterrupt) else waiting.set_result)(outcome)
            return future

    result = sweep(draw, {"x": [1, 2, 3, 4]}, executor=Pool(), max_pending=3, store=tmp_path / "s", rng=0)
    assert result.status is Status.INTERRUPTED
    assert [cell["x"] for cell in result.cells] == [1, 3]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows")
def test_ctrl_c_waits_while_the_lock_of_a_future_is_taken() -> None:
    blocked: list[bool] = []

    class Locked(Future[Any]):
        def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
            blocked.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            super().add_done_callback(fn)

    class Pool(Now):
        def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
            future = Locked()
            future.set_result(function(*args))
            return future

    assert sweep(draw, GRID, executor=Pool()).success
    assert blocked == [True] * 6
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


# --- processes ---------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import attnembed as ae
def cell(x, rng):
    return x
class Callable_:
    def __call__(self, x, rng):
        return x
for function, pool in (
    {cases}
):
    try:
        print(ae.sweep(function, {{"x": [1, 2]}}, executor=pool, rng=0))
    except ae.errors.InputError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("way", "cases"),
    [
        (
            "-c",
            {
                "cell, None": "`function` must be in a file that new processes can import; got __main__.cell, ",
                "Callable_(), None": "`function` must be in a file that new processes can import; got __main__.Cal",
                "cell, ProcessPoolExecutor(1, mp_context=get_context('spawn'))": "`function` must be in a file that "
                "new processes can import; got __main__.cell, ",
                "cell, ProcessPoolExecutor(1, mp_context=get_context('fork'))": "SweepResult(reached_end: 2 cells",
            },
        ),
        (
            "-",
            {"cell, None": "`executor` can start new processes only from a program in a file; got a program"},
        ),
    ],
    ids=["-c", "stdin"],
)
def test_programs_without_a_file_are_told_so_at_once(way: str, cases: dict[str, str]) -> None:
    listed = "\n    ".join(f"({case})," for case in cases)
    program = PROGRAM.format(root=str(Path(__file__).parents[1]), cases=listed)
    command = [sys.executable, "-W", "ignore", way, *([program] if way == "-c" else [])]
    done = subprocess.run(command, input=program, capture_output=True, text=True, check=False, timeout=120)
    said = [line for line in done.stdout.splitlines() if line]
    assert len(said) == len(cases), done.stdout + done.stderr
    for line, start in zip(said, cases.values()):
        assert line.startswith(start), done.stdout + done.stderr
    assert done.stderr == ""


def test_functions_of_modules_are_sent_from_anywhere() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert sweep(draw, {"x": [1]}, executor=pool).success
    with (
        pytest.raises(InputError, match="must be defined at the top level of a module"),
        ProcessPoolExecutor(1) as pool,
    ):
        sweep(lambda x, rng: x, {"x": [1]}, executor=pool)


def children(process: int) -> list[str]:
    tasks = Path(f"/proc/{process}/task")
    return [child for task in tasks.iterdir() for child in (task / "children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_ctrl_c_while_the_workers_start_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "attnembed", "sweep", "margin", "--over", "d=8:99:9", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--repetitions", "99", "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 120
    while len(children(process.pid)) < 3:  # multiprocessing's tracker, and two workers
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.05)  # they are importing
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert len(err.splitlines()) == 1, err
    assert err.startswith("attnembed: error: interrupted; ")


# --- signals -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def ordinary_ctrl_c() -> Any:
    """A job in the background starts with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_named_signal_ends_what_runs_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt), interrupted_by("SIGTERM", "SIGHUP", "SIGNOTHING"):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is before  # ignored, if these tests run under nohup


def test_a_named_signal_is_put_off_where_ctrl_c_is() -> None:
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    with interrupted_by("SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a job in the background
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_signals_of_others_are_left_alone() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    hup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_by("SIGTERM", "SIGHUP"):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, hup)
    assert came == [signal.SIGTERM]

    def elsewhere() -> Any:
        with interrupted_by("SIGTERM"):
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_a_step(number: signal.Signals) -> None:
    done = []

    def step() -> None:
        with interrupts_deferred():
            signal.raise_signal(number)
            done.append(threading.current_thread())

    with interrupted_by("SIGTERM"):
        with pytest.raises(KeyboardInterrupt):
            step()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert len(done) == 1
    assert signal.getsignal(number) is (signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


def test_an_interrupt_between_store_and_result_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = LineStore.append

    def interrupt(store: LineStore, line: str) -> None:
        append(store, line)
        if (tmp_path / "s").read_bytes().count(b"\n") == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LineStore, "append", interrupt)
    result = sweep(draw, GRID, executor=Now(), store=tmp_path / "s", rng=0)
    assert (result.status, len(result.cells)) == (Status.INTERRUPTED, 2)


@pytest.mark.parametrize("generator", [False, True])
def test_an_interrupted_sweep_has_all_cells_of_its_store(tmp_path: Path, generator: bool) -> None:
    store, xs = tmp_path / "s", [1, 2, 3, 4, 5, 6, 7, 8]
    sweep(draw, {"x": xs[4:7]}, executor=Now(), store=store, rng=0)
    held: list[tuple[Future[Any], str]] = []

    class Together(Now):
        """Hands back two cells at a time."""

        def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
            future: Future[Any] = Future()
            held.append((future, function(*args)))
            if len(held) == 2:
                for waiting, line in held:
                    waiting.set_result(line)
                held.clear()
            return future

    def interrupt(result: CellResult) -> None:
        raise KeyboardInterrupt

    grid = ({"x": x} for x in xs) if generator else {"x": xs}
    result = sweep(draw, grid, executor=Together(), max_pending=2, store=store, callback=interrupt)
    assert result.status is Status.INTERRUPTED
    assert [cell["x"] for cell in result.cells] == ([1, 2] if generator else [1, 2, 5, 6, 7])
    assert store.read_bytes().count(b"\n") == 1 + 5
