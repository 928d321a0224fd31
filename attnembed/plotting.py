"""Figures: axes in, axes out; the only module that imports matplotlib.

Colours are the Okabe-Ito set and `cividis`, which stay apart for every common form of colour blindness; lines differ
in dash as well as in colour. Sizes are chosen so that a figure stays legible at 600 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "COLOURS",
    "MUTED",
    "new_figure",
    "plot_alignment",
    "plot_attention_text",
    "plot_heatmap",
    "plot_line",
    "plot_tokens",
    "style",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MUTED = "#767676"
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

_STYLE: Any = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "legend.fontsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
}


def style() -> AbstractContextManager[None]:
    """The package's look, for the time of a ``with`` block around drawing and saving."""
    return mpl.rc_context(_STYLE)


def new_figure(rows: int = 1, columns: int = 1, *, panel: tuple[float, float] = (4.6, 3.7)) -> tuple[Figure, Any]:
    """A figure and its axes as a (rows, columns) array; independent of pyplot and of any display."""
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def plot_line(ax: Axes, x: ArrayLike, y: ArrayLike, label: str = "", *, index: int = 0, **options: Any) -> Axes:
    """A line in the ``index``-th colour and dash."""
    style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
    ax.plot(x, y, label=label or None, **{**style, **options})
    return ax


def plot_heatmap(ax: Axes, x: ArrayLike, y: ArrayLike, values: ArrayLike, *, label: str) -> Axes:
    """Values (len(y), len(x)) as equal tiles, grey where NaN, with a colour bar; up to six x and y are written.

    The tiles do not show distances: x and y may be spaced in any way.
    """
    colours = mpl.colormaps["cividis"].with_extremes(bad="#BBBBBB")
    tiles = ax.pcolormesh(np.asarray(values, dtype=float), cmap=colours, edgecolors="white", linewidth=0.4)
    for axis, marks in ((ax.xaxis, np.asarray(x)), (ax.yaxis, np.asarray(y))):
        places = np.arange(0, marks.size, -(-marks.size // 6))
        axis.set_ticks(places + 0.5, [f"{m:.0f}" if 100 <= m < 1e5 else f"{m:.3g}" for m in marks[places]])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.figure.colorbar(tiles, ax=ax, label=label, pad=0.02)
    return ax


def plot_alignment(ax: Axes, signed_frequency: ArrayLike, token_values: ArrayLike, slope: float) -> Axes:
    """E^1_s.v against alpha_s, with the predicted line of the given slope through the origin."""
    alpha = np.asarray(signed_frequency)
    ends = np.array([alpha.min(), alpha.max()]) * 1.1
    ax.plot(ends, slope * ends, color=COLOURS[1], label=r"predicted: $(\eta/2)\,\|v\|^2\,\alpha_s$", zorder=1)
    ax.scatter(alpha, token_values, s=22, color=COLOURS[0], alpha=0.8, label="measured", zorder=2)
    ax.set_xlabel(r"average signed frequency $\alpha_s$")
    ax.set_ylabel(r"$E_s \cdot v$ after one step")
    ax.legend()
    return ax


def plot_tokens(
    ax: Axes,
    posterior_difference: ArrayLike,
    values: ArrayLike,
    frequency: ArrayLike,
    *,
    ylabel: str,
    colorbar: bool = True,
    curve: NDArray[np.floating[Any]] | None = None,
    words: Sequence[str] = (),
    labelled: Sequence[int] = (),
) -> Axes:
    """One point per token against its posterior difference, coloured by log10 frequency.

    ``curve`` holds polynomial coefficients, highest first, of a fit to draw; ``labelled`` the indices of the tokens
    whose word is written beside the point.
    """
    x, y = np.asarray(posterior_difference), np.asarray(values)
    order = np.argsort(frequency)
    points = ax.scatter(
        x[order], y[order], c=np.log10(np.asarray(frequency)[order]), s=7, cmap="cividis", alpha=0.7, linewidths=0
    )
    if colorbar:
        ax.figure.colorbar(points, ax=ax, label=r"$\log_{10}$ token frequency", pad=0.01)
    if curve is not None:
        grid = np.linspace(x.min(), x.max(), 200)
        name = {2: "linear fit", 3: "quadratic fit"}.get(len(curve), "fit")
        ax.plot(grid, np.polyval(curve, grid), color=COLOURS[1], label=name)
        ax.legend(loc="lower left" if len(curve) == 3 else "upper left")
    for rank, k in enumerate(labelled):
        left = x[k] > 0  # towards the middle, where a U leaves room
        ax.annotate(
            words[k],
            (x[k], y[k]),
            xytext=(-12 if left else 12, 4 + 13 * (rank % 4)),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=10,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7},
        )
    ax.set_xlabel(r"posterior difference $\Delta_s$")
    ax.set_ylabel(ylabel)
    return ax


def plot_attention_text(ax: Axes, words: Sequence[str], attention: ArrayLike, *, title: str, columns: int = 92) -> Axes:
    """Words in lines, each on a background that darkens with its attention; the strongest three are in bold."""
    weights = np.asarray(attention, dtype=float)
    shade = weights / weights.max()
    strongest = set(np.argsort(-weights)[:3].tolist())
    ax.set_axis_off()
    ax.set_title(title, loc="left", fontsize=11)
    line, column = 0, 0
    for k, word in enumerate(words):
        if column and column + len(word) > columns:
            line, column = line + 1, 0
        ax.text(
            column,
            -line,
            word,
            family="monospace",
            fontsize=9,
            fontweight="bold" if k in strongest else "normal",
            color="white" if shade[k] > 0.55 else "black",
            bbox={"facecolor": mpl.colormaps["Blues"](0.9 * shade[k]), "edgecolor": "none", "pad": 1.2},
        )
        column += len(word) + 1
    ax.set_xlim(0, columns)
    ax.set_ylim(-line - 0.8, 0.9)
    return ax
