"""Formulas as SVG, typeset by matplotlib's mathtext in the colour of the surrounding text, without a script.

Mathtext supports part of TeX. Commands that it lacks and formulas here use (``\\le``, ``\\tfrac``, bracket sizes) are
rewritten; a formula that it still cannot typeset is shown as its source.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["formula_svg"]

_SAME = {
    r"\\le(?![a-zA-Z])": r"\\leq",
    r"\\ge(?![a-zA-Z])": r"\\geq",
    r"\\ne(?![a-zA-Z])": r"\\neq",
    r"\\iff(?![a-zA-Z])": r"\\Leftrightarrow",
    r"\\not\s*\\to(?![a-zA-Z])": r"\\nrightarrow",
    r"\\lVert|\\rVert": r"\\|",
    r"\\(?:[bB]igg?[lr]?|textstyle|displaystyle)(?![a-zA-Z])": "",
    r"\\operatorname": r"\\mathrm",
    r"\\[td]frac(?![a-zA-Z])": r"\\frac",
    r"\\frac\s*([0-9A-Za-z])\s*([0-9A-Za-z])": r"\\frac{\1}{\2}",
    r"\\frac\s*([0-9A-Za-z])\s*\{": r"\\frac{\1}{",
    r"'": r"^\\prime ",
    r"\^\\prime \s*\^": r"^",
}


def _rewritten(tex: str) -> str:
    for pattern, replacement in _SAME.items():
        tex = re.sub(pattern, replacement, tex)
    return tex


@lru_cache(maxsize=1024)
def formula_svg(tex: str, *, size: float = 17.0) -> str:
    """A formula as inline SVG of ``size`` pixels per em, with its source as text for screen readers.

    If mathtext cannot typeset it, the source in ``<code>``.

    >>> formula_svg(r"p \\cdot d_k \\ge 1").startswith('<svg role="img" aria-label="p')
    True
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    try:
        path: Any = TextPath((0, 0), f"${_rewritten(tex)}$", size=size, prop=FontProperties(math_fontfamily="stix"))
    except ValueError:
        return f"<code>{html.escape(tex)}</code>"
    flat = path.cleaned(simplify=False)  # curves as short lines: their extrema one by one take longer than the parser
    drawn = flat.vertices[np.isin(flat.codes, (path.MOVETO, path.LINETO))]
    (x0, y0), (x1, y1) = drawn.min(axis=0), drawn.max(axis=0)
    left, top, width, height = x0 - 1, -y1 - 1, x1 - x0 + 2, y1 - y0 + 2
    return (
        f'<svg role="img" aria-label="{html.escape(tex)}" width="{width:.1f}" height="{height:.1f}" '
        f'viewBox="{left:.1f} {top:.1f} {width:.1f} {height:.1f}" style="vertical-align: {y0 - 1:.1f}px">'
        f'<path fill="currentColor" d="{_data(path)}"/></svg>'
    )


def _data(path: Any) -> str:
    """The path as SVG commands, y downwards."""
    parts = []
    for points, code in path.iter_segments(curves=True, simplify=False):
        letter = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}[int(code)]
        numbers = [] if letter == "Z" else [f"{x if k % 2 == 0 else -x:.2f}" for k, x in enumerate(points)]
        parts.append(letter + " ".join(numbers))
    return "".join(parts)
