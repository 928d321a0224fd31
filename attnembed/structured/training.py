"""Training of deep structured models: in stages or jointly, with or without scaling, and comparisons on equal budgets.

- joint: every parameter from the start, with the structured objective.
- stage: (1) the network alone with the objective "unary"; (2) the network frozen, the pairwise part with the
  structured objective; (3) everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnembed._files import PathLike, read_npz, write_npz
from attnembed._progress import Progress
from attnembed._validation import RNGLike, as_rng, check_choice, check_integer, check_positive, freeze
from attnembed.errors import AttnembedError, DataFileError, InputError, InputTypeError
from attnembed.optim import Adam, Optimizer, OptimizerState, Schedule, state_arrays, state_from_arrays
from attnembed.results import Result, Status, to_plain
from attnembed.structured.model import NETWORK, StructuredModel
from attnembed.structured.scaling import (
    WIDEST,
    OfflineScaling,
    OnlineScaling,
    Parametrisation,
    best_pairwise_factor,
    fixed_subset,
    fold,
    output_names,
)
from attnembed.structured.theory import component_norms

__all__ = ["Arm", "Comparison", "StructuredResult", "compare_arms", "train_structured"]

Floats = NDArray[np.floating[Any]]
Model = TypeVar("Model", bound=StructuredModel[Any])
Metric = Callable[[Any, Any], float]
Callback = Callable[[int, Any, dict[str, Any]], object]

_SCALES = ("unary_scale", "pairwise_scale")

# What an epoch leaves behind, taken at its end.
HISTORY = [
    ("loss", float),
    ("validation_score", float),
    ("unary_scale", float),
    ("pairwise_scale", float),
    ("unary_norm", float),
    ("pairwise_norm", float),
    ("ratio", float),
    ("stage", int),
]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StructuredResult(Result, Generic[Model]):
    """A trained model.

    Attributes
    ----------
    model : of the epoch with the best validation score; without validation data that of the last epoch
    last_model : that of the last epoch
    history : record array, one row per epoch; read a column as ``history.loss`` or ``history["loss"]``
        ``loss``: mean of the stage's objective over the batches; ``validation_score``: the metric (NaN without);
        ``unary_scale``, ``pairwise_scale``: the scales, the factors that online scaling folded into W included;
        ``unary_norm``, ``pairwise_norm``: component norms of the scaled potentials (`theory.component_norms`);
        ``ratio`` of the two; ``stage``: 0, 1, 2 (joint training has stage 0 only)
    best_epoch : the epoch of ``model``
    """

    model: Model
    last_model: Model
    history: np.recarray[Any, Any]
    best_epoch: int

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, the history as one list per column, without the models."""
        columns = {name: to_plain(self.history[name]) for name, _ in HISTORY}
        plain = {"status": self.status, "message": self.message, "success": self.success, "best_epoch": self.best_epoch}
        return to_plain({**plain, "history": columns})


@dataclass(frozen=True)
class _Stage:
    objective: str
    names: tuple[str, ...]
    epochs: int

    @property
    def trains_network(self) -> bool:
        return any(name.startswith(NETWORK) for name in self.names)


def train_structured(
    model: Model,
    data: Any,
    *,
    strategy: Literal["joint", "stage"] = "joint",
    objective: str = "nll",
    scaling: OnlineScaling | OfflineScaling | None = None,
    n_epochs: int = 30,
    batch_size: int = 20,
    optimizer: Optimizer | None = None,
    rates: Mapping[str, float] | None = None,
    schedule: Schedule | None = None,
    learned_scales: Sequence[str] = (),
    stage_epochs: tuple[int, int, int] | None = None,
    stage_unary_norm: float | None = None,
    validation: Any = None,
    metric: Metric | None = None,
    patience: int | None = None,
    callback: Callback | None = None,
    checkpoint: PathLike | None = None,
    resume: bool = False,
    rng: RNGLike = None,
) -> StructuredResult[Model]:
    """Train a `ChainCRF` or a `GridCRF`.

    Parameters
    ----------
    strategy, objective, scaling : see the module's text, `objectives` and `scaling`
    n_epochs : in total, over all stages
    batch_size : sequences or images per step
    optimizer : `optim.Adam` or `optim.SGD`; Adam(step_size=1e-3) by default
    rates : factors of the step size by component: "network", "pairwise", "unary_scale", "pairwise_scale"
    schedule : factor of the step size by number of steps taken
    learned_scales : train "unary_scale", "pairwise_scale" as parameters
    stage_epochs : epochs of the three stages, summing to ``n_epochs``; thirds by default
    stage_unary_norm : after stage 1, rescale the network's last layer so that n_U has this value. Cross-entropy drives
        n_U far above the margin Delta <= 1 of "ssvm", and stage 2 would have nothing to learn
    validation, metric : data and ``metric(model, validation)``, larger is better; accuracy by default
    patience : stop after so many epochs without a better validation score
    callback : ``callback(epoch, model, record)`` after each epoch; training stops if it returns something true
    checkpoint, resume : a file written after each epoch; with ``resume`` training goes on from it, and ends where an
        unbroken run would have ended, bit for bit
    rng : order of the batches, subset for online scaling

    Returns
    -------
    StructuredResult
        ``status`` REACHED_END, STOPPED (callback or patience), INTERRUPTED (by the keyboard) or NOT_FINITE (the loss
        or a parameter overflowed; the model is that of the last whole epoch).

    >>> from attnembed.structured.data import make_chain_dataset
    >>> from attnembed.structured.model import ChainCRF
    >>> from attnembed.structured.networks import mlp
    >>> data = make_chain_dataset(50, 5, 3, 4, rng=0)
    >>> result = train_structured(ChainCRF(mlp(4, (8,), 3, rng=1), np.zeros((3, 3))), data, n_epochs=3, rng=2)
    >>> result.success, bool(result.history.loss[-1] < result.history.loss[0])
    (True, True)
    """
    if not isinstance(model, StructuredModel):
        raise InputTypeError("model", "must be a ChainCRF or a GridCRF", got=type(model).__name__)
    model.check_data("data", data)
    if validation is not None:
        model.check_data("validation", validation)
    if not (scaling is None or isinstance(scaling, (OnlineScaling, OfflineScaling))):
        raise InputTypeError(
            "scaling", "must be None, an OnlineScaling or an OfflineScaling", got=type(scaling).__name__
        )
    run = _Run(
        model,
        data,
        stages=_stages(model, strategy, objective, n_epochs, stage_epochs, learned_scales),
        scaling=scaling,
        batch_size=check_integer("batch_size", batch_size, minimum=1),
        optimizer=_with_rates(Adam(step_size=1e-3) if optimizer is None else optimizer, model, rates),
        schedule=schedule,
        stage_unary_norm=None if stage_unary_norm is None else check_positive("stage_unary_norm", stage_unary_norm),
        validation=validation,
        metric=metric,
        rng=as_rng(rng),
    )
    if patience is not None:
        check_integer("patience", patience, minimum=1)
        if validation is None:
            raise InputError("patience", "needs validation data to watch")
    if resume:
        if checkpoint is None:
            raise InputError("resume", "needs the file named by `checkpoint`")
        run.load(checkpoint)
    status, message = Status.REACHED_END, f"{n_epochs} epochs"
    with Progress("training", total=n_epochs) as progress, np.errstate(over="ignore", invalid="ignore"):
        try:
            while run.epoch < n_epochs:
                # Before the epoch, so that a run resumed from where patience ended does not go on.
                if patience is not None and run.epoch - 1 - run.best_epoch >= patience:
                    status, message = Status.STOPPED, f"stopped by patience after epoch {run.epoch - 1}"
                    break
                if not run.advance():
                    status, message = Status.NOT_FINITE, f"epoch {run.epoch} overflowed; lower the step size"
                    break
                record = run.records[-1]
                progress.update(run.epoch, f"loss {record['loss']:.4g}  score {record['validation_score']:.4g}")
                if checkpoint is not None:
                    run.save(checkpoint)
                if callback is not None and callback(run.epoch - 1, run.snapshot(), dict(record)):
                    status, message = Status.STOPPED, f"stopped by the callback after epoch {run.epoch - 1}"
                    break
        except KeyboardInterrupt:
            status, message = Status.INTERRUPTED, f"interrupted in epoch {run.epoch}"
    return StructuredResult(
        status=status,
        message=message,
        model=run.best if validation is not None else run.last,
        last_model=run.last,
        history=run.history(),
        best_epoch=run.best_epoch if validation is not None else len(run.records) - 1,
    )


def _stages(
    model: StructuredModel[Any],
    strategy: str,
    objective: str,
    n_epochs: int,
    stage_epochs: tuple[int, int, int] | None,
    learned_scales: Sequence[str],
) -> list[_Stage]:
    check_integer("n_epochs", n_epochs, minimum=1)
    check_choice("objective", objective, model.objectives)
    for name in learned_scales:
        check_choice("learned_scales", name, _SCALES)
    network = tuple(NETWORK + name for name in model.network.params)
    structured = ("pairwise", *learned_scales)
    if check_choice("strategy", strategy, ("joint", "stage")) == "joint":
        if stage_epochs is not None:
            raise InputError("stage_epochs", "belongs to strategy 'stage'")
        return [_Stage(objective, network + structured, n_epochs)]
    third = n_epochs // 3
    epochs = (n_epochs - 2 * third, third, third) if stage_epochs is None else tuple(stage_epochs)
    if len(epochs) != 3 or sum(epochs) != n_epochs or min(epochs) < 0:
        raise InputError("stage_epochs", f"must be three numbers >= 0 that sum to n_epochs = {n_epochs}", got=epochs)
    return [
        _Stage("unary", network, epochs[0]),
        _Stage(objective, structured, epochs[1]),
        _Stage(objective, network + structured, epochs[2]),
    ]


def _with_rates(optimizer: Optimizer, model: StructuredModel[Any], rates: Mapping[str, float] | None) -> Optimizer:
    if not rates:
        return optimizer
    multipliers = dict(optimizer.multipliers)
    for component, factor in rates.items():
        check_choice("rates", component, ("network", "pairwise", *_SCALES))
        names = [NETWORK + n for n in model.network.params] if component == "network" else [component]
        multipliers |= {name: factor * optimizer.multipliers.get(name, 1.0) for name in names}
    return replace(optimizer, multipliers=multipliers)


class _Run:
    """One training run: parameters, optimiser, order of the data and records, between epochs."""

    def __init__(
        self,
        model: Any,
        data: Any,
        *,
        stages: list[_Stage],
        scaling: OnlineScaling | OfflineScaling | None,
        batch_size: int,
        optimizer: Optimizer,
        schedule: Schedule | None,
        stage_unary_norm: float | None,
        validation: Any,
        metric: Metric | None,
        rng: np.random.Generator,
    ) -> None:
        self.data, self.stages, self.scaling, self.batch_size = data, stages, scaling, batch_size
        self.optimizer, self.schedule, self.stage_unary_norm = optimizer, schedule, stage_unary_norm
        self.validation, self.metric = validation, metric
        self.subset_seed = int(rng.integers(2**62))
        self.rng = rng
        if isinstance(scaling, OfflineScaling) and scaling.multiplier is not None:
            model = replace(model, pairwise_scale=scaling.multiplier)
        self.template = model
        self.params: dict[str, Floats] = model.parameters()
        self.parametrisation = Parametrisation(scaling)
        self.subset = self._draw_subset()
        self.parametrisation.observe(model.unary_scale * model.unary(self.subset))
        self.folded = 1.0
        self.steps = 0
        self.epoch = 0
        self.records: list[dict[str, Any]] = []
        self.state = self._fresh_state(self._stage()[1])
        self.last = self.best = self.snapshot()
        self.best_epoch, self.best_score = -1, -np.inf

    def _draw_subset(self) -> Any:
        size = self.scaling.subset if isinstance(self.scaling, OnlineScaling) else 500
        return fixed_subset(self.data, size, self.subset_seed)

    def _stage(self) -> tuple[int, _Stage, bool]:
        """The present stage, and whether this is its first epoch."""
        start = 0
        for i, stage in enumerate(self.stages):
            if self.epoch < start + stage.epochs:
                return i, stage, self.epoch == start
            start += stage.epochs
        return len(self.stages) - 1, self.stages[-1], False

    def _fresh_state(self, stage: _Stage) -> OptimizerState:
        # Moments of one stage's objective mean nothing to the next, and Adam's corrections count from its own start.
        return self.optimizer.init({name: self.params[name] for name in stage.names})

    def model(self) -> Any:
        """The model at the present parameters, sharing the network's arrays."""
        return self.parametrisation.apply(self.template.with_parameters(self.params))

    def snapshot(self) -> Any:
        """The model at a copy of the present parameters."""
        return self.parametrisation.apply(
            self.template.with_parameters({name: value.copy() for name, value in self.params.items()})
        )

    def advance(self) -> bool:
        """One epoch; False if something overflowed (the parameters are then worthless, the records whole)."""
        number, stage, first = self._stage()
        online = self.scaling if isinstance(self.scaling, OnlineScaling) and "pairwise" in stage.names else None
        if first:
            if number == 1 and self.stage_unary_norm is not None:
                model = self.model()
                n_u = component_norms(model.unary_scale * model.unary(self.subset), np.zeros((1, 1)))[0]
                fold(self.params, output_names(self.template), self.stage_unary_norm / n_u)
            self.state = self._fresh_state(stage)
        if first and online is not None:
            unary = self.model().unary(self.subset)
            if number == 0:
                self._even_out(stage, unary, online.least_ratio)
                self._rescale(stage, unary, -WIDEST, 0.0)
            else:
                self._rescale(stage, unary, -WIDEST, WIDEST)
        total = 0.0
        # A frozen network's output is computed once for the epoch, not once per batch and pass.
        known = None if stage.trains_network else self.model().unary(self.data)
        order = self.rng.permutation(len(self.data))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            loss = self._step(stage, chosen, known)
            if not np.isfinite(loss):
                return False
            total += loss * len(chosen)
        epochs_of_stage = self.epoch - sum(s.epochs for s in self.stages[:number]) + 1
        unary = self.model().unary(self.subset)  # scaling changes W alone
        if online is not None and epochs_of_stage % online.period == 0:
            self._rescale(stage, unary, online.low, online.high, online.least_ratio if number == 0 else None)
        return self._close_epoch(number, total / len(order), unary)

    def _step(self, stage: _Stage, chosen: NDArray[np.intp], known: Floats | None) -> float:
        batch = self.data.subset(chosen)
        unary = None if known is None else known[self.data.rows(chosen)]
        loss, grads, unary = self.model().pass_through(batch, stage.objective, unary)
        named = grads.to_dict()
        named["pairwise"] = self.parametrisation.pull_back(named["pairwise"])
        if not np.isfinite(loss):
            return np.nan
        rate = self.optimizer.step_size * (1.0 if self.schedule is None else self.schedule(self.steps))
        trained = {name: np.asarray(named[name], dtype=self.params[name].dtype) for name in stage.names}
        self.optimizer.update(self.params, trained, self.state, rate)
        self.parametrisation.observe(float(self.params["unary_scale"]) * unary)
        self.steps += 1
        # The model refuses such a matrix; the network's arrays show in the next loss.
        return loss if np.isfinite(self.params["pairwise"]).all() else np.nan

    def _even_out(self, stage: _Stage, unary: Floats, ratio: float) -> None:
        """Give W the norm n_W = n_U / ratio, before training.

        With ``pairwise_scale`` folded, what follows is the same to the last bit whatever the multiplier was.
        """
        model = self.model()
        n_u, n_w = component_norms(model.unary_scale * unary, model.pairwise)
        if not (n_u > 0 and n_w > 0 and model.pairwise_scale != 0):
            return
        if "pairwise_scale" in stage.names:
            self._fold(n_u / n_w / ratio / abs(model.pairwise_scale))
        else:
            self.params["pairwise_scale"][...] = 1.0
            self._fold(n_u / n_w / ratio * np.sign(model.pairwise_scale))

    def _rescale(self, stage: _Stage, unary: Floats, low: float, high: float, least_ratio: float | None = None) -> None:
        model = self.model()
        if least_ratio is not None:
            n_u, n_w = component_norms(model.unary_scale * unary, model.pairwise_scale * model.pairwise)
            room = np.log2(n_u / n_w / least_ratio) if n_u > 0 and n_w > 0 else 0.0
            if room < 0:
                self._fold(2.0**room)
                model = self.model()
            high = min(high, max(room, 0.0))
        factor = best_pairwise_factor(model, self.subset, stage.objective, unary=unary, low=low, high=high).factor
        if "pairwise_scale" not in stage.names and model.pairwise_scale != 0:
            # The whole scale goes into W: what multiplies W also multiplies its steps (`effective_step_size`).
            factor *= model.pairwise_scale
            self.params["pairwise_scale"][...] = 1.0
        self._fold(factor)

    def _fold(self, factor: float) -> None:
        fold(self.params, ("pairwise",), factor, self.optimizer, self.state)
        self.folded *= factor

    def _close_epoch(self, number: int, loss: float, unary: Floats) -> bool:
        model = self.snapshot()
        n_u, n_w = component_norms(model.unary_scale * unary, model.pairwise_scale * model.pairwise)
        if not (np.isfinite(n_u) and np.isfinite(n_w)):
            return False
        score = np.nan
        if self.validation is not None:
            score = float(
                model.accuracy(self.validation) if self.metric is None else self.metric(model, self.validation)
            )
        self.records.append(
            {
                "loss": loss,
                "validation_score": score,
                "unary_scale": model.unary_scale,
                "pairwise_scale": model.pairwise_scale * self.folded,
                "unary_norm": n_u,
                "pairwise_norm": n_w,
                "ratio": n_u / n_w if n_w > 0 else np.inf,
                "stage": number,
            }
        )
        self.last = model
        if score > self.best_score:
            self.best, self.best_score, self.best_epoch = model, score, self.epoch
        self.epoch += 1
        return True

    def history(self) -> np.recarray[Any, Any]:
        """The records as a read-only record array."""
        rows = [tuple(record[name] for name, _ in HISTORY) for record in self.records]
        return freeze(np.array(rows, dtype=HISTORY)).view(np.recarray)

    # --- checkpoints ---

    def _configuration(self) -> dict[str, Any]:
        return {
            "stages": [[s.objective, list(s.names), s.epochs] for s in self.stages],
            "scaling": repr(self.scaling),
            "optimizer": repr(self.optimizer),
            "batch_size": self.batch_size,
            "stage_unary_norm": self.stage_unary_norm,
            "sequences": len(self.data),
        }

    def save(self, path: PathLike) -> None:
        """Everything that the next epoch depends on."""
        meta = {
            "configuration": self._configuration(),
            "epoch": self.epoch,
            "steps": self.steps,
            "folded": self.folded,
            "unary_norm": self.parametrisation.unary_norm,
            "subset_seed": self.subset_seed,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "records": self.records,
            "rng": to_plain(self.rng.bit_generator.state),
        }
        arrays = {f"params.{name}": value for name, value in self.params.items()}
        arrays |= {f"best.{name}": value for name, value in self.best.parameters().items()}
        write_npz(path, meta=np.array(json.dumps(meta)), **arrays, **state_arrays(self.state))

    def load(self, path: PathLike) -> None:
        """Take up the state that `save` wrote for the same configuration."""
        try:
            self._take_up(path, json.loads(str(read_npz(path, ("meta",))["meta"])))
        except AttnembedError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise DataFileError(path, "is not a training checkpoint") from error

    def _take_up(self, path: PathLike, meta: dict[str, Any]) -> None:
        configuration, mine = meta["configuration"], self._configuration()
        different = [key for key in mine if configuration.get(key) != mine[key]]
        if different:
            got = f"one with other values of {', '.join(different)}"
            raise InputError("checkpoint", "must come from the same training", got=got)
        epoch, steps = (check_integer(name, meta[name], minimum=0) for name in ("epoch", "steps"))
        self.epoch = max(epoch - 1, 0)
        self.state = self._fresh_state(self._stage()[1])
        names = [f"{kind}.{name}" for kind in ("params", "best") for name in self.params]
        arrays = read_npz(path, (*names, *state_arrays(self.state)))
        for name in names:
            found, value = arrays[name], self.params[name.partition(".")[2]]
            if found.shape != value.shape or found.dtype != value.dtype:
                raise InputError("checkpoint", f"must hold {name} of shape {value.shape}", got=f"shape {found.shape}")
        self.params = {name: arrays[f"params.{name}"] for name in self.params}
        self.state = state_from_arrays(arrays, self.state)
        self.epoch, self.steps, self.folded = epoch, steps, float(meta["folded"])
        self.parametrisation.unary_norm = float(meta["unary_norm"])
        self.subset_seed = check_integer("subset_seed", meta["subset_seed"], minimum=0)
        self.subset = self._draw_subset()
        self.best_epoch, self.best_score = check_integer("best_epoch", meta["best_epoch"]), float(meta["best_score"])
        self.records = meta["records"]
        if not len(self.history()) == epoch > self.best_epoch:
            raise ValueError("the records are of other epochs")
        kind = getattr(np.random, meta["rng"]["bit_generator"])  # that the run began with
        if not issubclass(kind, np.random.BitGenerator):
            raise TypeError("not a kind of generator")
        bits = kind()
        bits.state = meta["rng"]
        self.rng = np.random.Generator(bits)
        self.best = self.template.with_parameters({name: arrays[f"best.{name}"] for name in self.params})
        self.last = self.snapshot()


# --- comparisons ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Arm:
    """One arm of a comparison: test scores (seeds,) at the step size with the best mean validation score."""

    name: str
    step_size: float
    validation_score: float
    test_scores: Floats
    results: tuple[StructuredResult[Any], ...]

    @property
    def mean(self) -> float:
        """Mean test score over the seeds."""
        return float(self.test_scores.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; NaN for one seed."""
        n = len(self.test_scores)
        return float(self.test_scores.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan


@dataclass(frozen=True, eq=False)
class Comparison:
    """The arms of a comparison and the budget that all of them had."""

    arms: tuple[Arm, ...]
    n_epochs: int
    step_sizes: tuple[float, ...]
    seeds: tuple[int, ...]

    def __getitem__(self, name: str) -> Arm:
        found = {arm.name: arm for arm in self.arms}
        return found[check_choice("name", name, found)]

    def __str__(self) -> str:
        width = max(len(arm.name) for arm in self.arms)
        lines = [f"{'arm':<{width}}  {'test':>7}  {'+-':>6}  {'step size':>9}"]
        lines += [
            f"{arm.name:<{width}}  {arm.mean:>7.4f}  {arm.standard_error:>6.4f}  {arm.step_size:>9.2g}"
            for arm in self.arms
        ]
        runs = len(self.step_sizes) * len(self.seeds)
        return "\n".join([*lines, f"{self.n_epochs} epochs, {runs} runs per arm"])


def compare_arms(
    arms: Mapping[str, Mapping[str, Any]],
    make_model: Callable[[np.random.Generator], Model],
    data: Any,
    validation: Any,
    test: Any,
    *,
    n_epochs: int,
    step_sizes: Sequence[float] = (1e-3,),
    seeds: Sequence[int] = (0,),
    batch_size: int = 20,
    optimizer: Optimizer | None = None,
    metric: Metric | None = None,
) -> Comparison:
    """Train every arm with the same budget: epochs, step sizes, seeds, batches, initial models, selection rule.

    Parameters
    ----------
    arms : options of `train_structured` by name; the budget itself cannot be an option of one arm. An arm may have
        "prepare", a function that changes the initial model (for a multiplier, say)
    make_model : the initial model from a generator; the same for all arms with one seed
    data, validation, test : training data; data for selecting epoch and step size; data for the reported score
    step_sizes : tried for every arm; the one with the best validation score, averaged over seeds, is reported

    Raises
    ------
    InputError
        if an arm names an option that belongs to the budget.

    >>> from attnembed.structured.data import make_chain_dataset
    >>> from attnembed.structured.model import ChainCRF
    >>> from attnembed.structured.networks import mlp
    >>> data = make_chain_dataset(30, 4, 3, 5, rng=0)
    >>> make = lambda rng: ChainCRF(mlp(5, (4,), 3, rng=rng), rng.normal(size=(3, 3)))
    >>> table = compare_arms({"joint": {}, "stage": {"strategy": "stage"}}, make, data, data, data, n_epochs=3)
    >>> 0 <= table["joint"].mean <= 1
    True
    """
    budget = {
        "n_epochs": check_integer("n_epochs", n_epochs, minimum=1),
        "batch_size": batch_size,
        "validation": validation,
        "metric": metric,
    }
    reserved = {*budget, "optimizer", "rng", "patience", "checkpoint", "resume"}
    for name, options in arms.items():
        taken = sorted(reserved & set(options))
        if taken:
            raise InputError("arms", "must leave the budget alone", got=f"{', '.join(taken)} in {name!r}")
    for argument, value in (("arms", arms), ("step_sizes", step_sizes), ("seeds", seeds)):
        if len(value) == 0:
            raise InputError(argument, "must not be empty", hint="give at least one")
    base = Adam(step_size=1e-3) if optimizer is None else optimizer
    out = []
    for name, options in arms.items():
        rest = {key: value for key, value in options.items() if key != "prepare"}
        prepare = options.get("prepare", lambda model: model)
        tried = []
        for step_size in step_sizes:
            results = tuple(
                train_structured(
                    prepare(make_model(np.random.default_rng([seed, 0]))),
                    data,
                    optimizer=replace(base, step_size=step_size),
                    rng=np.random.default_rng([seed, 1]),
                    **budget,
                    **rest,
                )
                for seed in seeds
            )
            selected = float(np.mean([np.max(r.history.validation_score, initial=-np.inf) for r in results]))
            tried.append((selected, step_size, results))
        selected, step_size, results = max(tried, key=lambda entry: entry[0])
        scores = [r.model.accuracy(test) if metric is None else metric(r.model, test) for r in results]
        out.append(Arm(name, step_size, selected, freeze(np.array(scores)), results))
    return Comparison(tuple(out), n_epochs, tuple(step_sizes), tuple(seeds))
