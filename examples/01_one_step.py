# %% [markdown]
# # One step aligns the embeddings
#
# One gradient step on the token embeddings E moves each E_s along v in proportion to its signed frequency alpha_s:
# E_s . v = (eta / 2) ||v||^2 alpha_s, up to an error that falls like 1/sqrt(d).  [WSOM25], Lemma 4.1.

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np

import attnembed as ae
from attnembed.plotting import new_figure, plot_alignment, style


def main(out_dir: str | Path = ".", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Take the step, compare it with the prediction and its bound, and draw it."""
    generator = np.random.default_rng(rng)

    # %% Sequences of 12 tokens over a vocabulary of 40; the tilt says how a token leans to one class.
    tilt = generator.standard_normal(40)
    probs = np.exp([tilt, -tilt])
    probs /= probs.sum(axis=1, keepdims=True)
    n_samples = 100 if quick else 600
    data = ae.make_iid_dataset(
        n_samples=n_samples, length=12, positive_probs=probs[0], negative_probs=probs[1], rng=generator
    )

    # %% A random model and one step of size eta = 400 on E.
    model = ae.AttentionModel.random(data.vocab_size, 800, rng=generator)
    step = ae.one_step(model, data, step_size=400.0)

    # %% The picture: measured values on the predicted line.
    with style():
        figure, axes = new_figure()
        plot_alignment(axes[0, 0], data.signed_frequency, step.model.token_values, step.slope)
        figure.savefig(Path(out_dir) / "01_one_step.png", dpi=150)

    # %% Three numbers: the two slopes agree, and no token's error exceeds its bound.
    return {
        "predicted slope": step.slope,
        "measured slope": step.measured_slope,
        "largest error / bound": float((step.error / step.bound).max()),
    }


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
