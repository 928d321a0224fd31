"""A self-contained HTML page of evidence: every claim as measured, every experiment with its figures.

The page needs no network and no script: figures are embedded, colours follow the reader's light or dark setting, and
it works on phones, in print and with screen readers. `_report_page` writes it.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnembed._files import PathLike, writable_folder, write_text
from attnembed._progress import Progress
from attnembed._report_page import ExperimentRun, report_page
from attnembed._validation import check_integer
from attnembed.errors import DataNotGivenError
from attnembed.evidence import Report, claims, verify
from attnembed.evidence.files import load_claims
from attnembed.experiments import Experiment, experiments, reproduce
from attnembed.experiments.registry import requested_data, unavailable

__all__ = ["ExperimentRun", "WrittenReport", "write_report"]


@dataclass(frozen=True)
class WrittenReport:
    """The page at ``path``, and its contents."""

    path: Path
    report: Report
    experiments: tuple[ExperimentRun, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every claim holds and no experiment failed; an experiment without data has not failed."""
        return self.report.passed and all(run.state != "failed" for run in self.experiments)

    def __str__(self) -> str:
        lines = [str(self.report).splitlines()[-1]]
        lines += [f"{run.name}: {run.state}{f' ({run.error})' if run.error else ''}" for run in self.experiments]
        return "\n".join([*lines, f"written: {self.path} ({self.seconds:.1f} s)"])


def write_report(
    out: PathLike,
    *,
    data: PathLike | None = None,
    quick: bool = False,
    rng: int = 0,
    claims_file: PathLike | None = None,
    instances: int = 20,
    workers: int = 1,
    callback: Callable[[str, int, int], object] | None = None,
) -> WrittenReport:
    """Measure every claim, run every experiment, and write OUT/report.html beside the files of the experiments.

    Parameters
    ----------
    data : folder or file for the experiments on real data (default: that named by ATTNEMBED_DATA); experiments whose
        files are missing are left out, and one that fails, for example on damaged files, is listed with its error:
        the page is written anyway
    quick : smaller versions of the experiments; those that would take an hour are always small
    rng : the seed of everything
    claims_file : a Python file with your own claims, which are measured after those of the package
    instances, workers : as in `verify`
    callback : ``callback(part, done, total)`` before each part: "claims", then the experiments by name

    Raises
    ------
    InputError
        for a seed that is not a whole number >= 0.
    DataFileError
        if OUT cannot be written, or ``data`` does not exist.
    """
    seed, start = check_integer("rng", rng, minimum=0), time.perf_counter()
    if claims_file is not None:
        load_claims(claims_file)
    source = requested_data(data)
    folder = writable_folder(out)
    entries, runs = experiments(), []
    with Progress("report", total=1 + len(entries)) as progress:

        def begin(part: str, done: int) -> None:
            progress.update(done, part)
            if callback is not None:
                callback(part, done, 1 + len(entries))

        begin("claims", 0)
        report = verify("all", instances=instances, rng=seed, workers=workers)
        for done, entry in enumerate(entries, start=1):
            begin(entry.name, done)
            runs.append(_run(entry, source, out=folder, quick=quick or entry.long, rng=seed))
    options = ["--seed", str(seed), *(["--quick"] if quick else []), *(["--data", str(data)] if data else [])]
    path, seconds = folder / "report.html", time.perf_counter() - start
    command = f"attnembed report --out {shlex.quote(str(out))}"
    command += f" --claims {shlex.quote(str(claims_file))}" if claims_file is not None else ""
    command += f" --instances {instances}" if instances != 20 else ""
    page = report_page(report, claims(), runs, options, command, seconds)
    write_text(path, page)
    return WrittenReport(path, report, tuple(runs), seconds)


def _run(entry: Experiment, data: Path | None, **options: Any) -> ExperimentRun:
    absent = unavailable(entry, data)
    if absent:
        return ExperimentRun(entry.name, entry.summary, "not run", absent)
    try:
        written = reproduce(entry.name, data=data, **options)
    except Exception as error:  # the rest of the page is still worth writing
        state = "not run" if isinstance(error, DataNotGivenError) else "failed"
        text = " ".join(str(error).split()) or type(error).__name__
        return ExperimentRun(entry.name, entry.summary, state, text)
    record = json.loads(written.files[-1].read_text(encoding="utf-8"))
    figures = tuple(path for path in written.files if path.suffix == ".png")
    return ExperimentRun(entry.name, entry.summary, "done", record=record, figures=figures)
