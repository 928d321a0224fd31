# %% [markdown]
# # Scaling repairs joint training
#
# A chain CRF over a small network, F = U + c W~ with a random W~, on synthetic sequences whose labels depend on their
# neighbours more than on their inputs. Naive joint training depends on the multiplier c, although every c describes the
# same functions. Online scaling removes the dependence; offline scaling fixes the ratio of the two parts beforehand.
# All arms share the same epochs, batches, initial networks and selection by validation score.  docs/structured.md

# %%
from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import attnembed as ae
from attnembed.compare import Comparison
from attnembed.optim import Adam
from attnembed.plotting import new_figure, plot_line, save_figure, style

LABELS, FEATURES, RATIOS = 6, 8, (1.5, 2.5, 4.0, 6.0)


# %% A network with one hidden layer, and a standard normal pairwise matrix
def make_model(rng: np.random.Generator) -> ae.ChainCRF:
    return ae.ChainCRF(ae.mlp(FEATURES, (32,), LABELS, rng=rng), rng.normal(size=(LABELS, LABELS)))


# %% Stage, naive joint and online training for every multiplier, and offline training for every ratio, on equal budgets
def compare(multipliers: tuple[float, ...], n_epochs: int, n_seeds: int, rng: int) -> Comparison:
    data = ae.make_chain_dataset(1200, 8, LABELS, FEATURES, emission=0.7, transition=2.0, rng=rng)
    parts = (data.subset(np.arange(*ends)) for ends in ((0, 200), (200, 600), (600, 1200)))
    arms: dict[str, dict[str, Any]] = {"stage": {"strategy": "stage"}}
    for c in multipliers:
        arms[f"joint {c:g}"] = {"prepare": partial(replace, pairwise_scale=c)}
        arms[f"online {c:g}"] = {"prepare": partial(replace, pairwise_scale=c), "scaling": ae.OnlineScaling()}
    for ratio in RATIOS:
        arms[f"offline {ratio:g}"] = {"scaling": ae.OfflineScaling(ratio=ratio)}
    budget = {
        "n_epochs": n_epochs,
        "repetitions": n_seeds,
        "batch_size": 10,
        "optimizer": Adam(step_size=0.01),
        "step_sizes": (0.01,),
    }
    return ae.compare_arms(arms, make_model, *parts, **budget)


# %% Left: test accuracy against the multiplier. Right: the ratio of the two parts during training, in the same colours
def draw(comparison: Comparison, multipliers: tuple[float, ...]) -> Figure:
    # The ratio is a hyperparameter, chosen on the validation data like the epoch.
    offline = max((comparison[f"offline {ratio:g}"] for ratio in RATIOS), key=lambda arm: arm.validation_score)
    figure, axes = new_figure(1, 2, panel=(4.9, 4.0))
    left, right = axes[0]
    for index, name in enumerate(("joint", "online")):
        arms = [comparison[f"{name} {c:g}"] for c in multipliers]
        mean, error = np.array([arm.mean for arm in arms]), np.nan_to_num([arm.standard_error for arm in arms])
        plot_line(left, multipliers, mean, name, index=index, marker="o")
        left.fill_between(multipliers, mean - error, mean + error, alpha=0.2)
        for arm in arms:
            plot_line(right, 1 + np.arange(comparison.n_epochs), arm.results[0].history.ratio, index=index, linewidth=1)
    for index, (arm, label) in enumerate(((comparison["stage"], "stage"), (offline, offline.name)), start=2):
        plot_line(left, multipliers, np.full(len(multipliers), arm.mean), label, index=index)
        plot_line(right, 1 + np.arange(comparison.n_epochs), arm.results[0].history.ratio, index=index)
    left.set(xscale="log", xlabel="multiplier c of the pairwise part", ylabel="test accuracy")
    n = len(offline.test_scores)
    left.set_title(f"mean of {n} repetitions, band: one standard error" if n > 1 else "one run", fontsize=11)
    left.legend(fontsize=10)
    right.set(yscale="log", xlabel="epoch", ylabel=r"ratio of the norms, $n_U / n_W$")
    right.set_title("first repetition, one line per c, colours as left", fontsize=11)
    return figure


# %% Three numbers: the effect of c on naive and on online training, and the cost of online training
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Write the figure and the table of all arms."""
    multipliers = (0.01, 1.0, 100.0) if quick else (0.01, 0.1, 1.0, 10.0, 100.0)
    comparison = compare(multipliers, n_epochs=8 if quick else 20, n_seeds=1 if quick else 3, rng=rng)
    joint, online = ([comparison[f"{name} {c:g}"].mean for c in multipliers] for name in ("joint", "online"))

    Path(out_dir).mkdir(parents=True, exist_ok=True)
    (Path(out_dir) / "10_relative_scale.txt").write_text(f"{comparison}\n", encoding="utf-8")
    with style():
        save_figure(draw(comparison, multipliers), Path(out_dir) / "10_relative_scale.png", show=True)
    return {
        "spread of the accuracy over c, joint": max(joint) - min(joint),
        "spread of the accuracy over c, online": max(online) - min(online),
        "accuracy of online at its worst c, minus stage": min(online) - comparison["stage"].mean,
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
