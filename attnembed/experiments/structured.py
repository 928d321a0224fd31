"""The experiments of [SO19] on real data: the arms of `tasks` compared, the sweep over the relative scale, verdicts.

Every run is kept in OUT/NAME-runs.jsonl as soon as it is done; started again, an experiment computes what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attnembed._validation import check_integer
from attnembed.errors import RunFailedError
from attnembed.experiments.registry import Outcome, Request, experiment, is_number, require_data
from attnembed.experiments.tasks import ARMS, TASKS, example_rows, run, selecting, task_data
from attnembed.results import Status
from attnembed.structured.compare import standard_error
from attnembed.sweeping import sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

__all__ = ["Entry", "ScaleSweep", "Study", "Verdict", "compute", "markdown", "verdict"]

JOINT = tuple(name for name in ARMS if name not in ("unary", "stage"))
SCALED = ("offline", "online")
_STAGED = ("unary", "stage")
MULTIPLIERS = (0.01, 0.1, 1.0, 10.0, 100.0)
FEWEST_SPLITS = 3  # of which a verdict can be given

Cell = dict[str, Any]
Records = dict[tuple[Any, ...], dict[str, Any]]  # what `tasks.run` gave, by objective, for the values of a cell
Entries = Mapping[tuple[str, str], "Entry"]  # by (arm, objective); the network alone is ("unary", "unary")


@dataclass(frozen=True)
class Study:
    """One table: every arm with every objective, repeated over splits and seeds, on equal budgets.

    Each arm with each objective takes the step size that is best on the validation data of the first repetition.
    """

    task: str
    repetitions: tuple[tuple[int, int], ...]  # (split, seed)
    step_sizes: tuple[float, ...]
    epochs: int
    objectives: tuple[str, ...]
    joint: tuple[str, ...] = JOINT

    def cell(
        self, path: str, split: int, seed: int, step_size: float, arm: str, objective: str, multiplier: float = 1.0
    ) -> Cell:
        """The arguments of `tasks.run`."""
        return {
            "task": self.task,
            "path": path,
            "split": split,
            "seed": seed,
            "arm": arm,
            "objective": objective,
            "step_size": step_size,
            "multiplier": multiplier,
            "epochs": self.epochs,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Rows of the table, as (arm, objective)."""
        return [("unary", "unary"), *((arm, name) for arm in ("stage", *self.joint) for name in self.objectives)]

    def _cells(self, path: str, pair: tuple[int, int], size: float, rows: Sequence[tuple[str, str]]) -> list[Cell]:
        """The run that each of ``rows`` comes from; one training by stages serves all its objectives, and the network.

        One cell per row, some of them the same.
        """
        staged = " ".join(name for arm, name in rows if arm in _STAGED)
        runs = [("stage", staged) if row[0] in _STAGED else row for row in rows]
        return [self.cell(path, *pair, size, *trained) for trained in runs]

    def tuning(self, path: str) -> list[Cell]:
        """The first repetition, at every step size."""
        return [cell for size in self.step_sizes for cell in self._cells(path, self.repetitions[0], size, self.rows())]

    def chosen(self, path: str, records: Records) -> dict[tuple[str, str], float]:
        """The step size of every row, from the records of `tuning`."""
        rows, found = self.rows(), {}
        for size in self.step_sizes:
            for row, cell in zip(rows, self._cells(path, self.repetitions[0], size, rows)):
                found[row, size] = selecting(records[_key(cell)][row[1]]["validation"])
        return {row: max(self.step_sizes, key=lambda size: found[row, size]) for row in rows}

    def _at_chosen(self, path: str, records: Records) -> dict[tuple[str, str], list[Cell]]:
        """For every row the runs of all repetitions at its step size."""
        chosen = self.chosen(path, records)
        out: dict[tuple[str, str], list[Cell]] = {row: [] for row in self.rows()}
        for pair in self.repetitions:
            for size in self.step_sizes:
                mine = [row for row in self.rows() if chosen[row] == size]
                every = self.rows() if pair == self.repetitions[0] else mine  # `tuning` ran them all together
                for row, cell in zip(every, self._cells(path, pair, size, every)):
                    if row in mine:
                        out[row].append(cell)
        return out

    def others(self, path: str, records: Records) -> list[Cell]:
        """The other repetitions, each run at the step sizes chosen for its rows."""
        cells = self._at_chosen(path, records).values()
        return [cell for repetition in list(zip(*cells))[1:] for cell in repetition]

    def entries(self, path: str, records: Records) -> dict[tuple[str, str], Entry]:
        """The table, from the records of `tuning` and `others`."""
        splits = tuple(split for split, _ in self.repetitions)
        return {
            row: Entry(cells[0]["step_size"], tuple(records[_key(cell)][row[1]] for cell in cells), splits)
            for row, cells in self._at_chosen(path, records).items()
        }


@dataclass(frozen=True)
class Entry:
    """The runs of one arm with one objective, at its step size; one record per repetition, as `tasks.run` gives it."""

    step_size: float
    records: tuple[Mapping[str, Any], ...]
    splits: tuple[int, ...]

    def scores(self, part: str = "test", name: str | None = None) -> np.ndarray:
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

    def cells(self, path: str) -> dict[tuple[str, str], list[Cell]]:
        """One run for each of `MULTIPLIERS`, by (arm, objective)."""
        study = Study(self.task, ((0, 0),), (self.step_size,), self.epochs, self.objectives, self.arms)
        return {
            (arm, name): [study.cell(path, 0, 0, self.step_size, arm, name, c) for c in MULTIPLIERS]
            for arm in self.arms
            for name in self.objectives
        }

    def scores(self, path: str, records: Records) -> dict[tuple[str, str], list[float]]:
        """Test scores over `MULTIPLIERS` by (arm, objective)."""
        return {
            row: [selecting(records[_key(cell)][row[1]]["test"]) for cell in cells]
            for row, cells in self.cells(path).items()
        }


def compute(request: Request, name: str, path: str, studies: Iterable[Study], scale: ScaleSweep) -> Records:
    """Every run that the studies and the sweep need: those that the store does not hold yet are made."""
    studies = tuple(studies)
    swept = [cell for cells in scale.cells(path).values() for cell in cells]
    records = _records(request, name, [*(cell for study in studies for cell in study.tuning(path)), *swept])
    return records | _records(request, name, [cell for study in studies for cell in study.others(path, records)])


def _key(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell.values())


def _records(request: Request, name: str, cells: Sequence[Cell]) -> Records:
    cells = list({_key(cell): cell for cell in cells}.values())
    if not cells:
        return {}
    store = request.out / f"{name}-runs.jsonl"
    result = sweep(run, cells, executor=request.executor, store=store, rng=request.seed)
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    if len(result.cells) < len(cells) or result.errors:
        reason = str(result.errors[0].error if result.errors else result.message)
        failed = (
            f"a run of {name}" if len(result.errors) < 2 else f"{len(result.errors)} of {len(cells)} runs of {name}"
        )
        raise RunFailedError(failed, reason, hint=f"see {store.name}; the same command goes on from there")
    return {_key(cell): value for cell, value in zip(result.cells, result.values)}


# --- verdicts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Whether scaling brings joint training to the level of training by stages.

    Differences are taken within each split, in points (hundredths). ``answer``: "yes" if the mean of scaled minus
    staged is above minus one standard error; "no" if it is below minus two; "not decidable" between. It is "no verdict"
    where none can be given, for the ``reason``: a quick run, or fewer than `FEWEST_SPLITS` splits. ``naive`` is the
    mean of plain joint minus staged training.
    """

    answer: str
    arm: str
    difference: float
    standard_error: float
    naive: float
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.answer}: {self.reason}"
        return (
            f"{self.answer}: {ARMS[self.arm].title} is {self.difference:+.2f} +- {self.standard_error:.2f} points from "
            f"stages, plain joint {self.naive:+.2f}"
        )


def verdict(entries: Entries, objective: str, *, quick: bool = False) -> Verdict:
    """The verdict on the scaled arm that is better on validation data."""
    arm = max(SCALED, key=lambda name: entries[name, objective].scores("validation").mean())
    staged = entries["stage", objective].scores()
    difference = 100 * (entries[arm, objective].scores() - staged)
    naive = float(100 * (entries["joint", objective].scores() - staged).mean())
    n, mean = difference.size, float(difference.mean())
    error = standard_error(difference)
    reason = "quick run" if quick else f"{_counted(n)}, fewer than {FEWEST_SPLITS}" if n < FEWEST_SPLITS else ""
    if reason:
        answer = "no verdict"
    elif mean >= -error:
        answer = "yes"
    else:
        answer = "no" if mean < -2 * error else "not decidable"
    return Verdict(answer, arm, mean, error, naive, reason)


def _counted(n: int) -> str:
    return "one repetition" if n == 1 else f"{n} repetitions"


# --- tables -----------------------------------------------------------------------------------------------------


def markdown(title: str, study: Study, entries: Entries, *, quick: bool = False) -> str:
    """Mean +- standard error in points, one row per arm, one column per objective and score; no +- for a single run."""
    names = list(entries["unary", "unary"].records[0]["test"])
    columns = [(objective, name) for objective in study.objectives for name in names]
    rows = [
        f"**{title}{', quick run' if quick else ''}**: {_repeated(study)}, {study.epochs} epochs, step sizes "
        f"{', '.join(f'{size:g}' for size in study.step_sizes)}",
        "",
        "| arm | " + " | ".join(f"{objective}, {name}" for objective, name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for arm in ("unary", "stage", *study.joint):
        shown = [
            _points(entries[arm, "unary" if arm == "unary" else objective].summary(name)) for objective, name in columns
        ]
        rows.append(f"| {ARMS[arm].title} | " + " | ".join(shown) + " |")
    if all(name in study.joint for name in SCALED):
        rows.append("")
        rows += [f"- {objective}: {verdict(entries, objective, quick=quick)}" for objective in study.objectives]
    return "\n".join(rows) + "\n"


def _repeated(study: Study) -> str:
    n, splits = len(study.repetitions), len({split for split, _ in study.repetitions})
    return _counted(n) + (f" (means over the seeds of {splits} splits)" if splits < n else "")


def _points(summary: Mapping[str, float]) -> str:
    error = summary["standard_error"]
    return f"{100 * summary['mean']:.2f}" + (f" +- {100 * error:.2f}" if is_number(error) else "")


def _plain(summary: Mapping[str, float]) -> dict[str, float | None]:
    """A summary for JSON, without the standard error where there is none."""
    return {name: value if is_number(value) else None for name, value in summary.items()}


def _numbers(study: Study, entries: Entries, *, quick: bool) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for (arm, objective), entry in entries.items():
        name = "unary" if arm == "unary" else f"{objective}.{arm}"
        out[name] = {score: _plain(entry.summary(score)) for score in entry.records[0]["test"]}
        out[name]["step_size"] = entry.step_size
        out[name]["test_scores"] = entry.scores().tolist()
    if all(name in study.joint for name in SCALED):
        out["verdict"] = {objective: str(verdict(entries, objective, quick=quick)) for objective in study.objectives}
    return out


def _sweep_text(scores: Mapping[tuple[str, str], Sequence[float]], title: str, *, quick: bool = False) -> str:
    rows = [f"**{title}{', quick run' if quick else ''}**: test score in points against c, one repetition", ""]
    rows.append("| objective, arm | " + " | ".join(f"c = {c:g}" for c in MULTIPLIERS) + " | spread |")
    rows.append("|---" * (len(MULTIPLIERS) + 2) + "|")
    for (arm, objective), values in scores.items():
        points = " | ".join(f"{100 * value:.2f}" for value in values)
        rows.append(f"| {objective}, {ARMS[arm].title} | {points} | {100 * np.ptp(values):.2f} |")
    return "\n".join(rows) + "\n"


# --- figures ----------------------------------------------------------------------------------------------------


def _index(arm: str) -> int:
    """The colour of an arm, the same in all figures ("unary" has none)."""
    return list(ARMS).index(arm) - 1


def _draw_arms(study: Study, entries: Entries, label: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_arms

        figure, axes = new_figure(1, 1, panel=(7.0, 4.4))
        arms = ("stage", *study.joint)
        groups = [name.replace("pseudo", "pseudo-\n") for name in study.objectives]
        means, errors = (
            [[100 * entries[arm, name].summary()[part] for name in study.objectives] for arm in arms]
            for part in ("mean", "standard_error")
        )
        alone = 100 * entries["unary", "unary"].summary()["mean"]
        axes[0, 0].axhline(alone, color="black", linewidth=1, linestyle=":", label=ARMS["unary"].title)
        plot_arms(axes[0, 0], groups, [ARMS[arm].title for arm in arms], means, errors, ylabel=label)
        splits = len(set(entries["unary", "unary"].splits))
        bars = f"mean of {splits} splits, bars: one standard error" if splits > 1 else "one split"
        axes[0, 0].set_title(bars, fontsize=11)
        return figure

    return draw


def _draw_training(study: Study, entries: Entries, label: str) -> Callable[[], Figure]:
    """The ratio of the component norms and the validation score, epoch by epoch, of the first repetition."""
    objective = study.objectives[0]

    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_line

        figure, axes = new_figure(1, 2, panel=(5.2, 4.2))
        for arm in study.joint:
            index = _index(arm)
            history = entries[arm, objective].records[0]["history"]
            epochs = np.arange(1, len(history["loss"]) + 1)
            ratio = np.array([float(value) for value in history["ratio"]])
            plot_line(axes[0, 0], epochs, ratio, ARMS[arm].title, index=index)
            plot_line(axes[0, 1], epochs, 100 * np.array(history["validation_score"]), index=index)
        axes[0, 0].set(xlabel="epoch", ylabel=r"ratio of norms $n_U / n_W$", yscale="log", title=objective)
        for set_formatter in (axes[0, 0].yaxis.set_major_formatter, axes[0, 0].yaxis.set_minor_formatter):
            set_formatter("{x:.3g}")
        axes[0, 0].yaxis.get_minor_locator().set_params(subs=(2, 5))
        for ax in axes[0]:
            ax.xaxis.get_major_locator().set_params(integer=True)
        axes[0, 1].set(xlabel="epoch", ylabel=f"{label}, validation")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
        return figure

    return draw


def _draw_sweep(scores: Mapping[tuple[str, str], Sequence[float]], label: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_line

        objectives = list(dict.fromkeys(objective for _, objective in scores))
        figure, axes = new_figure(1, len(objectives), panel=(4.6, 3.9))
        for ax, objective in zip(axes[0], objectives):
            for arm in dict.fromkeys(arm for arm, _ in scores):
                index = _index(arm)
                plot_line(
                    ax, MULTIPLIERS, 100 * np.array(scores[arm, objective]), ARMS[arm].title, index=index, marker="o"
                )
            ax.set(xscale="log", xlabel="multiplier c of the pairwise part", ylabel=label, title=objective)
        axes[0, 0].legend(fontsize=9)
        return figure

    return draw


SHOWN_ARMS = ("unary", "stage", "joint", "online")


def _shown(entries: Entries, objective: str) -> Iterator[tuple[str, list[Any]]]:
    for arm in SHOWN_ARMS:
        entry = entries[arm, "unary" if arm == "unary" else objective]
        yield ARMS[arm].title.removeprefix("joint, "), entry.records[0]["examples"]


def _draw_words(study: Study, entries: Entries, path: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_word

        shown = list(_shown(entries, study.objectives[0]))
        test = task_data(study.task, path, 0).test
        test = test.subset(example_rows(test))
        words, labels = test.split(test.inputs), test.split(test.labels)
        figure, axes = new_figure(len(words), 1, panel=(9.0, 1.9))
        for i, ax in enumerate(axes[:, 0]):
            images = words[i].reshape(-1, 16, 8)
            plot_word(ax, images, labels[i], [(title, found[i]) for title, found in shown])
        return figure

    return draw


_SHOWN_WORDS = 14


def _draw_tags(study: Study, entries: Entries, path: str) -> Callable[[], Figure]:
    """The piece of an example sentence in which the arms make most errors."""

    def draw() -> Figure:
        from attnembed.experiments.tasks import test_words
        from attnembed.plotting import new_figure, plot_tags

        shown = list(_shown(entries, study.objectives[0]))
        data = task_data(study.task, path, 0)
        sentences = example_rows(data.test)
        truth = data.test.split(data.test.labels)
        pieces = []
        for k, sentence in enumerate(sentences):
            errors = sum((np.array(found[k]) != truth[sentence]).astype(int) for _, found in shown)
            starts = range(max(1, len(errors) - _SHOWN_WORDS + 1))
            pieces += [(int(np.sum(errors[start : start + _SHOWN_WORDS])), k, start) for start in starts]
        _, k, start = max(pieces)
        piece = slice(start, start + _SHOWN_WORDS)
        rows = [("true", truth[sentences[k]]), *((title, found[k]) for title, found in shown)]
        figure, axes = new_figure(1, 1, panel=(11.0, 3.0))
        tags = [(title, [data.names[label] for label in labels[piece]]) for title, labels in rows]
        plot_tags(axes[0, 0], test_words(path)[sentences[k]][piece], tags)
        return figure

    return draw


def _draw_masks(study: Study, entries: Entries, path: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_image

        shown = list(_shown(entries, study.objectives[0]))
        test = task_data(study.task, path, 0).test
        test = test.subset(example_rows(test))
        rows = [("image", test.images), ("true", test.labels)]
        figure, axes = new_figure(len(rows) + len(shown), len(test), panel=(1.7, 1.75))
        for row, (title, pictures) in zip(axes, [*rows, *((title, np.array(found)) for title, found in shown)]):
            for ax, picture in zip(row, pictures):
                plot_image(ax, picture)
            row[0].set_ylabel(title, fontsize=10)
        return figure

    return draw


# --- the experiments --------------------------------------------------------------------------------------------


def _repetitions(request: Request, most: int, default: int) -> int:
    n = default if request.repetitions is None else request.repetitions
    n = check_integer("repetitions", n, minimum=1)
    return min(n, most)


def _outcome(
    request: Request,
    name: str,
    studies: Mapping[str, Study],
    scale: ScaleSweep,
    label: str,
    draw_examples: Callable[[Study, Entries, str], Callable[[], Figure]],
) -> Outcome:
    """Run the studies and the sweep; the first study has the figures."""
    path = str(require_data(request, f"the data of {name!r}").resolve())
    TASKS[scale.task].load(path, 0)  # an unreadable file should not wait for the first run
    records = compute(request, name, path, studies.values(), scale)
    tables, numbers, found = [], {}, {}
    for title, study in studies.items():
        entries = found[title] = study.entries(path, records)
        tables.append(markdown(title, study, entries, quick=request.quick))
        numbers[title] = _numbers(study, entries, quick=request.quick)
    scores = scale.scores(path, records)
    tables.append(_sweep_text(scores, f"sweep over c, {scale.task}", quick=request.quick))
    numbers["sweep"] = {
        "multipliers": list(MULTIPLIERS),
        **{f"{objective}.{arm}": values for (arm, objective), values in scores.items()},
    }
    first = next(iter(studies))
    study, entries = studies[first], found[first]
    return Outcome(
        {"studies": {title: vars(study) for title, study in studies.items()}, "sweep": vars(scale)},
        numbers,
        {
            name: _draw_arms(study, entries, f"{label}, test"),
            f"{name}-training": _draw_training(study, entries, label),
            f"{name}-scale": _draw_sweep(scores, f"{label}, test"),
            f"{name}-examples": draw_examples(study, entries, path),
        },
        text="\n".join(tables),
    )


_OCR = (("ocr_letters.npz",), ("letter.data",), ("letter.data.gz",), ("letters.pickle",))
_CONLL = tuple(
    (f"{folder}train.txt{one}", f"{folder}test.txt{other}")
    for folder in ("", "conll2000/")
    for one in ("", ".gz")
    for other in ("", ".gz")
)
_HORSES = (("weizmann32.npz",), ("horse", "mask"), ("rgb", "figure_ground"))


@experiment("ocr", "stage, joint and scaled training of chains on handwritten words (--data)", long=True, files=_OCR)
def ocr(request: Request) -> Outcome:
    """Taskar's letters: the large split with a convolutional network over folds, the small one with an MLP."""
    n = _repetitions(request, 10, 2 if request.quick else 10)
    folds = tuple((split, 0) for split in range(n))
    if request.quick:
        studies = {
            "small training set": Study("ocr-small", folds, (0.003,), 4, ("nll", "ssvm")),
        }
        return _outcome(
            request, "ocr", studies, ScaleSweep("ocr-small", 0.003, 4, ("nll",)), "letters right (%)", _draw_words
        )
    objectives = TASKS["ocr-large"].objectives
    seeds = tuple((split, seed) for seed in range(3) for split in range(n))
    studies = {
        "large training set": Study("ocr-large", folds, (0.03, 0.04), 6, objectives),
        "small training set": Study("ocr-small", seeds, (0.01, 0.03), 12, objectives),
    }
    scale = ScaleSweep("ocr-large-mlp", 0.003, 10, ("nll", "ssvm"))
    return _outcome(request, "ocr", studies, scale, "letters right (%)", _draw_words)


@experiment("chunking", "stage, joint and scaled training of chains on CoNLL-2000 (--data)", long=True, files=_CONLL)
def chunking(request: Request) -> Outcome:
    """Features of a window of words, embedded and summed, one hidden layer, a chain."""
    n = _repetitions(request, 100, 1 if request.quick else 3)
    objectives = ("nll",) if request.quick else TASKS["chunking"].objectives
    epochs = 2 if request.quick else 6
    seeds = tuple((k, k) for k in range(n))
    study = Study("chunking", seeds, (0.003,) if request.quick else (0.003, 0.01), epochs, objectives)
    scale = ScaleSweep("chunking", 0.003, epochs, objectives[:2])
    return _outcome(request, "chunking", {"CoNLL-2000": study}, scale, "chunk F1 (%)", _draw_tags)


@experiment("segmentation", "stage, joint and scaled training of grids on horses (--data)", long=True, files=_HORSES)
def segmentation(request: Request) -> Outcome:
    """A small convolutional network of two scales and a 4-connected grid."""
    n = _repetitions(request, 100, 1 if request.quick else 5)
    objectives = ("pseudolikelihood",) if request.quick else TASKS["segmentation"].objectives
    epochs = 2 if request.quick else 12
    seeds = tuple((k, k) for k in range(n))
    study = Study("segmentation", seeds, (0.01,) if request.quick else (0.005, 0.01), epochs, objectives)
    scale = ScaleSweep("segmentation", 0.01, epochs, objectives[:1] if request.quick else ("mean_field", "ssvm"))
    return _outcome(request, "segmentation", {"horses": study}, scale, "foreground IoU (%)", _draw_masks)
