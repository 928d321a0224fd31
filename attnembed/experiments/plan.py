"""The plan of a comparison on real data: which runs a table and a sweep over c need, and what becomes of them.

Every run is kept in OUT/NAME-runs.jsonl as soon as it is done; started again, an experiment computes what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from attnembed._typing import Floats
from attnembed.compare import Budget, Trial, standard_error
from attnembed.errors import RunFailedError
from attnembed.experiments.arms import JOINT, SCALED, STAGED, Row, Run, run_cell
from attnembed.experiments.registry import Request
from attnembed.experiments.tasks import selecting
from attnembed.results import Status
from attnembed.sweeping import sweep

__all__ = ["MULTIPLIERS", "Entry", "Records", "Repetition", "ScaleSweep", "Study", "compute"]

MULTIPLIERS = (0.01, 0.1, 1.0, 10.0, 100.0)


class Repetition(NamedTuple):
    """A split of the data, and the seed of the model and the batches."""

    split: int
    seed: int


Records = Mapping[Run, Mapping[str, Any]]  # what `run_cell` gave, by objective


@dataclass(frozen=True)
class Study:
    """One table: every arm with every objective, repeated over splits and seeds, on equal budgets.

    Each arm with each objective takes the step size that is best on the validation data of the first repetition. Where
    the task has two populations, these and the epoch are selected on the words of one, ``selection``.
    """

    task: str
    repetitions: tuple[Repetition, ...]
    step_sizes: tuple[float, ...]
    epochs: int
    objectives: tuple[str, ...]
    joint: tuple[str, ...] = JOINT
    selection: str = ""

    def rows(self) -> tuple[Row, ...]:
        """Rows of the table."""
        return Row("unary", "unary"), *(Row(arm, name) for arm in ("stage", *self.joint) for name in self.objectives)

    @property
    def budget(self) -> Budget[Row, Repetition]:
        """The runs that every row may have."""
        return Budget(self.rows(), self.step_sizes, self.repetitions)

    def runs(self, path: str, trials: Sequence[Trial[Row, Repetition]]) -> dict[Trial[Row, Repetition], Run]:
        """The training that each of the trials comes from.

        One training by stages serves all its objectives, and the network alone.
        """
        staged: dict[tuple[float, Repetition], list[str]] = {}
        for trial in trials:
            if trial.arm.arm in STAGED:
                staged.setdefault((trial.step_size, trial.repetition), []).append(trial.arm.objective)

        def run(trial: Trial[Row, Repetition]) -> Run:
            (arm, objective), step_size, pair = trial.arm, trial.step_size, trial.repetition
            shared = arm in STAGED
            names = tuple(staged[step_size, pair]) if shared else (objective,)
            return Run(self.task, path, *pair, "stage" if shared else arm, names, step_size, 1.0, self.epochs)

        return {trial: run(trial) for trial in trials}

    def tuning(self, path: str) -> dict[Trial[Row, Repetition], Run]:
        """The runs of the first repetition, at every step size."""
        return self.runs(path, self.budget.tuning())

    def chosen(self, path: str, records: Records) -> dict[Row, tuple[Trial[Row, Repetition], ...]]:
        """The trials of every row at its step size, from the records of `tuning`."""
        runs = self.tuning(path)

        def score(trial: Trial[Row, Repetition]) -> float:
            return _validation_score(self.view(records[runs[trial]][trial.arm.objective], self.selection))

        return self.budget.choose(score)

    def others(self, path: str, records: Records) -> dict[Trial[Row, Repetition], Run]:
        """The runs of the other repetitions, at the step sizes chosen for the rows."""
        return self.runs(path, self.budget.others(self.chosen(path, records)))

    def view(self, record: Mapping[str, Any], population: str, *, rescaled: bool = False) -> Mapping[str, Any]:
        """A record with the scores of one population, of the model that ``selection`` selects.

        ``rescaled``: with W times the factor that the validation data of the population prefer, where it has one.
        """
        if not self.selection:
            return record
        found = record["populations"][self.selection]
        test = found["rescaled"].get(population) if rescaled else None
        plain = {name: found[name][population] for name in ("validation", "test")}
        factor = found["factor"].get(population)
        return {**record, **plain, **({"test": test} if test else {}), "factor": factor, "found": found}

    def entries(self, path: str, records: Records, population: str = "", *, rescaled: bool = False) -> dict[Row, Entry]:
        """The table, from the records of `tuning` and `others`."""
        runs = self.tuning(path) | self.others(path, records)
        splits = tuple(pair.split for pair in self.repetitions)
        return {
            row: Entry(
                trials[0].step_size,
                tuple(
                    self.view(records[runs[trial]][row.objective], population or self.selection, rescaled=rescaled)
                    for trial in trials
                ),
                splits,
            )
            for row, trials in self.chosen(path, records).items()
        }


def _validation_score(record: Mapping[str, Any]) -> float:
    """The score that selects; a run that failed is not chosen."""
    return selecting(record["validation"]) if Status(record["status"]).ok else -np.inf


@dataclass(frozen=True)
class Entry:
    """The runs of one row at its step size; one record per repetition, as `run_cell` gives it."""

    step_size: float
    records: tuple[Mapping[str, Any], ...]
    splits: tuple[int, ...]

    def scores(self, part: str = "test", name: str | None = None) -> Floats:
        """A score of every split, the mean over its seeds: the score that selects, or another by its name."""
        values = np.array([record[part][name] if name else selecting(record[part]) for record in self.records])
        _, place = np.unique(self.splits, return_inverse=True)
        return np.bincount(place, weights=values) / np.bincount(place)

    def summary(self, name: str | None = None) -> dict[str, float]:
        """Mean and standard error of a test score over the splits."""
        scores = self.scores(name=name)
        return {"mean": float(scores.mean()), "standard_error": standard_error(scores)}


@dataclass(frozen=True)
class ScaleSweep:
    """F = U + c W: accuracy against c for plain joint training and both repairs, one repetition."""

    task: str
    step_size: float
    epochs: int
    objectives: tuple[str, ...]
    arms: tuple[str, ...] = ("joint", *SCALED)

    def runs(self, path: str) -> dict[Row, tuple[Run, ...]]:
        """The runs of `MULTIPLIERS`; one for all of them where training leaves no trace of c (`Run.made`)."""
        return {
            Row(arm, name): tuple(
                Run(self.task, path, 0, 0, arm, (name,), self.step_size, c, self.epochs).made for c in MULTIPLIERS
            )
            for arm in self.arms
            for name in self.objectives
        }

    def trained_once(self, path: str) -> tuple[Row, ...]:
        """The rows with one run for all multipliers."""
        return tuple(row for row, runs in self.runs(path).items() if len(set(runs)) == 1)

    def scores(self, path: str, records: Records) -> dict[Row, list[float]]:
        """Test scores over `MULTIPLIERS`."""
        return {
            row: [selecting(records[run][row.objective]["test"]) for run in runs]
            for row, runs in self.runs(path).items()
        }


def compute(request: Request, name: str, path: str, studies: Iterable[Study], scale: ScaleSweep) -> Records:
    """Every run that the studies and the sweep need: those that the store does not hold yet are made."""
    studies = tuple(studies)
    tuning = [run for study in studies for run in study.tuning(path).values()]
    records = _records(request, name, [*tuning, *(run for runs in scale.runs(path).values() for run in runs)])
    others = [run for study in studies for run in study.others(path, records).values()]
    return {**records, **_records(request, name, others)}


def _records(request: Request, name: str, runs: Iterable[Run]) -> Records:
    wanted = tuple(dict.fromkeys(runs))
    if not wanted:
        return {}
    store = request.out / f"{name}-runs.jsonl"
    cells = [run.cell() for run in wanted]
    workers = request.workers
    result = sweep(run_cell, cells, executor=request.executor, workers=workers, store=store, rng=request.seed)
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    if len(result.cells) < len(wanted) or result.errors:
        reason = str(result.errors[0].error if result.errors else result.message)
        failed = (
            f"a run of {name}" if len(result.errors) < 2 else f"{len(result.errors)} of {len(wanted)} runs of {name}"
        )
        raise RunFailedError(failed, reason, hint=f"see {store.name}; the same command goes on from there")
    return dict(zip(wanted, result.values))
