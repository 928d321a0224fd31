# %% [markdown]
# # When selection fails
#
# Small steps on E lead to selection, and so do very large ones. Between them there can be a window of step sizes where
# the flow gives the rare decisive token A no attention at all. Family(T, r) shows it in four scalars.

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np

import attnembed as ae
from attnembed.plotting import new_figure, plot_line, style


def main(out_dir: str | Path = ".", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Sweep the step size and draw the attention on A at a late time."""
    # %% The family has T r sequences; its symmetric flow is integrated in four coordinates.
    step_sizes = np.geomspace(100.0, 20_000.0, 20 if quick else 100)
    finals = [ae.theory.Family(20, 30, step_size=float(eta)).limit(log_time=200.0) for eta in step_sizes]
    attention = np.array([state.attention_shared for state in finals])

    # %% The sufficient condition for small steps, from data and parameters alone.
    family = ae.theory.Family(20, 30, step_size=1.0)
    model, data = ae.AttentionModel(*family.parameters()), family.dataset()
    small = ae.theory.small_step_condition(model, data)

    # %% The picture.
    with style():
        figure, axes = new_figure()
        plot_line(axes[0, 0], step_sizes, attention)
        axes[0, 0].set(xscale="log", xlabel=r"step size $\eta$", ylabel="attention on A", ylim=(-0.03, 1.05))
        figure.savefig(Path(out_dir) / "03_when_selection_fails.png", dpi=150)

    # %% Three numbers: where selection fails, and below which step theory promises it.
    failing = step_sizes[attention < 0.5]
    return {
        "fails from step": float(failing.min()),
        "fails up to step": float(failing.max()),
        "promised below step": float(small.right / small.left),
    }


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
