"""Divergence of p: there is no finite stationary point if a token is strictly top wherever it occurs (F1).

Derivation: docs/derivations/divergence.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from attnembed._typing import Floats
from attnembed._validation import freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.selection import TokenValues, top_tokens
from attnembed.attention.theory._inputs import independence, parameters, unit_rows
from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
from attnembed.gibbs import log_partition

__all__ = ["Divergence", "divergence"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Divergence(Prediction):
    """Directions along which -grad_p L has a positive component at every finite p.

    ``tokens`` (k,) are the tokens that are strictly top wherever they occur (at least once beside another token type),
    ``dual_basis`` (k, d) the vectors phat_s with phat_s . E_r = 1 if r = s and 0 for the other tokens that occur
    (NaN where the embeddings are dependent),
    ``log_inner_products`` (k,) the logarithms of <-grad_p L, phat_s> = dq_s/dt at the model's p.
    """

    tokens: NDArray[np.integer[Any]]
    dual_basis: Floats
    log_inner_products: Floats

    @property
    def inner_products(self) -> Floats:
        """<-grad_p L, phat_s>, (k,), positive until it underflows."""
        return np.exp(self.log_inner_products)


def divergence(model: Parameters, data: TokenDataset) -> Divergence:
    """The components of -grad_p L along the dual basis, from attention and values alone.

    <-grad_p L, phat_s> = sum_{i: s_i* = s} (sigma(-y_i f_i) / n) a_is (gamma_i* - y_i f_i) > 0. So there is no finite
    stationary point, ||p_t|| -> infinity from any start, and with p_t - p_0 = sum_s q_s(t) E_s the coefficient q_s of
    such a token never decreases.

    Source: derived here (docs/derivations/divergence.md); [WSOM25], Section 4.

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    >>> growth = divergence(AttentionModel(np.eye(3), np.zeros(3), [1.0, -1.0, 0.0]), data)
    >>> growth.tokens, growth.inner_products.round(4), growth.holds
    (array([0, 1]), array([0.0472, 0.0472]), True)
    """
    E, p, _ = parameters(model, data)
    u, g = E @ p, TokenValues.of(model)
    columns, segments, multiplicity = data.counts.indices, data.segments, data.counts.data
    row = segments.ids
    top, _, gamma, runner_up = top_tokens(data, g)

    # delta_i = gamma_i* - y_i f_i = sum_s a_is D_is, in logarithms: its terms vanish as attention saturates.
    D = g.shortfalls(data, top)
    log_Z = log_partition(u[columns], segments, multiplicity)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_delta = log_partition(np.where(D > 0, u[columns], -np.inf), segments, multiplicity * D) - log_Z
    log_delta[segments.max(D) <= 0] = -np.inf
    log_rate = log_expit(np.exp(log_delta) - gamma) + log_delta - np.log(data.n_samples)

    first = columns == top[row]
    strict = (runner_up < gamma)[row]
    growing = np.zeros(data.vocab_size, dtype=bool)
    growing[columns[first & (runner_up > -np.inf)[row]]] = True
    growing[columns[~(first & strict)]] = False  # beaten somewhere
    tokens = np.flatnonzero(growing)
    log_inner = np.full(data.vocab_size, -np.inf)
    log_attention = np.log(multiplicity) + u[columns] - log_Z[row]
    np.logaddexp.at(log_inner, columns[first], (log_rate[row] + log_attention)[first])

    occurring = np.flatnonzero(data.frequency > 0)
    rows = unit_rows(E[occurring])
    independent = independence(E[occurring])
    rounding = np.finfo(np.float64).eps * max(occurring.size, E.shape[1])
    if independent > rounding:
        # The dual basis of the unit rows, in units of the rows' norms.
        where = np.searchsorted(occurring, tokens)
        left, singular, right = np.linalg.svd(rows, full_matrices=False)
        dual = (left[where] / singular) @ right / np.einsum("sk,sk->s", rows[where], E[tokens])[:, None]
    else:
        dual = np.full((tokens.size, E.shape[1]), np.nan)
    return Divergence(
        hypotheses=(
            Hypothesis(
                "independent embeddings: smallest over largest singular value of the unit rows",
                independent,
                ">",
                float(rounding),
            ),
            Hypothesis("a token is strictly top wherever it occurs: number of them", float(tokens.size), ">=", 1.0),
        ),
        tokens=freeze(tokens.astype(np.int64)),
        dual_basis=freeze(dual),
        log_inner_products=freeze(log_inner[tokens]),
    )
