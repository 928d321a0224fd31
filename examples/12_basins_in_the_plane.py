# %% [markdown]
# # Basins of the selections in the plane
#
# The flow need not select the tokens with the smallest loss. Every locally optimal selection, one whose max-margin
# point p_mm is supported by rows that pull towards it, attracts an open set of starts, and each has its own limits: p_t
# / ||p_t|| -> p_mm / ||p_mm|| and t (L - L_sigma) -> ||p_mm||^2. In two coordinates all of them are visible. Each start
# is coloured by the selection in which its flow ends, and each ray is the max-margin direction of a local optimum,
# found from the data alone.  [TLTO23]; docs/derivations/limit-direction.md

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

import attnembed as ae
from attnembed.plotting import COLOURS, new_figure, save_figure, style

REACH = 6.0
PALE = ("#9CC9E8", "#F6BE96", "#8FD3BD", "#E8C3D8", "#FBE08A", "#C8E4F5")


# %% Six tokens on an irregular hexagon, whose values rise and fall: each peak is locally optimal
def make_problem() -> tuple[ae.AttentionModel, ae.TokenDataset]:
    data = ae.TokenDataset.from_tokens([[0, 1, 2, 3, 4, 5], [6]], [1, -1])
    turns = 2 * np.pi * np.array([0.05, 0.9, 2.2, 3.0, 4.1, 4.8]) / 6
    plane = np.r_[np.c_[np.cos(turns), np.sin(turns)], [[0.0, 0.0]]]
    values = np.array([1.0, 0.2, 0.7, 0.1, 0.5, 0.0, -1.0])
    # The values come from a third coordinate, so small that p hardly moves in it: the flow stays in the plane.
    return ae.AttentionModel(np.c_[plane, 1e-9 * values], np.zeros(3), [0.0, 0.0, 1e9]), data


# %% The token on which the flow from each start ends: all flows at once, in arc length, relative to the winner's row
def ends(model: ae.AttentionModel, starts: np.ndarray, steps: int = 600) -> np.ndarray:
    E, g, p = model.E[:6, :2], (model.E @ model.v)[:6], starts.copy()
    for _ in range(steps):
        scores = p @ E.T
        best = scores.argmax(axis=1)
        a = np.exp(scores - scores.max(axis=1, keepdims=True))
        a /= a.sum(axis=1, keepdims=True)
        weights = a * (g - (a @ g)[:, None])
        force = np.einsum("ks,ksd->kd", weights, E - E[best][:, None])  # up to a factor > 0
        p += 0.05 * force / np.maximum(np.linalg.norm(force, axis=1, keepdims=True), 1e-300)
    return np.where(a.max(axis=1) > 0.999, best, -1)


# %% Colour the starts, and draw each direction in the darker shade of its basin
def draw(ax: Axes, found: np.ndarray, late: list[ae.theory.Asymptotics], model: ae.AttentionModel) -> None:
    g, colours = model.E @ model.v, ListedColormap(["#DDDDDD", *PALE[: len(late)]])
    ax.imshow(found, origin="lower", extent=(-REACH, REACH) * 2, cmap=colours, vmin=-1.5, vmax=len(late) - 0.5)
    for k, one in enumerate(late):
        tip = 0.7 * REACH * one.margin * one.p_mm[:2]
        ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 3, "color": COLOURS[k]})
        label, box = f"token {one.selected[0]}", {"fc": "w", "ec": COLOURS[k], "lw": 1.5}
        ax.text(*(1.12 * tip), label, ha="center", va="center", fontsize=13, bbox=box)
    for s in range(6):
        ax.plot(*(2.2 * model.E[s, :2]), "ko", markersize=5)
        ax.annotate(f"{g[s]:.1f}", 2.2 * model.E[s, :2], (7, 4), textcoords="offset points", fontsize=12)
    ax.set(xlabel="first coordinate of the start", ylabel="second coordinate of the start")
    ax.set_title("Token that the flow selects\n(dots: the tokens, with their values)")
    ax.grid(visible=False)


# %% Three numbers: the local optima, the share of starts that reach one, and the distance of their flows from it
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Enumerate the local optima, colour the plane, and follow one flow of each basin to its direction."""
    model, data = make_problem()
    optima = ae.theory.local_optima(model, data)
    late = [ae.theory.asymptotics(model, data, tokens) for tokens in optima]
    ticks = np.linspace(-REACH, REACH, 40 if quick else 200)
    tokens = ends(model, np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2))
    found = np.select([tokens == one.selected[0] for one in late], range(len(late)), -1).reshape(ticks.size, -1)
    errors = []
    for prediction in late:
        flow = ae.gradient_flow(model.replace(p=5 * prediction.margin * prediction.p_mm), data, until=40.0)
        errors.append(float(np.linalg.norm(flow.p - prediction.p(40.0)) / np.linalg.norm(flow.p)))
    with style():
        figure, axes = new_figure(1, 1, panel=(6.0, 6.0))
        draw(axes[0, 0], found, late, model)
        save_figure(figure, Path(out_dir) / "12_basins_in_the_plane.png", show=True)
    return {
        "locally optimal selections": float(len(optima)),
        "share of starts that end in one": float(np.mean(found >= 0)),
        "largest relative distance of a flow from its asymptote": max(errors),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
