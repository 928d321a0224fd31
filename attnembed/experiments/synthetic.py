"""The two results of [WSOM25] on synthetic data: one step aligns E, gradient flow on p selects and converges."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from attnembed._progress import Progress
from attnembed._typing import Floats
from attnembed.attention.data import make_balanced_dataset, make_iid_dataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import FlowResult, gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.theory import Family, asymptotics, large_step_size, small_step_condition
from attnembed.attention.theory.rates import Asymptotics
from attnembed.experiments.registry import Outcome, Request, experiment
from attnembed.margins import MarginResult, max_margin
from attnembed.results import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_NEEDS_NOTHING = ("data", "repetitions")


@dataclass(frozen=True)
class AlignmentOptions:
    """The data, the step and the widths of `alignment`, with ``repetitions`` models per width."""

    n_samples: int = 400
    length: int = 16
    vocab_size: int = 64
    step_size: float = 200.0
    dim: int = 512
    dims: tuple[int, ...] = (50, 100, 200, 400, 800, 1600, 3200)
    repetitions: int = 20

    @classmethod
    def of(cls, request: Request) -> AlignmentOptions:
        """The options of a full or a quick run."""
        return cls(dims=(50, 100, 200, 400, 800), repetitions=5) if request.quick else cls()


@experiment(
    "alignment",
    "one gradient step aligns E with v in proportion to the signed frequency (Lemma 4.1)",
    ignores=_NEEDS_NOTHING,
)
def alignment(request: Request) -> Outcome:
    """E^1_s.v against alpha_s, and the error of the prediction against the width d."""
    options = AlignmentOptions.of(request)
    rng = np.random.default_rng(request.seed)
    # Zipf frequencies, tilted towards one class or the other by a random amount per token.
    tilt = rng.standard_normal(options.vocab_size)
    probs = np.exp([tilt, -tilt]) / np.arange(1, options.vocab_size + 1)
    probs /= probs.sum(axis=1, keepdims=True)
    data = make_iid_dataset(
        n_samples=options.n_samples,
        length=options.length,
        positive_probs=probs[0],
        negative_probs=probs[1],
        rng=rng,
    )
    step = one_step(AttentionModel.random(data.vocab_size, options.dim, rng=rng), data, options.step_size)
    alpha, values = data.signed_frequency, step.model.token_values

    # The error relative to eta phi_s, the natural unit of statement 4 (Section 3).
    occurs = data.frequency > 0
    unit = options.step_size * data.frequency[occurs]
    errors, bounds = [], []
    for dim in options.dims:
        runs = [
            one_step(AttentionModel.random(data.vocab_size, dim, rng=rng), data, options.step_size)
            for _ in range(options.repetitions)
        ]
        errors.append(np.mean([(run.error[occurs] / unit).max() for run in runs]))
        bounds.append(np.mean([(run.bound[occurs] / unit).max() for run in runs]))
    exponent = np.polyfit(np.log(options.dims), np.log(errors), 1)[0]

    def draw() -> Figure:
        from attnembed.plotting import MUTED, new_figure, plot_alignment, plot_line

        figure, axes = new_figure(1, 2)
        plot_alignment(axes[0, 0], alpha, values, step.slope)
        axes[0, 0].set_title(f"one step, n = {options.n_samples}, d = {options.dim}")
        ax = axes[0, 1]
        plot_line(ax, options.dims, bounds, "bound", index=1)
        plot_line(ax, options.dims, errors, "measured error", index=0, marker="o")
        reference = errors[0] * np.sqrt(options.dims[0] / np.array(options.dims))
        plot_line(ax, options.dims, reference, r"$d^{-1/2}$", color=MUTED, linestyle=":")
        ax.set(xscale="log", yscale="log", xlabel="width d", ylabel=r"largest error / $(\eta\,\phi_s)$")
        ax.set_xticks(options.dims, labels=options.dims)
        ax.set_xticks([], minor=True)
        ax.set_title(f"means of {options.repetitions} repetitions")
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
    return Outcome(asdict(options), numbers, {"alignment": draw})


@dataclass(frozen=True)
class SelectionOptions:
    """The data, the model and the length of the flow of `selection`."""

    n_samples: int = 60
    length: int = 6
    n_positive: int = 2
    n_negative: int = 2
    n_irrelevant: int = 8
    dim: int = 64
    step_size: float = 60.0
    log_time: float = 60.0
    clock: Literal["log_time"] = "log_time"
    cls_scale: float = 0.1

    @classmethod
    def of(cls, request: Request) -> SelectionOptions:
        """The options of a full or a quick run."""
        return cls(log_time=40.0) if request.quick else cls()


@experiment(
    "selection",
    "gradient flow on p selects the predictive tokens and converges to the max-margin direction",
    ignores=_NEEDS_NOTHING,
)
def selection(request: Request) -> Outcome:
    """Attention on the top tokens, angle to the max-margin direction and t (L - L*) along the flow against log t."""
    options = SelectionOptions.of(request)
    rng = np.random.default_rng(request.seed)
    data = make_balanced_dataset(
        n_samples=options.n_samples,
        length=options.length,
        n_positive=options.n_positive,
        n_negative=options.n_negative,
        n_irrelevant=options.n_irrelevant,
        rng=rng,
    )
    # Orthonormal E^0 orthogonal to v, the limit of large width, from p_0 != 0 after the step.
    frame = np.linalg.qr(rng.standard_normal((options.dim, options.dim)))[0]
    start = AttentionModel(frame[: data.vocab_size], np.zeros(options.dim), frame[-1])
    model = one_step(start, data, options.step_size).model
    model = model.replace(p=options.cls_scale * rng.standard_normal(options.dim))
    flow = gradient_flow(model, data, clock="log_time", until=options.log_time)
    chosen = select(flow.model, data)
    margin = max_margin(margin_constraints(model, data, chosen).differences)

    late = asymptotics(model, data, chosen)
    course = _Course.of(flow, margin, late)
    numbers = {
        "status": flow.status.value,
        "sequences_selecting_their_top_token": float(np.mean(chosen.tokens == chosen.top)),
        "smallest_top_attention": float(flow.top_attention[-1]),
        "norm_of_p": float(course.norm[-1]),
        "angle_to_max_margin_degrees": float(course.angle[-1]),
        "scaled_loss_gap": float(course.scaled_gap[-1]),
        "distance_to_asymptote": float(course.rest[-1]),
        "angle_constant_measured": float(np.radians(course.angle[-1]) ** 2 / 2 * course.log_time[-1] ** 2),
        "angle_constant_predicted": late.angle_constant,
        "transient_rate": late.transient_rate,
        "hypotheses_hold": late.holds,
        "margin": margin.margin,
        "kkt_residual": margin.kkt_residual,
        "evaluations": flow.nfev,
    }
    return Outcome(asdict(options), numbers, {"selection": lambda: _draw_course(course, late, options)})


@dataclass(frozen=True, eq=False, repr=False)
class _Course(Record):
    """The curves in the figure of `selection` along the flow, from its first step on."""

    log_time: Floats
    top_attention: Floats
    norm: Floats
    angle: Floats
    scaled_gap: Floats
    rest: Floats

    @classmethod
    def of(cls, flow: FlowResult, margin: MarginResult, late: Asymptotics) -> _Course:
        log_time, path = flow.log_time[1:], flow.path[1:]
        norm = np.linalg.norm(path, axis=1)
        # arccos loses half its digits near 1; the sine is the distance from the max-margin axis.
        along = path @ margin.direction
        angle = np.degrees(np.arctan2(np.linalg.norm(path - np.outer(along, margin.direction), axis=1), along))
        scaled_gap = np.exp(log_time) * flow.loss_gap[1:] * margin.margin**2
        rest = np.linalg.norm(path - late.p(log_time), axis=1)
        return cls(log_time, flow.top_attention[1:], norm, angle, scaled_gap, rest)


def _draw_course(course: _Course, late: Asymptotics, options: SelectionOptions) -> Figure:
    from attnembed.plotting import MUTED, new_figure, plot_line

    log_time, angle = course.log_time, course.angle
    figure, axes = new_figure(2, 2, panel=(5.0, 3.6))
    (attention, distance), (direction, gap) = axes
    plot_line(attention, log_time, course.top_attention, "measured")
    attention.set(ylabel="smallest attention\non a top token", ylim=(0, 1.05), title="selection")
    plot_line(distance, log_time, course.norm, r"$\|p_t\|$")
    plot_line(distance, log_time, course.rest, r"$\|p_t - p_{mm}\log t - \rho\|$", index=2)
    predicted = np.linalg.norm(late.p_mm) * log_time + late.norm_constant
    plot_line(distance, log_time, predicted, r"predicted $\|p_t\|$", index=1)
    distance.set(ylabel="norm", title="asymptote", ylim=(0, None))
    plot_line(direction, log_time, angle, "measured")
    law = np.degrees(np.sqrt(2 * late.angle_constant) / log_time[log_time > 2])
    bound = "predicted" if late.angle_is_exact else "predicted lower bound"
    plot_line(direction, log_time[log_time > 2], law, bound, index=1)
    direction.set(ylabel=r"angle to $p_{mm}$ (degrees)", ylim=(0, 1.1 * angle.max()), title="direction")
    plot_line(gap, log_time, course.scaled_gap, "measured")
    gap.axhline(1.0, color=MUTED, linestyle=":", label="predicted")
    gap.set(ylabel=r"$t\,(L - L^*)\,/\,\|p_{mm}\|^2$", title="loss gap")
    for ax in axes.flat:
        ax.set(xlabel=r"$\log t$", xlim=(-2, options.log_time))
        ax.legend()
    figure.suptitle(f"one flow, n = {options.n_samples} sequences, d = {options.dim}", fontsize=12)
    return figure


@dataclass(frozen=True)
class PhaseOptions:
    """The family and the step sizes of `phase_diagram`."""

    length: int = 20
    repeats: int = 30
    log_time: float = 690.0  # large steps make the loss e^{-gamma} small and the flow correspondingly slow
    smallest_step: float = 20.0
    largest_step: float = 400_000.0
    steps: int = 160

    @classmethod
    def of(cls, request: Request) -> PhaseOptions:
        """The options of a full or a quick run."""
        return cls(steps=40) if request.quick else cls()


@experiment(
    "phase-diagram",
    "selection against the step size on Family(20, 30), which fails in a window (F6)",
    ignores=_NEEDS_NOTHING,
)
def phase_diagram(request: Request) -> Outcome:
    """Attention on the shared token A and the loss gap at a late time against the size of the step on E."""
    options = PhaseOptions.of(request)
    T, r = options.length, options.repeats
    step_sizes = np.geomspace(options.smallest_step, options.largest_step, options.steps)
    finals = []
    with Progress("step sizes", total=len(step_sizes)) as progress:
        for k, eta in enumerate(step_sizes):
            finals.append(Family(T, r, step_size=float(eta)).limit(options.log_time))
            progress.update(k + 1)
    attention = np.array([state.attention_shared for state in finals])
    gaps = np.array([state.loss_gap for state in finals])
    failing = step_sizes[attention < 0.5]

    # The two sufficient conditions: kappa is proportional to eta; the large step size refers to E^0, before the step.
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
            title=f"Family({T}, {r}) at log t = {options.log_time:.0f}, {options.steps} step sizes",
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
    return Outcome(asdict(options), numbers, {"phase-diagram": draw})
