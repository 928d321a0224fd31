# %% [markdown]
# # The max-margin program in the plane, with its certificate
#
# With two-dimensional embeddings the whole program is visible: p_mm is the shortest p with p . d_k >= 1 for all
# token differences d_k = E_{s*} - E_s. Its certificate is a sum, p_mm = sum lambda_k d_k with lambda_k >= 0 over the
# support vectors, which lie on the margin line. Gradient flow turns to p_mm without solving the program, and the
# attention that it leaves on the support vectors encodes the same lambda_k. (The starts are near 0. In the plane the
# embeddings are dependent, and from far away a flow can end at a finite point, which is impossible if they are
# independent.)  [WSOM25], Section 4; docs/derivations/asymptotics.md, docs/derivations/divergence.md

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

import attnembed as ae
from attnembed.plotting import COLOURS, MUTED, new_figure, plot_line, save_figure, style


# %% One token per label and twelve irrelevant ones; v reads the first coordinate, so that p has to use the second
def make_problem(rng: np.random.Generator) -> tuple[ae.AttentionModel, ae.TokenDataset]:
    data = ae.make_balanced_dataset(n_samples=80, length=5, n_positive=1, n_negative=1, n_irrelevant=12, rng=rng)
    others = rng.uniform([-0.6, -1.0], [0.6, 0.0], size=(11, 2))
    E = np.vstack([[[1.0, 1.0], [-1.0, 1.6], [0.0, 0.2]], others])
    return ae.AttentionModel(E, p=np.zeros(2), v=np.array([1.0, 0.0])), data


# %% Left: the differences, the line that none of them crosses, and p_mm as the sum of lambda_k d_k, end to end
def draw_program(ax: Axes, differences: np.ndarray, p_mm: np.ndarray, dual: np.ndarray) -> None:
    support = differences[dual > 0]
    ax.scatter(*differences.T, s=26, color=COLOURS[0], zorder=3, label="$d_k$")
    ax.scatter(*support.T, s=110, facecolors="none", edgecolors=COLOURS[2], zorder=3, label="support vectors")
    foot, along = p_mm / (p_mm @ p_mm), np.array([-p_mm[1], p_mm[0]])
    ax.axline(foot, foot + along, color=MUTED, linestyle="--", label=r"$p_{mm}\cdot x = 1$")
    parts = dual[dual > 0, None] * support
    arrow = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.009, "zorder": 2}
    ax.quiver(*(np.cumsum(parts, axis=0) - parts).T, *parts.T, color=COLOURS[1], label=r"$\lambda_k d_k$", **arrow)
    ax.quiver(0, 0, *p_mm, color=COLOURS[6], label="$p_{mm}$", **arrow)
    ax.set(xlabel="first coordinate", ylabel="second coordinate", xlim=(-1.8, 1.8), ylim=(-0.2, 3.6), aspect="equal")
    ax.legend(loc="upper center", fontsize=10, ncols=2)


# %% Right: the paths of p from starts on a circle, and their common direction
def draw_flows(ax: Axes, paths: list[np.ndarray], p_mm: np.ndarray) -> None:
    for k, path in enumerate(paths):
        plot_line(ax, *path.T, "" if k else "$p_t$ from several starts", linewidth=1.5)
        ax.plot(*path[0], "o", color=COLOURS[0], markersize=4)
    ax.axline((0, 0), tuple(p_mm), color=COLOURS[1], linestyle="--", label="direction of $p_{mm}$")
    ax.set(xlabel="first coordinate", ylabel="second coordinate", xlim=(-9, 9), ylim=(-6, 13), aspect="equal")
    ax.legend(loc="upper left", fontsize=10)


# %% Three numbers: the certificate, and its agreement with every flow
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Solve the program, follow the flow from several starts, and compare directions and multipliers."""
    model, data = make_problem(np.random.default_rng(rng))
    constraints = ae.margin_constraints(model, data, ae.select(model, data).top)
    differences, margin = constraints.differences, ae.max_margin(constraints.differences)
    C = ae.theory.asymptotics(model, data).C
    angles, mismatches, paths = [], [], []
    for turn in np.linspace(0, 2 * np.pi, 4 if quick else 8, endpoint=False):
        start = model.replace(p=5 * np.array([np.cos(turn), np.sin(turn)]))
        flow = ae.gradient_flow(start, data, until=60.0)
        paths.append(flow.path)
        angles.append(abs(np.arctan2(*flow.p) - np.arctan2(*margin.p)))
        # In t dp/dt = sum_k lambda_k d_k the flow feels row k with the weight t C_k e^{-p . d_k}.
        felt = C * np.exp(flow.log_time[-1] - differences @ flow.p)
        mismatches.append(np.abs(felt - margin.dual).max())

    with style():
        figure, axes = new_figure(1, 2, panel=(4.6, 4.6))
        draw_program(axes[0, 0], differences, margin.p, margin.dual)
        draw_flows(axes[0, 1], paths, margin.p)
        save_figure(figure, Path(out_dir) / "05_max_margin_in_the_plane.png", show=True)
    return {
        "KKT residual of the certificate": margin.kkt_residual,
        "largest angle of a flow to p_mm (degrees)": float(np.degrees(max(angles))),
        "largest difference of a multiplier": float(max(mismatches)),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
