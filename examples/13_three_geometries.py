# %% [markdown]
# # Three geometries: the norm of a step determines the maximal margin
#
# Steepest descent in a norm moves p along argmax of -grad L.x over ||x|| <= 1: in the Euclidean norm that is gradient
# flow, in l-infinity sign descent (and nearly Adam), in l1 one coordinate at a time. On the same data each tends to the
# direction with the maximal margin in its own norm, not to those of the others. The unit ball of each norm is drawn
# with its point of largest margin.
# [JTA24]; docs/derivations/steepest.md

# %%
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import attnembed as ae
from attnembed.plotting import COLOURS, new_figure, save_figure, style

NORMS: dict[Any, tuple[str, float]] = {
    "l2": ("l2: gradient", 2),
    "linf": ("linf: signs", np.inf),
    "l1": ("l1: coordinates", 1),
}
UNTIL = 20.0


# %% Three rows in the plane; the values come from a third coordinate in which p hardly moves
def make_problem() -> tuple[ae.AttentionModel, ae.TokenDataset]:
    data = ae.TokenDataset.from_tokens([[0, 1, 2], [3, 4]], [1, -1])
    plane = np.array([[0.0, 0.0], [-2.0, -1.0], [-1.9, -1.4], [0.0, 0.0], [-4.0, -0.5]])
    values = np.array([1.0, 0.0, 0.2, -1.0, 0.0])
    return ae.AttentionModel(np.c_[plane, 1e-9 * values], np.zeros(3), [0.0, 0.0, 1e9]), data


# %% The margin min_k d_k.x / ||x||, also for the second half of a path, which forgets the start
def late_direction(flow: Any) -> np.ndarray:
    return np.asarray(flow.p - flow.path[np.searchsorted(flow.arclength, flow.arclength[-1] / 2)])[:2]


def margin(rows: np.ndarray, x: np.ndarray, order: float) -> float:
    return float((rows @ x).min() / np.linalg.norm(x, order))


# %% Left: the three paths. Right: the three unit balls, each with its direction of maximal margin
def draw(left: Axes, right: Axes, flows: dict[str, Any], best: dict[str, np.ndarray]) -> None:
    turns = np.linspace(0, 2 * np.pi, 2001)
    circle = np.c_[np.cos(turns), np.sin(turns)]
    for (norm, (name, order)), colour in zip(NORMS.items(), COLOURS, strict=False):
        path = flows[norm].path[:, :2]
        left.plot(*path.T, color=colour, label=name)
        left.plot(*np.outer(best[norm], [0, UNTIL]), "--", color=colour, lw=1)
        ball = circle / np.linalg.norm(circle, order, axis=1, keepdims=True)
        right.plot(*ball.T, color=colour)
        right.annotate("", best[norm], (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 2, "color": colour})
    left.set(xlabel="first coordinate of p", ylabel="second coordinate of p", aspect="equal")
    left.set_title("Flow (line) and its max-margin ray (dashed)")
    left.legend(title="norm of the step")
    right.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
    right.set_title("Unit balls, and their points of largest margin")


# %% Three numbers: how close each flow comes to the margin of its norm, and how far the others stay from it
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Follow one data set in three geometries and compare their directions with three max-margin programs."""
    model, data = make_problem()
    rows = ae.margin_constraints(model, data, ae.select(model, data).top).differences[:, :2]
    best, flows, own, foreign = {}, {}, [], []
    for norm in NORMS:
        clock: Any = {"clock": "arclength"} if norm == "l2" else {}
        flows[norm] = ae.gradient_flow(
            model, data, geometry=norm, until=UNTIL, score_step=0.5 if quick else 0.2, **clock
        )
        found = ae.max_margin(rows, norm=norm)
        best[norm] = found.direction
    for norm, (_, order) in NORMS.items():
        gamma = margin(rows, best[norm], order)
        reached = {other: margin(rows, late_direction(flows[other]), order) / gamma for other in NORMS}
        own.append(reached.pop(norm))
        foreign.append(max(reached.values()))
    angles = sorted(float(np.degrees(np.arctan2(x[1], x[0]))) for x in best.values())
    with style():
        figure, axes = new_figure(1, 2, panel=(5.0, 5.0))
        draw(axes[0, 0], axes[0, 1], flows, best)
        save_figure(figure, Path(out_dir) / "13_three_geometries.png", show=True)
    return {
        "least share of the own margin that a flow reaches": min(own),
        "largest share that a flow of another geometry reaches": max(foreign),
        "degrees between the nearest two directions": float(np.diff(angles).min()),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
