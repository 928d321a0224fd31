"""Two tokens of equal value: a conserved quantity decides which of them always has the larger share (F7).

Derivation: docs/derivations/ties.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnembed._validation import check_integer
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.selection import TokenValues
from attnembed.attention.theory._inputs import ROUNDING, parameters
from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
from attnembed.errors import InputError

__all__ = ["TieInvariant", "tie_invariant"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TieInvariant(Prediction):
    """``value`` = e^{-u_1}/n_1 - e^{-u_2}/n_2, constant along the flow on p, and its ``winner``.

    The winner is the token with the larger n e^u: it has the larger share of the attention at all times, at every
    finite p and in the limit. It is -1 if both are equal; their shares then stay equal.

    The winner need not take everything. Of the attention on the two, the loser has the share
    (e^{-u_w}/n_w) / (|value| + 2 e^{-u_w}/n_w), with u_w the winner's score; it tends to 0 if and only if u_w grows
    without bound, and both tokens may lose to a third. Counterexamples: docs/derivations/ties.md.
    """

    value: float
    winner: int


def tie_invariant(model: Parameters, data: TokenDataset, first: int, second: int) -> TieInvariant:
    """The conserved quantity of two tokens of equal value g, at the scores u = E p of ``model``.

    Assumes that the two occur together, in the same proportion n_1 : n_2 wherever they occur (n_1 and n_2 are taken
    from the first such sequence), that g_1 = g_2, and that their embeddings have equal norms and are orthogonal to
    each other and to every other embedding that occurs.

    Raises
    ------
    InputError
        if a token id is out of range, the two are the same, or they never occur together.

    Source: derived here (docs/derivations/ties.md).

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 1, 1, 2], [3]], [1, -1])
    >>> tie = tie_invariant(AttentionModel(np.eye(4), np.zeros(4), [1.0, 1.0, 0.0, 0.0]), data, 0, 1)
    >>> tie.value, tie.winner, tie.holds
    (0.5, 1, True)
    """
    E, p, _ = parameters(model, data)
    pair = [check_integer(name, s, minimum=0) for name, s in (("first", first), ("second", second))]
    for name, s in zip(("first", "second"), pair):
        if s >= data.vocab_size:
            raise InputError(name, f"must be a token id below {data.vocab_size}", got=s)
    counts = data.counts_csc[:, pair].toarray()
    counts = counts[counts.any(axis=1)]
    together = counts[counts.all(axis=1)]
    if pair[0] == pair[1] or len(together) == 0:
        raise InputError("second", "must be another token that occurs together with `first`", got=second)
    share = counts[:, 0] / counts.sum(axis=1)
    n = together[0]
    u, X = E[pair] @ p, E[pair]
    sizes = np.linalg.norm(X, axis=1)
    shortest = float(sizes.min()) or 1.0
    gram = np.abs(X @ E[data.frequency > 0].T)
    gram[:, np.isin(np.flatnonzero(data.frequency > 0), pair)] = 0.0
    values = TokenValues.of(model)
    hypotheses = (
        Hypothesis(
            "equal values: |g_1 - g_2|",
            float(abs(values.values[pair[0]] - values.values[pair[1]])),
            "<=",
            float(values.rounding[pair].sum()),
        ),
        Hypothesis("fixed proportion: range of n_1 / (n_1 + n_2)", float(np.ptp(share)), "<=", ROUNDING),
        Hypothesis(
            "orthogonal to each other and to the rest: max |E_s.E_r| / ||E_s||^2",
            max(float(gram.max()), abs(float(X[0] @ X[1]))) / shortest**2,
            "<=",
            ROUNDING,
        ),
        Hypothesis(
            "equal norms: | ||E_1|| - ||E_2|| | / ||E_s||",
            abs(float(np.subtract(*sizes))) / shortest,
            "<=",
            ROUNDING,
        ),
    )
    strength = np.log(n) + u
    equal = abs(strength[0] - strength[1]) <= ROUNDING * (1 + float((np.abs(X) @ np.abs(p)).max()))
    with np.errstate(over="ignore", invalid="ignore"):
        value = float(np.subtract(*(np.exp(-u) / n)))
    return TieInvariant(
        hypotheses=hypotheses,
        value=value,
        winner=-1 if equal else pair[int(np.argmax(strength))],
    )
