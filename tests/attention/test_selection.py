"""Selections and margin constraints against loops over the sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import Selection, TokenValues, margin_constraints, select, top_tokens
from attnembed.errors import InputError
from tests.attention.theory.instances import as_model, unit_model
from tests.plain import AttentionProblem, attention_problems


def with_ties(problem: AttentionProblem) -> AttentionProblem:
    """E, p and v rounded to integers: equal scores and equal values are common, and exact."""
    arrays = {name: np.round(getattr(problem, name)) for name in ("E", "p", "v")}
    return AttentionProblem(**arrays, tokens=problem.tokens, labels=problem.labels)


@given(attention_problems() | attention_problems(scale=1.0).map(with_ties))
def test_selection_by_definition(problem: AttentionProblem) -> None:
    model, data = as_model(problem)
    choice = select(model, data)
    u, g = model.token_scores, model.token_values
    top, ties, gamma, runner_up = top_tokens(data, g)
    for i, (tokens, y) in enumerate(zip(problem.tokens, problem.labels)):
        types = sorted(set(tokens))
        assert choice.tokens[i] == max(types, key=lambda s: (u[s], -s))
        assert choice.top[i] == top[i] == max(types, key=lambda s: (y * g[s], -s))
        values = sorted((y * g[s] for s in types), reverse=True)
        assert choice.top_ties[i] == ties[i] == values.count(values[0])
        assert gamma[i] == values[0]
        assert runner_up[i] == (values[1] if len(values) > 1 else -np.inf)
    assert choice.agrees == (choice.tokens.tolist() == choice.top.tolist() and set(choice.top_ties) == {1})
    assert choice.tokens.dtype == choice.top.dtype == np.int64


def test_of_tied_tokens_the_lowest_id_is_reported() -> None:
    data = TokenDataset.from_tokens([[2, 0, 1, 1], [2, 1]], [1, -1])
    choice = select(AttentionModel(np.ones((3, 1)), [1.0], [1.0]), data)
    assert (choice.tokens.tolist(), choice.top.tolist(), choice.top_ties.tolist()) == ([0, 1], [0, 1], [3, 2])
    assert not choice.agrees  # the top token of neither is unique


def test_what_p_selects_is_not_what_would_be_best() -> None:
    data = TokenDataset.from_tokens([[0, 1], [0, 1]], [1, -1])
    choice = select(unit_model([1.0, -1.0]).replace(p=[1.0, 0.0]), data)
    assert (choice.tokens.tolist(), choice.top.tolist(), choice.agrees) == ([0, 0], [0, 1], False)
    with pytest.raises(ValueError, match="read-only"):
        choice.tokens[0] = 1


@given(attention_problems(), st.data())
def test_constraints_by_definition(problem: AttentionProblem, draw: st.DataObject) -> None:
    model, data = as_model(problem)
    chosen = [draw.draw(st.sampled_from(sorted(set(tokens)))) for tokens in problem.tokens]
    expected = sorted({(c, s) for c, tokens in zip(chosen, problem.tokens) for s in tokens if s != c})
    if not expected:
        with pytest.raises(InputError, match="`data` must have a sequence with two token types"):
            margin_constraints(model, data, chosen)
        return
    constraints = margin_constraints(model, data, chosen)
    assert constraints.pairs.tolist() == [list(pair) for pair in expected]
    assert_array_equal(constraints.differences, [model.E[a] - model.E[b] for a, b in expected])
    for array in (constraints.pairs, constraints.differences):
        assert not array.flags.writeable
    # the margins are what the program asks for: of the chosen token over each other one
    margins = constraints.differences @ model.p
    scores = model.E @ model.p
    assert_allclose(margins, [scores[a] - scores[b] for a, b in expected], rtol=0, atol=1e-13)


@given(attention_problems())
def test_a_selection_stands_for_its_tokens(problem: AttentionProblem) -> None:
    model, data = as_model(problem)
    if max(len(set(tokens)) for tokens in problem.tokens) == 1:
        return
    choice = select(model, data)
    by_selection, by_tokens, by_top = (margin_constraints(model, data, x) for x in (choice, choice.tokens, choice.top))
    assert_array_equal(by_selection.pairs, by_tokens.pairs)
    assert (by_selection.differences @ model.p >= -1e-13).all()  # no other token has a higher score
    if not choice.agrees and choice.top_ties.max() == 1:
        assert not np.array_equal(by_top.pairs, by_selection.pairs)


DATA = TokenDataset.from_tokens([[0, 1], [1, 2]], [1, -1])
MODEL = unit_model([1.0, -1.0, 0.0])
BAD: list[tuple[Any, str]] = [
    ([0], "`selected` must have shape (2,); got shape (1,); one token per sequence"),
    ([[0, 1]], "`selected` must have 1 axes; got shape (1, 2)"),
    ([0.0, 1.0], "`selected` must hold integers; got dtype float64"),
    ([True, False], "`selected` must hold integers; got dtype bool"),
    (None, "`selected` must hold integers; got dtype object"),
    ([[0], [1, 2]], "`selected` must be an array, with rows of one length; got list"),
    ([0, 0], "`selected` must occur in its sequence; got token 0 for sequence 1"),
    ([0, 9], "`selected` must occur in its sequence; got token 9 for sequence 1"),
    ([-1, 1], "`selected` must occur in its sequence; got token -1 for sequence 0"),
]


@pytest.mark.parametrize(("selected", "message"), BAD, ids=[message[12:60] for _, message in BAD])
def test_bad_selections_end_in_one_sentence(selected: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        margin_constraints(MODEL, DATA, selected)
    assert str(caught.value) == message


def test_data_must_fit_the_model() -> None:
    large = TokenDataset.from_tokens([[0, 1], [1, 3]], [1, -1])
    for call in (lambda data: select(MODEL, data), lambda data: margin_constraints(MODEL, data, [0, 1])):
        with pytest.raises(InputError, match=r"`data` must have the model's vocabulary of 3 tokens; got 4"):
            call(large)
        with pytest.raises(InputError, match="`data` must be a TokenDataset; got NoneType"):
            call(None)


def test_agreement_needs_every_sequence() -> None:
    assert Selection(np.array([0, 1]), np.array([0, 1]), np.ones(2, int)).agrees
    assert not Selection(np.array([0, 1]), np.array([0, 2]), np.ones(2, int)).agrees


def test_the_rounding_of_either_value_makes_them_equal() -> None:
    values = TokenValues(np.array([0.0, 1e-3]), np.array([0.0, 1e-2]))
    for pair in ([0, 1], [1, 0]):
        assert values.differences(np.array(pair[:1]), np.array(pair[1:])).tolist() == [0.0]
