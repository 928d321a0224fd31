"""Claims about structured prediction: inference, objectives, scale and its repairs, in the order of the theory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed import gibbs
from attnembed._typing import Doubles, Floats
from attnembed.evidence.registry import Evidence, claim
from attnembed.gradcheck import check_gradient
from attnembed.optim import SGD, Adam, Optimizer
from attnembed.reference import enumerate_chain, enumerate_grid
from attnembed.results import uninterrupted
from attnembed.structured.chain import chain_log_partition, chain_marginals, chain_score, chain_viterbi
from attnembed.structured.data import make_chain_dataset
from attnembed.structured.grid import grid_icm, grid_map, grid_score
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


@dataclass(frozen=True)
class _Batch:
    """Random potentials of ragged chains with random labels."""

    unary: Doubles
    pairwise: Doubles
    labels: NDArray[np.integer[Any]]
    lengths: NDArray[np.integer[Any]]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.unary, self.pairwise, self.labels, self.lengths


def _batch(rng: np.random.Generator, *, n: int = 4, length: int = 4, k: int = 3, spread: float = 1.0) -> _Batch:
    return _Batch(
        spread * rng.normal(size=(n, length, k)),
        spread * rng.normal(size=(k, k)),
        rng.integers(0, k, size=(n, length)),
        rng.integers(1, length + 1, size=n),
    )


# Exp domain, one shift per row or logarithms by need, and wide potentials.
_SPREADS = (0.1, 1.0, 30.0, 2000.0)


@claim(
    "structured/log-partition-gradient",
    statement="the gradient of log Z in U and W is the node marginals and the expected pair counts",
    tex=r"\partial_{U_{ik}} \log Z = P(y_i=k),\quad \partial_{W_{kl}} \log Z = \sum_i P(y_i=k, y_{i+1}=l)",
    reference="derived here",
    control="the pair counts transposed",
    derivation="derivations/chain-marginals.md",
)
def log_partition_gradient(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for spread in _SPREADS[:3]:
        batch = _batch(rng, spread=spread)
        found = chain_marginals(batch.unary, batch.pairwise, batch.lengths)
        counts = found.edge.sum(axis=(0, 1))

        def of_unary(u: Doubles, batch: _Batch = batch) -> float:
            return float(chain_log_partition(u, batch.pairwise, batch.lengths).sum())

        def of_pairwise(w: Doubles, batch: _Batch = batch) -> float:
            return float(chain_log_partition(batch.unary, w, batch.lengths).sum())

        worst = max(worst, slope_error(of_unary, batch.unary, found.node, rng))
        worst = max(worst, slope_error(of_pairwise, batch.pairwise, counts, rng))
        control = max(control, slope_error(of_pairwise, batch.pairwise, counts.T, rng))
    return Evidence(measured=worst, tolerance=1e-8, control=control)


def slope_error(
    function: Callable[[Doubles], float],
    x: Floats,
    gradient: Floats,
    rng: np.random.Generator,
    *,
    step: float = 1e-3,
    directions: int = 2,
) -> float:
    """The error of a gradient along random directions, relative to its norm, by differences of fourth order."""
    worst, norm = 0.0, float(np.linalg.norm(gradient))
    for _ in range(directions):
        d = rng.standard_normal(x.shape)
        d /= np.linalg.norm(d)
        near, far = (function(x + h * d) - function(x - h * d) for h in (step, 2 * step))
        worst = max(worst, abs((8 * near - far) / (12 * step) - float(np.vdot(gradient, d))))
    return worst / norm if norm else worst


@claim(
    "structured/chain-enumeration",
    statement="log Z and all marginals equal those of the enumeration of every labeling, narrow or wide potentials",
    tex=r"Z = \sum_Y e^{F(Y)}",
    reference="derived here",
    control="the recursion with W transposed",
    derivation="derivations/chain-marginals.md",
)
def chain_enumeration(rng: np.random.Generator) -> Evidence:
    def error(unary: Doubles, pairwise: Doubles, used: Doubles) -> float:
        truth, found = enumerate_chain(unary, pairwise), chain_marginals(unary, used)
        size = max(1.0, abs(truth.log_partition))
        gaps = (found.log_partition - truth.log_partition, found.node - truth.node, found.edge - truth.edge)
        return max(float(np.abs(gap).max(initial=0)) for gap in gaps) / size

    worst = control = 0.0
    for spread in _SPREADS:
        unary, pairwise = spread * rng.normal(size=(5, 3)), spread * rng.normal(size=(3, 3))
        pairwise[0, 1] = unary[2, 1] = -np.inf
        worst = max(worst, error(unary, pairwise, pairwise))
        control = max(control, error(unary, pairwise, pairwise.T))
    return Evidence(measured=worst, tolerance=1e-13, control=control)


@claim(
    "structured/viterbi-enumeration",
    statement="Viterbi, plain and loss-augmented, finds the score of the best labeling of the enumeration",
    tex=r"\hat Y = \arg\max_Y F(Y)",
    reference="derived here",
    control="the best label at each position, without the pairwise part",
    derivation="derivations/chain-marginals.md",
)
def viterbi_enumeration(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for spread in _SPREADS:
        for _ in range(5):
            unary, pairwise = spread * rng.normal(size=(5, 3)), spread * rng.normal(size=(3, 3))
            best = enumerate_chain(unary, pairwise).score
            for labels, greedy in ((chain_viterbi(unary, pairwise), False), (unary.argmax(axis=1), True)):
                gap = (best - float(chain_score(unary, pairwise, labels))) / max(1.0, abs(best))
                worst, control = (worst, max(control, gap)) if greedy else (max(worst, gap), control)
    return Evidence(measured=worst, tolerance=1e-14, control=control)


@claim(
    "structured/padding",
    statement="what stands beyond the length of a sequence, NaN included, changes no result of the batch",
    tex=r"P(Y \mid U_{1:L}, \text{padding}) = P(Y \mid U_{1:L})",
    reference="derived here",
    control="the padded positions read as data",
    derivation="derivations/chain-marginals.md",
)
def padding(rng: np.random.Generator) -> Evidence:
    batch = _batch(rng, n=6, length=7)
    beyond = np.arange(7) >= batch.lengths[:, None]
    alone = np.array([chain_log_partition(u[:m], batch.pairwise) for u, m in zip(batch.unary, batch.lengths)])
    hidden = np.where(beyond[..., None], np.nan, batch.unary)
    together = chain_log_partition(hidden, batch.pairwise, batch.lengths)
    read = chain_log_partition(batch.unary, batch.pairwise)
    return Evidence(
        measured=float(np.abs(together - alone).max() / np.abs(alone).max()),
        tolerance=1e-15,
        control=float(np.abs(read - alone).max() / np.abs(alone).max()),
    )


@claim(
    "structured/length-one",
    statement="a chain of length one is the softmax over the tokens of a sequence",
    tex=r"L = 1:\quad P(y) = e^{U_y} / \sum_k e^{U_k}",
    reference="derived here",
    control="a chain of length two with the same potentials",
    derivation="derivations/temperature.md",
)
def length_one(rng: np.random.Generator) -> Evidence:
    unary, pairwise = 5 * rng.normal(size=(6, 1, 4)), rng.normal(size=(4, 4))
    softmax = gibbs.probabilities(unary.ravel(), gibbs.Segments(np.arange(0, 25, 4)), np.ones(24)).reshape(6, 4)
    twice = chain_marginals(np.repeat(unary, 2, axis=1), pairwise).node[:, 0]
    return Evidence(
        measured=float(np.abs(chain_marginals(unary, pairwise).node[:, 0] - softmax).max()),
        tolerance=1e-14,
        control=float(np.abs(twice - softmax).max()),
    )


@claim(
    "structured/zero-pairwise",
    statement="with W = 0 a chain is a product of softmaxes, and all probabilistic objectives are the cross-entropy",
    tex=r"W = 0:\quad P(Y) = \prod_i \operatorname{softmax}(U_i)_{y_i}",
    reference="derived here",
    control="the same with a W that is not zero",
    derivation="derivations/temperature.md",
)
def zero_pairwise(rng: np.random.Generator) -> Evidence:
    batch = _batch(rng)

    def spread_of(pairwise: Doubles) -> float:
        names = ("unary", "nll", "pseudolikelihood", "marginal")
        values = [chain_objective(n, batch.unary, pairwise, batch.labels, batch.lengths).value for n in names]
        return max(abs(value / values[0] - 1) for value in values)

    return Evidence(measured=spread_of(0 * batch.pairwise), tolerance=1e-14, control=spread_of(batch.pairwise))


@claim(
    "structured/temperature",
    statement="a common factor c of all potentials is temperature 1/c, P_c(Y) ~ P(Y)^c, and leaves the best labeling",
    tex=r"\log Z_c = c \log Z + \log \sum_Y P(Y)^c,\quad \arg\max_Y cF(Y) = \arg\max_Y F(Y)",
    reference="derived here",
    control="the factor on the pairwise part only",
    derivation="derivations/temperature.md",
)
def temperature(rng: np.random.Generator) -> Evidence:
    unary, pairwise = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    every = np.array(list(np.ndindex(3, 3, 3, 3)))
    p = np.exp([float(chain_score(unary, pairwise, y)) for y in every] - chain_log_partition(unary, pairwise))
    best = chain_viterbi(unary, pairwise)

    def error(a: float, b: float, c: float) -> float:
        moved = float(np.any(chain_viterbi(a * unary, b * pairwise) != best))
        z = c * chain_log_partition(unary, pairwise) + np.log(np.sum(p**c))
        return max(moved, abs(float(chain_log_partition(a * unary, b * pairwise)) / float(z) - 1))

    factors = (0.1, 3.0, 20.0)
    return Evidence(
        measured=max(error(c, c, c) for c in factors),
        tolerance=1e-12,
        control=min(error(1, c, c) for c in factors),
    )


@claim(
    "structured/objective-gradients",
    statement="the gradients of all objectives in U and W are right, for two labels or more, narrow potentials or wide",
    tex=r"f(\theta + hd) - f(\theta - hd) = 2h\langle\nabla f, d\rangle + O(h^3)",
    reference="derived here",
    control="each gradient in U wrong by one part in a thousand",
    derivation="derivations/marginal-objective.md",
)
def objective_gradients(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    for name in ("nll", "ssvm", "pseudolikelihood", "marginal", "unary"):
        for k, spread in ((2, 1.0), (3, 1.0), (3, 30.0)):
            batch = _batch(rng, k=k, spread=spread)
            out = chain_objective(name, *batch.arguments)
            # A maximum has kinks, and is linear between them.
            step = 1e-6 if name == "ssvm" else 1e-3

            def of_unary(u: Doubles, name: str = name, batch: _Batch = batch) -> float:
                return chain_objective(name, u, batch.pairwise, batch.labels, batch.lengths).value

            def of_pairwise(w: Doubles, name: str = name, batch: _Batch = batch) -> float:
                return chain_objective(name, batch.unary, w, batch.labels, batch.lengths).value

            error = slope_error(of_unary, batch.unary, out.unary, rng, step=step)
            worst = max(worst, error, slope_error(of_pairwise, batch.pairwise, out.pairwise, rng, step=step))
            if spread == 1:
                control = min(control, slope_error(of_unary, batch.unary, 1.001 * out.unary, rng, step=step))
    return Evidence(measured=worst, tolerance=1e-6, control=control)


@claim(
    "structured/hinge-bounds-hamming",
    statement="the ssvm loss is at least the share of wrong labels of the best labeling",
    tex=r"\Delta(Y, \hat Y) \le \max_{Y'} [\Delta(Y, Y') + F(Y')] - F(Y)",
    reference="Tsochantaridis et al. 2005",
    control="the perceptron loss, max F - F(Y), which has no margin",
    derivation="derivations/hinge.md",
)
def hinge_bounds_hamming(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for spread in (0.01, 0.1, 1.0):
        for _ in range(10):
            batch = _batch(rng, n=1, spread=spread)
            unary, labels = batch.unary[0], batch.labels[0]
            best = chain_viterbi(unary, batch.pairwise)
            wrong = float(np.mean(best != labels))
            hinge = chain_objective("ssvm", unary, batch.pairwise, labels).value
            perceptron = float(chain_score(unary, batch.pairwise, best) - chain_score(unary, batch.pairwise, labels))
            if wrong > 0:
                worst, control = max(worst, wrong / hinge), max(control, wrong / perceptron)
    return Evidence(measured=worst, bound=1.0, control=control)


@claim(
    "structured/min-cut",
    statement="minimum cuts find a best labeling of every binary grid, any W, beside potentials of any size",
    tex=r"F(\hat Y) = \max_Y F(Y)",
    reference="Greig, Porteous, Seheult 1989; signs and digits derived here",
    control="one cut of 30 bits; iterated conditional modes",
    derivation="derivations/min-cut.md",
)
def min_cut(rng: np.random.Generator) -> Evidence:
    # Integers, with two pixels tied by 2^40: every score is exact in floating point, and one unit is a mistake.
    worst = rounded = local = 0.0
    for sign in 4 * (1, -1):
        unary = rng.integers(-9, 10, size=(1, 3, 3, 2)).astype(np.float64)
        unary[0, 0, 0, 0] += 2.0**40
        unary[0, 2, 2, 1] += 2.0**40
        pairwise = rng.integers(-2, 3, size=(2, 2, 2)) + sign * 5 * np.eye(2)
        truth = enumerate_grid(unary[0], *pairwise).score

        def shortfall(
            labels: NDArray[np.integer[Any]], u: Doubles = unary, w: Doubles = pairwise, t: float = truth
        ) -> float:
            return t - float(grid_score(u, w, labels)[0])

        worst = max(worst, shortfall(grid_map(unary, pairwise).labels))
        step = 2.0**40 / 2**30
        coarse = grid_map(step * np.rint(unary / step), step * np.rint(pairwise / step))
        rounded = max(rounded, shortfall(coarse.labels))
        local = max(local, shortfall(grid_icm(unary, pairwise)))
    return Evidence(measured=worst, tolerance=0.0, control=min(rounded, local))


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
        batch = _batch(rng, n=1)
        ends = rng.normal(scale=5.0, size=(2, 2))
        for name in ("nll", "ssvm", "pseudolikelihood", "marginal"):
            first, second, middle = (
                chain_objective(name, a * batch.unary, b * batch.pairwise, batch.labels, batch.lengths).value
                for a, b in (*ends, ends.mean(axis=0))
            )
            excess = middle - (first + second) / 2
            worst[name] = max(worst[name], excess / max(1.0, first, second))
    # The Hessian itself, against the covariance of the two totals over all labelings.
    off, scaled, lowest = 0.0, np.inf, np.inf
    for _ in range(5):
        batch, scales = _batch(rng, n=1), (float(rng.normal()), float(rng.normal()))
        found = scale_objective(*batch.arguments, scales=scales).hessian
        exact = _total_covariance(batch, scales)
        size = np.abs(exact).max()
        off = max(off, float(np.abs(found - exact).max() / size))
        scaled = min(scaled, float(np.abs(1.1 * found - exact).max() / size))
        lowest = min(lowest, float(np.linalg.eigvalsh(found)[0] / size))
    marginal = worst.pop("marginal")
    return Evidence(measured=max(*worst.values(), off, -lowest), tolerance=1e-13, control=min(marginal, scaled))


def _total_covariance(batch: _Batch, scales: tuple[float, float]) -> Doubles:
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
    statement="Newton's method with Hessian Cov_P(U, P) finds scales that no point of a grid improves on",
    tex=r"\nabla = E_P[(U,P)] - (U,P)(Y),\quad H = \operatorname{Cov}_P(U,P)",
    reference="derived here",
    control="the best pairwise scale with the unary scale left at 1",
    derivation="derivations/two-scales.md",
)
def newton_scales(rng: np.random.Generator) -> Evidence:
    batch = _batch(rng, n=60, length=5)
    fit = fit_scales(*batch.arguments)
    around = np.linspace(-2.0, 2.0, 9)

    def value(a: float, b: float) -> float:
        return scale_objective(*batch.arguments, scales=(a, b)).value

    grid = [value(fit.unary_scale + x, fit.pairwise_scale + y) for x in around for y in around]
    grid += [value(fit.unary_scale + 1e-4 * x, fit.pairwise_scale + 1e-4 * y) for x in (-1, 1) for y in (-1, 1)]
    alone = min(value(1.0, fit.pairwise_scale + y) for y in around)
    return Evidence(
        measured=max(0.0, fit.value - min(grid)) / fit.value if fit.success else np.inf,
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
    return params["W"] - before


@claim(
    "structured/folding",
    statement="folding the scales a, b into the last layer and W is exact; the optimiser goes on as if always so",
    tex=r"F_{aU,bW} = aU + bW;\quad m \to m/b,\ v \to v/b^2",
    reference="derived here",
    control="folding with the optimiser's state left as it was",
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
            worst, control = (max(worst, error), control) if follow else (worst, min(control, error))
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
            # W~ is of size 1/c: differences of it carry its rounding.
            moved = c * (params["pairwise"] - model.pairwise)
            direction = -gradient if method == "sgd" else -np.sign(gradient)
            for law in (method, other):
                expected = effective_step_size(law, c, eta) * direction
                error = float(np.linalg.norm(moved - expected) / np.linalg.norm(expected))
                worst, control = (max(worst, error), control) if law == method else (worst, min(control, error))
    return Evidence(measured=worst, tolerance=1e-7, control=control)


@claim(
    "structured/offline-ratio",
    statement="the offline parametrisation keeps the ratio of the norms to rounding, and its gradient is right",
    tex=r"W = (\bar n_U / \rho)\,(\tilde W - \operatorname{mean} \tilde W) / n(\tilde W),\quad n_U / n_W = \rho",
    reference="reconstructed from [SO19]; Salimans, Kingma 2016",
    control="a constant multiplier with the same ratio at the start",
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
        worst = max(worst, abs(norm / component_norms(np.zeros(1), norm / rho * unit)[1] / rho - 1))
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
                worst, control = (max(worst, change), control) if fitted else (worst, max(control, change))
    return Evidence(measured=max(0.0, worst), tolerance=1e-14, control=control)


@claim(
    "structured/scale-decides",
    statement="the accuracy of joint training with F = U + c W~ depends on c, that of online scaling does not",
    tex=r"\max_c \mathrm{acc}(c) - \min_c \mathrm{acc}(c)",
    reference="[SO19], its main finding, on data made here",
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
