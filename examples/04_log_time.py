# %% [markdown]
# # Logarithmic time
#
# Gradient flow on p turns to the max-margin direction of the tokens that it selects, but the angle falls only like
# 1/log t. In plain time it seems to stop many degrees away, and any tolerance would have to be loose. In log time the
# limit is within reach: the angle times log t converges, and t (L - L*) tends to ||p_mm||^2.
# docs/derivations/asymptotics.md

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import attnembed as ae
from attnembed.plotting import MUTED, new_figure, plot_line, save_figure, style

PLAIN = 10_000.0  # where the plain axis ends


# %% One decisive token among irrelevant ones in each sequence; p starts at 0, after one step on E
def make_problem(rng: np.random.Generator) -> tuple[ae.AttentionModel, ae.TokenDataset]:
    data = ae.make_balanced_dataset(n_samples=60, length=6, n_irrelevant=16, rng=rng)
    start = ae.AttentionModel.random(data.vocab_size, 64, cls_scale=0.0, rng=rng)
    return ae.one_step(start, data, step_size=100.0).model, data


# %% The angle in degrees; arccos of a cosine near 1 would lose half its digits
def angle_to(direction: np.ndarray, path: np.ndarray) -> np.ndarray:
    along = path @ direction
    return np.degrees(np.arctan2(np.linalg.norm(path - np.outer(along, direction), axis=1), along))


# %% The same angles in plain and in log time
def draw(log_time: np.ndarray, angle: np.ndarray) -> Figure:
    figure, axes = new_figure(1, 2)
    left, right = axes[0]
    early = log_time <= np.log(PLAIN)
    plot_line(left, np.exp(log_time[early]), angle[early])
    left.set(xlabel="t", ylabel="angle to max margin (degrees)", ylim=(0, None), title="plain time")
    plot_line(right, log_time, angle, "measured")
    late = log_time > np.log(PLAIN)
    plot_line(right, log_time[late], angle[-1] * log_time[-1] / log_time[late], r"$\propto 1/\log t$", index=1)
    right.axvline(np.log(PLAIN), color=MUTED, linestyle=":", label="end of the left panel")
    right.set(xlabel=r"$\log t$", xlim=(-2, None), ylim=left.get_ylim(), title="log time")
    right.legend()
    return figure


# %% Three numbers: the remaining angle in plain time, and two limits reached in log time
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Follow the flow in log time and compare it with the margin program of its own selection."""
    model, data = make_problem(np.random.default_rng(rng))
    flow = ae.gradient_flow(model, data, clock="log_time", until=60.0 if quick else 200.0)
    chosen = ae.select(flow.model, data)
    margin = ae.max_margin(ae.margin_constraints(model, data, chosen).differences)
    log_time, angle = flow.log_time[1:], angle_to(margin.direction, flow.path[1:])

    with style():
        save_figure(draw(log_time, angle), Path(out_dir) / "04_log_time.png", show=True)
    late = log_time > log_time[-1] / 2
    return {
        f"angle at t = {PLAIN:.0f} (degrees)": float(np.interp(np.log(PLAIN), log_time, angle)),
        "exponent of the angle in log t": float(np.polyfit(np.log(log_time[late]), np.log(angle[late]), 1)[0]),
        "t (L - L*) / ||p_mm||^2": float(np.exp(log_time[-1]) * flow.loss_gap[-1] * margin.margin**2),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
