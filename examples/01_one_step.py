# %% [markdown]
# # One step aligns the embeddings
#
# One gradient step on the token embeddings E moves each E_s along v in proportion to its signed frequency alpha_s:
# E_s . v = (eta / 2) ||v||^2 alpha_s, up to an error that falls like 1/sqrt(d).  [WSOM25], Lemma 4.1.

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import attnembed as ae
from attnembed.plotting import new_figure, plot_alignment, save_figure, style


# %% Sequences of 12 tokens out of 40; the tilt of a token is its preference for one class or the other
def make_data(n_samples: int, rng: np.random.Generator) -> ae.TokenDataset:
    tilt = rng.standard_normal(40)
    probs = np.exp([tilt, -tilt])
    probs /= probs.sum(axis=1, keepdims=True)
    return ae.make_iid_dataset(
        n_samples=n_samples, length=12, positive_probs=probs[0], negative_probs=probs[1], rng=rng
    )


# %% The figure: one point per token, and the predicted line
def draw(alpha: np.ndarray, token_values: np.ndarray, slope: float) -> Figure:
    figure, axes = new_figure()
    plot_alignment(axes[0, 0], alpha, token_values, slope).locator_params(axis="x", nbins=5)
    return figure


# %% A random model, one step of size eta = 400 on E, and three numbers
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Take the step and compare it with the prediction: the slopes agree, and no token's error exceeds its bound."""
    generator = np.random.default_rng(rng)
    data = make_data(100 if quick else 600, generator)
    model = ae.AttentionModel.random(data.vocab_size, 800, rng=generator)
    step = ae.one_step(model, data, step_size=400.0)

    with style():
        figure = draw(data.signed_frequency, step.model.token_values, step.slope)
        save_figure(figure, Path(out_dir) / "01_one_step.png", show=True)
    return {
        "predicted slope": step.slope,
        "measured slope": step.measured_slope,
        "largest error / bound": float((step.error / step.bound).max()),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
