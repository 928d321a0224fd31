"""Figures that results draw of themselves (`.plot()`), on given axes or on new ones; the axes are returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from attnembed._notebook import CLOCK_LABELS
from attnembed.plotting import COLOURS, MUTED, new_figure, plot_heatmap, plot_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_arm_scores",
    "plot_bounds",
    "plot_flow",
    "plot_history",
    "plot_limits",
    "plot_lines",
    "plot_marginals",
    "plot_margins",
    "plot_means",
    "plot_path",
    "plot_radii",
    "plot_scales",
    "plot_shares",
]


def plot_arm_scores(
    names: Sequence[str], scores: Sequence[ArrayLike], errors: Sequence[float], *, ax: Axes | None = None
) -> Axes:
    """Draw the scores of every arm as dots, and their mean with one standard error (none for a single run)."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    n = max(np.size(found) for found in scores)
    for index, (found, error) in enumerate(zip(scores, errors)):
        values = np.asarray(found, dtype=float)
        if values.size > 1:
            axes.plot(np.full(values.size, index + 0.12), values, ".", color=MUTED, markersize=5)
        axes.errorbar(
            index, values.mean(), yerr=error if np.isfinite(error) else None, fmt="os^DvPX*h"[index % 9],
            color=COLOURS[index % len(COLOURS)], markersize=7, capsize=4, linewidth=1.5,
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set(xlim=(-0.6, len(names) - 0.4), xlabel="arm", ylabel="test score")
    axes.set_title(f"mean of {n} repetitions, bars: one standard error" if n > 1 else "single runs", fontsize=11)
    return axes


def plot_bounds(error: ArrayLike, bound: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw errors against their bounds, with the line that no point may cross; zeros are left out."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    x, y = np.asarray(bound, dtype=float), np.asarray(error, dtype=float)
    shown = (x > 0) & (y > 0)
    count = f"{np.count_nonzero(shown)} tokens"
    axes.plot(x[shown], y[shown], "o", color=COLOURS[0], markersize=4, alpha=0.7, label=count)
    if shown.any():
        ends = np.array([min(x[shown].min(), y[shown].min()), x[shown].max()])
        axes.plot(ends, ends, color=COLOURS[1], linestyle="--", label="error = bound")
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel="bound", ylabel="error")
    axes.legend()
    return axes


def plot_flow(
    clocked: ArrayLike, loss_gap: ArrayLike, missing: ArrayLike, *, clock: str, ax: Axes | None = None
) -> Axes:
    """Draw L - L* and 1 - attention on the top tokens against the clock, all (k,), on new axes if none are given."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    x = np.asarray(clocked, dtype=float)
    for index, (values, label) in enumerate(((loss_gap, r"$L - L^*$"), (missing, r"$1 - \min_i a_{is_i^*}$"))):
        y = np.asarray(values, dtype=float)
        shown = np.isfinite(x) & (y > 0)  # zeros up to rounding cannot be shown on a log axis
        plot_line(axes, x[shown], y[shown], label, index=index)
    axes.set_yscale("log")
    axes.set_xlabel(CLOCK_LABELS[clock])
    axes.legend()
    return axes


def plot_history(history: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the loss over the epochs and, on a second axis on the right, the validation score if there is one."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    plot_line(axes, history["epoch"], history["loss"], "training loss")
    axes.set(xlabel="epoch", ylabel="loss")
    score = np.asarray(history["validation_score"], dtype=float)
    lines = list(axes.lines)
    if np.isfinite(score).any():
        right = axes.twinx()
        plot_line(right, history["epoch"], score, "validation score", index=1)
        right.set_ylabel("validation score")
        right.grid(visible=False)
        lines += right.lines
    axes.legend(handles=lines)
    return axes


def plot_limits(names: Sequence[str], groups: Mapping[str, ArrayLike], *, xlabel: str, ax: Axes | None = None) -> Axes:
    """Draw shares of a limit on a log axis with a line at 1, a row per name and a mark per group.

    Shares outside 1e-18..1e6 are drawn at the ends, NaN nowhere. New axes, if none are given, grow with the rows.
    """
    axes: Axes = new_figure(panel=(7.0, 1.8 + 0.22 * len(names)))[1][0, 0] if ax is None else ax
    rows = np.arange(len(names))
    for index, (label, shares) in enumerate(groups.items()):
        known = np.clip(np.asarray(shares, dtype=float), 1e-18, 1e6)
        axes.plot(known, rows, "oDs^"[index % 4], color=COLOURS[index], markersize=5, label=label)
    axes.axvline(1.0, color=MUTED, linewidth=1.2, linestyle="--", label="limit")
    axes.set_yticks(rows, names, fontsize=9)
    axes.set(xscale="log", xlabel=xlabel, ylim=(len(names) - 0.4, -0.6))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(groups) + 1, fontsize=9)
    return axes


def plot_lines(
    x: ArrayLike, lines: Mapping[str, ArrayLike], *, ax: Axes | None = None, marker: str = "", **settings: Any
) -> Axes:
    """Draw named lines (k,) over x (k,) in order of x, on new axes if none are given; ``settings`` of the axes."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    places = np.asarray(x, dtype=float).ravel()
    order = np.argsort(places, kind="stable")
    for index, (label, values) in enumerate(lines.items()):
        plot_line(
            axes, places[order], np.asarray(values, dtype=float).ravel()[order], label, index=index, marker=marker
        )
    axes.set(**settings)
    axes.legend()
    return axes


def plot_marginals(node: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw P(y_i = k) as tiles, positions (L,) across and labels (K,) upwards."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    values = np.asarray(node, dtype=float)
    plot_heatmap(axes, np.arange(values.shape[0]), np.arange(values.shape[1]), values.T, label=r"$P(y_i = k)$")
    axes.set(xlabel="position $i$", ylabel="label $k$")
    return axes


def plot_margins(products: ArrayLike, dual: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw p.d_k of every row, in order of size, and mark the support, the rows with a multiplier above 0."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    values, held = np.asarray(products, dtype=float), np.asarray(dual, dtype=float) > 0
    order = np.argsort(values, kind="stable")
    places = np.arange(values.size)
    for chosen, label, marker, index in ((~held[order], "other rows", "o", 0), (held[order], "support", "D", 1)):
        axes.plot(places[chosen], values[order][chosen], marker, color=COLOURS[index], markersize=5, label=label)
    axes.axhline(1.0, color=MUTED, linewidth=1, linestyle="--")
    axes.set(xlabel="row, sorted by its product with $p$", ylabel=r"$p \cdot d_k$ (the margin is at 1)")
    axes.legend()
    return axes


def plot_means(
    x: ArrayLike,
    y: ArrayLike,
    groups: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean of y (k,) at each x (k,), a line for each group (k,), with bars of one standard error.

    The title tells how many values each mean is of; NaN are left out.
    """
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    places, values, names = np.asarray(x, dtype=float), np.asarray(y, dtype=float), np.asarray(groups)
    sizes = set()
    for index, name in enumerate(dict.fromkeys(groups)):
        chosen = (names == name) & np.isfinite(values)
        marks = np.unique(places[chosen])
        parts = [values[chosen & (places == mark)] for mark in marks]
        sizes |= {part.size for part in parts}
        plot_line(axes, marks, [part.mean() for part in parts], name, index=index, marker="o")
        if any(part.size > 1 for part in parts):
            bars = [part.std(ddof=1) / np.sqrt(part.size) if part.size > 1 else 0.0 for part in parts]
            axes.errorbar(marks, [part.mean() for part in parts], bars, fmt="none", color=COLOURS[index % 7], capsize=3)
    if max(sizes, default=0) > 1:
        count = f"{min(sizes)} to {max(sizes)}" if len(sizes) > 1 else f"{max(sizes)}"
        axes.set_title(f"means of {count}, bars: one standard error", fontsize=11)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if any(groups):
        axes.legend()
    return axes


def plot_path(clocked: ArrayLike, path: ArrayLike, *, clock: str, ax: Axes | None = None) -> Axes:
    """Draw the coordinates of p (k, d) against the clock (k,), on new axes if none are given."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    x, y = np.asarray(clocked, dtype=float), np.asarray(path, dtype=float)
    shown = np.isfinite(x)  # log t begins at -inf
    for k in range(y.shape[1]):
        plot_line(axes, x[shown], y[shown, k], f"$p_{{{k + 1}}}$" if y.shape[1] <= 7 else "", index=k)
    axes.set_xlabel(CLOCK_LABELS[clock])
    axes.set_ylabel(r"coordinates of $p$")
    if y.shape[1] <= 7:
        axes.legend()
    return axes


def plot_radii(radii: ArrayLike, loss_gap: ArrayLike, offset: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw L - L* of the minimisers in balls, and the norm of their offset, against the radius."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    plot_line(axes, radii, loss_gap, "$L - L^*$", marker="o")
    across = np.linalg.norm(np.asarray(offset, dtype=float), axis=1)
    plot_line(axes, radii, across, "norm of the offset", index=1, marker="s")
    axes.set(xlabel="radius $R$", yscale="log")
    axes.legend()
    return axes


def plot_scales(path: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw the iterates (k, 2) of a search for the unary and pairwise scale, from the start to the end."""
    axes: Axes = new_figure()[1][0, 0] if ax is None else ax
    points = np.asarray(path, dtype=float)
    plot_line(axes, points[:, 0], points[:, 1], "steps of the search", marker=".")
    for row, marker, label, index in ((points[:1], "s", "start", 2), (points[-1:], "D", "result", 1)):
        axes.plot(row[:, 0], row[:, 1], marker, color=COLOURS[index], markersize=7, label=label)
    axes.set(xlabel="unary scale", ylabel="pairwise scale")
    axes.legend()
    return axes


def plot_shares(
    names: Sequence[str], shares: Sequence[float], groups: Sequence[int], *, ax: Axes | None = None
) -> Axes:
    """Percentages as bars, from top to bottom, the colour by group, each with its number; on new axes if none given."""
    axes: Axes = new_figure(panel=(9.0, 5.0))[1][0, 0] if ax is None else ax
    places = np.arange(len(names))
    axes.barh(places, shares, color=[COLOURS[group % len(COLOURS)] for group in groups], height=0.7)
    for place, share in zip(places.tolist(), shares):
        axes.text(
            share + 1, place, f"{share:.1f}" if share >= 0.05 or share == 0 else f"{share:.2g}", va="center", fontsize=9
        )
    axes.set_yticks(places, names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xlabel("percent")
    axes.set_axisbelow(True)
    axes.grid(visible=False, axis="y")
    return axes
