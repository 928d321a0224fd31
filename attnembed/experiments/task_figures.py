"""Figures of the comparison on real data: the arms, their training, the sweep over c and examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attnembed.experiments.arms import ARMS, Row, row_of, task_data
from attnembed.experiments.chunks import test_words
from attnembed.experiments.plan import MULTIPLIERS, Study
from attnembed.experiments.tasks import example_rows
from attnembed.experiments.verdicts import Entries

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

__all__ = [
    "draw_arms",
    "draw_masks",
    "draw_populations",
    "draw_sweep",
    "draw_sweep_populations",
    "draw_tags",
    "draw_training",
    "draw_words",
]


def _index(arm: str) -> int:
    """The colour of an arm, the same in all figures ("unary" has none)."""
    return list(ARMS).index(arm) - 1


def draw_arms(study: Study, entries: Entries, label: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_arms

        figure, axes = new_figure(1, 1, panel=(7.0, 4.4))
        arms = ("stage", *study.joint)
        groups = [name.replace("pseudo", "pseudo-\n") for name in study.objectives]
        means, errors = (
            [[100 * entries[Row(arm, name)].summary()[part] for name in study.objectives] for arm in arms]
            for part in ("mean", "standard_error")
        )
        alone = 100 * entries[Row("unary", "unary")].summary()["mean"]
        axes[0, 0].axhline(alone, color="black", linewidth=1, linestyle=":", label=ARMS["unary"].title)
        plot_arms(axes[0, 0], groups, [ARMS[arm].title for arm in arms], means, errors, ylabel=label)
        splits = len(set(entries[Row("unary", "unary")].splits))
        bars = f"mean of {splits} splits, bars: one standard error" if splits > 1 else "one split"
        axes[0, 0].set_title(bars, fontsize=11)
        return figure

    return draw


def draw_populations(study: Study, entries: Mapping[str, Entries], label: str) -> Callable[[], Figure]:
    """The arms by objective, a panel for each population on one scale."""

    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_arms

        figure, axes = new_figure(1, len(entries), panel=(5.4, 4.4))
        arms = ("stage", *study.joint)
        groups = [name.replace("pseudo", "pseudo-\n") for name in study.objectives]
        for ax, (population, found) in zip(axes[0], entries.items()):
            means, errors = (
                [[100 * found[Row(arm, name)].summary()[part] for name in study.objectives] for arm in arms]
                for part in ("mean", "standard_error")
            )
            alone = 100 * found[Row("unary", "unary")].summary()["mean"]
            ax.axhline(alone, color="black", linewidth=1, linestyle=":", label=ARMS["unary"].title)
            plot_arms(ax, groups, [ARMS[arm].title for arm in arms], means, errors, ylabel=label)
            ax.get_legend().remove()
            splits = len(set(found[Row("unary", "unary")].splits))
            bars = f", mean of {splits} splits, bars: one standard error" if splits > 1 else ""
            ax.set_title(f"{population} words{bars}", fontsize=11)
        low, high = (f(ax.get_ylim()[k] for ax in axes[0]) for k, f in enumerate((min, max)))
        for ax in axes[0]:
            ax.set_ylim(low, high)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
        return figure

    return draw


def draw_sweep_populations(scores: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> Callable[[], Figure]:
    """Scores over c by population and "OBJECTIVE.ARM": a panel for each objective, a dash for each population."""

    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_line

        rows = [key.split(".") for key in next(iter(scores.values()))]
        objectives = list(dict.fromkeys(objective for objective, _ in rows))
        figure, axes = new_figure(1, len(objectives), panel=(6.4 if len(objectives) == 1 else 5.0, 4.2))
        for ax, objective in zip(axes[0], objectives):
            for (population, found), dash, marker in zip(scores.items(), ("-", "--"), "os"):
                for arm in (arm for name, arm in rows if name == objective):
                    points = 100 * np.array(found[f"{objective}.{arm}"])
                    name = f"{ARMS[arm].title}, {population} words"
                    plot_line(ax, MULTIPLIERS, points, name, index=_index(arm), linestyle=dash, marker=marker)
            ax.set(xscale="log", xlabel="multiplier c of the pairwise part", ylabel=label, title=objective)
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=9, handlelength=3.5)
        return figure

    return draw


def draw_training(study: Study, entries: Entries, label: str) -> Callable[[], Figure]:
    """The ratio of the component norms and the validation score per epoch in the first repetition."""
    objective = study.objectives[0]

    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_line

        figure, axes = new_figure(1, 2, panel=(5.2, 4.2))
        for arm in study.joint:
            index = _index(arm)
            history = entries[Row(arm, objective)].records[0]["history"]
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
        axes[0, 1].set(xlabel="epoch", ylabel=f"{label}, validation", title="one run per arm, the first split")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
        return figure

    return draw


def draw_sweep(scores: Mapping[Row, Sequence[float]], label: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_line

        objectives = list(dict.fromkeys(objective for _, objective in scores))
        figure, axes = new_figure(1, len(objectives), panel=(4.6, 3.9))
        for ax, objective in zip(axes[0], objectives):
            for arm in dict.fromkeys(arm for arm, _ in scores):
                index = _index(arm)
                points = 100 * np.array(scores[Row(arm, objective)])
                plot_line(ax, MULTIPLIERS, points, ARMS[arm].title, index=index, marker="o")
            ax.set(xscale="log", xlabel="multiplier c of the pairwise part (log)", ylabel=label)
            ax.set_title(f"{objective}, one run per point", fontsize=11)
        axes[0, 0].legend(fontsize=9)
        return figure

    return draw


SHOWN_ARMS = ("unary", "stage", "joint", "online")


def _shown(entries: Entries, objective: str) -> Iterator[tuple[str, list[Any]]]:
    for arm in SHOWN_ARMS:
        entry = entries[row_of(arm, objective)]
        yield ARMS[arm].title.removeprefix("joint, "), entry.records[0]["examples"]


def draw_words(study: Study, entries: Entries, path: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        from attnembed.plotting import new_figure, plot_word

        shown = list(_shown(entries, study.objectives[0]))
        test = task_data(study.task, path, 0).test
        test = test.subset(example_rows(test))
        words, labels = test.split(test.inputs), test.split(test.labels)
        figure, axes = new_figure(len(words), 1, panel=(8.0, 2.1))
        for i, ax in enumerate(axes[:, 0]):
            images = words[i].reshape(-1, 16, 8)
            plot_word(ax, images, labels[i], [(title, found[i]) for title, found in shown])
        return figure

    return draw


_SHOWN_WORDS = 14


def draw_tags(study: Study, entries: Entries, path: str) -> Callable[[], Figure]:
    """The part of an example sentence in which the arms make most errors."""

    def draw() -> Figure:
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
        figure, axes = new_figure(1, 1, panel=(7.0, 5.2))
        tags = [(title, [data.names[label] for label in labels[piece]]) for title, labels in rows]
        plot_tags(axes[0, 0], test_words(path)[sentences[k]][piece], tags)
        axes[0, 0].set_title(f"one sentence of the test, {study.objectives[0]}, errors in bold")
        return figure

    return draw


def draw_masks(study: Study, entries: Entries, path: str) -> Callable[[], Figure]:
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
