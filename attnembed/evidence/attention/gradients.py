"""Claims of Section 2: the derivatives of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from attnembed.evidence.attention.instances import ragged_instance
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.gradcheck import check_gradient_complex_step
from attnembed.reference import attention_loss, precise_gradient_p


@claim(
    "attention/gradients-exact",
    statement="the gradients in E, p and v agree with complex-step derivatives of the definition up to rounding",
    tex=r"\nabla_{E_s} L = -(A_s v + B_s p),\quad \nabla_p L = -E^\top B,\quad \nabla_v L = -E^\top A",
    reference="[WSOM25], Section 2; derived here",
    control="the gradient in E without its second factor, B p^T",
    derivation="derivations/gradients.md",
)
def gradients_exact(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for score_norm in (0.1, 1.0, 10.0):
        instance = ragged_instance(rng, score_norm=score_norm)
        model, tokens, labels = instance.model, instance.tokens, instance.labels
        _, grads = model.loss_and_grads(instance.data)
        parameters = {"E": model.E, "p": model.p, "v": model.v}

        # Rounding is relative to the terms of a gradient, which may cancel in the sum.
        A, B = (np.abs(factor) for factor in grads.E_factors)
        E, p, v = (np.abs(parameters[name]) for name in ("E", "p", "v"))
        terms = {"E": np.outer(A, v) + np.outer(B, p), "p": B @ E, "v": A @ E}

        def error(
            name: str,
            gradient: np.ndarray,
            parameters: dict[str, Any] = parameters,
            at: tuple[Any, ...] = (tokens, labels),
            terms: dict[str, Any] = terms,
        ) -> float:
            def loss(x: np.ndarray) -> complex:
                value: complex = attention_loss(**{**parameters, name: x}, tokens=at[0], labels=at[1])
                return value

            found = check_gradient_complex_step(loss, lambda _: gradient, parameters[name]).relative_error
            return found * float(np.linalg.norm(gradient) / np.linalg.norm(terms[name]))

        worst = largest(worst, error("E", grads.E), error("p", grads.p), error("v", grads.v))
        control = max(control, error("E", -np.outer(grads.E_factors[0], model.v)))
    return Evidence(measured=worst, tolerance=1e-13, control=control)


@claim(
    "attention/gradient-factors",
    statement="the factors B sum to zero, and grad_E L is a matrix of rank two in span{v, p}",
    tex=r"\sum_s B_s = 0,\quad \nabla_E L = -(A v^\top + B p^\top)",
    reference="[WSOM25], Section 2; derived here",
    control="the factors A, which do not sum to zero",
    derivation="derivations/gradients.md",
)
def gradient_factors(rng: np.random.Generator) -> Evidence:
    instance = ragged_instance(rng)
    A, B = instance.model.loss_and_grads(instance.data)[1].E_factors
    return Evidence(measured=abs(B.sum()) / np.abs(B).sum(), tolerance=1e-14, control=abs(A.sum()) / np.abs(A).sum())


@claim(
    "attention/gradient-saturation",
    statement="the gradient in p is accurate to 1e-10 of its norm for ||p|| from 1e-3 to 1e3",
    tex=r"g_s - f_i = D_{is} - \delta_i,\ D_{is} = g_s - g_{m_i},\ \delta_i = \sum_r a_{ir} D_{ir}",
    reference="derived here",
    control="the textbook formula a (g - f) in float64",
    derivation="derivations/saturation.md",
)
def gradient_saturation(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for score_norm in (1e-3, 1.0, 30.0, 1e3):
        instance = ragged_instance(rng, dim=9)
        data = instance.data
        # Orthonormal embeddings and scores in equal steps, so that large ||p|| saturates every sequence.
        E, scores = np.linalg.qr(instance.model.E)[0], rng.permutation(np.arange(9.0))
        model = instance.model.replace(E=E, p=score_norm * (E.T @ scores) / np.linalg.norm(scores))
        truth = precise_gradient_p(model.E, model.p, model.v, instance.tokens, instance.labels)
        grads = model.loss_and_grads(data)[1]
        worst = largest(worst, truth.relative_error(grads.scaled_p, grads.log_scale))
        a, f = model.attention(data).toarray(), model.output(data)
        c = data.labels / data.n_samples * expit(-data.labels * f)
        textbook = -(c @ (a * (model.token_values - f[:, None]))) @ model.E
        control = max(control, truth.relative_error(textbook, 0.0))
    return Evidence(measured=worst, tolerance=1e-10, control=control)
