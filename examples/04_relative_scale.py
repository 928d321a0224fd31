# %% [markdown]
# # The relative scale decides whether joint training works
#
# A chain CRF over a small network, F = U + c W~ with a random W~, on synthetic sequences whose labels depend on their
# neighbours more than on their inputs. Naive joint training depends on the multiplier c, although every c describes the
# same functions. Online scaling removes the dependence; offline scaling fixes the ratio of the two parts beforehand.
# All arms have the same epochs, batches, initial networks and selection by validation score.

# %% Set up: data with weak emissions and strong transitions, and the arms of the comparison
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from attnembed._files import replacing
from attnembed._validation import RNGLike, as_rng
from attnembed.optim import Adam
from attnembed.plotting import new_figure, plot_line, style
from attnembed.structured.data import make_chain_dataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import mlp
from attnembed.structured.scaling import OfflineScaling, OnlineScaling
from attnembed.structured.training import Comparison, compare_arms

K, FEATURES = 6, 8
RATIOS = (1.5, 2.5, 4.0, 6.0)


def make_model(rng: np.random.Generator) -> ChainCRF:
    """A network with one hidden layer and a standard normal pairwise matrix."""
    return ChainCRF(mlp(FEATURES, (32,), K, rng=rng), rng.normal(size=(K, K)))


def times(c: float) -> Any:
    """Set the multiplier of the pairwise part."""
    return lambda model: replace(model, pairwise_scale=c)


# %% Run every arm on one budget
def compare(multipliers: tuple[float, ...], n_epochs: int, n_seeds: int, rng: RNGLike) -> Comparison:
    """Stage, naive joint and online training for every multiplier, offline training for every ratio."""
    data = make_chain_dataset(1200, 8, K, FEATURES, emission=0.7, transition=2.0, rng=as_rng(rng))
    train, validation, test = (data.subset(np.arange(*ends)) for ends in ((0, 200), (200, 600), (600, 1200)))
    arms: dict[str, dict[str, Any]] = {"stage": {"strategy": "stage"}}
    for c in multipliers:
        arms[f"joint {c:g}"] = {"prepare": times(c)}
        arms[f"online {c:g}"] = {"prepare": times(c), "scaling": OnlineScaling()}
    for ratio in RATIOS:
        arms[f"offline {ratio:g}"] = {"scaling": OfflineScaling(ratio=ratio)}
    return compare_arms(
        arms,
        make_model,
        train,
        validation,
        test,
        n_epochs=n_epochs,
        seeds=range(n_seeds),
        batch_size=10,
        step_sizes=(1e-2,),
        optimizer=Adam(step_size=1e-2),
    )


# %% Draw
def draw(comparison: Comparison, multipliers: tuple[float, ...], curves: dict[str, Any], offline: Any) -> Figure:
    """Left: test accuracy against the multiplier. Right: the ratio of the two parts along training."""
    figure, axes = new_figure(1, 2, panel=(5.2, 4.2))
    left, right = axes[0]
    for index, (name, values) in enumerate(curves.items()):
        errors = np.nan_to_num([comparison[f"{name} {c:g}"].standard_error for c in multipliers])
        plot_line(left, multipliers, values, name, index=index, marker="o")
        left.fill_between(multipliers, values - errors, values + errors, alpha=0.2)
    ends = [multipliers[0], multipliers[-1]]
    for index, (arm, label) in enumerate(((comparison["stage"], "stage"), (offline, "offline")), start=2):
        plot_line(left, ends, [arm.mean] * 2, label, index=index)
    left.set(xscale="log", xlabel="multiplier c of the pairwise part", ylabel="test accuracy")
    left.legend()

    smallest, largest = f"{multipliers[0]:g}", f"{multipliers[-1]:g}"
    shown = {
        f"joint, c = {smallest}": comparison[f"joint {smallest}"],
        f"joint, c = {largest}": comparison[f"joint {largest}"],
        f"online, c = {smallest}": comparison[f"online {smallest}"],
        f"online, c = {largest}": comparison[f"online {largest}"],
        "stage": comparison["stage"],
        "offline": offline,
    }
    for index, (label, arm) in enumerate(shown.items()):
        ratio = arm.results[0].history.ratio
        plot_line(right, 1 + np.arange(len(ratio)), ratio, label, index=index)
    right.set(yscale="log", xlabel="epoch", ylabel=r"ratio of the norms, $\rho = n_U / n_W$")
    right.legend(fontsize=9, ncols=2)
    return figure


# %% Accuracy against the multiplier, and the ratio of the two parts during training
def main(out_dir: str | Path = "results", quick: bool = False, rng: RNGLike = 0) -> dict[str, Any]:
    """Write ``04_relative_scale.png`` and return the numbers in it."""
    multipliers = (0.01, 1.0, 100.0) if quick else (0.01, 0.1, 1.0, 10.0, 100.0)
    comparison = compare(multipliers, 8 if quick else 20, 1 if quick else 3, rng)
    curves = {name: np.array([comparison[f"{name} {c:g}"].mean for c in multipliers]) for name in ("joint", "online")}
    # The ratio is a hyperparameter: the validation data choose it, as they choose the epoch.
    offline = max((comparison[f"offline {ratio:g}"] for ratio in RATIOS), key=lambda arm: arm.validation_score)

    with style(), replacing(Path(out_dir) / "04_relative_scale.png") as temporary:
        draw(comparison, multipliers, curves, offline).savefig(temporary, format="png", dpi=150)
    return {
        "multipliers": list(multipliers),
        **{name: values.tolist() for name, values in curves.items()},
        **{f"{name} spread": float(np.ptp(values)) for name, values in curves.items()},
        "stage": comparison["stage"].mean,
        "offline": offline.mean,
        "offline ratio": float(offline.name.split()[1]),
        "table": str(comparison),
    }


if __name__ == "__main__":
    for key, value in main().items():
        print(value if key == "table" else f"{key}: {value}")
