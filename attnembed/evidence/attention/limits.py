"""Claims of Section 5: the divergence of the flow on p, measured in log time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from attnembed.attention.data import TokenDataset
from attnembed.attention.flow import FlowResult, gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.theory.rates import Asymptotics, asymptotics
from attnembed.evidence.attention.extremal import slow_inactive_row
from attnembed.evidence.attention.instances import Instance, orthogonal_instance
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.margins import kkt_residual

_HYPOTHESES = (
    "every active row pulls towards the selection",
    "the margin program is feasible",
    "its solution is certified",
    "p_mm is in the relative interior of its support's cone",
    "rho was found",
    "the support spans all constraints",
)
_SOURCE = "asymptotics of Section 5, derived here"
_PAGE = "derivations/asymptotics.md"


@dataclass(frozen=True, eq=False)
class LateFlow:
    """A flow from a random p_0, with its predicted asymptotics."""

    instance: Instance
    flow: FlowResult
    late: Asymptotics

    @classmethod
    def draw(cls, rng: np.random.Generator, log_time: float = 60.0) -> LateFlow:
        """Orthonormal embeddings after one step: all constraints are active, transients decay within a few units."""
        instance = orthogonal_instance(rng)
        model = instance.model.replace(p=0.3 * rng.standard_normal(instance.model.dim))
        return cls.run(Instance(model, instance.data), log_time)

    @classmethod
    def run(cls, instance: Instance, log_time: float) -> LateFlow:
        """The flow from the model's p, and the asymptotics of its selection."""
        flow = gradient_flow(instance.model, instance.data, until=log_time, rtol=1e-11, atol=1e-13)
        return cls(instance, flow, asymptotics(instance.model, instance.data, select(flow.model, instance.data)))

    @property
    def differences(self) -> np.ndarray:
        """The rows d_k of the margin program."""
        return margin_constraints(
            self.instance.model, self.instance.data, select(self.flow.model, self.instance.data)
        ).differences

    def evidence(self, **numbers: Any) -> Evidence:
        """Evidence with the hypotheses of the prediction."""
        hypotheses = {hypothesis.name: hypothesis.holds for hypothesis in self.late.hypotheses}
        hypotheses["the support spans all constraints"] = self.late.angle_is_exact
        return Evidence(hypotheses=hypotheses, **numbers)


@claim(
    "attention/loss-gap-limit",
    statement="t (L - L*) converges to the squared norm of the max-margin point",
    tex=r"t\,(L(p_t) - L^*) \to \|p_{mm}\|^2 = 1/\gamma^2",
    reference=_SOURCE,
    hypotheses=_HYPOTHESES,
    control="the margin itself instead of its square",
    derivation=_PAGE,
)
def loss_gap_limit(rng: np.random.Generator) -> Evidence:
    run = LateFlow.draw(rng)
    scaled = float(np.exp(run.flow.log_time[-1]) * run.flow.loss_gap[-1])
    return run.evidence(
        measured=abs(scaled * run.late.margin**2 - 1), tolerance=1e-6, control=abs(scaled * run.late.margin - 1)
    )


@claim(
    "attention/asymptote",
    statement="p_t - p_mm log t converges to the offset rho plus the conserved part of p_0",
    tex=r"p_t = p_{mm}\log t + \rho + o(1),\ \rho = \arg\min\textstyle\sum_k C_k e^{-\rho\cdot d_k} + \rho\cdot p_{mm}",
    reference=_SOURCE,
    hypotheses=_HYPOTHESES,
    control="p_mm log t alone",
    derivation=_PAGE,
)
def asymptote(rng: np.random.Generator) -> Evidence:
    run = LateFlow.draw(rng)
    log_time, p = run.flow.log_time[-1], run.flow.p
    scale = np.linalg.norm(run.late.rho)
    return run.evidence(
        measured=float(np.linalg.norm(p - run.late.p(log_time)) / scale),
        tolerance=1e-5,
        control=float(np.linalg.norm(p - log_time * run.late.p_mm) / scale),
    )


@claim(
    "attention/dual-selected",
    statement="the multipliers that the flow selects, C_k e^{-rho.d_k}, solve the dual of the margin program",
    tex=r"\lambda_k = C_k e^{-\rho\cdot d_k},\quad p_{mm} = \textstyle\sum_k \lambda_k d_k",
    reference=_SOURCE,
    hypotheses=_HYPOTHESES,
    control="the coefficients C_k themselves",
    derivation=_PAGE,
)
def dual_selected(rng: np.random.Generator) -> Evidence:
    run = LateFlow.draw(rng, log_time=30.0)
    return run.evidence(
        measured=kkt_residual(run.differences, run.late.p_mm, run.late.dual),
        tolerance=1e-9,
        control=kkt_residual(run.differences, run.late.p_mm, run.late.C),
    )


@claim(
    "attention/norm-constant",
    statement="||p_t|| - ||p_mm|| log t converges, to a sum over the selected multipliers",
    tex=r"\|p_t\| = \|p_{mm}\|\log t + \tfrac{1}{\|p_{mm}\|}\textstyle\sum_k\lambda_k\log(C_k/\lambda_k) + O(1/\log t)",
    reference=_SOURCE,
    hypotheses=_HYPOTHESES,
    control="the constant zero",
    derivation=_PAGE,
)
def norm_constant(rng: np.random.Generator) -> Evidence:
    run = LateFlow.draw(rng, log_time=600.0)
    log_time = run.flow.log_time[-1]
    excess = float(np.linalg.norm(run.flow.p) - log_time / run.late.margin)
    # The tolerance is twice the next term of the expansion, (||rho_perp||^2 / 2 ||p_mm||) / log t.
    rest = 2 * run.late.angle_constant / run.late.margin / log_time
    return run.evidence(measured=abs(excess - run.late.norm_constant), bound=rest, control=abs(excess))


@claim(
    "attention/angle-constant",
    statement="the angle to the max-margin direction falls like 1/log t, with a known constant",
    tex=r"(1 - \cos)\log^2 t \to \|\rho_\perp\|^2 / (2\|p_{mm}\|^2)",
    reference=_SOURCE,
    hypotheses=_HYPOTHESES,
    control="the same constant for (1 - cos) log t",
    derivation=_PAGE,
)
def angle_constant(rng: np.random.Generator) -> Evidence:
    run = LateFlow.draw(rng, log_time=600.0)
    direction, p = run.late.p_mm * run.late.margin, run.flow.p
    across = float(np.linalg.norm(p - (p @ direction) * direction))
    # 1 - cos from the tangent, which does not cancel at small angles.
    tangent = across / float(p @ direction)
    gap, log_time = tangent**2 / (1 + tangent**2 + np.sqrt(1 + tangent**2)), run.flow.log_time[-1]
    constant = run.late.angle_constant
    return run.evidence(
        measured=abs(gap * log_time**2 / constant - 1), tolerance=0.02, control=abs(gap * log_time / constant - 1)
    )


@claim(
    "attention/conserved-component",
    statement="the component of p_0 outside the span of the constraints never changes",
    tex=r"(I - P_{\mathrm{span}\{d_k\}})(p_t - p_0) = 0",
    reference=_SOURCE,
    control="the component inside the span",
    derivation=_PAGE,
)
def conserved_component(rng: np.random.Generator) -> Evidence:
    run = LateFlow.draw(rng)
    change = run.flow.p - run.instance.model.p
    _, singular, rows = np.linalg.svd(run.differences, full_matrices=False)
    basis = rows[singular > 1e-10 * singular[0]]
    inside = basis.T @ (basis @ change)
    return Evidence(
        measured=float(np.linalg.norm(change - inside) / np.linalg.norm(change)),
        tolerance=1e-12,
        control=float(np.linalg.norm(inside) / np.linalg.norm(change)),
    )


@claim(
    "attention/transient-rate",
    statement="where data and parameters determine the asymptote, the distance to it decays like t^-mu",
    tex=r"\mu = \min\{\lambda_{\min}(\textstyle\sum_k\lambda_k d_k d_k^\top),\ \min_{k\notin S} d_k\cdot p_{mm} - 1\}",
    reference=_SOURCE,
    hypotheses=_HYPOTHESES,
    control="the rate ten percent larger; and the coefficients C_k instead of the multipliers",
    derivation=_PAGE,
)
def transient_rate(rng: np.random.Generator) -> Evidence:
    run = LateFlow.draw(rng)
    D = run.differences
    modes = np.linalg.eigh(D.T @ (run.late.dual[:, None] * D))[1][:, -np.linalg.matrix_rank(D) :]
    rate, slowest = _fitted_rate(run), _fitted_rate(run, modes[:, :1])
    eigenvalues = np.linalg.eigvalsh(D.T @ (run.late.C[:, None] * D))
    wrong = eigenvalues[eigenvalues > 1e-10 * eigenvalues[-1]][0]
    # Here the slowest mode is an inactive row, not an eigenvalue.
    slow = LateFlow.run(slow_inactive_row(rng.uniform(0.25, 0.45)), 60.0)
    inactive = _fitted_rate(slow)

    def off(factor: float = 1.0) -> list[float]:
        """The relative distances of the two slowest rates from mu, and the relative lag of the whole behind mu."""
        mu, other = factor * run.late.transient_rate, factor * slow.late.transient_rate
        return [abs(slowest / mu - 1), abs(inactive / other - 1), largest(0.0, 1 - rate / mu)]

    return run.evidence(
        measured=largest(off()),
        tolerance=0.02,
        control=min(*off(1.1)[:2], abs(slowest / wrong - 1)),
        note=f"mu = {run.late.transient_rate:.3f} and {slow.late.transient_rate:.3f}",
    )


def _fitted_rate(run: LateFlow, modes: np.ndarray | None = None) -> float:
    """The rate at which p_t - p(log t) decays in its determined directions, or along some ``modes`` (d, k)."""
    log_time = run.flow.log_time[1:]
    rest = run.flow.path[1:] - run.late.p(log_time)
    rest = rest - rest @ run.late.undetermined @ run.late.undetermined.T if modes is None else rest @ modes
    size = np.linalg.norm(rest, axis=1)
    # Late enough for the slowest mode to dominate, early enough to stay above the integrator's error.
    window = (log_time > 9 / run.late.transient_rate) & (size > 1e-8)
    return float(-np.polyfit(log_time[window], np.log(size[window]), 1)[0])


@claim(
    "attention/attention-decay",
    statement="t times the attention on a losing token converges, on the support, to a ratio of multipliers",
    tex=r"t\,a_{is} \to (n_{is}/n_{is^*})\,\lambda_k / C_k",
    reference=_SOURCE,
    hypotheses=_HYPOTHESES,
    control="the limit without the ratio of counts",
    derivation=_PAGE,
)
def attention_decay(rng: np.random.Generator) -> Evidence:
    run = LateFlow.draw(rng)
    data, model = run.instance.data, run.flow.model
    choice = select(model, data)
    constants = {(int(a), int(b)): float(c) for (a, b), c in zip(run.late.pairs, run.late.attention_constants)}
    attention, counts = model.attention(data).toarray(), data.counts.toarray()
    worst = control = 0.0
    for i, winner in enumerate(choice.tokens):
        for s in np.flatnonzero(counts[i]):
            if s != winner:
                limit = constants[int(winner), int(s)]
                scaled = np.exp(run.flow.log_time[-1]) * attention[i, s]
                worst = largest(worst, abs(scaled / (limit * counts[i, s] / counts[i, winner]) - 1))
                control = max(control, abs(scaled / limit - 1))
    return run.evidence(measured=worst, tolerance=1e-4, control=control)


# By what power of c each prediction changes when the embeddings are multiplied by c, and v and p divided by it.
_POWERS = {
    "p_mm": -1,
    "margin": 1,
    "loss_limit": 0,
    "C": 0,
    "next_margin": 0,
    "dual": -2,
    "conserved": -1,
    "angle_constant": 0,
    "loss_gap_constant": -2,
    "transient_rate": 0,
    "attention_constants": -2,
    "curvature": 0,
    "gap_constant": 0,
    "step_limit": -1,
}


@claim(
    "attention/units",
    statement="predictions for late times are the same in every unit of the embeddings, and so is what they rest on",
    tex=r"E \to cE,\ (v, p) \to (v, p)/c:\quad (p_{mm}, \lambda, \mu) \to (p_{mm}/c, \lambda/c^2, \mu),\quad"
    r" \rho \to (\rho + 2 p_{mm}\log c)/c",
    reference=_SOURCE,
    control="the offset divided by c alone",
    derivation=_PAGE,
)
def units(rng: np.random.Generator) -> Evidence:
    worst, control = _off_with_dependent_rows(rng), np.inf
    for instance in (orthogonal_instance(rng), slow_inactive_row(rng.uniform(0.25, 0.45))):
        model = instance.model.replace(p=rng.standard_normal(instance.model.dim))
        late = asymptotics(model, instance.data)
        # What the hypotheses say they measured: the smallest pull, the margin, and the ratio of the multipliers.
        rows = margin_constraints(model, instance.data, late.selected).differences[late.support]
        multipliers = np.linalg.lstsq(rows.T, late.p_mm)[0]
        measured = [hypothesis.measured for hypothesis in late.hypotheses]
        worst = largest(worst, abs(measured[3] / (multipliers.min() / multipliers.max()) - 1))
        worst = largest(worst, abs(measured[1] / late.margin - 1))
        for c in (2.0**-30, 2.0**20):
            other = asymptotics(model.replace(E=c * model.E, v=model.v / c, p=model.p / c), instance.data)
            for name, power in _POWERS.items():
                worst = largest(worst, _relative(getattr(other, name) * c**-power, getattr(late, name)))
            moved = 2 * np.log(c) * late.p_mm
            worst = largest(worst, _relative(other.rho * c, late.rho + moved))
            worst = largest(worst, _relative(other.norm_constant * c, late.norm_constant + 2 * np.log(c) / late.margin))
            control = min(control, _relative(other.rho * c, late.rho))
            again = [hypothesis.measured for hypothesis in other.hypotheses]
            worst = largest(worst, _relative(again[1] / c, measured[1]), *map(_relative, again[::3], measured[::3]))
    return Evidence(measured=worst, tolerance=1e-9, control=control)


def _off_with_dependent_rows(rng: np.random.Generator) -> float:
    """Four active rows (1, a_k) in the plane, whose multipliers of least norm are not all positive."""
    across = np.array([-1.0, 1.0, 1.2, 5.0]) * rng.uniform(0.9, 1.1)
    rows = np.column_stack([np.ones(4), across])
    data = TokenDataset.from_tokens([[0, 1, 2, 3, 4], [5]], [1, -1])
    late = asymptotics(AttentionModel(np.vstack([np.zeros(2), -rows, np.zeros(2)]), np.zeros(2), [1.0, 0.0]), data)
    if not (late.holds and late.support.tolist() == [0, 1, 2, 3] and (late.dual > 0).all()):
        return np.inf
    with_C = late.C * np.exp(-rows @ late.rho)
    return largest(float(np.abs(rows.T @ late.dual - late.p_mm).max()), _relative(late.dual, with_C))


def _relative(found: Any, exact: Any) -> float:
    """The largest difference, beside the largest entry; infinities count as equal to themselves."""
    found, exact = np.atleast_1d(found), np.atleast_1d(exact)
    if (np.isinf(found) != np.isinf(exact)).any():
        return np.inf
    inside = np.isfinite(exact)
    off = float(np.abs(found - exact).max(initial=0.0, where=inside)) if inside.any() else 0.0
    return off / max(float(np.abs(exact).max(initial=0.0, where=inside)), 1e-3)
