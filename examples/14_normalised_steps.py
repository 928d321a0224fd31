# %% [markdown]
# # Normalised steps: geometric decay up to a step size determined by the data
#
# The loss gap of plain gradient descent falls like 1/k, because the gradient vanishes with it. A step of fixed length
# along the gradient contracts it by e^{-gamma eta} each time, gamma being the margin, as long as eta is below
# eta* = 2 ||p_mm|| / lambda_max(H_perp), where H_perp comes from the multipliers of the margin program. Beyond it the
# iterates jump back and forth across the max-margin direction, and a longer step gains little. Polyak's step needs no
# eta, contracts by 1/e, and is stable if lambda_max(H_perp) < 2.  [VDT24]; docs/derivations/normalised-steps.md

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

import attnembed as ae
from attnembed.plotting import COLOURS, MUTED, new_figure, plot_line, save_figure, style


# %% Orthonormal embeddings after one actual step on E, so that all rows are active; a start near the asymptote
def make_problem(rng: np.random.Generator) -> tuple[ae.AttentionModel, ae.TokenDataset, ae.theory.Asymptotics]:
    data = ae.make_balanced_dataset(n_samples=30, length=4, n_irrelevant=5, rng=rng)
    frame = np.linalg.qr(rng.standard_normal((data.vocab_size + 3, data.vocab_size + 3)))[0]
    model = ae.one_step(ae.AttentionModel(frame[: data.vocab_size], np.zeros(len(frame)), frame[-1]), data, 40.0).model
    late = ae.theory.asymptotics(model, data)
    p = 6 * late.p_mm + late.rho + 0.1 * rng.standard_normal(model.dim)
    return model.replace(p=p), data, late


# %% The mean change of log(L - L*) over the last steps of a run
def log_contraction(run: object, steps: int = 40) -> float:
    gaps = np.log(run.loss_gap)
    return float((gaps[-1] - gaps[-1 - steps]) / steps)


# %% Left: the gap against the number of steps. Right: the contraction against the step size, with its prediction
def draw_gaps(ax: Axes, runs: dict[float, object]) -> None:
    for k, (share, run) in enumerate(runs.items()):
        plot_line(ax, np.arange(81), run.loss_gap[:81], rf"$\eta = {share:g}\,\eta^*$", index=k)
    ax.set(yscale="log", xlabel="step $k$", ylabel="$L(p_k) - L^*$", title="The gap falls geometrically")
    ax.legend()


def draw_contraction(ax: Axes, shares: np.ndarray, measured: np.ndarray, late: ae.theory.Asymptotics) -> None:
    eta = shares * late.step_limit
    plot_line(ax, shares, late.margin * eta, r"$\gamma\eta$, predicted below $\eta^*$", index=1)
    ax.plot(shares, -measured, "o", color=COLOURS[0], markersize=5, label="measured")
    ax.axvline(1.0, color=MUTED, linewidth=1.2)
    ax.text(1.02, 0.02, r"$\eta^*$", transform=ax.get_xaxis_transform(), fontsize=13, color=MUTED)
    ax.set(
        xlabel=r"step size $\eta/\eta^*$",
        ylabel=r"$-\log$ contraction per step",
        title="Longer steps pay up to $\\eta^*$",
    )
    ax.legend(loc="upper left")


# %% Three numbers: the error below the limit, the loss just above it, and Polyak's contraction
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Run normalised descent below and above the predicted limit, and Polyak's step where it is stable."""
    model, data, late = make_problem(np.random.default_rng(rng))
    shares = np.linspace(0.2, 1.6, 8 if quick else 29)
    steps = 160
    sizes = shares * late.step_limit
    measured = np.array([log_contraction(ae.normalised_descent(model, data, eta, steps)) for eta in sizes])
    errors = np.abs(measured / np.log(late.contraction(sizes)) - 1)
    runs = {s: ae.normalised_descent(model, data, s * late.step_limit, steps) for s in (0.5, 0.95, 1.05, 1.5)}
    above = log_contraction(runs[1.05]) / (-late.margin * 1.05 * late.step_limit)

    pair = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    flat = ae.AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.0])  # lambda_max(H_perp) = 1/3
    polyak = ae.normalised_descent(flat, pair, 1.0, 200, polyak=True)
    with style():
        figure, axes = new_figure(1, 2, panel=(4.8, 4.2))
        draw_gaps(axes[0, 0], runs)
        draw_contraction(axes[0, 1], shares, measured, late)
        save_figure(figure, Path(out_dir) / "14_normalised_steps.png", show=True)
    return {
        "largest error of a predicted contraction below the limit": float(errors[shares < 0.96].max()),
        "shortfall 5 % above the limit": 1 - above,
        "contraction of Polyak's step where it is stable": float(np.exp(log_contraction(polyak))),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
