"""Small HTML tables of objects for notebooks, with curves as inline SVG.

A notebook requests this text whenever an object ends a cell, so it takes only a few milliseconds and does without
matplotlib; `.plot()` draws the figure. Colours are those of figures and suit the notebook's theme.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from attnembed._sparse import is_sparse
from attnembed.results import Status, brief

__all__ = ["CLOCK_LABELS", "Curve", "card", "history_curves", "table"]

_WIDTH, _HEIGHT, _POINTS = 300, 80, 200
_GOOD, _BAD = "#009E73", "#D55E00"


class Curve(NamedTuple):
    """A line to draw: ``y`` (k,) against ``x`` (k,), and their labels."""

    x: ArrayLike
    y: ArrayLike
    xlabel: str
    ylabel: str


# In mathtext, as figures set them; tables take them without its marks.
CLOCK_LABELS = {"log_time": r"$\log t$", "time": "$t$", "arclength": "length of the path $r$", "steps": "steps"}


def history_curves(history: np.recarray[Any, Any]) -> list[Curve]:
    """The loss of a training run and the validation score, if there is one, over the epochs."""
    columns = (("loss", "loss"), ("validation_score", "validation score"))
    return [Curve(history["epoch"], history[name], "epoch", label) for name, label in columns]


def card(obj: Any) -> str:
    """An object as an HTML table: its class, status, one row per attribute, and its curves.

    The rows come from ``obj._shown()``, by default the fields of the dataclass, and the curves from ``obj._curves()``.
    """
    name = f"<strong>{html.escape(type(obj).__name__)}</strong>"
    head, rows = name, []
    for label, value in obj._shown():
        if isinstance(value, Status):
            colour = _GOOD if value.ok else _BAD
            head = f'{name} <span style="color: {colour}; font-weight: 600">{html.escape(value.value)}</span>'
        else:
            rows.append((label, _cell(value)))
    body = "".join(
        f'<tr><th style="text-align: left">{html.escape(label)}</th><td style="text-align: left">{text}</td></tr>'
        for label, text in rows
    )
    curves = "".join(_svg(curve) for curve in obj._curves())
    return f'<div><div>{head}</div><table style="margin: 0.3em 0">{body}</table>{curves}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """An HTML table with a header and a line of text below it."""
    cells = "".join(f'<th style="text-align: left">{html.escape(text)}</th>' for text in head)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align: left">{html.escape(text)}</td>' for text in row) + "</tr>"
        for row in rows
    )
    whole = f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div>{whole}<div>{html.escape(caption)}</div></div>"


def _cell(value: Any) -> str:
    if is_sparse(value):
        text = f"{type(value).__name__} {'x'.join(map(str, value.shape))}, {value.nnz} stored"
    elif isinstance(value, np.ndarray) and value.dtype.names:
        text = f"{len(value)} rows of {', '.join(value.dtype.names)}"
    elif isinstance(value, np.ndarray) and value.ndim:
        text = _array(value)
    elif isinstance(value, str):
        text = value if len(value) <= 400 else f"{value[:400]}..."
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        text = repr(value)
        text = text if len(text) <= 200 else type(value).__name__
    else:
        text = brief(value)
    return html.escape(text).replace("\n", "<br>")


def _array(values: np.ndarray[Any, Any]) -> str:
    size = f"{'x'.join(map(str, values.shape))} {values.dtype}"
    if values.size <= 6:
        return f"{np.array2string(values, precision=4, separator=', ')} ({size})"
    if values.dtype.kind not in "fiu":
        return size
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return f"{size}, nothing finite"
    text = f"{size}, {finite.min():.4g} to {finite.max():.4g}"
    return text if finite.size == values.size else f"{text}, {values.size - finite.size} not finite"


def _svg(curve: Curve) -> str:
    """A line over its range, with the limits of both axes in words; nothing for fewer than two finite points."""
    x, y = np.asarray(curve.x, dtype=np.float64), np.asarray(curve.y, dtype=np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if x.size < 2:
        return ""
    kept = np.unique(np.linspace(0, x.size - 1, _POINTS).astype(int))
    x, y = x[kept], y[kept]
    (left, right), (low, high) = (x.min(), x.max()), (y.min(), y.max())
    across = 8 + (_WIDTH - 16) * (x - left) / ((right - left) or 1.0)
    down = 8 + (_HEIGHT - 16) * (high - y) / ((high - low) or 1.0)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down))
    xlabel = curve.xlabel.replace("$", "").replace("\\", "")
    label = html.escape(f"{curve.ylabel}: {low:.3g} to {high:.3g}; {xlabel}: {left:.3g} to {right:.3g}")
    return (
        f'<figure style="margin: 0.3em 0"><svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{label}"><polyline points="{points}" fill="none" stroke="#0072B2" '
        f'stroke-width="2"/></svg><figcaption style="font-size: 90%">{label}</figcaption></figure>'
    )
