# %% [markdown]
# # A chain CRF by hand
#
# A week of weather: potentials U tell how well each day fits "sun", "cloud" and "rain", potentials W how well one day
# follows another, and P(Y) = e^{F(Y)} / Z with F(Y) = sum_i U[i, y_i] + sum_i W[y_i, y_{i+1}]. There are 3^7 = 2187
# weeks, few enough to list them all. The recursions, without listing them, give the same log Z, the same marginals, the
# same best week, and samples with the right frequencies. The best week as a whole need not be the best day by day.

# %%
from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import attnembed as ae
from attnembed.plotting import COLOURS, new_figure, save_figure, style

STATES, DAYS = ("sun", "cloud", "rain"), ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")


# %% The potentials, log scores of any sign: the observations of each day, and weather that rarely jumps
def potentials(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    unary = rng.normal(size=(len(DAYS), len(STATES)))
    pairwise = np.array([[1.0, 0.0, -1.5], [0.0, 0.5, 0.0], [-1.5, 0.0, 1.0]])
    return unary, pairwise


# %% Enumeration: the definition, one line each
def enumerate_weeks(unary: np.ndarray, pairwise: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """log Z, the marginals P(y_i = k), and the labeling with the largest score."""
    weeks = np.array(list(product(range(len(STATES)), repeat=len(DAYS))))
    scores = unary[np.arange(len(DAYS)), weeks].sum(axis=1) + pairwise[weeks[:, :-1], weeks[:, 1:]].sum(axis=1)
    log_z = np.log(np.exp(scores).sum())
    probabilities = np.exp(scores - log_z)
    marginals = np.stack([probabilities @ (weeks == k) for k in range(len(STATES))], axis=1)
    return float(log_z), marginals, weeks[scores.argmax()]


# %% The figure: exact marginals as bars, sample frequencies with two standard errors, the best week as stars
def draw(marginals: np.ndarray, frequencies: np.ndarray, errors: np.ndarray, best: np.ndarray) -> Figure:
    figure, axes = new_figure(panel=(8.0, 3.9))
    ax, days = axes[0, 0], np.arange(len(DAYS))
    for k, (state, colour) in enumerate(zip(STATES, (COLOURS[4], COLOURS[5], COLOURS[0]))):
        x = days + 0.27 * (k - 1)
        ax.bar(x, marginals[:, k], width=0.25, color=colour, label=state)
        samples = ax.errorbar(x, frequencies[:, k], 2 * errors[:, k], fmt="k.", capsize=3, linewidth=1)
    samples.set_label("samples, 2 standard errors")
    ax.plot(days + 0.27 * (best - 1), marginals[days, best] + 0.07, "k*", markersize=9, label="Viterbi")
    ax.set(xticks=days, xticklabels=DAYS, ylabel=r"$P(y_i = k)$", axisbelow=True)
    ax.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=5, fontsize=10)
    return figure


# %% Three numbers: exact results agree, and samples scatter as expected
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Compare log Z, marginals, Viterbi and samples with enumeration."""
    generator = np.random.default_rng(rng)
    unary, pairwise = potentials(generator)
    log_z, marginals, best = enumerate_weeks(unary, pairwise)

    chain = ae.chain_marginals(unary, pairwise)
    week = ae.chain_viterbi(unary, pairwise)
    n = 500 if quick else 2000
    samples = ae.chain_sample(np.tile(unary, (n, 1, 1)), pairwise, rng=generator)
    frequencies = np.stack([(samples == k).mean(axis=0) for k in range(len(STATES))], axis=1)
    errors = np.sqrt(marginals * (1 - marginals) / n)

    with style():
        figure = draw(chain.node, frequencies, errors, week)
        save_figure(figure, Path(out_dir) / "09_chain_crf_by_hand.png", show=True)
    exact = max(abs(ae.chain_log_partition(unary, pairwise) - log_z), np.abs(chain.node - marginals).max())
    return {
        "largest error of log Z and the marginals": float(exact),
        "days on which Viterbi is right": float(np.sum(week == best)),
        "largest deviation of the samples (standard errors)": float(np.max(np.abs(frequencies - marginals) / errors)),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
