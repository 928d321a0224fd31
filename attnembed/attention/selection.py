"""Which token each sequence selects, and the max-margin program that belongs to a selection ([WSOM25], Section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attnembed._validation import as_integer_array, check_shape, freeze
from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.parameters import Parameters, check_model, scores_and_values
from attnembed.errors import InputError
from attnembed.gibbs import mode
from attnembed.results import Record

__all__ = ["MarginConstraints", "Parameters", "Selection", "margin_constraints", "select", "top_tokens"]

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Record):
    """What p selects and what would be best.

    Attributes
    ----------
    tokens : (n,) the token with the largest score p.E_s of each sequence (lowest id on ties)
    top : (n,) the token with the largest y_i g_s (lowest id on ties)
    top_ties : (n,) how many token types share that largest value; 1 where the top token is unique
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
    """The rows d_k = E_{s*} - E_s of the margin program, each pair of token types once.

    ``pairs`` (m, 2) holds (s*, s); ``differences`` (m, d) the rows.
    """

    pairs: Ints
    differences: Floats


def top_tokens(data: TokenDataset, token_values: Floats) -> tuple[Ints, Ints, Floats, Floats]:
    """The token with the largest y_i g_s in each sequence, its ties, and the two largest distinct-token values.

    Returns (top (n,), ties (n,), gamma (n,), runner_up (n,)): gamma_i* = y_i g_top, and the largest y_i g_s over the
    other token types of the sequence, -inf where there is no other.
    """
    segments, columns = data.segments, data.counts.indices
    worth = segments.spread(data.labels) * token_values[columns]
    best = mode(worth, segments)
    gamma = worth[best]
    ties = segments.sum((worth == segments.spread(gamma)).astype(np.int64))
    others = worth.copy()
    others[best] = -np.inf
    return columns[best].astype(np.int64), ties, gamma, segments.max(others)


def select(model: Parameters, data: TokenDataset) -> Selection:
    """The tokens that p selects, s.p-argmax, beside those that the loss would select, y g-argmax; each (n,).

    >>> from attnembed.attention.model import AttentionModel
    >>> model = AttentionModel(np.eye(3), [0.0, 0.0, 1.0], [1.0, -1.0, 0.0])
    >>> choice = select(model, TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1]))
    >>> choice.tokens, choice.top, choice.agrees
    (array([2, 2]), array([0, 1]), False)
    """
    check_model(model)
    check_data(data, len(model.E))
    columns = data.counts.indices
    scores, values = scores_and_values(model)
    tokens = columns[mode(scores[columns], data.segments)].astype(np.int64)
    top, ties, _, _ = top_tokens(data, values)
    return Selection(freeze(tokens), freeze(top), freeze(ties))


def margin_constraints(model: Parameters, data: TokenDataset, selected: ArrayLike | Selection) -> MarginConstraints:
    """The program of a selection: p.(E_{s_i} - E_s) >= 1 for every other token type s of every sequence i.

    Build it from the selection that the flow actually made (statement F8), not from the tokens that should win.

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
    tokens: Any = selected.tokens if isinstance(selected, Selection) else selected
    chosen = as_integer_array("selected", tokens, ndim=1)
    check_shape("selected", chosen, (data.n_samples,), "one token per sequence")
    columns = data.counts.indices.astype(np.int64)
    winner = data.segments.spread(chosen)
    present = data.segments.sum((columns == winner).astype(np.int64)) > 0
    if not present.all():
        i = int(np.flatnonzero(~present)[0])
        raise InputError("selected", "must occur in its sequence", got=f"token {chosen[i]} for sequence {i}")
    keys = np.unique((winner * data.vocab_size + columns)[columns != winner])
    if keys.size == 0:
        raise InputError(
            "data",
            "must have a sequence with two token types",
            got="one type in each",
            hint="nothing to select from",
        )
    pairs = np.stack(np.divmod(keys, data.vocab_size), axis=1)
    return MarginConstraints(freeze(pairs), freeze(model.E[pairs[:, 0]] - model.E[pairs[:, 1]]))
