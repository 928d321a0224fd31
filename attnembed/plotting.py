"""Figures, drawn on given axes, which are returned; the only module that imports matplotlib.

Colours are the Okabe-Ito set and `cividis`, distinguishable under every common form of colour blindness; lines differ
in dash as well as in colour. Sizes keep a figure legible at 600 pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from attnembed._files import PathLike, make_folder, replacing

__all__ = [
    "COLOURS",
    "MUTED",
    "add_remark",
    "new_figure",
    "plot_alignment",
    "plot_arms",
    "plot_attention_text",
    "plot_heatmap",
    "plot_image",
    "plot_line",
    "plot_tags",
    "plot_tokens",
    "plot_word",
    "save_figure",
    "show_image",
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
    """The style of the package, for a ``with`` block around drawing and saving."""
    return mpl.rc_context(_STYLE)


def new_figure(rows: int = 1, columns: int = 1, *, panel: tuple[float, float] = (4.6, 3.7)) -> tuple[Figure, Any]:
    """A figure and its axes as a (rows, columns) array; independent of pyplot and of any display."""
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Figure, path: PathLike, *, show: bool = False) -> Path:
    """Write a figure as PNG, also into a new folder; ``show``: in a notebook, display it, too. Returns the path."""
    file = Path(path)
    make_folder(file.parent)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    if show:
        show_image(file)
    return file


def show_image(path: PathLike) -> None:
    """Display a PNG or GIF file below the cell of a notebook; does nothing elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        ipython.display.display(ipython.display.Image(filename=str(path)))


def add_remark(figure: Figure, text: str) -> Figure:
    """Add a line above the whole figure with a caveat."""
    title = figure.get_suptitle()
    figure.suptitle(f"{text}\n{title}" if title else text, fontsize=11, color=COLOURS[1])
    return figure


def plot_line(ax: Axes, x: ArrayLike, y: ArrayLike, label: str = "", *, index: int = 0, **options: Any) -> Axes:
    """Draw a line in the ``index``-th colour and dash."""
    style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
    ax.plot(x, y, label=label or None, **{**style, **options})
    return ax


def plot_heatmap(ax: Axes, x: ArrayLike, y: ArrayLike, values: ArrayLike, *, label: str) -> Axes:
    """Draw values (len(y), len(x)) as equal tiles, grey where NaN, with a colour bar; up to six x and y are labelled.

    Tiles do not show distances: x and y may have any spacing.
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
    """Draw E^1_s.v against alpha_s, with the predicted line of the given slope through the origin."""
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
    words: Sequence[str] = (),
    labelled: Sequence[int] = (),
) -> Axes:
    """Draw one point per token against its posterior difference, coloured by log10 frequency.

    ``labelled`` holds the indices of the tokens whose words are written beside their points.
    """
    x, y = np.asarray(posterior_difference), np.asarray(values)
    order = np.argsort(frequency)
    size = 7 if x.size > 500 else 24
    points = ax.scatter(
        x[order], y[order], c=np.log10(np.asarray(frequency)[order]), s=size, cmap="cividis", alpha=0.7, linewidths=0
    )
    if colorbar:
        ax.figure.colorbar(points, ax=ax, label=r"$\log_{10}$ token frequency", pad=0.01)
    line = 0.08 * np.ptp(y)  # words stand above all points, a line each, towards the middle
    for rank, k in enumerate(labelled):
        ax.annotate(
            words[k],
            (x[k], y[k]),
            xytext=(0.9 * x[k], y.max() + (rank + 0.5) * line),
            ha="right" if x[k] > 0 else "left",
            fontsize=10,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7},
        )
    if labelled:
        ax.set_ylim(top=y.max() + (len(labelled) + 1) * line)
    ax.set_xlabel(r"posterior difference $\Delta_s$")
    ax.set_ylabel(ylabel)
    return ax


def plot_attention_text(ax: Axes, words: Sequence[str], attention: ArrayLike, *, title: str, columns: int = 92) -> Axes:
    """Draw words in lines, each on a background that darkens with its attention; the strongest three are in bold."""
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


def plot_arms(
    ax: Axes, groups: Sequence[str], arms: Sequence[str], means: ArrayLike, errors: ArrayLike, *, ylabel: str
) -> Axes:
    """Draw one point with its standard error per arm in every group; both are (arms, groups), NaN if unknown."""
    centres, values, spread = np.arange(len(groups)), np.asarray(means), np.asarray(errors)
    known = bool(np.isfinite(spread).all())  # a single run has no standard error and no bar
    for index, arm in enumerate(arms):
        x = centres + 0.7 * ((index + 0.5) / len(arms) - 0.5)
        ax.errorbar(
            x, values[index], yerr=spread[index] if known else None, fmt="os^DvPX*h"[index % 9],
            color=COLOURS[index % len(COLOURS)], markersize=6, capsize=3, linewidth=1.5, label=arm,
        )  # fmt: skip
    ax.set_xticks(centres, groups)
    ax.set_ylabel(ylabel)
    ax.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def plot_word(
    ax: Axes, images: NDArray[Any], labels: Sequence[int], predictions: Sequence[tuple[str, Sequence[int]]]
) -> Axes:
    """Draw letter images (L, H, W) side by side, with the true letters below, then each prediction, errors in bold."""
    length, height, width = images.shape
    strip = np.concatenate([np.pad(image, ((0, 0), (1, 1))) for image in images], axis=1)
    ax.imshow(strip, cmap="gray_r", interpolation="nearest")
    rows = [("true", labels), *predictions]
    for row, (title, letters) in enumerate(rows):
        y = height + 4.4 * (row + 0.6)
        ax.text(-2, y, title, ha="right", va="center", fontsize=11)
        for k in range(length):
            wrong = letters[k] != labels[k]
            ax.text(
                (width + 2) * (k + 0.5), y, chr(ord("a") + int(letters[k])), ha="center", va="center", fontsize=12,
                color=COLOURS[1] if wrong else "black", fontweight="bold" if wrong else "normal", family="monospace",
            )  # fmt: skip
    ax.set_xlim(-40, max((width + 2) * length, 14 * (width + 2)))
    ax.set_ylim(height + 4.4 * (len(rows) + 0.2), -1)
    ax.set_axis_off()
    return ax


def plot_tags(ax: Axes, words: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]) -> Axes:
    """Draw words down the page, with a column of tags for the truth (first) and each prediction, errors in bold."""
    ax.set_axis_off()
    truth = columns[0][1]
    for row, word in enumerate(words):
        ax.text(-0.6, -row, word, ha="right", va="center")
        for column, (_, tags) in enumerate(columns):
            wrong = tags[row] != truth[row]
            ax.text(
                column, -row, tags[row], ha="center", va="center",
                color=COLOURS[1] if wrong else "black", fontweight="bold" if wrong else "normal",
            )  # fmt: skip
    for column, (title, _) in enumerate(columns):
        ax.text(column, 1.1, title.replace(" ", "\n"), ha="center", va="bottom", color=MUTED)
    ax.set_xlim(-1.6, len(columns) - 0.5)
    ax.set_ylim(-len(words), 2.4)
    return ax


def plot_image(ax: Axes, picture: ArrayLike) -> Axes:
    """Draw a mask (H, W), or an image (H, W, 3) scaled to its own range, without ticks."""
    array = np.asarray(picture, dtype=float)
    ax.imshow((array - array.min()) / (np.ptp(array) or 1), cmap="gray", interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    return ax
