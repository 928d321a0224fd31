"""A self-contained HTML page: style, data and script in one file."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from attnembed._version import __version__

__all__ = ["Panel", "document", "rounded"]


@dataclass(frozen=True)
class Panel:
    """A figure of a page: the id of the element that its script draws in, and the caption."""

    id: str
    caption: str


def rounded(values: ArrayLike, digits: int = 4) -> Any:
    """Nested lists of numbers with this many significant digits; None for non-finite ones, for JSON.

    >>> rounded([[1 / 3, 2.0], [float("nan"), 1e9]], 2)
    [[0.33, 2], [None, 1000000000]]
    """
    array = np.asarray(values, dtype=np.float64)
    return [rounded(row, digits) for row in array] if array.ndim else _number(float(array), digits)


def _number(value: float, digits: int) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


def document(title: str, lead: Sequence[str], panels: Sequence[Panel], data: Any, script: str) -> str:
    """The page as text: a heading, paragraphs, sliders, a sentence with the current reading, and figures.

    Parameters
    ----------
    title, lead : heading and paragraphs, plain text
    panels : figures, in the order of the page
    data : content of ``DATA`` for the script, of JSON types
    script : name of the page's own script, without ``.js``
    """
    here = files("attnembed.explore")
    style, common, own = (here.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js", f"{script}.js"))
    # "</" would end the element that holds the data.
    payload = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    paragraphs = "\n".join(f"<p>{html.escape(text)}</p>" for text in lead)
    figures = "\n".join(
        f'<figure id="{one.id}"><figcaption>{html.escape(one.caption)}</figcaption></figure>' for one in panels
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{paragraphs}
<div class="controls" id="controls"></div>
<noscript><p>The sliders and figures are drawn by a script, which this browser does not run.</p></noscript>
<p id="reading" role="status"></p>
<div class="panels">
{figures}
</div>
<footer>attnembed {html.escape(__version__)}. The address of the page stores the positions of the sliders.</footer>
<script type="application/json" id="data">{payload}</script>
<script>
{common}</script>
<script>
{own}</script>
</body>
</html>
"""
