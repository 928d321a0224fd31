"""Claims about other losses and norms: the constants that depend on the loss, and the geometry of steepest descent."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import nnls

from attnembed.attention.data import TokenDataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import FlowResult, gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.theory.rates import asymptotics
from attnembed.attention.theory.steepest import steepest_bound
from attnembed.attention.training import train
from attnembed.errors import NotSeparableError
from attnembed.evidence.attention.instances import Instance, orthogonal_instance, ragged_instance
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.gradcheck import check_gradient_complex_step
from attnembed.losses import Loss, exponential, softplus
from attnembed.margin_norms import Norm, dual_norm, norm
from attnembed.margins import max_margin
from attnembed.optim import Adam

_LOSSES = "derivations/losses.md"
_STEEPEST = "derivations/steepest.md"
_DERIVED = "derived here"
_LOSS = "the loss decreases, is convex and smooth"
_BASIN = (
    "every top token is unique",
    "the margin program is feasible",
    "its solution is certified",
    "n (L(p_0) - L*) < min [l(gamma^(2)) - l(gamma*)]",
)
_METHOD = "[JTA24] for the method; the bound is derived here"
_LENGTHS: dict[Norm, float] = {"l2": 2.0, "linf": 1.0, "l1": 4.0}


def _drawn_loss(rng: np.random.Generator) -> Loss:
    return exponential if rng.random() < 0.5 else softplus(float(rng.choice([0.25, 0.5, 2.0])))


@claim(
    "attention/any-loss-gradients",
    statement="for any smooth loss the gradient in p has the factors c_i = -y_i l'(y_i f_i)/n",
    tex=r"\nabla_p L = -E^\top B,\quad B_s = \sum_i c_i a_{is}(g_s - f_i),\quad c_i = -y_i\, l'(y_i f_i)/n",
    reference=_DERIVED,
    hypotheses=(_LOSS,),
    control="the gradient of the logistic loss, scaled to the same norm",
    derivation=_LOSSES,
)
def any_loss_gradients(rng: np.random.Generator) -> Evidence:
    instance = ragged_instance(rng)
    model, data, loss = instance.model, instance.data, exponential
    labels = data.labels

    def value(p: np.ndarray) -> complex:
        total = 0j
        for tokens, y in zip(instance.tokens, labels):
            weight = np.exp(model.E[tokens] @ p)
            total += np.exp(-y * (weight @ (model.E[tokens] @ model.v)) / weight.sum())
        return total / len(labels)

    def error(gradient: np.ndarray) -> float:
        return check_gradient_complex_step(value, lambda _: gradient, model.p).relative_error

    exact, other = model.loss_and_grads(data, loss=loss)[1].p, model.loss_and_grads(data)[1].p
    scaled = other * np.linalg.norm(exact) / np.linalg.norm(other)
    return Evidence(measured=error(exact), tolerance=1e-12, control=error(scaled), hypotheses={_LOSS: True})


@claim(
    "attention/any-loss-one-step",
    statement="one step from p_0 = 0, E_0 v = 0 moves each embedding by -eta l'(0) alpha_s v, for any loss",
    tex=r"E^1_s = E^0_s - \eta\, l'(0)\,\alpha_s v",
    reference="[WSOM25], Lemma 4.1, for the logistic loss; derived here",
    hypotheses=("p_0 is zero", "E_0 v is zero"),
    control="-l'(0) larger by 10 %",
    derivation=_LOSSES,
)
def any_loss_one_step(rng: np.random.Generator) -> Evidence:
    data, loss = orthogonal_instance(rng).data, _drawn_loss(rng)
    frame = np.linalg.qr(rng.standard_normal((data.vocab_size + 1, data.vocab_size + 1)))[0]
    start = AttentionModel(frame[:-1], np.zeros(len(frame)), frame[-1])
    eta = float(rng.uniform(1.0, 50.0))
    step = one_step(start, data, eta, loss=loss)
    rate = -eta * float(np.asarray(loss.derivative(np.float64(0.0))))
    moved, size = step.model.E - start.E, rate * float(np.abs(data.signed_frequency).max())

    def error(factor: float) -> float:
        return float(np.abs(moved - factor * rate * np.outer(data.signed_frequency, start.v)).max() / size)

    holds = {"p_0 is zero": True, "E_0 v is zero": bool(np.abs(start.token_values).max() < 1e-12)}
    return Evidence(measured=error(1.0), tolerance=1e-12, control=error(1.1), hypotheses=holds)


@claim(
    "attention/any-loss-asymptote",
    statement="for any loss, t (L - L*) tends to ||p_mm||^2, and the offset rho depends on the loss only through C_k",
    tex=r"C_k = \sum_i \tfrac{-l'(\gamma_i)}{n} D_{is}\frac{n_{is}}{n_{is_i}},\quad t(L-L^*)\to\|p_{mm}\|^2",
    reference="asymptotics of Section 5, derived here",
    hypotheses=("the prediction's hypotheses hold", "the support spans all constraints"),
    control="C_k and the limit larger by 10 %",
    derivation=_LOSSES,
)
def any_loss_asymptote(rng: np.random.Generator) -> Evidence:
    instance, loss = orthogonal_instance(rng, step_size=12.0), _drawn_loss(rng)
    model = instance.model.replace(p=0.3 * rng.standard_normal(instance.model.dim))
    flow = gradient_flow(model, instance.data, until=60.0, rtol=1e-11, atol=1e-13, loss=loss)
    late = asymptotics(model, instance.data, flow.selection, loss=loss)
    scaled = float(np.exp(flow.log_time[-1]) * flow.loss_gap[-1] * late.margin**2)
    rest = flow.p - late.p(flow.log_time[-1])
    size = float(np.linalg.norm(late.rho))
    # With C_k -> 1.1 C_k, rho moves by log(1.1) p_mm.
    moved = float(np.linalg.norm(rest - np.log(1.1) * late.p_mm)) / size
    return Evidence(
        measured=largest(abs(scaled - 1), float(np.linalg.norm(rest)) / size),
        tolerance=1e-5,
        control=min(abs(scaled / 1.1 - 1), moved),
        hypotheses={
            "the prediction's hypotheses hold": late.holds,
            "the support spans all constraints": late.angle_is_exact,
        },
    )


def _five_tokens(rng: np.random.Generator) -> tuple[Instance, np.ndarray]:
    """Five orthogonal tokens in seven dimensions with a feasible program of the top tokens, and its rows."""
    data = TokenDataset.from_tokens([[0, 2, 3], [0, 3, 4], [1, 2], [1, 4, 3]], [1, 1, -1, -1])
    while True:
        model = AttentionModel(
            2 * np.linalg.qr(rng.standard_normal((7, 7)))[0][:5], np.zeros(7), rng.standard_normal(7)
        )
        D = margin_constraints(model, data, select(model, data).top).differences
        try:
            max_margin(D)
        except NotSeparableError:
            continue
        return Instance(model, data), D


def _steepest(instance: Instance, kind: Norm, until: float, score_step: float = 0.3) -> FlowResult:
    options: dict[str, Any] = {"clock": "arclength"} if kind == "l2" else {"score_step": score_step}
    return gradient_flow(instance.model, instance.data, geometry=kind, until=until, **options)


def _nearly_attained(rng: np.random.Generator) -> Instance:
    """Pairs of one row each and small values, where kap tends to 1 and the bound is nearly attained."""
    size, along = float(rng.uniform(1e-4, 1e-3)), float(rng.uniform(5.0, 7.0))
    E = np.diag(rng.uniform(0.97, 1.03, size=2))
    E = np.vstack([E, -E])  # one pair in each dimension, so that the norms differ and every row is active
    data = TokenDataset.from_tokens([[0, 2], [1, 3]], [1, -1])
    return Instance(AttentionModel(E, along / np.diag(E), size * np.array([1.0, -1.0])), data)


def _bound_evidence(rng: np.random.Generator, kind: Norm) -> Evidence:
    instance = _nearly_attained(rng)
    model, data = instance.model, instance.data
    bound = steepest_bound(model, data, 0.0, norm=kind)
    until = _LENGTHS[kind]
    flow = _steepest(instance, kind, until, 0.1)
    gap = np.maximum(flow.loss_gap, np.finfo(float).tiny)
    limit = steepest_bound(model, data, flow.arclength, norm=kind)
    # Time is the integral of dr over the dual norm of the gradient.
    slowness = []
    for p in flow.path:
        grads = model.replace(p=p).loss_and_grads(data)[1]
        slowness.append(np.exp(-grads.log_scale) / dual_norm(grads.scaled_p, kind))
    steps = np.diff(flow.arclength) * (np.array(slowness[1:]) + slowness[:-1]) / 2
    late = abs(float(np.log(steps.sum()) - flow.log_time[-1])) > 0.1
    as_said = np.abs(limit.gap / (bound.gap * np.exp(-bound.rate * flow.arclength)) - 1).max() < 1e-12
    last = int(np.argmax(gap / limit.gap * (flow.arclength > until / 2)))
    rate = -np.log(gap[last] / bound.gap) / flow.arclength[last]
    hypotheses = {hypothesis.name: hypothesis.holds for hypothesis in bound.hypotheses}
    return Evidence(
        measured=float(bound.rate / rate) if as_said and not late else np.inf,
        bound=1.0 + 1e-6,
        control=float(1.1 * bound.rate / rate),
        hypotheses=hypotheses,
    )


_FALLS = r"L(p_r) - L^* \le (L_0 - L^*)\, e^{-\gamma\kappa r},\quad \gamma = \max_{\|x\|\le1}\min_k d_k\cdot x"


@claim(
    "attention/steepest-l2",
    statement="inside the basin the loss gap falls at least like e^(-gamma kap r) along gradient flow",
    tex=_FALLS,
    reference=_METHOD,
    hypotheses=_BASIN,
    control="a rate larger by 10 %",
    derivation=_STEEPEST,
)
def steepest_l2(rng: np.random.Generator) -> Evidence:
    return _bound_evidence(rng, "l2")


@claim(
    "attention/steepest-linf",
    statement="inside the basin the loss gap falls at least like e^(-gamma kap r) along sign descent",
    tex=_FALLS,
    reference=_METHOD,
    hypotheses=_BASIN,
    control="a rate larger by 10 %",
    derivation=_STEEPEST,
)
def steepest_linf(rng: np.random.Generator) -> Evidence:
    return _bound_evidence(rng, "linf")


@claim(
    "attention/steepest-l1",
    statement="inside the basin the loss gap falls at least like e^(-gamma kap r) along coordinate descent",
    tex=_FALLS,
    reference=_METHOD,
    hypotheses=_BASIN,
    control="a rate larger by 10 %",
    derivation=_STEEPEST,
)
def steepest_l1(rng: np.random.Generator) -> Evidence:
    return _bound_evidence(rng, "l1")


@claim(
    "attention/adam-without-memory",
    statement="inside the basin the loss gap falls at least like e^(-gamma kap r) under Adam on p with beta1 = beta2 = "
    "epsilon = 0, which is sign descent; r is the sum of its step sizes",
    tex=r"L(p_k) - L^* \le (L_0 - L^*)\, e^{-\gamma_\infty\kappa r},\quad r = \sum_{j<k}\eta_j",
    reference="[JTA24] on the relation to sign descent; derived here",
    hypotheses=(*_BASIN, "no entry of the gradient changes its sign"),
    control="a rate larger by 10 %",
    derivation=_STEEPEST,
)
def adam_without_memory(rng: np.random.Generator) -> Evidence:
    instance = _nearly_attained(rng)
    length, n_epochs = _LENGTHS["linf"], 40
    adam = Adam(step_size=length / n_epochs, beta1=0.0, beta2=0.0, epsilon=np.finfo(float).tiny)
    model = train(instance.model, instance.data, params=("p",), optimizer=adam, n_epochs=n_epochs, rng=0).model
    start, end = (steepest_bound(at, instance.data, 0.0, norm="linf") for at in (instance.model, model))
    rate = float(np.log(start.gap / end.gap)) / length
    # Every entry has then moved by all of r, along a piece of the sign flow.
    straight = bool(np.allclose(np.abs(model.p - instance.model.p), length, rtol=1e-9))
    return Evidence(
        measured=float(start.rate) / rate,
        bound=1.0 + 1e-6,
        control=1.1 * float(start.rate) / rate,
        hypotheses={
            **{hypothesis.name: hypothesis.holds for hypothesis in start.hypotheses},
            "no entry of the gradient changes its sign": straight,
        },
    )


def _balanced(rng: np.random.Generator, kind: Norm) -> tuple[Instance, np.ndarray]:
    """Five tokens, well inside the basin: no multiplier is small, since rows come to their balance at its rate."""
    while True:
        instance, D = _five_tokens(rng)
        program = max_margin(D, norm=kind)
        if program.dual[program.support].min() > 0.04 * program.dual.sum():
            return Instance(instance.model.replace(p=4 * max_margin(D).p), instance.data), D


def _second_half(flow: FlowResult) -> np.ndarray:
    """What the second half of the path adds to p; it has the margin of the limit long before p has."""
    return np.asarray(flow.p - flow.path[np.searchsorted(flow.arclength, flow.arclength[-1] / 2)])


@claim(
    "attention/mirror-margin",
    statement="the displacement of p under mirror descent with |p|_q^q / q has the largest margin in the q-norm",
    tex=r"\min_k d_k\cdot\frac{p_r - p_{r/2}}{\|p_r - p_{r/2}\|_q} \to"
    r" \gamma_q = \min_{w\ge0,\,\sum w=1}\|D^\top w\|_{q/(q-1)}",
    reference="[JTA24]",
    hypotheses=("every top token has attention above 0.99",),
    control="a margin larger by 10 %",
    derivation=_STEEPEST,
)
def mirror_margin(rng: np.random.Generator) -> Evidence:
    (instance, D), q = _balanced(rng, "l2"), 1.5
    flow = gradient_flow(instance.model, instance.data, geometry=("mirror", q), until=48.0, score_step=1.5)
    added = _second_half(flow)
    x = added / np.linalg.norm(added, q)
    # Any weights of the rows bound gamma_q from above; those of the optimum have D^T w along |x|^{q-1} sign(x).
    near = D[D @ x < 1.5 * (D @ x).min()]
    weights = nnls(near.T, np.sign(x) * np.abs(x) ** (q - 1))[0]
    above = float(np.linalg.norm(near.T @ weights, q / (q - 1)) / weights.sum())
    share = float((D @ x).min()) / above
    return Evidence(
        measured=abs(1 - share),
        tolerance=0.05,
        control=abs(1 - share / 1.1),
        hypotheses={"every top token has attention above 0.99": bool(flow.top_attention[-1] > 0.99)},
    )


@claim(
    "attention/steepest-margin",
    statement="the displacement of p under sign descent has the largest margin in the linf norm",
    tex=r"\min_k d_k\cdot\frac{p_r - p_{r/2}}{\|p_r - p_{r/2}\|_\infty} \to \gamma_\infty",
    reference=_METHOD,
    hypotheses=("every top token has attention above 0.99",),
    control="a margin larger by 10 %, and the displacement under gradient flow, which stays below",
    derivation=_STEEPEST,
)
def steepest_margin(rng: np.random.Generator) -> Evidence:
    instance, D = _balanced(rng, "linf")
    gamma = max_margin(D, norm="linf").margin

    def lacking(kind: Norm, factor: float = 1.0) -> tuple[float, FlowResult]:
        flow = _steepest(instance, kind, 24.0, 0.8)
        added = _second_half(flow)
        return abs(1 - float((D @ added).min()) / norm(added, "linf") / (factor * gamma)), flow

    measured, flow = lacking("linf")
    control = min(abs(1 - (1 - measured) / 1.1), lacking("l2")[0])
    selects = bool(flow.top_attention[-1] > 0.99)
    return Evidence(
        measured=measured,
        tolerance=0.03,
        control=control,
        hypotheses={"every top token has attention above 0.99": selects},
    )
