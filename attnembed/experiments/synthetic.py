"""The two results of [WSOM25] on synthetic data: one step aligns E, gradient flow on p selects and converges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from attnembed.attention.data import make_balanced_dataset
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.one_step import one_step
from attnembed.attention.selection import margin_constraints, select
from attnembed.experiments.registry import Outcome, Request, experiment
from attnembed.margins import max_margin

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@experiment("alignment", "one gradient step aligns E with v in proportion to the signed frequency (Lemma 4.1)")
def alignment(request: Request) -> Outcome:
    """E^1_s.v against alpha_s, and the error of the prediction against the width d."""
    parameters: dict[str, Any] = {
        "n_samples": 400,
        "length": 8,
        "n_positive": 8,
        "n_negative": 8,
        "n_irrelevant": 48,
        "zipf": 1.0,
        "step_size": 200.0,
        "dim": 512,
        "dims": [50, 100, 200, 400, 800, 1600, 3200][: 5 if request.quick else 7],
        "repeats": 5 if request.quick else 20,
    }
    rng = np.random.default_rng(request.seed)
    sizes = {
        key: parameters[key] for key in ("n_samples", "length", "n_positive", "n_negative", "n_irrelevant", "zipf")
    }
    data = make_balanced_dataset(**sizes, rng=rng)
    step = one_step(AttentionModel.random(data.vocab_size, parameters["dim"], rng=rng), data, parameters["step_size"])
    alpha, values = data.signed_frequency, step.model.token_values

    # The error relative to eta phi_s, the natural unit of statement 4 (Section 3).
    occurs = data.frequency > 0
    unit = parameters["step_size"] * data.frequency[occurs]
    errors, bounds = [], []
    for dim in parameters["dims"]:
        runs = [
            one_step(AttentionModel.random(data.vocab_size, dim, rng=rng), data, parameters["step_size"])
            for _ in range(parameters["repeats"])
        ]
        errors.append(np.mean([(run.error[occurs] / unit).max() for run in runs]))
        bounds.append(np.mean([(run.bound[occurs] / unit).max() for run in runs]))
    exponent = np.polyfit(np.log(parameters["dims"]), np.log(errors), 1)[0]

    def draw() -> Figure:
        from attnembed.plotting import MUTED, new_figure, plot_alignment, plot_line

        figure, axes = new_figure(1, 2)
        plot_alignment(axes[0, 0], alpha, values, step.slope)
        axes[0, 0].set_title(f"one step, d = {parameters['dim']}")
        ax = axes[0, 1]
        plot_line(ax, parameters["dims"], bounds, "bound", index=1)
        plot_line(ax, parameters["dims"], errors, "measured error", index=0, marker="o")
        reference = errors[0] * np.sqrt(parameters["dims"][0] / np.array(parameters["dims"]))
        plot_line(ax, parameters["dims"], reference, r"$d^{-1/2}$", color=MUTED, linestyle=":")
        ax.set(xscale="log", yscale="log", xlabel="width d", ylabel=r"largest error / $(\eta\,\phi_s)$")
        ax.set_title("distance from the prediction")
        ax.legend()
        return figure

    numbers = {
        "predicted_slope": step.slope,
        "measured_slope": step.measured_slope,
        "spearman_values_signed_frequency": float(spearmanr(values[occurs], alpha[occurs]).statistic),
        "largest_error_over_bound": float((step.error / step.bound)[occurs].max()),
        "error_exponent_in_dim": float(exponent),
        "relative_error_by_dim": [float(x) for x in errors],
        "relative_bound_by_dim": [float(x) for x in bounds],
    }
    return Outcome(parameters, numbers, {"alignment": draw})


@experiment("selection", "gradient flow on p selects the predictive tokens and converges to the max-margin direction")
def selection(request: Request) -> Outcome:
    """Attention on the top tokens, angle to the max-margin direction and t (L - L*) along the flow, against log t."""
    parameters: dict[str, Any] = {
        "n_samples": 60,
        "length": 6,
        "n_positive": 2,
        "n_negative": 2,
        "n_irrelevant": 16,
        "dim": 64,
        "step_size": 100.0,
        "log_time": 40.0 if request.quick else 60.0,
        "clock": "log_time",
    }
    rng = np.random.default_rng(request.seed)
    sizes = {key: parameters[key] for key in ("n_samples", "length", "n_positive", "n_negative", "n_irrelevant")}
    data = make_balanced_dataset(**sizes, rng=rng)
    start = AttentionModel.random(data.vocab_size, parameters["dim"], cls_scale=0.0, rng=rng)
    model = one_step(start, data, parameters["step_size"]).model
    flow = gradient_flow(model, data, clock="log_time", until=parameters["log_time"])
    chosen = select(flow.model, data)
    margin = max_margin(margin_constraints(model, data, chosen).differences)

    log_time, path = flow.log_time[1:], flow.path[1:]
    norm = np.linalg.norm(path, axis=1)
    # arccos of a cosine near 1 loses half its digits; the sine is the distance from the max-margin axis.
    along = path @ margin.direction
    angle = np.degrees(np.arctan2(np.linalg.norm(path - np.outer(along, margin.direction), axis=1), along))
    scaled_gap = np.exp(log_time) * flow.loss_gap[1:] * margin.margin**2

    def draw() -> Figure:
        from attnembed.plotting import MUTED, new_figure, plot_line

        figure, axes = new_figure(1, 3, panel=(4.2, 3.7))
        plot_line(axes[0, 0], log_time, flow.top_attention[1:])
        axes[0, 0].set(ylabel="smallest attention on a top token", title="selection", ylim=(0, 1.05))
        plot_line(axes[0, 1], log_time, angle)
        axes[0, 1].set(ylabel=r"angle to $p_{mm}$ (degrees)", title="direction", ylim=(0, None))
        plot_line(axes[0, 2], log_time, scaled_gap)
        axes[0, 2].axhline(1.0, color=MUTED, linestyle=":")
        axes[0, 2].set(ylabel=r"$t\,(L - L^*)\,/\,\|p_{mm}\|^2$", title="loss gap")
        for ax in axes[0]:
            ax.set(xlabel=r"$\log t$", xlim=(-2, parameters["log_time"]))
        return figure

    numbers = {
        "status": flow.status.value,
        "sequences_selecting_their_top_token": float(np.mean(chosen.tokens == chosen.top)),
        "smallest_top_attention": float(flow.top_attention[-1]),
        "norm_of_p": float(norm[-1]),
        "angle_to_max_margin_degrees": float(angle[-1]),
        "scaled_loss_gap": float(scaled_gap[-1]),
        "margin": margin.margin,
        "kkt_residual": margin.kkt_residual,
        "evaluations": flow.nfev,
    }
    return Outcome(parameters, numbers, {"selection": draw})
