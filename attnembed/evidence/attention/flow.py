"""Claims of Section 4: gradient flow on p with E and v fixed."""

from __future__ import annotations

import numpy as np

from attnembed.attention.flow import gradient_flow
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.theory.basin import basin_bound, basin_condition
from attnembed.attention.theory.smoothness import smoothness_bound
from attnembed.attention.theory.stationarity import divergence
from attnembed.errors import NotSeparableError
from attnembed.evidence.attention.extremal import curved, one_pair_each, one_unsaturated
from attnembed.evidence.attention.instances import Instance, ragged_instance, selecting_instance
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.margins import kkt_residual, max_margin, max_margin_pairs


@claim(
    "attention/no-critical-point",
    statement="-grad_p L has a positive component along the dual vector of each token that is top wherever it occurs",
    tex=r"\langle -\nabla_p L, \hat p_s\rangle = \sum_{i:\,s_i^*=s} \tfrac{\sigma(-y_i f_i)}{n}\,a_{is}"
    r"\,(\gamma_i^* - y_i f_i) > 0",
    reference="[WSOM25], Section 4; F1, derived here",
    hypotheses=("independent embeddings", "a token that is strictly top wherever it occurs"),
    control="a token that is top in one sequence but not in another: its component is negative at some p",
    derivation="derivations/divergence.md",
)
def no_critical_point(rng: np.random.Generator) -> Evidence:
    # Embeddings are the unit vectors, so that the dual basis is known and a component of the gradient is one number.
    while True:
        instance = ragged_instance(rng, dim=9)
        data = instance.data
        model = instance.model.replace(E=np.eye(9))
        strict, beaten = _strictly_top(instance, model.token_values)
        if strict and beaten:
            break
    worst, control, agree = -np.inf, -np.inf, True
    for scale in (0.0, 0.1, *[1.0] * 5, *[3.0] * 10, 10.0):
        model = model.replace(p=scale * rng.standard_normal(9))
        growth = divergence(model, data)
        agree &= growth.tokens.tolist() == strict
        grads = model.loss_and_grads(data)[1]
        component = -grads.scaled_p
        predicted = np.exp(growth.log_inner_products - grads.log_scale)
        # Positive, and as predicted up to rounding, each relative to itself.
        positive = -float(component[strict].min() / np.abs(component).max())
        if agree:
            worst = largest(worst, positive, float(np.max(np.abs(component[strict] / predicted - 1))))
        control = max(control, -float(component[beaten].min() / np.abs(component).max()))
    return Evidence(
        measured=worst,
        tolerance=1e-9,
        control=control,
        hypotheses={
            "independent embeddings": growth.hypotheses[0].holds,
            "a token that is strictly top wherever it occurs": agree and len(strict) > 0,
        },
        note=f"{len(strict)} tokens strictly top wherever they occur, {len(beaten)} only somewhere",
    )


def _strictly_top(instance: Instance, values: np.ndarray) -> tuple[list[int], list[int]]:
    """Tokens strictly top wherever they occur (at least once beside another type), and those only somewhere."""
    wins: dict[int, list[bool]] = {}
    beside: set[int] = set()
    for tokens, y in zip(instance.tokens, instance.labels):
        types = set(tokens)
        for s in types:
            wins.setdefault(s, []).append(all(y * values[s] > y * values[r] for r in types - {s}))
        beside |= types if len(types) > 1 else set()
    strict = sorted(s for s, won in wins.items() if all(won) and s in beside)
    contested = [
        s
        for s, won in wins.items()
        if any(won) and not all(won) and any(len(set(tokens)) > 1 for tokens in instance.tokens if s in tokens)
    ]
    return strict, sorted(contested)


@claim(
    "attention/loss-monotone",
    statement="the loss decreases along the flow, and under gradient descent on p with a step below 2/beta",
    tex=r"\eta < 2/\beta,\quad \beta = G^2R^2/64 + GR^2/4 \ge \|\nabla_p^2 L\|",
    reference="derived here",
    control="gradient descent with a step of 2.1/beta, where the Hessian nearly attains beta at the minimum",
    derivation="derivations/smoothness.md",
)
def loss_monotone(rng: np.random.Generator) -> Evidence:
    instance = ragged_instance(rng)
    gap = gradient_flow(instance.model, instance.data, until=30.0).loss_gap
    beta = smoothness_bound(instance.model, instance.data).beta
    worst = largest(float(np.max(np.diff(gap) / gap[:-1])), _largest_increase(instance, 1.99 / beta))
    extremal = curved(1000.0)
    beta = smoothness_bound(extremal.model, extremal.data).beta
    norm = float(np.linalg.norm(extremal.model.hessian_p(extremal.data), 2))
    return Evidence(
        measured=largest(worst, _largest_increase(extremal, 1.99 / beta)),
        tolerance=1e-12,
        control=_largest_increase(extremal, 2.1 / beta),
        note=f"the Hessian reaches {norm / beta:.3f} beta",
    )


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
    control="kap five percent larger, and a start five percent outside, where each inequality is nearly attained",
    derivation="derivations/basin.md",
)
def basin_selection(rng: np.random.Generator) -> Evidence:
    instance = _inside_basin(rng)
    condition = basin_condition(instance.model, instance.data)
    missing = 0.0

    def late_ratio(instance: Instance, until: float, factor: float = 1.0) -> float:
        """The largest ratio of gap to bound after the start, where the two are equal, with ``factor`` times kap."""
        nonlocal missing
        start = basin_condition(instance.model, instance.data)
        flow = gradient_flow(instance.model, instance.data, until=until)
        missing = largest(missing, 1 - float(flow.top_attention[-1]))
        bounds = basin_bound(instance.model, instance.data, np.exp(flow.log_time)).bound
        bounds = 1 / (1 / start.loss_gap + (1 / bounds - 1 / start.loss_gap) * factor**2)
        return float((flow.loss_gap / bounds)[flow.log_time > 0].max())

    def slope_ratio(instance: Instance) -> float:
        """gamma kap (L - L*) / ||grad L|| at the start, from the inequality behind the bound."""
        start = basin_condition(instance.model, instance.data)
        grads = instance.model.loss_and_grads(instance.data)[1]
        return start.margin * start.kap * start.loss_gap / float(np.linalg.norm(grads.p))

    def lowest_output(share: float) -> float:
        """(gamma* - y f) / (gamma* - gamma^(2)) of the unsaturated sequence of three types: below 1 in the basin."""
        start = one_unsaturated(share, types=3)
        g = start.model.token_values
        return float((g[0] - start.model.output(start.data)[0]) / (g[0] - g[2]))

    # The largest share on the worst token for which the start is inside, by bisection.
    inside, outside = 0.01, 0.99
    for _ in range(12):
        start = one_unsaturated((inside + outside) / 2, types=3)
        if basin_condition(start.model, start.data).slack > 0:
            inside = (inside + outside) / 2
        else:
            outside = (inside + outside) / 2
    pairs = one_pair_each(1e-3, 6.0)
    late, slope, output = late_ratio(pairs, 60.0), slope_ratio(one_unsaturated(0.5)), lowest_output(inside)
    ratio = late_ratio(instance, 40.0)
    return Evidence(
        measured=largest(ratio, late, slope, output, missing / 1e-9),
        bound=1.0 + 1e-9,
        control=min(late_ratio(pairs, 60.0, 1.05), 1.05 * slope, lowest_output(1.05 * inside)),
        hypotheses=condition.hypotheses,
        note=f"extremal ratios {late:.3f}, {slope:.3f}, {output:.3f}; 1 - attention at most {missing:.1e}",
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
        """Growth of log t times the sine of the angle from log t = 300 to 600; 1 if the sine is like 1/log t."""
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
    # In other units of the rows, the same point.
    units = [largest(np.abs(max_margin(c * D).p * c / margin.p - 1)) for c in (2.0**-300, 2.0**300)]
    # Points of a triangle around the origin, of any size: no program, and one combination of them that is zero.
    angles = rng.uniform(0, 2 * np.pi) + np.array([0.0, 2.0, 4.0]) + rng.uniform(-0.3, 0.3, 3)
    corners = rng.uniform(0.1, 10.0, 3)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    try:
        max_margin(corners)
        residual = np.inf
    except NotSeparableError as error:
        w = error.certificate
        residual = float(np.linalg.norm(corners.T @ w) / np.abs(corners).max())
        residual = largest(residual, abs(float(w.sum()) - 1), -float(w.min()))
    off = largest(
        abs(kkt_residual(*case) / _residual(*case) - 1) for case in _wrong_solutions(D, margin.p, margin.dual, rng)
    )
    # The same rows as differences of points, more of them than are tried at once.
    E = np.concatenate([8 * np.eye(6)[:1], 0.3 * rng.standard_normal((400, 6))])
    pairs = np.column_stack([np.zeros(400, dtype=int), np.arange(1, 401)])
    plain, paired = max_margin(E[:1] - E[1:]), max_margin_pairs(E, pairs)
    units.append(float(np.linalg.norm(paired.p - plain.p) / np.linalg.norm(plain.p)) if paired.success else np.inf)
    return Evidence(
        measured=largest(kkt_residual(D, margin.p, margin.dual), residual, off, *units),
        tolerance=1e-10,
        control=kkt_residual(D, moved, margin.dual),
    )


def _wrong_solutions(
    D: np.ndarray, p: np.ndarray, dual: np.ndarray, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows, points and multipliers of either sign: one by chance, and one for each part of the residual but the gap."""
    top, slack = int(dual.argmax()), np.vstack([D, 2.5 * D[:1], 2.5 * D[:1]])
    signs = 1e-3 * rng.choice([-1.0, 1.0], len(D)) * rng.uniform(0.1, 1.0, len(D))
    twice = np.append(dual, -0.6 * dual[top])  # a row and its double, which pulls back
    twice[top] *= 1.6
    return [
        (D, p + 0.1 * rng.standard_normal(p.size), dual + 0.1 * rng.standard_normal(len(D))),
        (D * rng.uniform(0.5, 2.0, (len(D), 1)), -5 * p, signs),  # feasibility
        (D, p, 1.3 * dual),  # stationarity and the gap
        (np.vstack([D, D[top]]), p, twice),  # signs
        (slack, p, np.append(dual, [3.0 * dual.sum(), -3.0 * dual.sum()])),  # complementarity
    ]


def _residual(D: np.ndarray, p: np.ndarray, dual: np.ndarray) -> float:
    """The distance of p and the multipliers from the optimality conditions, in the units of docs/derivations."""
    lengths, slack, square = np.linalg.norm(D, axis=1), D @ p - 1, float(p @ p)
    s = float(np.abs(dual) @ lengths / np.abs(dual).sum())
    pushed = D.T @ dual
    parts = (
        float((np.maximum(-slack, 0) * np.minimum(1, s / lengths)).max()),
        float(np.linalg.norm(p - pushed) / np.sqrt(square)),
        max(0.0, -float(dual.min())) / float(np.abs(dual).sum()),
        float(np.abs(dual * slack).sum()) / square,
        abs(square - (2 * float(dual.sum()) - float(pushed @ pushed))) / square,
    )
    return largest(parts)
