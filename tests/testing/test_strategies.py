"""What is drawn is valid, of every kind, half generic and half degenerate, and its repr makes it again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption

import attnembed as ae
from attnembed import testing as t
from attnembed.errors import InputError, NotSeparableError
from attnembed.structured import layers
from attnembed.testing.attention import HYPOTHESES, KINDS, MODELS, _separable
from attnembed.testing.problem import as_code

SPACE = {"ae": ae, "np": np, "Problem": t.Problem, "Network": ae.Network}
SPACE |= {name: getattr(layers, name) for name in layers.__all__}


def drawn(strategy: st.SearchStrategy[Any], n: int = 60) -> list[Any]:
    """What a strategy draws, in a run of n examples."""
    found: list[Any] = []

    @seed(0)
    @settings(max_examples=n, database=None)
    @given(strategy)
    def draw(value: Any) -> None:
        found.append(value)

    draw()
    return found


def same(first: Any, second: Any) -> bool:
    if isinstance(first, t.Problem):
        return same(first.model, second.model) and same(first.data, second.data)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    return as_code(first) == as_code(second) and type(first) is type(second)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_data_sets_of_every_kind_are_what_they_say(kind: str, data: st.DataObject) -> None:
    found = data.draw(t.datasets(kind))
    assert set(found.labels) == {1.0, -1.0}
    assert found.lengths.min() >= 1
    assert 2 <= found.n_samples <= 6
    counts, labels = found.counts.toarray(), found.labels
    if kind in ("balanced", "zipf"):
        assert found.check_assumption().holds
    elif kind == "inseparable":
        assert (counts[:, :2] == 1).all()
    elif kind == "ties":
        assert len({tuple(row) for row in counts}) <= 2
    elif kind == "several":
        pure = [s for s in range(found.vocab_size) if len(set(labels[counts[:, s] > 0])) == 1]
        assert all(counts[i, pure].sum() >= 2 for i in range(found.n_samples))


def test_every_kind_of_model_is_what_it_says() -> None:
    data = ae.TokenDataset.from_counts([[1, 1, 0], [0, 1, 2]], [1, -1])
    for kind in MODELS:
        for model in drawn(t.models(data, kind), 20):
            assert model.vocab_size == 3
            E = model.E[:, :-1]
            if kind in ("orthonormal", "one-step"):
                assert np.allclose(E @ E.T, np.eye(3), atol=1e-12)
            elif kind == "readable":
                assert np.array_equal(4 * model.E, np.round(4 * model.E))
    degenerate = drawn(t.models(data, "degenerate"), 100)
    assert any(model.dim == 1 for model in degenerate)
    assert any(not model.v.any() for model in degenerate)
    assert any(not row.any() for model in degenerate for row in model.E)


def test_half_of_the_problems_are_generic_and_half_are_not() -> None:
    """Generic: no two scores, and no two values, of a vocabulary are equal."""
    generic = [
        len(set(x.model.token_scores)) == len(set(x.model.token_values)) == x.model.vocab_size
        for x in drawn(t.problems(), 100)
    ]
    assert 0.2 < np.mean(generic) < 0.8
    ties = [len(np.unique(pair[1])) == pair[1].size for pair in drawn(t.potentials(), 100)]
    assert 0.2 < np.mean(ties) < 0.8


@pytest.mark.parametrize("name", HYPOTHESES)
@settings(max_examples=15)
@given(data=st.data())
def test_problems_satisfy_their_hypotheses(name: str, data: st.DataObject) -> None:
    problem = data.draw(t.problems(where=[name]))
    model, tokens = problem.model, problem.data
    if name == "assumption_1":
        assert tokens.check_assumption().holds
    elif name == "basin":
        assert ae.theory.basin_condition(model, tokens).holds
    elif name == "unique_top":
        assert (ae.select(model, tokens).top_ties == 1).all()
    else:
        rows = ae.margin_constraints(model, tokens, ae.select(model, tokens).top).differences
        assert ae.max_margin(rows).success


@settings(max_examples=1)
@given(data=st.data())
def test_separable_means_the_top_tokens_of_select(data: st.DataObject) -> None:
    """Two values differ by rounding: as one selection the rows are separable, and as the other they are not."""
    values = [0.0, -0.07291666666666666, 0.031249999999999997, 0.03125, 0.010416666666666671]
    counts = [[0, 1, 1, 1, 1], [0, 4, 1, 0, 1], [1, 0, 1, 0, 4], [1, 1, 0, 0, 4]]
    tokens = ae.TokenDataset.from_counts(counts, [1, -1, 1, -1])
    model = ae.AttentionModel(np.c_[np.eye(5), values], np.ones(6), np.eye(6)[5])
    with pytest.raises(NotSeparableError):
        ae.max_margin(ae.margin_constraints(model, tokens, ae.select(model, tokens).top).differences)
    with pytest.raises(UnsatisfiedAssumption):
        _separable(data.draw, t.Problem(model, tokens), basin=False)


@pytest.mark.parametrize(
    "strategy",
    [t.problems(), t.chains(hidden=(0, 2)), t.grids(), t.potentials(forbidden=True), t.networks(2, 3), t.datasets()],
    ids=["problems", "chains", "grids", "potentials", "networks", "datasets"],
)
@settings(max_examples=15)
@given(data=st.data())
def test_reprs_evaluate_to_equal_objects(strategy: st.SearchStrategy[Any], data: st.DataObject) -> None:
    value = data.draw(strategy)
    assert same(value, eval(as_code(value), dict(SPACE)))


def test_structured_problems_are_valid() -> None:
    for strategy in (t.chains(), t.grids()):
        for problem in drawn(strategy, 20):
            assert np.isfinite(problem.model.loss(problem.data))
    for unary, pairwise in drawn(t.potentials(forbidden=True), 40):
        assert np.isfinite(ae.chain_log_partition(unary, pairwise))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: t.datasets("odd"), "`kind` must be one of"),
        (lambda: t.datasets(n_samples=(3, 2)), "`n_samples` must be"),
        (lambda: t.datasets(length=(1, 1000)), "`length` must be"),
        (lambda: t.problems(where=["round"]), "`where` must be one of"),
        (lambda: t.problems(model="odd"), "`model` must be one of"),
        (lambda: t.problems(scale=-1.0), "`scale`"),
    ],
)
def test_wrong_arguments_are_named_at_once(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
