"""Claims of Section 4: gradient flow on p with E and v fixed."""

from __future__ import annotations

import numpy as np

from attnembed.attention.data import TokenDataset
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.theory.basin import basin_bound, basin_condition
from attnembed.attention.theory.divergence import divergence
from attnembed.attention.theory.smoothness import smoothness_bound
from attnembed.errors import NotSeparableError
from attnembed.margins import kkt_residual, max_margin
from attnembed.verify.attention.instances import Instance, ragged_instance, selecting_instance
from attnembed.verify.registry import Evidence, claim


@claim(
    "attention/no-critical-point",
    statement="-grad_p L has a positive component along the dual vector of every token that is top wherever it occurs",
    tex=r"\langle -\nabla_p L, \hat p_s\rangle = \sum_{i:\,s_i^*=s} \tfrac{\sigma(-y_i f_i)}{n}\,a_{is}"
    r"\,(\gamma_i^* - y_i f_i) > 0",
    reference="[WSOM25], Section 4; F1, derived here",
    hypotheses=("independent embeddings", "a token is strictly top wherever it occurs"),
    control="an irrelevant token, along whose dual vector the component is negative at some p",
    derivation="derivations/divergence.md",
)
def no_critical_point(rng: np.random.Generator) -> Evidence:
    instance = selecting_instance(rng)
    worst, lowest, control = 0.0, np.inf, 0.0
    held: dict[str, bool] = {}
    others = np.flatnonzero(instance.data.frequency > 0)
    dual_basis = np.linalg.pinv(instance.model.E[others])
    for scale in (0.0, 0.1, 1.0, 10.0, 50.0, 300.0):
        model = instance.model.replace(p=scale * rng.standard_normal(instance.model.dim) / np.sqrt(instance.model.dim))
        growth = divergence(model, instance.data)
        held |= {each.name: each.holds and held.get(each.name, True) for each in growth.hypotheses}
        grads = model.loss_and_grads(instance.data)[1]
        along = -(grads.scaled_p @ dual_basis)
        measured = -(growth.dual_basis @ grads.scaled_p)
        predicted = np.exp(growth.log_inner_products - grads.log_scale)
        worst = max(worst, float(np.abs(measured - predicted).max() / np.abs(along).max()))
        lowest = min(lowest, float(np.min(growth.log_inner_products)))
        control = max(control, float(-along.min() / np.abs(along).max()))
    return Evidence(
        measured=worst if np.isfinite(lowest) else np.inf,  # a component that is not positive has no logarithm
        tolerance=1e-9,
        control=control,
        hypotheses=held,
        note=f"smallest log component {lowest:.4g}",
    )


@claim(
    "attention/loss-monotone",
    statement="the loss decreases along the flow, and under gradient descent on p with a step below 2/beta",
    tex=r"\eta < 2/\beta,\quad \beta = G^2R^2/64 + GR^2/4 \ge \|\nabla_p^2 L\|",
    reference="derived here",
    control="gradient descent with a step of 100/beta, where the loss has a finite minimum",
    derivation="derivations/smoothness.md",
)
def loss_monotone(rng: np.random.Generator) -> Evidence:
    worst = -np.inf
    for _ in range(3):
        instance = ragged_instance(rng)
        gap = gradient_flow(instance.model, instance.data, until=30.0).loss_gap
        beta = smoothness_bound(instance.model, instance.data).beta
        worst = max(worst, float(np.max(np.diff(gap) / gap[:-1])), _largest_increase(instance, 1.99 / beta))
    # The same two tokens with either label: the loss has its minimum at a finite p, where a long step overshoots.
    model = AttentionModel(np.eye(2), [0.3, 0.0], [1.0, -1.0])
    overshooting = Instance(model, TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1]))
    beta = smoothness_bound(model, overshooting.data).beta
    return Evidence(measured=worst, tolerance=1e-12, control=_largest_increase(overshooting, 100 / beta))


def _largest_increase(instance: Instance, step_size: float) -> float:
    """The largest relative increase of the loss in one step of gradient descent on p, over 100 steps."""
    p, losses = instance.model.p, []
    for _ in range(100):
        loss, grads = instance.model.replace(p=p).loss_and_grads(instance.data)
        p = p - step_size * grads.p
        losses.append(loss)
    return float(np.max(np.diff(losses)) / losses[0])


def _inside_basin(rng: np.random.Generator) -> Instance:
    """A start that satisfies the basin condition: p a multiple of the max-margin point."""
    instance = selecting_instance(rng)
    choice = select(instance.model, instance.data)
    margin = max_margin(margin_constraints(instance.model, instance.data, choice.top).differences)
    for scale in range(4, 40):
        started = instance.model.replace(p=scale * margin.p + 0.3 * rng.standard_normal(instance.model.dim))
        if basin_condition(started, instance.data).holds:
            break
    return Instance(started, instance.data)


@claim(
    "attention/basin-selection",
    statement="inside the basin the flow selects every top token, and L - L* stays below its bound",
    tex=r"n(L_0 - L^*) < \min_i[\ell(\gamma_i^{(2)}) - \ell(\gamma_i^*)] \Rightarrow"
    r" L(p_t)-L^* \le \frac{1}{1/(L_0-L^*) + \gamma^2\kappa^2 t},\ a_{is_i^*}\to 1",
    reference="F3, derived here",
    hypotheses=(
        "every top token is unique",
        "the margin program is feasible",
        "its solution is certified",
        "n (L(p_0) - L*) < min [l(gamma^(2)) - l(gamma*)]",
    ),
    control="the same bound for the opposite start, which lies outside the basin",
    derivation="derivations/basin.md",
)
def basin_selection(rng: np.random.Generator) -> Evidence:
    instance = _inside_basin(rng)
    condition = basin_condition(instance.model, instance.data)
    flow = gradient_flow(instance.model, instance.data, until=40.0)
    bounds = basin_bound(instance.model, instance.data, np.exp(flow.log_time)).bound
    # At t = 0 the two are equal by definition.
    ratio = float((flow.loss_gap / bounds)[flow.log_time > 0].max())
    missing = 1 - float(flow.top_attention[-1])
    # The opposite start lies outside; its gap exceeds what the bound would promise from the inside.
    outside = instance.model.replace(p=-instance.model.p)
    adrift = gradient_flow(outside, instance.data, until=10.0)
    control = float(adrift.loss_gap[-1] / bounds[np.searchsorted(flow.log_time, 10.0)])
    return Evidence(
        measured=ratio if missing <= 1e-9 else np.inf,
        bound=1.0 + 1e-9,
        control=control if not basin_condition(outside, instance.data).holds else 0.0,
        hypotheses=condition.hypotheses,
        note=f"attention on the top tokens at least 1 - {missing:.1e}",
    )


@claim(
    "attention/max-margin-direction",
    statement="p_t/||p_t|| converges to the max-margin direction of the selection at the rate 1/log t",
    tex=r"1 - \cos(p_t, p_{mm}) = O(1/\log^2 t)",
    reference="[WSOM25], Section 4; F3 and F8",
    hypotheses=("the margin program of the selection is feasible",),
    control="the direction of the mean of the constraints",
    derivation="derivations/limit-direction.md",
)
def max_margin_direction(rng: np.random.Generator) -> Evidence:
    instance = selecting_instance(rng)
    flow = gradient_flow(instance.model, instance.data, until=600.0)
    constraints = margin_constraints(instance.model, instance.data, select(flow.model, instance.data))
    margin = max_margin(constraints.differences)

    def growth_of_sine(direction: np.ndarray) -> float:
        """How much log t times the sine of the angle grows from log t = 300 to 600; 1 means the sine stands still."""
        late = [int(np.searchsorted(flow.log_time, x)) for x in (300.0, 599.9)]
        across = [np.linalg.norm(flow.path[k] - (flow.path[k] @ direction) * direction) for k in late]
        return float(across[1] / across[0]) - 1

    mean = constraints.differences.mean(axis=0)
    return Evidence(
        measured=abs(growth_of_sine(margin.direction)),
        tolerance=0.2,
        control=abs(growth_of_sine(mean / np.linalg.norm(mean))),
        hypotheses={"the margin program of the selection is feasible": margin.success},
    )


@claim(
    "attention/kkt-certificate",
    statement="the max-margin point satisfies its optimality conditions, and an infeasible program has a certificate",
    tex=r"p_{mm} = D^\top\lambda,\ \lambda \ge 0,\ \|p_{mm}\|^2 = \textstyle\sum\lambda;\quad"
    r" \text{infeasible} \iff 0 \in \mathrm{conv}\{d_k\}",
    reference="F2; convex duality and Gordan's theorem",
    control="the point moved by 0.1 percent",
    derivation="derivations/max-margin.md",
)
def kkt_certificate(rng: np.random.Generator) -> Evidence:
    instance = selecting_instance(rng)
    D = margin_constraints(instance.model, instance.data, select(instance.model, instance.data).top).differences
    margin = max_margin(D)
    moved = margin.p * (1 + 1e-3 * rng.standard_normal(margin.p.size))
    # Two sequences of the same two tokens that select different ones: d and -d.
    both = TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1])
    contradiction = margin_constraints(AttentionModel(np.eye(2), [0, 0], [1, -1]), both, [0, 1]).differences
    try:
        max_margin(contradiction)
        residual = np.inf
    except NotSeparableError as error:
        residual = float(np.linalg.norm(contradiction.T @ error.certificate))
    return Evidence(
        measured=max(kkt_residual(D, margin.p, margin.dual), residual),
        tolerance=1e-10,
        control=kkt_residual(D, moved, margin.dual),
    )
