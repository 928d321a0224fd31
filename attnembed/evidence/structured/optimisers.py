"""Claims about the optimisers: their steps agree with the published recursions in decimals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.optim import SGD, Adam, Optimizer

_DIGITS = 50
_STEPS = 4
_NAME = "w"

# (dtype, size of the gradients, Adam's epsilon): usual ones, and squares that leave the range of the floats.
_CASES = (
    (np.float64, 1.0, 1e-8),
    (np.float64, 1e-8, 1e-8),
    (np.float64, 1e-180, 1e-182),
    (np.float64, 1e170, 1e-8),
    (np.float32, 1.0, 1e-8),
    (np.float32, 1e-24, 1e-26),
    (np.float32, 1e22, 1e-8),
)


@claim(
    "structured/optimiser-steps",
    statement="SGD and Adam follow their recursions, in both precisions and for gradients of any size",
    tex=r"v \leftarrow \mu v + g,\ \theta \leftarrow (1-\eta\lambda)\theta - \eta v;\quad"
    r" \theta \leftarrow (1-\eta\lambda)\theta - \eta\,\hat m/(\sqrt{\hat s} + \epsilon)",
    reference="Kingma, Ba 2015; Loshchilov, Hutter 2019; compared with decimals of 50 digits",
    control="a step ten percent longer",
    derivation="derivations/effective-steps.md",
)
def optimiser_steps(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    for kind, size, epsilon in _CASES:
        options: dict[str, Any] = {"step_size": 0.1, "multipliers": {_NAME: 0.7}, "weight_decay": {_NAME: 0.3}}
        beta1, beta2 = rng.uniform(0.5, 0.95), rng.uniform(0.8, 0.999)
        optimizers = [SGD(momentum=0.9, **options), Adam(beta1=beta1, beta2=beta2, epsilon=epsilon, **options)]
        for optimizer in optimizers:
            if isinstance(optimizer, SGD) and not 1e-8 <= size <= 1:
                continue  # its steps are as large as the gradients
            start = rng.uniform(0.5, 1.5, 3).astype(kind)
            # One entry at rest, one with a gradient in one step only, and one that is large once.
            gradients = (size * rng.standard_normal((_STEPS, 3))).astype(kind)
            gradients[:, 0], gradients[1:, 1] = 0, 0
            gradients[0, 2] *= 100
            found = _trained(optimizer, start, gradients)
            unit = 64 * float(np.finfo(kind).eps)
            worst = largest(worst, _distance(found, _exact(optimizer, start, gradients)) / unit)
            control = min(control, _distance(found, _exact(optimizer, start, gradients, 1.1)) / unit)
    return Evidence(measured=worst, tolerance=1.0, control=control)


@claim(
    "structured/optimiser-follows",
    statement="after a parameter is multiplied, even by a negative factor, the state continues as if always so",
    tex=r"\theta \to a\theta:\ v \to v/a,\ m \to m/a,\ s \to s/a^2",
    reference="derived here; compared with decimals of 50 digits",
    control="the state left as it was",
    derivation="derivations/folding.md",
)
def optimiser_follows(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    for factor in (-3.0, 0.25, 1e170, -1e-170):
        for optimizer in (SGD(step_size=0.1, momentum=0.9), Adam(step_size=0.1, beta2=0.9, epsilon=1e-300)):
            gradients = rng.standard_normal((_STEPS, 3)) * (1 if isinstance(optimizer, Adam) else factor)
            moved = [
                _trained(optimizer, np.ones(3), gradients, factor=factor, follow=follow) for follow in (True, False)
            ]
            # As if the parameter had been a theta from the start, with the gradients over a.
            exact = _last_step(optimizer, gradients / factor)
            size: Decimal = max(map(abs, exact))
            off = [max(abs(Decimal(float(a)) - b) for a, b in zip(step, exact)) / size for step in moved]
            worst, control = largest(worst, float(off[0])), min(control, float(off[1]))
    return Evidence(measured=worst, tolerance=1e-12, control=control)


def _trained(
    optimizer: Optimizer, start: Any, gradients: Any, *, factor: float | None = None, follow: bool = True
) -> Any:
    """The parameter after all steps; with a ``factor``, the last step alone, after the state has been adjusted."""
    params = {_NAME: start.copy()}
    state = optimizer.init(params)
    for k, gradient in enumerate(gradients):
        if factor is not None and k == len(gradients) - 1:
            params[_NAME] = np.zeros_like(start)
            if follow:
                optimizer.rescale(state, _NAME, factor)
            gradient = gradient / factor
        optimizer.update(params, {_NAME: gradient}, state)
    return params[_NAME]


def _directions(optimizer: Optimizer, gradients: Any) -> Iterator[list[Decimal]]:
    """The direction of each step, to be multiplied by eta and subtracted, by the published recursions."""
    size = len(gradients[0])
    velocity, mean, square = ([Decimal(0)] * size for _ in range(3))
    for k, row in enumerate(gradients, start=1):
        g = [Decimal(float(x)) for x in row]
        if isinstance(optimizer, Adam):
            b1, b2, epsilon = (Decimal(x) for x in (optimizer.beta1, optimizer.beta2, optimizer.epsilon))
            mean = [b1 * m + (1 - b1) * x for m, x in zip(mean, g)]
            square = [b2 * s + (1 - b2) * x * x for s, x in zip(square, g)]
            yield [(m / (1 - b1**k)) / ((s / (1 - b2**k)).sqrt() + epsilon) for m, s in zip(mean, square)]
        else:
            assert isinstance(optimizer, SGD)
            velocity = [Decimal(optimizer.momentum) * v + x for v, x in zip(velocity, g)]
            yield velocity


def _exact(optimizer: Optimizer, start: Any, gradients: Any, factor: float = 1.0) -> list[Decimal]:
    """The parameter after all steps of ``factor`` times the length."""
    assert isinstance(optimizer.weight_decay, dict)
    with localcontext() as context:
        context.prec = _DIGITS
        eta = Decimal(factor) * Decimal(optimizer.step_size) * Decimal(optimizer.multipliers[_NAME])
        keep = 1 - Decimal(optimizer.step_size * optimizer.multipliers[_NAME]) * Decimal(optimizer.weight_decay[_NAME])
        theta = [Decimal(float(x)) for x in start]
        for direction in _directions(optimizer, gradients):
            theta = [keep * x - eta * d for x, d in zip(theta, direction)]
        return theta


def _last_step(optimizer: Optimizer, gradients: Any) -> list[Decimal]:
    with localcontext() as context:
        context.prec = _DIGITS
        *_, last = _directions(optimizer, gradients)
        return [-Decimal(optimizer.step_size) * x for x in last]


def _distance(found: Any, exact: list[Decimal]) -> float:
    """The largest error relative to the size of the parameter."""
    if not np.isfinite(found).all():
        return math.inf
    return max(float(abs(Decimal(float(a)) - b) / max(Decimal(1), abs(b))) for a, b in zip(found, exact))
