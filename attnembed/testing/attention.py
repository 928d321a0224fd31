"""Strategies for the attention model: data sets and models of many kinds, and problems with hypotheses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnembed._validation import check_choice, check_positive
from attnembed.attention.data import TokenDataset
from attnembed.attention.first_step import one_step
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.theory.basin import basin_condition
from attnembed.errors import NotSeparableError
from attnembed.margins import max_margin
from attnembed.testing.numbers import BOOLEANS, SEEDS, Draw, check_range, digits, draw_matrix, integers
from attnembed.testing.problem import Problem

__all__ = ["HYPOTHESES", "KINDS", "MODELS", "datasets", "models", "problems", "sequences"]

Ints = NDArray[np.int64]
Sequences = tuple[list[Ints], Ints, int]  # the token ids of each, the labels, the size of the vocabulary

# The kinds of data sets, with their special features.
KINDS: Mapping[str, str] = {
    "any": "any sequences, of any length, with repeated tokens",
    "balanced": "mirrored pairs: Assumption 1 holds, irrelevant tokens have signed frequency 0",
    "iid": "tokens drawn from one distribution per class",
    "zipf": "mirrored pairs whose irrelevant tokens have very different frequencies",
    "several": "several important tokens in a sequence",
    "ties": "several sequences with the same tokens",
    "heavy": "multiplicities of up to a million",
    "inseparable": "two tokens in sequences of both labels: no p selects the top tokens of all",
}
MODELS: Mapping[str, str] = {
    "readable": "entries that are multiples of a half",
    "gaussian": "normal entries",
    "orthonormal": "embeddings that are unit vectors",
    "one-step": "orthonormal embeddings after one gradient step",
    "degenerate": "repeated rows, zero rows, v = 0 or one dimension",
}
# Named hypotheses of `problems`.
HYPOTHESES: Mapping[str, str] = {
    "assumption_1": "every sequence has exactly one important token",
    "unique_top": "every sequence has one top token",
    "separable": "some p selects the top tokens of all sequences",
    "basin": "p lies in the basin of the top tokens",
}

_KINDS, _MODEL_KINDS = st.sampled_from(list(KINDS)), st.sampled_from(list(MODELS))
_STEPS = st.sampled_from([1.0, 10.0, 100.0])
_DEGENERATE = st.sampled_from(["repeated", "zero", "no v"])
_WITH_ASSUMPTION = st.sampled_from(["balanced", "zipf"])
_SEPARABLE = st.sampled_from(["gaussian", "orthonormal", "one-step"])
_REACH = st.sampled_from([8.0, 16.0, 4.0, 2.0])


def datasets(
    kind: str | None = None,
    *,
    n_samples: tuple[int, int] = (2, 6),
    length: tuple[int, int] = (1, 6),
    vocab_size: tuple[int, int] = (2, 8),
) -> st.SearchStrategy[TokenDataset]:
    """Token data sets with both labels present.

    Parameters
    ----------
    kind : one of `KINDS`; by default any of them
    n_samples, length, vocab_size : inclusive ranges, at least 2, 1 and 2, at most 256; a kind that needs more uses more

    >>> from hypothesis import find
    >>> find(datasets("any"), lambda data: True).labels
    array([ 1., -1.])
    """
    if kind is not None:
        check_choice("kind", kind, KINDS)
    ranges = (
        check_range("n_samples", n_samples, least=2),
        check_range("length", length),
        check_range("vocab_size", vocab_size, least=2),
    )
    return _datasets(kind, *ranges)


@st.composite
def _datasets(draw: st.DrawFn, kind: str | None, *ranges: tuple[int, int]) -> TokenDataset:
    return _draw_dataset(draw, kind, *ranges)


def _draw_dataset(
    draw: Draw, kind: str | None, n_samples: tuple[int, int], length: tuple[int, int], vocab_size: tuple[int, int]
) -> TokenDataset:
    chosen = draw(_KINDS) if kind is None else kind
    labels, V = _draw_labels(draw, n_samples), draw(integers(*vocab_size))
    if chosen in _BY_COUNTS:
        return _BY_COUNTS[chosen](draw, labels, length, V)
    tokens, labels, V = _BY_TOKENS[chosen](draw, labels, length, V)
    return TokenDataset.from_tokens(tokens, labels, vocab_size=V)


def sequences(
    kind: str = "any",
    *,
    n_samples: tuple[int, int] = (2, 6),
    length: tuple[int, int] = (1, 6),
    vocab_size: tuple[int, int] = (2, 8),
) -> st.SearchStrategy[tuple[list[list[int]], list[int], int]]:
    """Token ids, labels in {-1, +1} and the vocabulary size V, as lists, for `TokenDataset.from_tokens`.

    ``kind`` is one of the kinds of `datasets` built from sequences, not counts; the ranges are the same.

    >>> from hypothesis import find
    >>> find(sequences(), lambda drawn: True)
    ([[0], [0]], [1, -1], 2)
    """
    check_choice("kind", kind, _BY_TOKENS)
    ranges = (
        check_range("n_samples", n_samples, least=2),
        check_range("length", length),
        check_range("vocab_size", vocab_size, least=2),
    )
    return _sequences(kind, *ranges)


@st.composite
def _sequences(
    draw: st.DrawFn, kind: str, n_samples: tuple[int, int], length: tuple[int, int], vocab_size: tuple[int, int]
) -> tuple[list[list[int]], list[int], int]:
    tokens, labels, V = _BY_TOKENS[kind](draw, _draw_labels(draw, n_samples), length, draw(integers(*vocab_size)))
    return [ids.tolist() for ids in tokens], labels.tolist(), V


def _draw_labels(draw: Draw, n_samples: tuple[int, int]) -> Ints:
    """Labels of both classes; a permutation of the sequences would change nothing."""
    n = draw(integers(*n_samples))
    return np.append([1, -1], 1 - 2 * draw(digits(2, n - 2)))


def _any(draw: Draw, labels: Ints, length: tuple[int, int], V: int) -> Sequences:
    return [draw(digits(V, length)) for _ in labels], labels, V


def _balanced(draw: Draw, labels: Ints, length: tuple[int, int], V: int, zipf: bool = False) -> Sequences:
    """Ids: M positive tokens, M negative ones, then the irrelevant ones; each pair shares its irrelevant tokens."""
    V = max(V, 3)
    M = draw(integers(1, max(1, (V - 1) // 3)))
    tokens = []
    for _ in range(len(labels) // 2):
        times = 1 + int(draw(digits(3, 1))[0])
        rest = draw(digits(256, (max(1, length[0] - times), max(1, length[1] - times))))
        # With exponents of a half or less, low ids are far more frequent.
        shared = 2 * M + ((rest / 256) ** 3 * (V - 2 * M)).astype(int) if zipf else 2 * M + rest % (V - 2 * M)
        own = draw(digits(M, 2))
        tokens += [np.append([own[k] + k * M] * times, shared) for k in (0, 1)]
    return tokens, np.array([1, -1] * (len(tokens) // 2)), V


def _iid(draw: Draw, labels: Ints, length: tuple[int, int], V: int) -> Sequences:
    rng = np.random.default_rng(draw(SEEDS))
    probs = rng.dirichlet(np.ones(V), size=2)
    tokens = [rng.choice(V, size=rng.integers(*length, endpoint=True), p=probs[(1 - y) // 2]) for y in labels]
    return tokens, labels, V


def _several(draw: Draw, labels: Ints, length: tuple[int, int], V: int) -> Sequences:
    """Even ids below the last occur with y = +1 only, odd ones with y = -1, the last with both."""
    V = max(V, 5)
    last = V - 1 if V % 2 else V - 2
    tokens = []
    for y in labels:
        own = 2 * draw(digits(last // 2, (2, 4))) + (1 - y) // 2
        tokens.append(np.append(own, np.full(draw(integers(0, 3)), last)))
    return tokens, labels, V


def _ties(draw: Draw, labels: Ints, length: tuple[int, int], V: int) -> Sequences:
    two = draw(digits(V, length)), draw(digits(V, length))
    return [two[k] for k in draw(digits(2, len(labels)))], labels, V


_MULTIPLICITIES = np.array([0, 1, 2, 10, 1000, 1_000_000])


def _heavy(draw: Draw, labels: Ints, length: tuple[int, int], V: int) -> TokenDataset:
    counts = _MULTIPLICITIES[draw(digits(len(_MULTIPLICITIES), len(labels) * V))].reshape(len(labels), V)
    counts[counts.sum(axis=1) == 0, 0] = 1
    return TokenDataset.from_counts(counts, labels)


def _inseparable(draw: Draw, labels: Ints, length: tuple[int, int], V: int) -> TokenDataset:
    counts = np.zeros((len(labels), V), dtype=int)
    counts[:, :2] = 1
    if V > 2:
        counts[:, 2] = draw(integers(0, 3))
    return TokenDataset.from_counts(counts, labels)


_BY_TOKENS: Mapping[str, Callable[[Draw, Ints, tuple[int, int], int], Sequences]] = {
    "any": _any,
    "balanced": _balanced,
    "iid": _iid,
    "zipf": partial(_balanced, zipf=True),
    "several": _several,
    "ties": _ties,
}
_BY_COUNTS: Mapping[str, Callable[[Draw, Ints, tuple[int, int], int], TokenDataset]] = {
    "heavy": _heavy,
    "inseparable": _inseparable,
}


def models(
    data: TokenDataset,
    kind: str | None = None,
    *,
    dim: tuple[int, int] = (1, 5),
    scale: float = 2.0,
    distinct_values: bool = False,
) -> st.SearchStrategy[AttentionModel]:
    """Models over the vocabulary of ``data``.

    Parameters
    ----------
    kind : one of `MODELS`; by default any of them
    dim : inclusive range of d; orthonormal embeddings take at least V dimensions
    scale : size of the entries
    distinct_values : move every E_s along v so that the values E_s.v are 2 scale / V apart: each sequence has one top
        token
    """
    if kind is not None:
        check_choice("kind", kind, MODELS)
    return _models(data, kind, check_range("dim", dim), check_positive("scale", scale), distinct_values)


@st.composite
def _models(draw: st.DrawFn, *arguments: Any) -> AttentionModel:
    return _draw_model(draw, *arguments)


def _draw_model(
    draw: Draw, data: TokenDataset, kind: str | None, dim: tuple[int, int], scale: float, distinct_values: bool
) -> AttentionModel:
    V, d = data.vocab_size, draw(integers(*dim))
    kind = draw(_MODEL_KINDS) if kind is None else kind
    if kind in ("orthonormal", "one-step"):
        d = max(d, V + 1)
        model = AttentionModel(np.eye(V, d), draw_matrix(draw, (d,), scale), np.eye(d)[-1])
        if kind == "one-step":
            model = one_step(model.replace(p=np.zeros(d)), data, draw(_STEPS)).model
            model = model.replace(p=draw_matrix(draw, (d,), scale))
        else:
            values = draw_matrix(draw, (V,), scale)
            model = model.replace(E=np.hstack([np.eye(V, d - 1), values[:, None]]))
    else:
        generic = {"readable": False, "gaussian": True}.get(kind)
        if kind == "degenerate":
            d = 1 if draw(BOOLEANS) else d
        E = draw_matrix(draw, (V, d), scale, generic=generic)
        p, v = draw_matrix(draw, (d,), scale, generic=generic), draw_matrix(draw, (d,), scale, generic=generic)
        if kind == "degenerate":
            what = draw(_DEGENERATE)
            if what == "repeated":
                E[draw(integers(0, V - 1))] = E[0]
            elif what == "zero":
                E[draw(integers(0, V - 1))] = 0
            else:
                v[:] = 0
        elif not v.any():
            v[0] = scale
        model = AttentionModel(E, p, v)
    return _with_distinct_values(draw, model, scale) if distinct_values else model


def _with_distinct_values(draw: Draw, model: AttentionModel, scale: float) -> AttentionModel:
    V, v = model.vocab_size, model.v if model.v.any() else np.eye(1, model.dim)[0]
    order = np.argsort(draw(digits(256, V)), kind="stable")
    values = scale * (2.0 * order - V + 1) / V
    return model.replace(v=v, E=model.E + np.outer(values - model.E @ v, v) / (v @ v))


def problems(
    *,
    where: Iterable[str] = (),
    kind: str | None = None,
    model: str | None = None,
    n_samples: tuple[int, int] = (2, 6),
    length: tuple[int, int] = (1, 6),
    vocab_size: tuple[int, int] = (2, 8),
    dim: tuple[int, int] = (1, 5),
    scale: float = 2.0,
) -> st.SearchStrategy[Problem]:
    """Models with their data, for which the named hypotheses hold.

    Hypotheses are satisfied by construction where possible, and otherwise by rejecting instances.

    Parameters
    ----------
    where : some of `HYPOTHESES`: "assumption_1", "unique_top", "separable", "basin"
    kind, model : as in `datasets` and `models`
    n_samples, length, vocab_size, dim, scale : as there
    """
    wanted = {check_choice("where", name, HYPOTHESES) for name in ([where] if isinstance(where, str) else where)}
    if "basin" in wanted:
        wanted |= {"separable", "unique_top"}
    datasets(kind, n_samples=n_samples, length=length, vocab_size=vocab_size)  # for its checks
    if model is not None:
        check_choice("model", model, MODELS)
    ranges = (n_samples, length, vocab_size)
    return _problems(frozenset(wanted), kind, model, ranges, check_range("dim", dim), check_positive("scale", scale))


@st.composite
def _problems(
    draw: st.DrawFn,
    wanted: frozenset[str],
    kind: str | None,
    model: str | None,
    ranges: tuple[tuple[int, int], ...],
    dim: tuple[int, int],
    scale: float,
) -> Problem:
    if "assumption_1" in wanted and kind is None:
        kind = draw(_WITH_ASSUMPTION)
    data = _draw_dataset(draw, kind, *ranges)
    if "assumption_1" in wanted:
        assume(data.check_assumption().holds)
    if "separable" in wanted and model is None:
        model = draw(_SEPARABLE)
        dim = (max(dim[0], data.vocab_size), max(dim[1], data.vocab_size))
    problem = Problem(_draw_model(draw, data, model, dim, scale, "unique_top" in wanted), data)
    return _separable(draw, problem, basin="basin" in wanted) if "separable" in wanted else problem


def _separable(draw: Draw, problem: Problem, *, basin: bool) -> Problem:
    model, data = problem.model, problem.data
    tokens = select(model, data).top  # of two values that differ only by rounding, the same one as everywhere
    assume(bool(np.any(np.diff(data.counts.indptr) > 1)))  # with one type in each sequence there is nothing to select
    try:
        p = max_margin(margin_constraints(model, data, tokens).differences).p
    except NotSeparableError:
        assume(False)
        raise  # not reached
    if basin:
        reach = draw(_REACH)
        model = model.replace(p=reach * p + 0.1 * model.p)
        assume(basin_condition(model, data).holds)
    return Problem(model, data)
