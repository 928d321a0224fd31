"""Simplification of a violating instance, step by step, to fewer and rounder numbers.

Hypothesis shrinks its draws, in their order. For people, fewer sequences, tokens and dimensions and rounder numbers
are simpler, whatever was drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.errors import AttnembedError
from attnembed.structured.data import ChainDataset
from attnembed.structured.model import ChainCRF
from attnembed.testing.problem import Problem, as_code

__all__ = ["simplified"]

_SECONDS = 20.0  # time limit for slow statements
_DIGITS = (0, 1, 2)


def simplified(problem: Any, violates: Callable[[Any], bool]) -> Any:
    """The last in a chain of simpler instances that all violate; the instance itself if none does."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        size = len(as_code(problem))
        for candidate in _simpler(problem):
            if time.monotonic() > end:
                return problem
            if len(as_code(candidate)) < size and violates(candidate):
                problem = candidate
                break
        else:
            break
    return problem


def _simpler(problem: Any) -> Iterator[Any]:
    if isinstance(problem, tuple) and all(isinstance(part, np.ndarray) for part in problem):
        for i, part in enumerate(problem):
            for array in _rounder(part):
                yield (*problem[:i], array, *problem[i + 1 :])
        return
    if not isinstance(problem, Problem):
        return
    tried: Iterator[Any] = iter(())
    if isinstance(problem.model, AttentionModel):
        tried = _attention(problem.model, problem.data)
    elif isinstance(problem.model, ChainCRF):
        tried = _chain(problem.model, problem.data)
    while True:
        try:
            yield Problem(*next(tried))
        except StopIteration:
            return
        except AttnembedError:  # only one class left, say; the generator is finished
            return


def _datasets(counts: Any, labels: Any) -> Iterator[TokenDataset]:
    """The data set with these counts, or nothing if they are invalid (an empty sequence, one class)."""
    try:
        yield TokenDataset.from_counts(counts, labels)
    except AttnembedError:
        return


def _attention(model: AttentionModel, data: TokenDataset) -> Iterator[tuple[AttentionModel, TokenDataset]]:
    counts, labels = data.counts.toarray(), data.labels
    for i in range(data.n_samples):
        kept = np.arange(data.n_samples) != i
        for smaller in _datasets(counts[kept], labels[kept]):
            yield model, smaller
    for s in range(data.vocab_size):
        kept = np.arange(data.vocab_size) != s
        for smaller in _datasets(counts[:, kept], labels):
            yield model.replace(E=model.E[kept]), smaller
    for j in range(model.dim if model.dim > 1 else 0):
        kept = np.arange(model.dim) != j
        yield AttentionModel(model.E[:, kept], model.p[kept], model.v[kept]), data
    for i, s in np.argwhere(counts > 0):
        for value in sorted({0, 1, counts[i, s] // 2} - {counts[i, s]}):
            fewer = counts.copy()
            fewer[i, s] = value
            for smaller in _datasets(fewer, labels):
                yield model, smaller
    for name in ("p", "v", "E"):
        for array in _rounder(getattr(model, name)):
            yield model.replace(**{name: array}), data


def _chain(model: ChainCRF, data: ChainDataset) -> Iterator[tuple[ChainCRF, ChainDataset]]:
    inputs, labels = data.split(data.inputs), data.split(data.known_labels)
    for i in range(len(data) if len(data) > 1 else 0):
        yield model, data.subset(np.flatnonzero(np.arange(len(data)) != i))
    for i, y in enumerate(labels):
        for part in (slice(0, -1), slice(1, None)) if len(y) > 1 else ():
            shorter = [x[part] if j == i else x for j, x in enumerate(inputs)]
            yield model, ChainDataset(shorter, [z[part] if j == i else z for j, z in enumerate(labels)])
    for array in _rounder(model.pairwise):
        yield replace(model, pairwise=array), data
    for name, value in model.network.params.items():
        for array in _rounder(value):
            yield replace(model, network=model.network.with_params(model.network.params | {name: array})), data
    for i, x in enumerate(inputs):
        for array in _rounder(x):
            yield model, ChainDataset([array if j == i else z for j, z in enumerate(inputs)], labels)


def _rounder(array: Any) -> Iterator[Any]:
    """Simpler arrays: all zero; all rounded to fewer digits; one entry 0, or rounded."""
    if array.dtype.kind != "f":
        return
    candidates = [np.zeros_like(array), *(np.round(array, digits) + 0.0 for digits in _DIGITS)]
    for place in np.ndindex(array.shape):
        for value in (0.0, *(float(np.round(array[place], digits)) + 0.0 for digits in _DIGITS)):
            one = array.copy()
            one[place] = value
            candidates.append(one)
    for candidate in candidates:
        if np.isfinite(array).all() == np.isfinite(candidate).all() and not np.array_equal(candidate, array):
            yield candidate
