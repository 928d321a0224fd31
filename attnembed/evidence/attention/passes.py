"""Claims that results for large data, along another clock or by search agree with small and plain forms."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linprog

from attnembed.attention.data import TokenDataset
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import select
from attnembed.attention.theory.optima import local_optima
from attnembed.attention.theory.rates import asymptotics
from attnembed.evidence.attention.instances import orthogonal_instance
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.reference import attention_gradients, attention_loss, precise_gradient_p


@claim(
    "attention/large-data",
    statement="loss, gradients and their factors agree with the definition for vocabularies of thousands, too",
    tex=r"\nabla_{E_s} L = -(A_s v + B_s p),\quad \nabla_p L = -E^\top B,\quad \nabla_v L = -E^\top A",
    reference="[WSOM25], Section 2; derived here",
    control="the labels exchanged; and B ten percent larger",
    derivation="derivations/gradients.md",
)
def large_data(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    # The last one saturates every sequence: the sums of A then come from the general form.
    for scale in (0.3, 5.0, 2e3):
        V, n, dim = 3000, 8, 4
        kinds = rng.choice(V, 40, replace=False)
        tokens = [[int(s) for s in rng.choice(kinds, size=rng.integers(1, 12))] for _ in range(n)]
        labels = [1 if k % 2 else -1 for k in range(n)]
        data = TokenDataset.from_tokens(tokens, labels, vocab_size=V)
        E = rng.standard_normal((V, dim)) / 2
        model = AttentionModel(E, scale * rng.standard_normal(dim), rng.standard_normal(dim))
        loss, grads = model.loss_and_grads(data)
        truth = attention_gradients(E, model.p, model.v, tokens, labels)
        A, B = grads.E_factors
        value = float(attention_loss(E, model.p, model.v, tokens, labels))
        errors = [abs(loss / value - 1), float(np.linalg.norm(E.T @ A + truth.v) / np.linalg.norm(truth.v))]
        errors += [
            float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in ((grads.E, truth.E), (grads.v, truth.v))
        ]
        if scale > 1e3:  # the sums are right to the rounding of the scores; p is left to decimals
            worst = largest(worst, *(error / scale for error in errors))
            place = {int(s): k for k, s in enumerate(kinds)}
            exact = precise_gradient_p(E[kinds], model.p, model.v, [[place[s] for s in row] for row in tokens], labels)
            worst = largest(worst, exact.relative_error(grads.scaled_p, grads.log_scale) / scale)
            continue
        errors += [float(np.linalg.norm(x + truth.p) / np.linalg.norm(truth.p)) for x in (E.T @ B, -grads.p)]
        worst = largest(worst, *errors)
        other = model.loss_and_grads(TokenDataset.from_tokens(tokens, [-y for y in labels], vocab_size=V))[1]
        control = min(control, float(np.linalg.norm(other.p - truth.p) / np.linalg.norm(truth.p)))
        control = min(control, float(np.linalg.norm(1.1 * E.T @ B + truth.p) / np.linalg.norm(truth.p)))
    return Evidence(measured=worst, tolerance=1e-13, control=control)


@claim(
    "attention/clocks",
    statement="the flows in time and in arc length follow the same path and pass each point at the same time",
    tex=r"\frac{dt}{dr} = \frac{1}{\|\nabla_pL(p)\|},\quad r = \int\|\dot p\|\,dt",
    reference="derived here",
    control="times ten percent later",
    derivation="derivations/limit-direction.md",
)
def clocks(rng: np.random.Generator) -> Evidence:
    instance = orthogonal_instance(rng)
    model = instance.model.replace(p=0.3 * rng.standard_normal(instance.model.dim))
    timed = gradient_flow(model, instance.data, until=20.0, rtol=1e-10, atol=1e-12)
    # Slightly beyond the end of the other, so that each of its points is reached.
    along = gradient_flow(
        model, instance.data, clock="arclength", until=1.01 * float(timed.arclength[-1]), rtol=1e-10, atol=1e-12
    )
    r = timed.arclength[timed.log_time > 2]
    later = timed.log_time[timed.log_time > 2]
    times = np.interp(r, along.arclength, along.log_time)
    path = np.stack([np.interp(r, along.arclength, x) for x in along.path.T], axis=1)
    # Between its points the other path is a polygon; this error and that of the arc length are of second order.
    step = float(np.diff(along.arclength).max())
    size = float(np.linalg.norm(timed.p - model.p))
    off = float(np.linalg.norm(path - timed.path[timed.log_time > 2], axis=1).max()) / size
    late = float(np.abs(times - later).max())
    gap = float(along.model.loss(instance.data)) - float(timed.model.loss(instance.data))
    return Evidence(
        measured=largest(off, late) if gap <= 0 else np.inf,
        tolerance=3e-3,
        control=float(np.abs(times + np.log(1.1) - later).max()),
        note=f"steps of {step:.2g}",
    )


@claim(
    "attention/local-optima",
    statement="the local optima are the selections whose program is feasible and whose active rows all pull",
    tex=r"\{\sigma : \exists p\ D_\sigma p \ge 1,\ C_k > 0 \text{ on the support}\}",
    reference="[TLTO23]; derived here",
    control="all selections with a feasible program",
    derivation="derivations/limit-direction.md",
)
def every_local_optimum(rng: np.random.Generator) -> Evidence:
    E, v = rng.standard_normal((5, 2)), rng.standard_normal(2)
    tokens = [[0, 1, 2], [1, 3], [0, 1, 2], [2, 4, 3]]
    data = TokenDataset.from_tokens(tokens, [1, -1, 1, 1])
    model = AttentionModel(E, np.zeros(2), v)
    found = {tuple(selection.tolist()) for selection in local_optima(model, data)}
    feasible, wanted = set(), set()
    for selection in itertools.product(*tokens):
        rows = np.array([E[a] - E[b] for a, row in zip(selection, tokens) for b in sorted(set(row) - {a})])
        if linprog(np.zeros(2), A_ub=-rows, b_ub=-np.ones(len(rows)), bounds=(None, None)).status == 0:
            feasible.add(selection)
            if asymptotics(model, data, list(selection)).holds:
                wanted.add(selection)
    return Evidence(measured=float(len(found ^ wanted)), tolerance=0.0, control=float(len(found ^ feasible)))


@claim(
    "attention/selected",
    statement="the reported selection of a flow is the token with the most attention, which has nearly all of it",
    tex=r"s_i = \arg\max_s a_{is},\quad a_{is_i} \to 1",
    reference="definition",
    control="the token with the least attention",
    derivation="notation.md",
)
def selected(rng: np.random.Generator) -> Evidence:
    instance = orthogonal_instance(rng)
    flow = gradient_flow(instance.model, instance.data, until=30.0)
    choice = select(flow.model, instance.data)
    attention = flow.model.attention(instance.data).toarray()
    rows = np.arange(len(attention))
    least = np.where(instance.data.counts.toarray() > 0, attention, np.inf).argmin(axis=1)
    wrong = float((flow.selection != attention.argmax(axis=1)).sum())
    wrong += float((choice.tokens != attention.argmax(axis=1)).sum())
    reported = abs(float(flow.top_attention[-1]) - float(attention[rows, choice.top].min()))
    return Evidence(
        measured=largest(wrong, reported, float(1 - attention[rows, choice.tokens].min())),
        tolerance=1e-8,
        control=float((least != choice.tokens).sum()),
    )
