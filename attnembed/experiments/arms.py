"""The arms that are compared on real data, and one run of one arm: a training and its scores.

`run_cell` is a function of plain values that returns plain values: `attnembed.sweeping` calls it in any process and
keeps what it returned. All arms of one task, split and seed begin with the same model and see the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from attnembed.experiments.chunks import CHUNKS
from attnembed.experiments.horses import HORSES
from attnembed.experiments.letters import LETTERS
from attnembed.experiments.tasks import Split, Task, example_rows
from attnembed.optim import Adam, Cosine
from attnembed.results import uninterrupted
from attnembed.structured.scaling import OfflineScaling, OnlineScaling
from attnembed.structured.training import StructuredResult, train_structured

__all__ = ["ARMS", "JOINT", "SCALED", "STAGED", "TASKS", "Arm", "Row", "Run", "row_of", "run_cell", "task_data"]

TASKS: Mapping[str, Task] = {task.name: task for task in (*LETTERS, *CHUNKS, *HORSES)}


@lru_cache(maxsize=2)
def task_data(task: str, path: str, split: int) -> Split:
    """The data of a task, kept for the next run of the same process."""
    return TASKS[task].load(path, split)


@dataclass(frozen=True)
class Arm:
    """One way to train: its name in tables, and options of `train_structured` for joint training."""

    title: str
    scaling: OfflineScaling | OnlineScaling | None = None
    learned_scales: tuple[str, ...] = ()
    pairwise_rate: float | None = None  # of W's step to the network's

    def options(self, task: Task) -> dict[str, Any]:
        """The keyword arguments of `train_structured`, with what the task says about scaling."""
        scaling = self.scaling
        if isinstance(scaling, OnlineScaling):
            scaling = replace(scaling, subset=task.subset)
        elif isinstance(scaling, OfflineScaling):
            scaling = replace(scaling, ratio=task.ratio)
        rates = None if self.pairwise_rate is None else {"pairwise": self.pairwise_rate}
        return {"scaling": scaling, "learned_scales": self.learned_scales, "rates": rates}


# "unary" and "stage" are trained by `_staged`, the others jointly from the first step.
ARMS: Mapping[str, Arm] = {
    "unary": Arm("unary only"),
    "stage": Arm("stages"),
    "joint": Arm("joint"),
    "offline": Arm("joint, offline scaling", scaling=OfflineScaling()),
    "online": Arm("joint, online scaling", scaling=OnlineScaling()),
    "learned": Arm("joint, learned scale", learned_scales=("pairwise_scale",)),
    "rates": Arm("joint, pairwise rate x 10", pairwise_rate=10.0),
}
STAGED = ("unary", "stage")
SCALED = ("offline", "online")
JOINT = tuple(name for name in ARMS if name not in STAGED)

# Of all steps, the share over which the step size grows from zero; without it the hinge loss on a random W can throw a
# network so far that its units stay at zero.
_WARMUP_SHARE = 0.1

# Unary potentials from cross-entropy dwarf the margin of the hinge loss: they get this norm before stage 2.
_HINGE_NORM = 1.0


class Row(NamedTuple):
    """A row of the table: an arm with an objective; the network alone is ("unary", "unary")."""

    arm: str
    objective: str


def row_of(arm: str, objective: str) -> Row:
    """The row of an arm; the network alone has one for all objectives."""
    return Row(arm, "unary" if arm == "unary" else objective)


@dataclass(frozen=True)
class Run:
    """One training. That by stages takes several objectives: its network is trained once for all of them.

    Among the objectives of the arm "stage", "unary" stands for the network alone.
    """

    task: str
    path: str
    split: int
    seed: int
    arm: str
    objectives: tuple[str, ...]
    step_size: float
    multiplier: float
    epochs: int

    def cell(self) -> dict[str, str | int | float]:
        """The plain values that a store keeps; the objectives are one text there, with spaces between them."""
        values = asdict(self)
        return {
            "objective" if name == "objectives" else name: " ".join(value) if name == "objectives" else value
            for name, value in values.items()
        }

    @classmethod
    def from_cell(cls, cell: Mapping[str, Any]) -> Run:
        """The run of a cell."""
        values = dict(cell)
        return cls(objectives=tuple(values.pop("objective").split()), **values)


def run_cell(*, rng: np.random.Generator, **cell: Any) -> dict[str, Any]:
    """Make the run of a cell: see `Run.cell`.

    The cell's own ``rng`` is left alone: what is random depends on split and seed, so that arms can be compared.

    Returns
    -------
    by objective ("unary" for the network alone): scores on validation and test data, the history, and the predicted
    labels of a few test examples
    """
    run = Run.from_cell(cell)
    task, data = TASKS[run.task], task_data(run.task, run.path, run.split)
    training = _Training(run, task, data)
    start = task.make_model(data, np.random.default_rng([run.seed, run.split, 0]))
    start = replace(start, pairwise_scale=run.multiplier)
    if run.arm == "stage":
        return _staged(training, start)
    (objective,) = run.objectives
    return {objective: training.report(training.train(start, run.epochs, objective, **ARMS[run.arm].options(task)))}


@dataclass(frozen=True)
class _Training:
    """Training and scoring, the same for all arms."""

    run: Run
    task: Task
    data: Split

    def train(self, model: Any, n_epochs: int, objective: str, **options: Any) -> StructuredResult[Any]:
        steps = n_epochs * -(-len(self.data.train) // self.task.batch_size)
        result = train_structured(
            model,
            self.data.train,
            objective=objective,
            n_epochs=n_epochs,
            batch_size=self.task.batch_size,
            optimizer=Adam(step_size=self.run.step_size),
            schedule=Cosine(steps, warmup=int(_WARMUP_SHARE * steps)),
            validation=self.data.validation,
            metric=lambda model, held_out: self.task.score(model, held_out, self.data),
            rng=np.random.default_rng([self.run.seed, self.run.split, 1]),
            **options,
        )
        return uninterrupted(result)

    def report(self, result: StructuredResult[Any]) -> dict[str, Any]:
        history = result.to_dict()["history"]
        first = self.run.split == 0 and self.run.seed == 0
        return {
            "status": result.status.value,
            "test": self.task.measure(result.model, self.data.test, self.data),
            "validation": self.task.measure(result.model, self.data.validation, self.data),
            "best_epoch": result.best_epoch,
            "history": {name: history[name] for name in ("loss", "validation_score", "ratio", "pairwise_scale")},
            "examples": _examples(result.model, self.data.test) if first else None,
        }


def _staged(training: _Training, start: Any) -> dict[str, Any]:
    """The network first, then W on it for each objective, then both."""
    run, task = training.run, training.task
    alone = replace(start, pairwise=np.zeros_like(start.pairwise))
    out = {"unary": training.report(training.train(alone, run.epochs, "unary"))} if "unary" in run.objectives else {}
    objectives = [name for name in run.objectives if name != "unary"]
    if not objectives:
        return out
    first, second = (max(1, round(share * run.epochs)) for share in task.shares)
    network = training.train(alone, first, "unary").last_model.network
    for objective in objectives:
        options = {"stage_unary_norm": _HINGE_NORM} if objective == "ssvm" else {}
        staged = training.train(
            replace(start, network=network),
            run.epochs - first,
            objective,
            strategy="stage",
            stage_epochs=(0, second, run.epochs - first - second),
            rates={"pairwise": task.stage_rate},
            **options,
        )
        out[objective] = training.report(staged)
    return out


def _examples(model: Any, data: Any) -> list[Any]:
    return [np.asarray(labels).tolist() for labels in model.predict(data.subset(example_rows(data)))]
