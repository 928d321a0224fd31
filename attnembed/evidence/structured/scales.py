"""Claims about scale: two scales that are fitted, folded, or chosen before or during training."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnembed._typing import Doubles
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.evidence.structured.instances import Batch, random_batch
from attnembed.gradcheck import check_gradient
from attnembed.optim import SGD, Adam, Optimizer
from attnembed.results import uninterrupted
from attnembed.structured.data import make_chain_dataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import mlp
from attnembed.structured.objectives import CHAIN_OBJECTIVES, chain_objective
from attnembed.structured.scaling import (
    OnlineScaling,
    best_pairwise_factor,
    fold,
    normalised,
    normalised_gradient,
)
from attnembed.structured.theory import component_norms, effective_step_size, fit_scales, scale_objective
from attnembed.structured.training import train_structured


@claim(
    "structured/convex-in-scales",
    statement="for fixed potentials nll, ssvm and pseudolikelihood are convex in the two scales",
    tex=r"\nabla^2_{a,b}\,[\log Z(a,b) - F(Y)] = \operatorname{Cov}_P(U, P) \succeq 0",
    reference="derived here",
    control="the marginal objective, a difference of convex functions; the Hessian ten percent larger",
    derivation="derivations/two-scales.md",
)
def convex_in_scales(rng: np.random.Generator) -> Evidence:
    worst: dict[str, float] = dict.fromkeys(CHAIN_OBJECTIVES, 0.0)
    for _ in range(20):
        batch = random_batch(rng, n=1)
        ends = rng.normal(scale=5.0, size=(2, 2))
        for name in ("nll", "ssvm", "pseudolikelihood", "marginal"):
            first, second, middle = (
                chain_objective(name, a * batch.unary, b * batch.pairwise, batch.labels, batch.lengths).value
                for a, b in (*ends, ends.mean(axis=0))
            )
            excess = middle - (first + second) / 2
            worst[name] = largest(worst[name], excess / max(1.0, first, second))
    # The Hessian itself, against the covariance of the two totals over all labelings.
    off, scaled, lowest = 0.0, np.inf, np.inf
    for _ in range(5):
        batch, scales = random_batch(rng, n=1), (float(rng.normal()), float(rng.normal()))
        found = scale_objective(*batch.arguments, scales=scales).hessian
        exact = _total_covariance(batch, scales)
        size = np.abs(exact).max()
        off = largest(off, float(np.abs(found - exact).max() / size))
        scaled = min(scaled, float(np.abs(1.1 * found - exact).max() / size))
        lowest = min(lowest, float(np.linalg.eigvalsh(found)[0] / size))
    marginal = worst.pop("marginal")
    return Evidence(measured=largest(*worst.values(), off, -lowest), tolerance=1e-13, control=min(marginal, scaled))


def _total_covariance(batch: Batch, scales: tuple[float, float]) -> Doubles:
    """Cov_P(U, P) (2, 2) of one sequence by enumeration of its labelings."""
    length = int(batch.lengths[0])
    unary, labels = batch.unary[0, :length], np.indices((batch.pairwise.shape[0],) * length).reshape(length, -1)
    totals = np.stack(
        [
            unary[np.arange(length)[:, None], labels].sum(axis=0),
            batch.pairwise[labels[:-1], labels[1:]].sum(axis=0),
        ]
    )
    scores = np.array(scales) @ totals
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    centred = totals - (totals @ weights)[:, None]
    return np.asarray((centred * weights) @ centred.T)


@claim(
    "structured/newton-scales",
    statement="Newton's method with Hessian Cov_P(U, P) finds scales on which no point of a grid improves",
    tex=r"\nabla = E_P[(U,P)] - (U,P)(Y),\quad H = \operatorname{Cov}_P(U,P)",
    reference="derived here",
    control="the best pairwise scale with the unary scale fixed at 1",
    derivation="derivations/two-scales.md",
)
def newton_scales(rng: np.random.Generator) -> Evidence:
    batch = random_batch(rng, n=60, length=5)
    fit = fit_scales(*batch.arguments)
    around = np.linspace(-2.0, 2.0, 9)

    def value(a: float, b: float) -> float:
        return scale_objective(*batch.arguments, scales=(a, b)).value

    grid = [value(fit.unary_scale + x, fit.pairwise_scale + y) for x in around for y in around]
    grid += [value(fit.unary_scale + 1e-4 * x, fit.pairwise_scale + 1e-4 * y) for x in (-1, 1) for y in (-1, 1)]
    alone = min(value(1.0, fit.pairwise_scale + y) for y in around)
    return Evidence(
        measured=largest(0.0, fit.value - min(grid)) / fit.value if fit.success else np.inf,
        tolerance=1e-14,
        control=(alone - fit.value) / fit.value,
        note=fit.message,
    )


def _next_step(optimizer: Optimizer, gradients: list[Doubles], factor: float, *, follow: bool) -> Doubles:
    """Train W on the first gradients, fold by ``factor`` (with the state or without), take the last step."""
    params: dict[str, Any] = {"W": np.ones_like(gradients[0])}
    state = optimizer.init(params)
    for gradient in gradients[:-1]:
        optimizer.update(params, {"W": gradient}, state)
    fold(params, ("W",), factor, *((optimizer, state) if follow else ()))
    before = params["W"].copy()
    optimizer.update(params, {"W": gradients[-1] / factor}, state)
    value: Doubles = params["W"] - before
    return value


@claim(
    "structured/folding",
    statement="folding the scales a, b into the last layer and W is exact, and the optimiser continues as if unfolded",
    tex=r"F_{aU,bW} = aU + bW;\quad m \to m/b,\ v \to v/b^2",
    reference="derived here",
    control="folding with the optimiser's state unchanged",
    derivation="derivations/folding.md",
)
def folding(rng: np.random.Generator) -> Evidence:
    a, b = 0.3, 5.0
    data = make_chain_dataset(10, 4, 3, 4, rng=rng)
    model = ChainCRF(mlp(4, (5,), 3, rng=rng), rng.normal(size=(3, 3)))
    params = model.parameters()
    fold(params, tuple("network." + name for name in model.network.output), a)
    fold(params, ("pairwise",), b)
    scaled = ChainCRF(model.network, model.pairwise, a, b).loss(data)
    worst, control = abs(model.with_parameters(params).loss(data) / scaled - 1), np.inf
    gradients = [rng.normal(size=(3, 3)) for _ in range(6)]
    for optimizer in (Adam(step_size=0.1, epsilon=1e-300), SGD(step_size=0.1, momentum=0.9)):
        always = {"W": b * np.ones((3, 3))}
        state = optimizer.init(always)
        for gradient in gradients:
            before = always["W"].copy()
            optimizer.update(always, {"W": gradient / b}, state)
        step = always["W"] - before
        for follow in (True, False):
            moved = _next_step(optimizer, gradients, b, follow=follow)
            error = float(np.linalg.norm(moved - step) / np.linalg.norm(step))
            worst, control = (largest(worst, error), control) if follow else (worst, min(control, error))
    return Evidence(measured=worst, tolerance=1e-12, control=control)


@claim(
    "structured/effective-steps",
    statement="with W = c W~, one step moves W by c^2 eta g under SGD and by c eta per entry under Adam",
    tex=r"\Delta W_{\mathrm{SGD}} = -c^2 \eta\, g,\quad \Delta W_{\mathrm{Adam}} = -c\,\eta\, \operatorname{sign} g",
    reference="derived here",
    control="the two laws exchanged",
    derivation="derivations/effective-steps.md",
)
def effective_steps(rng: np.random.Generator) -> Evidence:
    data = make_chain_dataset(20, 5, 3, 4, rng=rng)
    network, pairwise, eta = mlp(4, (), 3, rng=rng), rng.normal(size=(3, 3)), 1e-3
    gradient = ChainCRF(network, pairwise).loss_and_grads(data)[1].pairwise
    optimizers = {"sgd": SGD(step_size=eta), "adam": Adam(step_size=eta, epsilon=1e-300)}
    worst, control = 0.0, np.inf
    for c in (0.01, 0.3, 20.0):
        for method, other in (("sgd", "adam"), ("adam", "sgd")):
            model = ChainCRF(network, pairwise / c, pairwise_scale=c)
            params, optimizer = model.parameters(), optimizers[method]
            optimizer.update(params, model.loss_and_grads(data)[1].to_dict(), optimizer.init(params))
            # W~ is of size 1/c, so that differences of it carry its rounding.
            moved = c * (params["pairwise"] - model.pairwise)
            direction = -gradient if method == "sgd" else -np.sign(gradient)
            for law in (method, other):
                expected = effective_step_size(law, c, eta) * direction
                error = float(np.linalg.norm(moved - expected) / np.linalg.norm(expected))
                worst, control = (largest(worst, error), control) if law == method else (worst, min(control, error))
    return Evidence(measured=worst, tolerance=1e-7, control=control)


@claim(
    "structured/offline-ratio",
    statement="the offline parametrisation keeps the ratio of the norms up to rounding, and its gradient is correct",
    tex=r"W = (\bar n_U / \rho)\,(\tilde W - \operatorname{mean} \tilde W) / n(\tilde W),\quad n_U / n_W = \rho",
    reference="reconstructed from [SO19]; Salimans, Kingma 2016",
    control="a constant multiplier with the same initial ratio",
    derivation="derivations/offline-scaling.md",
)
def offline_ratio(rng: np.random.Generator) -> Evidence:
    raw, upstream = rng.normal(size=(4, 4)), rng.normal(size=(4, 4))
    unit, n = normalised(raw)
    report = check_gradient(
        lambda x: float(np.vdot(normalised(x)[0], upstream)), normalised_gradient(upstream, unit, n), raw, rng=rng
    )
    rho, norm, free = 2.5, 7.0, raw.copy()
    scale = norm / rho / normalised(free)[1]
    worst = control = 0.0
    for _ in range(200):
        unit, n = normalised(raw)
        worst = largest(worst, abs(norm / component_norms(np.zeros(1), norm / rho * unit)[1] / rho - 1))
        control = max(control, abs(norm / component_norms(np.zeros(1), scale * free)[1] / rho - 1))
        gradient = rng.normal(size=(4, 4)) + 1
        raw -= 0.05 * normalised_gradient(norm / rho * gradient, unit, n)
        free -= 0.05 * scale * gradient
    return Evidence(
        measured=worst if report.passed else np.inf,
        tolerance=1e-13,
        control=control,
        note=f"gradient: {report.message}",
    )


@claim(
    "structured/online-descends",
    statement="an online scaling step never raises the objective on its subset",
    tex=r"\min_{s \in [2^{-2}, 2^2]} f(U, sW) \le f(U, W)",
    reference="reconstructed from [SO19]",
    control="a step that always doubles the pairwise part",
    derivation="derivations/online-scaling.md",
)
def online_descends(rng: np.random.Generator) -> Evidence:
    data = make_chain_dataset(20, 5, 3, 4, rng=rng)
    network, pairwise = mlp(4, (), 3, rng=rng), rng.normal(size=(3, 3))
    worst, control = -np.inf, -np.inf
    for scale in (0.05, 1.0, 20.0):
        for objective in ("nll", "ssvm", "pseudolikelihood"):
            model = ChainCRF(network, pairwise, pairwise_scale=scale)
            before = model.loss(data, objective)
            for factor, fitted in ((best_pairwise_factor(model, data, objective).factor, True), (2.0, False)):
                after = ChainCRF(network, pairwise, pairwise_scale=scale * factor).loss(data, objective)
                change = (after - before) / before
                worst, control = (largest(worst, change), control) if fitted else (worst, max(control, change))
    return Evidence(measured=largest(0.0, worst), tolerance=1e-14, control=control)


@claim(
    "structured/scale-decides",
    statement="the accuracy of joint training with F = U + c W~ depends on c; with online scaling it does not",
    tex=r"\max_c \mathrm{acc}(c) - \min_c \mathrm{acc}(c)",
    reference="the main finding of [SO19], on generated data",
    control="naive joint training with the same budget",
    derivation="derivations/online-scaling.md",
)
def scale_decides(rng: np.random.Generator) -> Evidence:
    data = make_chain_dataset(600, 8, 5, 8, emission=0.7, transition=2.0, rng=rng)
    train, test = data.subset(range(200)), data.subset(range(200, 600))
    network, pairwise = mlp(8, (16,), 5, rng=rng), rng.normal(size=(5, 5))

    def spread(scaling: OnlineScaling | None) -> float:
        scores = [
            uninterrupted(
                train_structured(
                    ChainCRF(network, pairwise, pairwise_scale=c),
                    train,
                    scaling=scaling,
                    n_epochs=6,
                    optimizer=Adam(step_size=1e-2),
                    rng=0,
                )
            ).model.accuracy(test)
            for c in (0.01, 1.0, 100.0)
        ]
        return max(scores) - min(scores)

    return Evidence(measured=spread(OnlineScaling(subset=100)), tolerance=0.03, control=spread(None))
