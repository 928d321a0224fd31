"""Claims of Section 4 about selection by the flow: large steps, small steps, the window between them, and ties."""

from __future__ import annotations

from functools import cache

import numpy as np

from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.theory.basin import large_step_condition, large_step_size, small_step_condition
from attnembed.attention.theory.family import Family
from attnembed.attention.theory.ties import tie_invariant
from attnembed.evidence.attention.extremal import led_astray
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, by_construction, claim


@claim(
    "attention/large-step",
    statement="above the large step size one step on E leads into the basin, and the flow selects every top token",
    tex=r"n\,\ell(\theta\Gamma - (1-\theta)\varepsilon) < \ell(\varepsilon) \Rightarrow a_{is_i^*} \to 1",
    reference="F4, derived here",
    hypotheses=(
        "Assumption 1 holds",
        "p_0 is zero",
        "E_0 v is zero",
        "independent embeddings",
        "the margin program is feasible",
        "its solution is certified",
        "n l(theta Gamma - (1 - theta) eps) < l(eps)",
    ),
    control="Family(20, 30) at a step below its large step size, where A gets no attention",
    derivation="derivations/large-step.md",
)
def large_step(rng: np.random.Generator) -> Evidence:
    data = make_balanced_dataset(n_samples=6, length=3, n_positive=1, n_negative=1, n_irrelevant=5, rng=rng)
    frame = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    start = AttentionModel(frame[: data.vocab_size], np.zeros(12), frame[-1])
    threshold = large_step_size(start, data)
    model = one_step(start, data, 1.01 * threshold.step_size).model
    condition = large_step_condition(model, data)
    flow = gradient_flow(model, data, until=40.0)
    return Evidence(
        measured=1 - float(flow.top_attention[-1]),
        tolerance=1e-6,
        control=1 - Family(20, 30, step_size=1263.0).limit().attention_shared,
        hypotheses={hypothesis.name: hypothesis for hypothesis in (*threshold.hypotheses, *condition.hypotheses)},
        note=f"large step size {threshold.step_size:.4g}",
    )


@claim(
    "attention/small-step",
    statement="after a small step, the flow from any start selects every top token",
    tex=r"\max_s|\kappa_s|\,\|v\| < 2\tau/\sqrt{M} \Rightarrow \text{any directional limit selects } s_i^*",
    reference="F5, derived here",
    hypotheses=(
        "Assumption 1 holds",
        "there is a direction v",
        "e_s are orthogonal",
        "e_s have equal norms",
        "irrelevant tokens are orthogonal to v",
        "important tokens have the sign of their label",
        "max |kappa_s| ||v|| < 2 tau / sqrt(M)",
        "the condition holds at 0.99 of its limit and not at 1.1",
    ),
    control="kappa ten percent above the condition, from a start along the wrong limit, which nearly attains it",
    derivation="derivations/small-step.md",
)
def small_step(rng: np.random.Generator) -> Evidence:
    data = make_balanced_dataset(n_samples=20, length=4, n_irrelevant=5, rng=rng)
    frame = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    start = AttentionModel(frame[: data.vocab_size], np.zeros(12), frame[-1])
    first = one_step(start, data, 1.0).model  # kappa is proportional to the step
    condition = small_step_condition(first, data)
    model = one_step(start, data, 0.9 * condition.right / condition.left).model
    condition = small_step_condition(model, data)
    flow = gradient_flow(model.replace(p=rng.standard_normal(12)), data, until=40.0)
    missing = 1 - float(flow.top_attention[-1])
    # Far along the wrong limit the smallest attention on a top token is e^-40: only the theorem lets the flow recover.
    inside, outside = (_astray(factor) for factor in (0.99, 1.1))
    # The number of violations is that of tokens in both classes and of sequences without a token of one class.
    both = [list(range(k, 7)) * int(rng.integers(1, 3)) + [k] for k in (0, 1)]
    mixed = small_step_condition(first, TokenDataset.from_tokens(both, [1, -1], vocab_size=data.vocab_size))
    counted = mixed.hypotheses[0].measured == 6 + 1
    return Evidence(
        measured=largest(missing, inside[0]) if counted else np.inf,
        tolerance=1e-6,
        control=outside[0],
        hypotheses={
            **{hypothesis.name: hypothesis.holds for hypothesis in condition.hypotheses},
            "the condition holds at 0.99 of its limit and not at 1.1": inside[1] and not outside[1],
        },
    )


@cache  # the same on every instance
def _astray(factor: float) -> tuple[float, bool]:
    """1 - attention from a bad start, with kappa ``factor`` times the limit of the condition; and the condition."""
    full, _ = led_astray(15, 30, 1.0, along=30.0)
    limit = small_step_condition(full.model, full.data).right
    full, reduced = led_astray(15, 30, factor * limit, along=30.0)
    flow = gradient_flow(reduced.model, reduced.data, clock="arclength", until=300.0, rtol=1e-7, atol=1e-9)
    return 1 - float(flow.top_attention[-1]), small_step_condition(full.model, full.data).holds


@claim(
    "attention/failure-window",
    statement="between small and large steps selection can fail: Family(20, 30) loses A for steps from 758 to 3,158",
    tex=r"\eta \in [758, 3158]: a_A \to 0,\ L_\infty > L^*;\qquad \eta \le 505 \text{ or } \eta \ge 3790: a_A \to 1",
    reference="F6, derived here",
    control="the step 505, which selects A, treated as inside the window",
    derivation="derivations/failure-window.md",
)
def failure_window(rng: np.random.Generator) -> Evidence:
    def attention(step_size: float) -> float:
        return Family(20, 30, step_size=step_size).limit().attention_shared

    lost = largest(attention(step_size) for step_size in (758.0, 1263.0, 1895.0, 2526.0, 3158.0))
    missing = largest(1 - attention(step_size) for step_size in (100.0, 505.0, 3790.0, 12632.0))
    stuck = Family(20, 30, step_size=1263.0).limit()
    return Evidence(
        measured=largest(lost, missing) if stuck.loss_gap > 0.02 else np.inf,
        tolerance=1e-6,
        control=attention(505.0),
        note=f"at 1263 the loss is {stuck.loss:.3f}, L* {stuck.loss - stuck.loss_gap:.3f}",
    )


@claim(
    "attention/family-reduction",
    statement="on Family(T, r) the flow stays in four dimensions: the reduced rate is the model's gradient",
    tex=r"\mathrm{lift}(\dot x) = -\nabla_p L(\mathrm{lift}(x))",
    reference="F6, derived here",
    hypotheses=(
        "E^0 is orthonormal",
        "E^0 v is zero",
        by_construction("E after one step from p_0 = 0", code="one_step(model.replace(E=E0), data, family.step_size)"),
    ),
    control="the rate of the family with one more repeat",
    derivation="derivations/failure-window.md",
)
def family_reduction(rng: np.random.Generator) -> Evidence:
    W = float(rng.uniform(0.3, 3.0))
    family, other = (Family(5, repeats, step_size=150.0 / W, W=W) for repeats in (3, 4))
    data, model = family.dataset(), AttentionModel(*family.parameters())
    # The step itself: E of the family is E^0 after one actual gradient step.
    E0 = model.E.copy()
    E0[:, -1] = 0.0
    stepped = one_step(model.replace(E=E0), data, family.step_size).model.E
    worst = control = float(np.abs(stepped - model.E).max())
    for scale in (0.0, 0.3, 1.0, 5.0):
        x = scale * rng.standard_normal(4)
        force = -model.replace(p=family.lift(x)).loss_and_grads(data)[1].p
        norm = np.linalg.norm(force)
        worst = largest(worst, float(np.linalg.norm(force - family.lift(family.rate(x))) / norm))
        control = max(control, float(np.linalg.norm(force - family.lift(other.rate(x))) / norm))
    return Evidence(
        measured=worst,
        tolerance=1e-10,
        control=control,
        hypotheses={
            "E^0 is orthonormal": bool(np.allclose(E0 @ E0.T, np.eye(len(E0)), rtol=0, atol=1e-14)),
            "E^0 v is zero": not np.any(E0 @ model.v),
        },
    )


@claim(
    "attention/tie-invariant",
    statement="for two tied tokens e^{-u_1}/n_1 - e^{-u_2}/n_2 is conserved: the larger n e^u stays larger",
    tex=r"\tfrac{d}{dt}\bigl(e^{-u_1}/n_1 - e^{-u_2}/n_2\bigr) = 0",
    reference="F7, derived here",
    hypotheses=("equal values", "fixed proportion", "orthogonal to each other and to the rest", "equal norms"),
    control="the difference with one of the terms five percent larger, and without the counts",
    derivation="derivations/ties.md",
)
def tie(rng: np.random.Generator) -> Evidence:
    # Tokens 0 and 1 tie in the first sequence, with counts 1 and 2. Alone with token 2 they take everything; in the
    # second case another sequence drives token 2 up and it wins: the invariant holds either way.
    E = np.eye(6)[:5]
    third = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, 0], [0, 0, 0, 1]], dtype=np.float64)
    near, far = 0.3 * rng.standard_normal(6), np.append(-1.0 + 0.3 * rng.standard_normal(2), [0.0, 0.0])
    cases = (
        ([[0, 1, 1, 2], [3, 4]], AttentionModel(E, near, [1.0, 1.0, 0.0, -1.0, 0.0, 0.0]), [1, -1]),
        ([[0, 1, 1, 2], [2, 3], [4]], AttentionModel(third, far, [1.0, 1.0, 0.5, 0.0]), [1, 1, -1]),
    )
    worst, control = 0.0, np.inf
    hypotheses: dict[str, bool] = {}
    for tokens, model, labels in cases:
        data = TokenDataset.from_tokens(tokens, labels)
        before = tie_invariant(model, data, 0, 1)
        flow = gradient_flow(model, data, until=12.0, rtol=1e-11, atol=1e-13)
        first, second = np.exp(-flow.path @ model.E[:2].T).T
        scale = max(first[0], second[0])
        leads = (first > second / 2) if before.winner == 1 else (first < second / 2)
        worst = largest(worst, float(np.abs(first - second / 2 - before.value).max() / scale))
        wrong = (1.05 * first - second / 2, first - 1.05 * second / 2, first - second)
        control = min(control, *(float(np.ptp(x) / scale) for x in wrong))
        hypotheses |= {hypothesis.name: hypothesis.holds for hypothesis in before.hypotheses}
        worst = worst if leads.all() else np.inf
    # Not orthogonal, in either sense: the hypothesis must fail.
    for product in (-0.5, 0.5):
        oblique = np.eye(6)[:5]
        oblique[2] = [0.0, product, np.sqrt(0.75), 0.0, 0.0, 0.0]
        tilted = AttentionModel(oblique, near, cases[0][1].v)
        worst = np.inf if tie_invariant(tilted, TokenDataset.from_tokens(*cases[0][::2]), 0, 1).holds else worst
    return Evidence(measured=worst, tolerance=1e-8, control=control, hypotheses=hypotheses)
