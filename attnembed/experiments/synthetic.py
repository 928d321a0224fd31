"""The two results of [WSOM25] on synthetic data: one step aligns E, gradient flow on p selects and converges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from attnembed._progress import Progress
from attnembed.attention.data import make_balanced_dataset, make_iid_dataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.theory import Family, asymptotics, large_step_size, small_step_condition
from attnembed.experiments.registry import Outcome, Request, experiment
from attnembed.margins import max_margin

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_NEEDS_NOTHING = ("data", "repetitions")


@experiment(
    "alignment",
    "one gradient step aligns E with v in proportion to the signed frequency (Lemma 4.1)",
    ignores=_NEEDS_NOTHING,
)
def alignment(request: Request) -> Outcome:
    """E^1_s.v against alpha_s, and the error of the prediction against the width d."""
    parameters: dict[str, Any] = {
        "n_samples": 400,
        "length": 16,
        "vocab_size": 64,
        "step_size": 200.0,
        "dim": 512,
        "dims": [50, 100, 200, 400, 800, 1600, 3200][: 5 if request.quick else 7],
        "repeats": 5 if request.quick else 20,
    }
    rng = np.random.default_rng(request.seed)
    # Zipf frequencies, tilted towards one class or the other by a random amount per token.
    tilt = rng.standard_normal(parameters["vocab_size"])
    probs = np.exp([tilt, -tilt]) / np.arange(1, parameters["vocab_size"] + 1)
    probs /= probs.sum(axis=1, keepdims=True)
    data = make_iid_dataset(
        n_samples=parameters["n_samples"],
        length=parameters["length"],
        positive_probs=probs[0],
        negative_probs=probs[1],
        rng=rng,
    )
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
        ax.set_xticks(parameters["dims"], labels=parameters["dims"])
        ax.set_xticks([], minor=True)
        ax.set_title("distance from the prediction")
        ax.legend()
        return figure

    numbers = {
        "predicted_slope": step.slope,
        "measured_slope": step.measured_slope,
        "correlation_values_signed_frequency": float(np.corrcoef(values[occurs], alpha[occurs])[0, 1]),
        "largest_error_over_bound": float((step.error / step.bound)[occurs].max()),
        "error_exponent_in_dim": float(exponent),
        "relative_error_by_dim": [float(x) for x in errors],
        "relative_bound_by_dim": [float(x) for x in bounds],
    }
    return Outcome(parameters, numbers, {"alignment": draw})


@experiment(
    "selection",
    "gradient flow on p selects the predictive tokens and converges to the max-margin direction",
    ignores=_NEEDS_NOTHING,
)
def selection(request: Request) -> Outcome:
    """Attention on the top tokens, angle to the max-margin direction and t (L - L*) along the flow, against log t."""
    parameters: dict[str, Any] = {
        "n_samples": 60,
        "length": 6,
        "n_positive": 2,
        "n_negative": 2,
        "n_irrelevant": 8,
        "dim": 64,
        "step_size": 60.0,
        "log_time": 40.0 if request.quick else 60.0,
        "clock": "log_time",
        "cls_scale": 0.1,
    }
    rng = np.random.default_rng(request.seed)
    sizes = {key: parameters[key] for key in ("n_samples", "length", "n_positive", "n_negative", "n_irrelevant")}
    data = make_balanced_dataset(**sizes, rng=rng)
    # Orthonormal E^0 orthogonal to v, the limit of large width, from p_0 != 0 after the step.
    frame = np.linalg.qr(rng.standard_normal((parameters["dim"], parameters["dim"])))[0]
    start = AttentionModel(frame[: data.vocab_size], np.zeros(parameters["dim"]), frame[-1])
    model = one_step(start, data, parameters["step_size"]).model
    model = model.replace(p=parameters["cls_scale"] * rng.standard_normal(parameters["dim"]))
    flow = gradient_flow(model, data, clock="log_time", until=parameters["log_time"])
    chosen = select(flow.model, data)
    margin = max_margin(margin_constraints(model, data, chosen).differences)

    log_time, path = flow.log_time[1:], flow.path[1:]
    norm = np.linalg.norm(path, axis=1)
    # arccos of a cosine near 1 loses half its digits; the sine is the distance from the max-margin axis.
    along = path @ margin.direction
    angle = np.degrees(np.arctan2(np.linalg.norm(path - np.outer(along, margin.direction), axis=1), along))
    scaled_gap = np.exp(log_time) * flow.loss_gap[1:] * margin.margin**2
    late = asymptotics(model, data, chosen)
    rest = np.linalg.norm(path - late.p(log_time), axis=1)

    def draw() -> Figure:
        from attnembed.plotting import MUTED, new_figure, plot_line

        figure, axes = new_figure(2, 2, panel=(5.0, 3.6))
        (attention, distance), (direction, gap) = axes
        plot_line(attention, log_time, flow.top_attention[1:], "measured")
        attention.set(ylabel="smallest attention\non a top token", ylim=(0, 1.05), title="selection")
        plot_line(distance, log_time, np.linalg.norm(path, axis=1), r"$\|p_t\|$")
        plot_line(distance, log_time, rest, r"$\|p_t - p_{mm}\log t - \rho\|$", index=2)
        predicted = np.linalg.norm(late.p_mm) * log_time + late.norm_constant
        plot_line(distance, log_time, predicted, r"predicted $\|p_t\|$", index=1)
        distance.set(ylabel="norm", title="asymptote", ylim=(0, None))
        plot_line(direction, log_time, angle, "measured")
        law = np.degrees(np.sqrt(2 * late.angle_constant) / log_time[log_time > 2])
        bound = "predicted" if late.angle_is_exact else "predicted lower bound"
        plot_line(direction, log_time[log_time > 2], law, bound, index=1)
        direction.set(ylabel=r"angle to $p_{mm}$ (degrees)", ylim=(0, 1.1 * angle.max()), title="direction")
        plot_line(gap, log_time, scaled_gap, "measured")
        gap.axhline(1.0, color=MUTED, linestyle=":", label="predicted")
        gap.set(ylabel=r"$t\,(L - L^*)\,/\,\|p_{mm}\|^2$", title="loss gap")
        for ax in axes.flat:
            ax.set(xlabel=r"$\log t$", xlim=(-2, parameters["log_time"]))
            ax.legend()
        return figure

    numbers = {
        "status": flow.status.value,
        "sequences_selecting_their_top_token": float(np.mean(chosen.tokens == chosen.top)),
        "smallest_top_attention": float(flow.top_attention[-1]),
        "norm_of_p": float(norm[-1]),
        "angle_to_max_margin_degrees": float(angle[-1]),
        "scaled_loss_gap": float(scaled_gap[-1]),
        "distance_to_asymptote": float(rest[-1]),
        "angle_constant_measured": float(np.radians(angle[-1]) ** 2 / 2 * log_time[-1] ** 2),
        "angle_constant_predicted": late.angle_constant,
        "transient_rate": late.transient_rate,
        "hypotheses_hold": late.holds,
        "margin": margin.margin,
        "kkt_residual": margin.kkt_residual,
        "evaluations": flow.nfev,
    }
    return Outcome(parameters, numbers, {"selection": draw})


@experiment(
    "phase-diagram",
    "selection against the step size on Family(20, 30): it fails in a window (F6)",
    ignores=_NEEDS_NOTHING,
)
def phase_diagram(request: Request) -> Outcome:
    """Attention on the shared token A and the loss gap at a late time, against the size of the step on E."""
    parameters: dict[str, Any] = {
        "length": 20,
        "repeats": 30,
        "log_time": 690.0,  # large steps make the loss e^{-gamma} small and the flow as slow
        "smallest_step": 20.0,
        "largest_step": 400_000.0,
        "steps": 40 if request.quick else 160,
    }
    T, r = parameters["length"], parameters["repeats"]
    step_sizes = np.geomspace(parameters["smallest_step"], parameters["largest_step"], parameters["steps"])
    finals = []
    with Progress("step sizes", total=len(step_sizes)) as progress:
        for k, eta in enumerate(step_sizes):
            finals.append(Family(T, r, step_size=float(eta)).limit(parameters["log_time"]))
            progress.update(k + 1)
    attention = np.array([state.attention_shared for state in finals])
    gaps = np.array([state.loss_gap for state in finals])
    failing = step_sizes[attention < 0.5]

    # The two sufficient conditions: kappa is proportional to eta; the large step size belongs to E^0, before the step.
    unit = Family(T, r, step_size=1.0)
    data, model = unit.dataset(), AttentionModel(*unit.parameters())
    small = small_step_condition(model, data)
    start = AttentionModel(*Family(T, r, step_size=0.0).parameters())
    large = large_step_size(start, data)
    sufficient = {"small_step": float(small.right / small.left), "large_step": large.step_size}

    def draw() -> Figure:
        from attnembed.plotting import COLOURS, new_figure, plot_line

        figure, axes = new_figure(2, 1, panel=(6.6, 3.0))
        plot_line(axes[0, 0], step_sizes, attention)
        axes[0, 0].set(
            ylabel="attention on A",
            ylim=(-0.03, 1.05),
            title=f"Family({T}, {r}) at log t = {parameters['log_time']:.0f}",
        )
        plot_line(axes[1, 0], step_sizes, np.maximum(gaps, 1e-30))
        axes[1, 0].set(ylabel="loss gap $L - L^*$\n(cut at $10^{-30}$)", yscale="log", ylim=(1e-30, 2))
        for ax in axes[:, 0]:
            ax.set(xscale="log", xlabel=r"step size $\eta$", xlim=step_sizes[[0, -1]])
            ax.axvspan(step_sizes[0], sufficient["small_step"], color=COLOURS[2], alpha=0.15, label="small step (F5)")
            ax.axvspan(sufficient["large_step"], step_sizes[-1], color=COLOURS[4], alpha=0.2, label="large step (F4)")
            if failing.size:
                ax.axvspan(failing[0], failing[-1], color=COLOURS[1], alpha=0.12, label="selection fails")
        axes[0, 0].legend(loc="center right", fontsize=10)
        return figure

    numbers = {
        "failing_from": float(failing[0]) if failing.size else None,
        "failing_to": float(failing[-1]) if failing.size else None,
        "small_step_sufficient_below": sufficient["small_step"],
        "large_step_sufficient_above": sufficient["large_step"],
        "largest_attention_inside": float(attention[(step_sizes >= 758) & (step_sizes <= 3158)].max()),
        "smallest_attention_outside": float(attention[(step_sizes <= 505) | (step_sizes >= 3790)].min()),
        "loss_gap_inside": float(gaps[(step_sizes >= 758) & (step_sizes <= 3158)].min()),
    }
    return Outcome(parameters, numbers, {"phase-diagram": draw})
