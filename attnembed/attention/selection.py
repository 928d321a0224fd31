"""The token that each sequence selects, and the max-margin program of a selection ([WSOM25], Section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from attnembed._typing import Floats, Ints
from attnembed._validation import as_integer_array, check_shape, freeze
from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.parameters import Parameters, check_model, scores_and_values
from attnembed.errors import InputError
from attnembed.gibbs import mode
from attnembed.results import Record

__all__ = [
    "MarginConstraints",
    "Selection",
    "TokenValues",
    "margin_constraints",
    "select",
    "selected_pairs",
    "top_tokens",
]


# Two sums that differ by less than this share of their terms count as equal.
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Record):
    """The tokens that p selects, and the top tokens.

    Attributes
    ----------
    tokens : (n,) the token with the largest score p.E_s of each sequence (lowest id on ties)
    top : (n,) the token with the largest y_i g_s (lowest id on ties)
    top_ties : (n,) number of token types that share that largest value, up to rounding; 1 where the top token is unique
    """

    tokens: Ints
    top: Ints
    top_ties: Ints

    @property
    def agrees(self) -> bool:
        """Whether every sequence selects its unique top token."""
        return bool((self.tokens == self.top).all() and (self.top_ties == 1).all())


@dataclass(frozen=True, eq=False, repr=False)
class MarginConstraints(Record):
    """The rows d_k = E_{s*} - E_s of the margin program, one per pair of token types.

    ``pairs`` (m, 2) holds (s*, s); ``differences`` (m, d) the rows.
    """

    pairs: Ints
    differences: Floats


@dataclass(frozen=True, eq=False, repr=False)
class TokenValues(Record):
    """Token values g = E v (V,) in double precision, with a bound on their ``rounding`` (V,).

    The rounding of g_s is 1e-12 of sum_j |E_sj v_j|, separately for each token: two values are equal if they differ by
    no more than the sum of their roundings, whatever the values of other tokens. Every test for ties uses this.

    >>> from attnembed.attention.model import AttentionModel
    >>> g = TokenValues.of(AttentionModel([[0.1, 0.2], [0.3, 0.0], [9.0, 0.0]], [0.0, 0.0], [1.0, 1.0]))
    >>> bool(g.values[0] == g.values[1]), bool(g.differences(np.array([0]), np.array([1]))[0] == 0)
    (False, True)
    """

    values: Floats
    rounding: Floats

    @classmethod
    def of(cls, model: Parameters) -> TokenValues:
        """The token values of a model."""
        E, v = np.asarray(model.E, dtype=np.float64), np.asarray(model.v, dtype=np.float64)
        return cls(E @ v, ROUNDING * (np.abs(E) @ np.abs(v)))

    def differences(self, first: Ints, second: Ints) -> Floats:
        """g_first - g_second of token ids, any shape; exactly 0 where the two are equal up to rounding."""
        difference = self.values[first] - self.values[second]
        return np.where(np.abs(difference) <= self.rounding[first] + self.rounding[second], 0.0, difference)

    def shortfalls(self, data: TokenDataset, chosen: Ints) -> Floats:
        """D_is = y_i (g_chosen_i - g_s) for each nonzero count, (nnz,), for one chosen token per sequence (n,)."""
        spread = data.segments.spread
        return spread(data.labels) * self.differences(spread(chosen), data.counts.indices)


def top_tokens(data: TokenDataset, token_values: Floats | TokenValues) -> tuple[Ints, Ints, Floats, Floats]:
    """The token with the largest y_i g_s in each sequence, its ties, and the largest values of two distinct tokens.

    Returns (top (n,), ties (n,), gamma (n,), runner_up (n,)): the lowest id among the tokens that share the largest
    value, the number of these tokens, the largest value gamma_i* of y_i g_s, and the largest over the other token types
    of the sequence: gamma_i* itself where it is shared, -inf where there is no other. A bare array counts as exact.
    """
    if not isinstance(token_values, TokenValues):
        token_values = TokenValues(token_values, np.zeros(len(token_values)))
    segments, columns = data.segments, data.counts.indices
    worth = segments.spread(data.labels) * token_values.values[columns]
    best = mode(worth, segments)
    gamma = worth[best]
    tied = token_values.shortfalls(data, columns[best]) == 0
    ties = segments.sum(tied.astype(np.int64))
    others = worth.copy()
    others[best] = -np.inf
    runner_up = np.where(ties > 1, gamma, segments.max(others))
    return columns[mode(tied.astype(np.float64), segments)].astype(np.int64), ties, gamma, runner_up


def select(model: Parameters, data: TokenDataset) -> Selection:
    """The tokens that p selects, with the largest scores, and the top tokens, with the largest y_i g_s; each (n,).

    >>> from attnembed.attention.model import AttentionModel
    >>> model = AttentionModel(np.eye(3), [0.0, 0.0, 1.0], [1.0, -1.0, 0.0])
    >>> choice = select(model, TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1]))
    >>> choice.tokens, choice.top, choice.agrees
    (array([2, 2]), array([0, 1]), False)
    """
    check_model(model)
    check_data(data, len(model.E))
    columns = data.counts.indices
    scores, _ = scores_and_values(model)
    tokens = columns[mode(scores[columns], data.segments)].astype(np.int64)
    top, ties, _, _ = top_tokens(data, TokenValues.of(model))
    return Selection(freeze(tokens), freeze(top), freeze(ties))


def margin_constraints(model: Parameters, data: TokenDataset, selected: ArrayLike | Selection) -> MarginConstraints:
    """The program of a selection: p.(E_{s_i} - E_s) >= 1 for every other token type s of every sequence i.

    Build it from the selection that the flow made (statement F8), not from the tokens that should win.

    Parameters
    ----------
    selected : (n,) one token id per sequence, each occurring in its sequence; or a `Selection` (its ``tokens``)

    Raises
    ------
    InputError
        if a selected token does not occur in its sequence, or no sequence has a second token type.

    >>> from attnembed.attention.model import AttentionModel
    >>> model = AttentionModel(np.eye(3), np.zeros(3), np.zeros(3))
    >>> margin_constraints(model, TokenDataset.from_tokens([[0, 2], [0, 2], [1, 2]], [1, 1, -1]), [0, 0, 1]).pairs
    array([[0, 2],
           [1, 2]])
    """
    check_model(model)
    check_data(data, len(model.E))
    pairs = selected_pairs(data, selected)
    return MarginConstraints(pairs, freeze(model.E[pairs[:, 0]] - model.E[pairs[:, 1]]))


def selected_pairs(data: TokenDataset, selected: ArrayLike | Selection) -> Ints:
    """The ``pairs`` of `margin_constraints`, (m, 2), in lexicographic order."""
    tokens: Any = selected.tokens if isinstance(selected, Selection) else selected
    chosen = as_integer_array("selected", tokens, ndim=1)
    check_shape("selected", chosen, (data.n_samples,), "one token per sequence")
    columns = data.counts.indices.astype(np.int64)
    winner = data.segments.spread(chosen)
    present = data.segments.sum((columns == winner).astype(np.int64)) > 0
    if not present.all():
        i = int(np.flatnonzero(~present)[0])
        raise InputError("selected", "must occur in its sequence", got=f"token {chosen[i]} for sequence {i}")
    # A sort: for millions of integers the hash table of np.unique takes far longer.
    keys = np.sort((winner * data.vocab_size + columns)[columns != winner])
    if keys.size == 0:
        raise InputError(
            "data",
            "must have a sequence with two token types",
            got="one type in each",
            hint="nothing to select from",
        )
    keys = keys[np.r_[True, keys[1:] != keys[:-1]]]
    pairs: Ints = freeze(np.stack(np.divmod(keys, data.vocab_size), axis=1))
    return pairs
