# %% [markdown]
# # Tightness of the bound on one step
#
# The prediction E^1_s = E^0_s + (eta / 2) alpha_s v has a small error if the model starts small. Both the error and its
# bound are proportional to the step size eta, and also to the scale of E^0 and p_0 as long as that is small; for a
# large start the bound grows like e^{2 rho}, rho = max |p_0 . E^0_s|, but the error does not.

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import attnembed as ae
from attnembed.plotting import new_figure, plot_line, save_figure, style

SCALES = np.geomspace(1e-3, 3.0, 15)
STEP_SIZES = np.geomspace(1e-2, 1e4, 7)


# %% Largest error over all tokens, and the bound; both relative to phi_s, to which the bound is proportional
def measure(model: ae.AttentionModel, data: ae.TokenDataset) -> tuple[np.ndarray, np.ndarray]:
    """Errors and bounds for every initial scale (rows) and every step size (columns)."""
    errors, bounds = np.empty((2, SCALES.size, STEP_SIZES.size))
    for i, scale in enumerate(SCALES):
        start = model.replace(E=scale * model.E, p=scale * model.p)
        for j, step_size in enumerate(STEP_SIZES):
            step = ae.one_step(start, data, step_size)
            errors[i, j] = (step.error / data.frequency).max()
            bounds[i, j] = (step.bound / data.frequency).max()
    return errors, bounds


# %% The figure: where two straight lines are parallel, the bound is off by a constant factor
def draw(errors: np.ndarray, bounds: np.ndarray) -> Figure:
    figure, axes = new_figure(1, 2)
    left, right = axes[0]
    middle = STEP_SIZES.size // 2
    for ax, x, chosen in ((left, STEP_SIZES, np.s_[0, :]), (right, SCALES, np.s_[:, middle])):
        plot_line(ax, x, bounds[chosen], "bound", index=1)
        plot_line(ax, x, errors[chosen], "measured error", index=0, marker="o")
        ax.set(xscale="log", yscale="log", ylabel=r"largest error / $\phi_s$")
        ax.legend()
    left.set(xlabel=r"step size $\eta$", title=f"start scaled by {SCALES[0]:g}")
    right.set(xlabel=r"scale of $E^0$ and $p_0$", title=rf"$\eta$ = {STEP_SIZES[middle]:g}")
    return figure


# %% Three numbers: both exponents are 1, and the bound holds without being loose
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Measure on sequences whose tokens lean to one class or the other, from a random start of width 64."""
    generator = np.random.default_rng(rng)
    tilt = generator.standard_normal(40)
    probs = np.exp([tilt, -tilt])
    probs /= probs.sum(axis=1, keepdims=True)
    data = ae.make_iid_dataset(
        n_samples=200 if quick else 2000, length=12, positive_probs=probs[0], negative_probs=probs[1], rng=generator
    )
    errors, bounds = measure(ae.AttentionModel.random(data.vocab_size, 64, rng=generator), data)

    with style():
        save_figure(draw(errors, bounds), Path(out_dir) / "02_bound_against_error.png", show=True)
    small = SCALES < 0.02
    return {
        "exponent of the error in the step size": float(np.polyfit(np.log(STEP_SIZES), np.log(errors[0]), 1)[0]),
        "exponent of the error in the scale": float(np.polyfit(np.log(SCALES[small]), np.log(errors[small, 0]), 1)[0]),
        "largest error / bound": float((errors / bounds).max()),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
