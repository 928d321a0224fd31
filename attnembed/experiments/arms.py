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
from attnembed.structured.scaling import WIDEST, OfflineScaling, OnlineScaling, best_pairwise_factor, fixed_subset
from attnembed.structured.training import StructuredResult, StructuredState, train_structured

__all__ = [
    "ARMS",
    "JOINT",
    "SCALED",
    "SCALED_ON_NEW",
    "STAGED",
    "TASKS",
    "Arm",
    "Row",
    "Run",
    "row_of",
    "run_cell",
    "task_data",
]

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
    on_new: bool = False  # the scale is fitted on the validation data of the new population, not on training data

    def options(self, task: Task, population: Any = None, ratio: float | None = None) -> dict[str, Any]:
        """The keyword arguments of `train_structured`, with what the task says about scaling.

        ``population`` and ``ratio`` replace the training data and the task's ratio where an arm is fitted ``on_new``.
        """
        scaling = self.scaling
        if isinstance(scaling, OnlineScaling):
            scaling = replace(scaling, subset=task.subset if population is None else population)
        elif isinstance(scaling, OfflineScaling):
            scaling = replace(scaling, ratio=task.ratio if ratio is None else ratio)
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
    "offline-new": Arm("joint, offline scaling fitted on new words", scaling=OfflineScaling(), on_new=True),
    "online-new": Arm("joint, online scaling fitted on new words", scaling=OnlineScaling(), on_new=True),
}
STAGED = ("unary", "stage")
SCALED = ("offline", "online")
SCALED_ON_NEW = ("offline-new", "online-new")
JOINT = tuple(name for name, arm in ARMS.items() if name not in STAGED and not arm.on_new)

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

    @property
    def made(self) -> Run:
        """The run that is made for this one: with multiplier 1 where training leaves no trace of the multiplier.

        Offline scaling reads only the direction of W. Online scaling gives W the norm of U before the first step,
        unless U is 0 then.
        """
        forgotten = isinstance(ARMS[self.arm].scaling, OfflineScaling) or (
            isinstance(ARMS[self.arm].scaling, OnlineScaling) and not TASKS[self.task].starts_at_zero
        )
        return replace(self, multiplier=1.0) if forgotten else self

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
    options = training.options(ARMS[run.arm], start)
    return {objective: training.report(training.train(start, run.epochs, objective, **options), objective)}


@dataclass
class _Best:
    """The model of the epoch that is best on the known words, beside that which training keeps."""

    score: float = -np.inf
    epoch: int = 0
    model: Any = None


@dataclass(frozen=True)
class _Training:
    """Training and scoring, the same for all arms."""

    run: Run
    task: Task
    data: Split

    def train(self, model: Any, n_epochs: int, objective: str, **options: Any) -> _Trained:
        steps = n_epochs * -(-len(self.data.train) // self.task.batch_size)
        best = _Best()

        def keep(state: StructuredState) -> None:
            score = self.task.score(state.model, self.data.known[0], self.data) if self.data.known else -np.inf
            if score > best.score:
                best.score, best.epoch, best.model = score, state.epoch, state.model

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
            callback=keep if self.data.known else None,
            rng=np.random.default_rng([self.run.seed, self.run.split, 1]),
            **options,
        )
        return _Trained(uninterrupted(result), best)

    def options(self, arm: Arm, start: Any) -> dict[str, Any]:
        """Of joint training; offline scaling on new words first trains a network alone, for its ratio."""
        if not arm.on_new:
            return arm.options(self.task)
        population = fixed_subset(self.data.validation, self.task.subset, self.run.seed)
        ratio = None
        if isinstance(arm.scaling, OfflineScaling):
            epochs = max(1, round(self.task.shares[0] * self.run.epochs))
            alone = replace(start, pairwise=np.zeros_like(start.pairwise), pairwise_scale=1.0)
            network = self.train(alone, epochs, "unary").result.model
            ratio = OfflineScaling.fitted(network, population, self.data.train).ratio
        return arm.options(self.task, population, ratio)

    def report(self, trained: _Trained, objective: str) -> dict[str, Any]:
        result = trained.result
        history = result.to_dict()["history"]
        first = self.run.split == 0 and self.run.seed == 0
        report = {
            "status": result.status.value,
            "test": self.task.measure(result.model, self.data.test, self.data),
            "validation": self.task.measure(result.model, self.data.validation, self.data),
            "best_epoch": result.best_epoch,
            "history": {name: history[name] for name in ("loss", "validation_score", "ratio", "pairwise_scale")},
            "examples": _examples(result.model, self.data.test) if first else None,
        }
        if objective == "unary":
            report["baselines"] = self.baselines(result.model, self.data.test)
        if self.data.known is not None:
            report["populations"] = self.populations(trained, objective)
        return report

    def baselines(self, model: Any, data: Any) -> dict[str, dict[str, float]]:
        """The scores of every baseline that the data have."""
        found = {title: find(model, data, self.data, self.run.path) for title, find in self.task.baselines.items()}
        return {title: scores for title, scores in found.items() if scores}

    def populations(self, trained: _Trained, objective: str) -> dict[str, Any]:
        """By the population that selects the epoch: what `_scored` finds on both."""
        result, best = trained.result, trained.best
        new = self._scored(result.model, result.best_epoch, objective)
        if best.model is None or best.epoch == result.best_epoch:
            return {"new": new, "known": new}
        return {"new": new, "known": self._scored(best.model, best.epoch, objective)}

    def _scored(self, model: Any, epoch: int, objective: str) -> dict[str, Any]:
        """By population: scores, the factor of W that its validation data prefer, and the test score at this factor."""
        chain = objective != "unary" and model.component_norms(np.zeros((1, 1)))[1] > 0
        out: dict[str, Any] = {"best_epoch": epoch, "validation": {}, "test": {}, "factor": {}, "rescaled": {}}
        for name, (validation, test) in self.data.populations().items():
            out["validation"][name] = self.task.measure(model, validation, self.data)
            out["test"][name] = self.task.measure(model, test, self.data)
            if chain:
                subset = fixed_subset(validation, self.task.subset, 0)
                found = best_pairwise_factor(model, subset, objective, low=-WIDEST, high=WIDEST, tolerance=0.01)
                scaled = replace(model, pairwise_scale=found.factor * model.pairwise_scale)
                out["factor"][name] = found.factor
                out["rescaled"][name] = self.task.measure(scaled, test, self.data)
            elif objective == "unary":
                out.setdefault("baselines", {})[name] = self.baselines(model, test)
        return out


class _Trained(NamedTuple):
    """What training gave, and the model that is best on the known words."""

    result: StructuredResult[Any]
    best: _Best


def _staged(training: _Training, start: Any) -> dict[str, Any]:
    """The network first, then W on it for each objective, then both."""
    run, task = training.run, training.task
    alone, out = replace(start, pairwise=np.zeros_like(start.pairwise)), {}
    if "unary" in run.objectives:
        out["unary"] = training.report(training.train(alone, run.epochs, "unary"), "unary")
    objectives = [name for name in run.objectives if name != "unary"]
    if not objectives:
        return out
    first, second = (max(1, round(share * run.epochs)) for share in task.shares)
    network = training.train(alone, first, "unary").result.last_model.network
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
        out[objective] = training.report(staged, objective)
    return out


def _examples(model: Any, data: Any) -> list[Any]:
    return [np.asarray(labels).tolist() for labels in model.predict(data.subset(example_rows(data)))]
