# %% [markdown]
# # Failure of selection
#
# Small steps on E lead to selection, and so do very large ones; for both there is a condition that can be checked in
# advance. Between them there can be a window of step sizes where the flow gives the rare decisive token A no attention
# at all. Family(T, r) shows this: a data set so symmetric that its flow has four coordinates.
# docs/derivations/failure-window.md

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import attnembed as ae
from attnembed.plotting import COLOURS, new_figure, plot_line, save_figure, style

T, R = 20, 30  # tokens per sequence; sequences that share the token A


# %% The step sizes below and above which theory promises selection, from data and parameters alone
def promised() -> tuple[float, float]:
    unit, before = ae.theory.Family(T, R, step_size=1.0), ae.theory.Family(T, R, step_size=0.0)
    data = unit.dataset()
    small = ae.theory.small_step_condition(ae.AttentionModel(*unit.parameters()), data)
    large = ae.theory.large_step_size(ae.AttentionModel(*before.parameters()), data)
    # The left side of the small-step condition is proportional to the step size, which is 1 here.
    return small.right / small.left, large.step_size


# %% The figure: the attention on A at the end of the flow, and the ranges covered by theory
def draw(step_sizes: np.ndarray, attention: np.ndarray, below: float, above: float) -> Figure:
    figure, axes = new_figure(panel=(6.4, 3.7))
    ax = axes[0, 0]
    plot_line(ax, step_sizes, attention)
    ax.axvspan(step_sizes[0], below, color=COLOURS[2], alpha=0.2, label="promised: small step")
    ax.axvspan(above, step_sizes[-1], color=COLOURS[4], alpha=0.25, label="promised: large step")
    ax.set(xscale="log", xlabel=r"step size $\eta$ on E", ylabel="attention on A", xlim=step_sizes[[0, -1]])
    ax.legend(loc="center", bbox_to_anchor=(0.71, 0.5), fontsize=10)
    return figure


# %% Three numbers: the window of failure, and the step size below which theory promises selection
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Sweep the step size to a late time; nothing here is random."""
    step_sizes = np.geomspace(20.0, 400_000.0, 23 if quick else 160)
    finals = [ae.theory.Family(T, R, step_size=float(eta)).limit(log_time=690.0) for eta in step_sizes]
    attention = np.array([state.attention_shared for state in finals])
    below, above = promised()

    with style():
        save_figure(draw(step_sizes, attention, below, above), Path(out_dir) / "06_when_selection_fails.png", show=True)
    failing = step_sizes[attention < 0.5]
    return {
        "fails from step": float(failing.min()),
        "fails up to step": float(failing.max()),
        "promised below step": below,
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
