"""Claims about training other parameters: p and v together, and keys and queries instead of p."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp

from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.evidence.attention.instances import orthogonal_instance
from attnembed.evidence.registry import Evidence, by_construction, claim

_PAIR = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])


@claim(
    "attention/joint-training-invariant",
    statement="when p and v are trained together, e^u + u grows like the squared value: selection is like log log t",
    tex=r"e^{u} + u - \tfrac32 w^2 = \text{const},\quad u = p\cdot(E_{s^*} - E_s),\ w = |E_{s^*}\cdot v|",
    reference="derived here",
    hypotheses=(by_construction("one pair for each label, orthonormal rows", code="np.eye(3), [x, x, -2 * x]"),),
    control="the factor 3/2 ten percent larger",
    derivation="derivations/joint-training.md",
)
def joint_invariant(rng: np.random.Generator) -> Evidence:
    x, w = rng.uniform(-0.5, 0.5), rng.uniform(0.2, 1.0)
    start = AttentionModel(np.eye(3), [x, x, -2 * x], [w, -w, 0.0])

    def force(_: float, z: np.ndarray) -> np.ndarray:
        grads = start.replace(p=z[:3], v=z[3:]).loss_and_grads(_PAIR)[1]
        return -np.concatenate([grads.p, grads.v])

    path = solve_ivp(force, (0, 200.0), np.concatenate([start.p, start.v]), rtol=1e-10, atol=1e-12).y
    u, value = path[0] - path[2], path[3]

    def drift(factor: float) -> float:
        kept = np.exp(u) + u - factor * value**2
        return float(np.ptp(kept) / (np.exp(u[-1]) + u[-1] - np.exp(u[0]) - u[0]))

    return Evidence(measured=drift(1.5), tolerance=1e-6, control=drift(1.65))


@claim(
    "attention/key-query-clock",
    statement="training only the keys, with W = K^T Q and a fixed query q, is the flow on p in another clock",
    tex=r"p = K^\top Qq:\quad \dot p = -\|Qq\|^2\,\nabla_pL",
    reference="derived here",
    hypotheses=(by_construction("Q and q are fixed", code="w = Q @ q"),),
    control="the clock ten percent faster",
    derivation="derivations/key-query.md",
)
def key_query_clock(rng: np.random.Generator) -> Evidence:
    instance = orthogonal_instance(rng)
    model, data, eta = instance.model, instance.data, 0.05
    K, Q, q = rng.standard_normal((3, model.dim)), rng.standard_normal((3, 2)), rng.standard_normal(2)
    w = Q @ q
    square = float(w @ w)
    p = K.T @ w
    moved = [p.copy(), p.copy()]
    for _ in range(30):
        grad = model.replace(p=K.T @ w).loss_and_grads(data)[1].p
        K = K - eta * np.outer(w, grad)  # dL/dK = (Q q) (dL/dp)^T
        for k, factor in enumerate((1.0, 1.1)):
            slope = model.replace(p=moved[k]).loss_and_grads(data)[1].p
            moved[k] = moved[k] - eta * factor * square * slope
    size = float(np.linalg.norm(K.T @ w - p))
    errors = [float(np.linalg.norm(K.T @ w - end)) / size for end in moved]
    return Evidence(measured=errors[0], tolerance=1e-12, control=errors[1])
