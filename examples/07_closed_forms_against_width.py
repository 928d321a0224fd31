# %% [markdown]
# # Closed forms against width
#
# For orthogonal embeddings the margin program has a closed form. Random embeddings of width d are nearly orthogonal,
# so ||p_mm||^2 approaches its limit, and the slope of E_s . v against alpha_s approaches (eta / 2) ||v||^2, both at the
# rate 1/sqrt(d). docs/derivations/orthogonal.md, docs/derivations/one-step.md

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import attnembed as ae
from attnembed.plotting import COLOURS, MUTED, new_figure, plot_line, save_figure, style

STEP_SIZE, N_IRRELEVANT = 24.0, 12


# %% Theory: from the signed frequencies of the important tokens alone
def limit(data: ae.TokenDataset) -> float:
    """||p_mm||^2 for infinite width, where E_s = e_s + (eta / 2) alpha_s v with orthonormal e_s."""
    important = np.unique(data.check_assumption().important)
    kappa = STEP_SIZE / 2 * data.signed_frequency[important]
    return ae.theory.orthogonal_margin(kappa, N_IRRELEVANT).squared_norm


# %% Experiment: a random model, one step, and the margin program of the important tokens
def measure(data: ae.TokenDataset, width: int, rng: np.random.Generator) -> tuple[float, float]:
    """||p_mm||^2, and the measured slope over the predicted one."""
    start = ae.AttentionModel.random(data.vocab_size, width, rng=rng)
    step = ae.one_step(start, data, STEP_SIZE)
    constraints = ae.margin_constraints(step.model, data, data.check_assumption().important)
    return 1 / ae.max_margin(constraints.differences).margin ** 2, step.measured_slope / step.slope


# %% Left: every run. Right: root mean square errors
def draw(widths: np.ndarray, squares: np.ndarray, exact: float, errors: dict[str, np.ndarray]) -> Figure:
    figure, axes = new_figure(1, 2)
    left, right = axes[0]
    left.plot(widths, squares, "o", color=COLOURS[0], alpha=0.35, markersize=4)
    left.axhline(exact, color=COLOURS[1], label="closed form")
    left.set(xscale="log", xlabel="width d", ylabel=r"$\|p_{mm}\|^2$")
    for index, (name, error) in enumerate(errors.items()):
        plot_line(right, widths, error, name, index=index, marker="o")
    guide = errors["slope"][0] * np.sqrt(widths[0] / widths)
    plot_line(right, widths, guide, r"$\propto d^{-1/2}$", color=MUTED, linestyle=":")
    right.set(xscale="log", yscale="log", xlabel="width d", ylabel="relative error")
    for ax in axes[0]:
        ax.legend()
    return figure


# %% Three numbers: both exponents are -1/2, and the closed form is correct
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Two positive tokens, a negative one and twelve irrelevant ones, each pair in some sequence."""
    generator = np.random.default_rng(rng)
    data = ae.make_balanced_dataset(
        n_samples=400, length=6, n_positive=2, n_negative=1, n_irrelevant=N_IRRELEVANT, rng=generator
    )
    widths = 400 * 2 ** np.arange(5 if quick else 6)
    runs = np.array([[measure(data, d, generator) for _ in range(20 if quick else 50)] for d in widths])
    squares, slopes, exact = runs[..., 0], runs[..., 1], limit(data)
    relative = {r"$\|p_{mm}\|^2$": squares / exact - 1, "slope": slopes - 1}
    errors = {name: np.sqrt(np.mean(error**2, axis=1)) for name, error in relative.items()}

    with style():
        figure = draw(widths, squares, exact, errors)
        save_figure(figure, Path(out_dir) / "07_closed_forms_against_width.png", show=True)
    exponents = [np.polyfit(np.log(widths), np.log(error), 1)[0] for error in errors.values()]
    return {
        "exponent of the error of ||p_mm||^2": float(exponents[0]),
        "exponent of the error of the slope": float(exponents[1]),
        "||p_mm||^2 / closed form, mean at the largest d": float(squares[-1].mean() / exact),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
