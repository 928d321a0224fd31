"""The page of basins: the locally optimal token that the flow selects, by the start of p."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy.special import softmax

from attnembed._progress import Progress
from attnembed._typing import Doubles
from attnembed._validation import RNGLike, as_rng
from attnembed.attention.data import TokenDataset
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.theory import asymptotics, local_optima
from attnembed.explore.document import Panel, document, rounded

__all__ = ["basins_page"]

_UNTIL, _REACH = 30.0, 5.0


def _problem(rng: RNGLike) -> tuple[AttentionModel, TokenDataset]:
    """Six tokens near a circle whose values rise and fall three times around it, against one other token."""
    generator = as_rng(rng)
    turns = (np.arange(6) + 0.15 * generator.uniform(-1, 1, size=6)) * np.pi / 3
    plane = np.r_[np.c_[np.cos(turns), np.sin(turns)], [[0.0, 0.0]]]
    values = np.array([1.0, 0.2, 0.7, 0.1, 0.5, 0.0, -1.0])
    # The values come from a third coordinate, so small that p hardly moves in it: the flow stays in the plane.
    data = TokenDataset.from_tokens([[0, 1, 2, 3, 4, 5], [6]], [1, -1])
    return AttentionModel(np.c_[plane, 1e-9 * values], np.zeros(3), [0.0, 0.0, 1e9]), data


def _flows(
    model: AttentionModel, data: TokenDataset, tokens: list[int], ticks: Doubles
) -> tuple[list[int], list[dict[str, Any]]]:
    """For each start of the grid: the index in ``tokens`` of the selected one (-1: none), and the path."""
    ends: list[int] = []
    paths: list[dict[str, Any]] = []
    with Progress("basins", total=ticks.size**2) as progress:
        for y, x in product(ticks, ticks):
            flow = gradient_flow(model.replace(p=[x, y, 0.0]), data, until=_UNTIL)
            kept = np.unique(np.linspace(0, len(flow.path) - 1, 24).round().astype(int))
            attention = softmax(flow.path[kept] @ model.E[:6].T, axis=1)  # of the first sequence
            selected = int(flow.selection[0])
            ends.append(tokens.index(selected) if selected in tokens and attention[-1, selected] > 0.9 else -1)
            paths.append(
                {
                    "x": rounded(flow.path[kept, 0], 3),
                    "y": rounded(flow.path[kept, 1], 3),
                    "log_time": rounded(np.clip(flow.log_time[kept], 0, None), 3),
                    "attention": rounded(attention[:, tokens], 3),
                }
            )
            progress.update(len(paths))
    return ends, paths


def basins_page(quick: bool = False, rng: RNGLike = 0) -> str:
    """Build the page of basins, with sliders over the two coordinates of the start, or a click in the plane."""
    model, data = _problem(rng)
    late = [asymptotics(model, data, tokens) for tokens in local_optima(model, data)]
    tokens = [int(one.selected[0]) for one in late]
    ticks = np.linspace(-_REACH, _REACH, 5 if quick else 21)
    ends, paths = _flows(model, data, tokens, ticks)
    found = np.array(ends).reshape(ticks.size, ticks.size)
    least = min(one.loss_limit for one in late)
    payload = {
        "ticks": rounded(ticks),
        "until": _UNTIL,
        "ends": found.tolist(),
        "paths": paths,
        "optima": [
            {
                "token": token,
                "value": rounded(float(model.E[token] @ model.v)),
                "direction": rounded(one.margin * one.p_mm[:2]),
                "excess": rounded(one.loss_limit - least),
                "share": rounded(float(np.mean(found == k))),
            }
            for k, (token, one) in enumerate(zip(tokens, late))
        ],
    }
    return document(
        "Where does the flow end?",
        [
            "Gradient flow on p need not select the best token. Every locally optimal token has a whole region of "
            "starts, and the flow diverges along the max-margin direction of the token whose region it is in.",
            "A sequence of six tokens around a circle, with values that rise and fall around it, and p in the plane. "
            "Move the start with the sliders, or click in the plane."
            + (" A quick version: a coarse grid of starts." if quick else ""),
        ],
        [
            Panel(
                "plane",
                "Starts coloured by the token that their flow selects (grey: none by the end), the max-margin "
                "directions of the local optima, and the path from the start (dot).",
            ),
            Panel("fall", "Attention on each locally optimal token over log t; solid: the selected one."),
        ],
        payload,
        "basins",
    )
