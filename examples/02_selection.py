# %% [markdown]
# # Gradient flow selects, and time must be logarithmic
#
# With E fixed after one step, gradient flow on the <cls> embedding p gives all attention to the token that decides the
# label, and p/||p|| turns to the max-margin direction, but only like 1/log t: at t = 100 nothing can be seen yet.

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np

import attnembed as ae
from attnembed.plotting import new_figure, plot_line, style


def main(out_dir: str | Path = ".", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Follow the flow in log time, build the margin program of its own selection, and compare."""
    # %% Each sequence holds one decisive token among irrelevant ones; p starts at 0.
    data = ae.make_balanced_dataset(n_samples=60, length=6, n_irrelevant=16, rng=rng)
    start = ae.AttentionModel.random(data.vocab_size, 64, cls_scale=0.0, rng=rng)
    model = ae.one_step(start, data, step_size=100.0).model

    # %% The flow, and the max-margin point of the tokens that it selected.
    flow = ae.gradient_flow(model, data, clock="log_time", until=30.0 if quick else 60.0)
    chosen = ae.select(flow.model, data)
    margin = ae.max_margin(ae.margin_constraints(model, data, chosen).differences)

    # %% Angle to the max-margin direction along the path.
    log_time, path = flow.log_time[1:], flow.path[1:]
    along = path @ margin.direction
    angle = np.degrees(np.arctan2(np.linalg.norm(path - np.outer(along, margin.direction), axis=1), along))
    with style():
        figure, axes = new_figure(1, 2)
        plot_line(axes[0, 0], log_time, flow.top_attention[1:])
        axes[0, 0].set(xlabel=r"$\log t$", ylabel="smallest attention on a top token", xlim=(-2, None))
        plot_line(axes[0, 1], log_time, angle)
        axes[0, 1].set(xlabel=r"$\log t$", ylabel="angle to max margin (degrees)", xlim=(-2, None), ylim=(0, None))
        figure.savefig(Path(out_dir) / "02_selection.png", dpi=150)

    # %% Three numbers: at t = 100, at the end, and the limit t (L - L*) -> ||p_mm||^2.
    return {
        "angle at t = 100 (degrees)": float(np.interp(np.log(100.0), log_time, angle)),
        "angle at the end (degrees)": float(angle[-1]),
        "t (L - L*) / ||p_mm||^2": float(np.exp(log_time[-1]) * flow.loss_gap[-1] * margin.margin**2),
    }


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
