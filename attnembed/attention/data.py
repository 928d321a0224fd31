"""Labelled token sequences as one sparse count matrix, their statistics, Assumption 1 and the generators.

The classifier sees a sequence only through how often each token occurs in it, so a data set *is* the matrix of counts
n_is (sequence i, token s). Notation as in docs/notation.md.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from attnembed._frozen import KeepsFrozen
from attnembed._typing import Doubles, Ints
from attnembed._validation import (
    RNGLike,
    as_integer_array,
    as_real_array,
    as_rng,
    as_signs,
    check_integer,
    check_positive,
    check_share,
    freeze,
    refuse_mask,
    shown,
)
from attnembed.attention.counting import as_counts, count_tokens
from attnembed.errors import InputError, InputTypeError
from attnembed.gibbs import Segments
from attnembed.results import Record, Shown

__all__ = [
    "AssumptionReport",
    "TokenDataset",
    "TokenKind",
    "check_data",
    "make_balanced_dataset",
    "make_iid_dataset",
]


# Signed frequencies are sums of numbers of both signs; below this share of the frequency a sum counts as zero.
_ZERO_SHARE = 1e-12


class TokenKind(enum.IntEnum):
    """The class of a token by its relation to the label ([WSOM25], Section 2)."""

    ABSENT = 0
    POSITIVE = 1  # completely positive: only in sequences with y = +1
    NEGATIVE = 2  # completely negative: only in sequences with y = -1
    IRRELEVANT = 3  # signed frequency zero
    MIXED = 4  # none of these


@dataclass(frozen=True, eq=False, repr=False)
class AssumptionReport(Record):
    """Whether Assumption 1 of [WSOM25] holds, and what violates it.

    ``important`` (n,) is the completely positive or negative token of each sequence, -1 where there is not exactly
    one. ``violations`` names each offending token and sequence (at most ``limit`` of each, then the number left out).
    """

    holds: bool
    violations: list[str]
    important: Ints

    def __str__(self) -> str:
        return "Assumption 1 holds" if self.holds else "Assumption 1 fails:\n  " + "\n  ".join(self.violations)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class TokenDataset(KeepsFrozen, Shown):
    """Sequences as counts n_is, with labels y_i in {-1, +1}. Build it with `from_tokens` or `from_counts`.

    Attributes
    ----------
    counts : (n, V) CSR float64, canonical: sorted indices, no duplicates, no stored zeros; read-only
    labels : (n,) -1.0 or +1.0, both present
    vocab : names of the tokens, or None

    >>> data = TokenDataset.from_tokens([[0, 2, 2], [1, 2, 2]], [1, -1])
    >>> data.counts.toarray()
    array([[1., 0., 2.],
           [0., 1., 2.]])
    >>> data.signed_frequency * 6
    array([ 1., -1.,  0.])
    >>> data.check_assumption().important
    array([0, 1])
    """

    counts: sp.csr_array
    labels: Doubles
    vocab: tuple[str, ...] | None

    def __init__(self, counts: Any, labels: ArrayLike, vocab: Sequence[str] | None = None) -> None:
        checked = TokenDataset._checked("counts", as_counts("counts", counts), labels, _as_names(vocab))
        self._set(checked.counts, checked.labels, checked.vocab)

    def _shown(self) -> list[tuple[str, Any]]:
        lengths = self.lengths
        names = [*(self.vocab or ())[:12], *(["..."] if len(self.vocab or ()) > 12 else [])]
        return [
            ("sequences", f"{self.n_samples}, {np.count_nonzero(self.labels > 0)} of them positive"),
            ("tokens", f"{self.vocab_size} types; {lengths.min()} to {lengths.max()} per sequence"),
            ("counts", self.counts),
            *([("vocab", ", ".join(names))] if names else []),
        ]

    @classmethod
    def from_tokens(
        cls,
        tokens: ArrayLike | Sequence[ArrayLike],
        labels: ArrayLike,
        vocab_size: int | None = None,
        vocab: Sequence[str] | None = None,
    ) -> TokenDataset:
        """Count the tokens of n sequences of any length >= 1.

        Parameters
        ----------
        tokens : int array (n, T), or n sequences of ints
        labels : (n,) in {-1, +1}
        vocab_size : V; by default one more than the largest id, or the length of ``vocab``
        vocab : V names

        Raises
        ------
        InputError
            naming the sequence that is empty or holds a non-integer or an out-of-range id.
        """
        names = _as_names(vocab)
        if vocab_size is None and names is not None:
            vocab_size = len(names)
        return cls._checked("tokens", count_tokens(tokens, vocab_size), labels, names)

    @classmethod
    def from_counts(cls, counts: Any, labels: ArrayLike, vocab: Sequence[str] | None = None) -> TokenDataset:
        """Use a dense or sparse (n, V) matrix of whole numbers >= 0 with no empty row (the matrix is copied)."""
        return cls(counts, labels, vocab)

    @classmethod
    def _checked(
        cls, name: str, counts: sp.csr_array, labels: ArrayLike, vocab: tuple[str, ...] | None
    ) -> TokenDataset:
        n, vocab_size = counts.shape
        signs = as_signs("labels", labels, n=n)
        empty = np.flatnonzero(np.diff(counts.indptr) == 0)
        if empty.size:
            more = f" and {empty.size - 1} more" if empty.size > 1 else ""
            raise InputError(
                name, "must not contain empty sequences", got=f"sequence {empty[0]}{more}", hint="drop them"
            )
        if vocab is not None and len(vocab) != vocab_size:
            raise InputError("vocab", f"must have one name per token ({vocab_size})", got=len(vocab))
        return cls._trusted(counts, signs, vocab)

    @classmethod
    def _trusted(cls, counts: sp.csr_array, labels: Doubles, vocab: tuple[str, ...] | None) -> TokenDataset:
        """A data set of canonical counts and of signs, which are not checked again; their arrays are frozen."""
        data = cls.__new__(cls)
        data._set(counts, labels, vocab)
        return data

    def _set(self, counts: sp.csr_array, labels: Doubles, vocab: tuple[str, ...] | None) -> None:
        for array in (counts.data, counts.indices, counts.indptr, labels):
            freeze(array)
        for name, value in (("counts", counts), ("labels", labels), ("vocab", vocab)):
            object.__setattr__(self, name, value)

    def subset(self, indices: ArrayLike) -> TokenDataset:
        """The sequences with the given indices, in that order; one class is enough.

        >>> TokenDataset.from_tokens([[0, 2], [1], [2]], [1, -1, 1]).subset([2, 0]).counts.toarray()
        array([[0., 0., 1.],
               [1., 0., 1.]])
        """
        chosen = as_integer_array("indices", indices, ndim=1)
        if not (chosen.size and chosen.min() >= 0 and chosen.max() < self.n_samples):
            outside = (chosen < 0) | (chosen >= self.n_samples)
            got = chosen[outside][0] if chosen.size else "none"
            raise InputError("indices", f"must be in 0..{self.n_samples - 1}, at least one", got=got)
        return TokenDataset._trusted(self.counts[chosen], self.labels[chosen], self.vocab)

    def __len__(self) -> int:
        return self.n_samples

    @cached_property
    def n_samples(self) -> int:
        """Number of sequences n."""
        return int(self.counts.shape[0])

    @cached_property
    def vocab_size(self) -> int:
        """Number of tokens V."""
        return int(self.counts.shape[1])

    @cached_property
    def lengths(self) -> Doubles:
        """T_i = sum_s n_is, (n,)."""
        return freeze(self.counts.sum(axis=1))

    @cached_property
    def segments(self) -> Segments:
        """The layout of the nonzero counts, one segment per sequence."""
        return Segments(self.counts.indptr)

    @cached_property
    def counts_csc(self) -> sp.csc_array:
        """The counts by token: the second orientation that the passes read."""
        counts = self.counts.tocsc()
        for part in (counts.data, counts.indices, counts.indptr):
            freeze(part)
        return counts

    @cached_property
    def counts_transposed(self) -> sp.csc_array:
        """The transpose of the counts, (V, n); it shares their arrays."""
        return self.counts.T

    @cached_property
    def dense_counts(self) -> tuple[Doubles, Doubles, Ints]:
        """The counts as an array (n, V), y_i / n and the number of types (n,), for passes over small data."""
        return freeze(self.counts.toarray()), freeze(self.labels / self.n_samples), freeze(np.diff(self.counts.indptr))

    @cached_property
    def _operands(self) -> tuple[Doubles, ...]:
        """-y, y / n, 1 and 1 / n, (n,) each: NumPy takes as long to convert a Python number as for many operations."""
        n = np.full(self.n_samples, float(self.n_samples))
        return tuple(map(freeze, (-self.labels, self.labels / n, n / n, 1.0 / n)))

    @cached_property
    def frequency(self) -> Doubles:
        """phi_s = mean_i n_is / T_i, (V,), in [0, 1], summing to one."""
        return freeze(self.counts.T @ (1 / self.lengths) / self.n_samples)

    @cached_property
    def signed_frequency(self) -> Doubles:
        """alpha_s = mean_i y_i n_is / T_i, (V,), in [-phi_s, phi_s]."""
        return freeze(self.counts.T @ (self.labels / self.lengths) / self.n_samples)

    @cached_property
    def posterior_difference(self) -> Doubles:
        """Delta_s = P(+|s) - P(-|s) = alpha_s / phi_s, (V,), in [-1, 1]; NaN where the token never occurs."""
        out = np.full(self.vocab_size, np.nan)
        np.divide(self.signed_frequency, self.frequency, out=out, where=self.frequency > 0)
        return freeze(out)

    @cached_property
    def token_kinds(self) -> Ints:
        """The `TokenKind` of each token, (V,)."""
        in_class = [self.counts.T @ (self.labels == sign).astype(float) for sign in (1, -1)]
        occurs, irrelevant = self.frequency > 0, np.abs(self.signed_frequency) <= _ZERO_SHARE * self.frequency
        kinds = np.full(self.vocab_size, TokenKind.MIXED, dtype=np.int8)
        kinds[irrelevant] = TokenKind.IRRELEVANT
        kinds[occurs & (in_class[1] == 0)] = TokenKind.POSITIVE
        kinds[occurs & (in_class[0] == 0)] = TokenKind.NEGATIVE
        kinds[~occurs] = TokenKind.ABSENT
        return freeze(kinds)

    def check_assumption(self, *, limit: int = 10) -> AssumptionReport:
        """Assumption 1: each sequence has exactly one completely positive or negative token type, the rest irrelevant.

        Any multiplicity of that token is allowed. Source: [WSOM25], Assumption 1.
        """
        limit = check_integer("limit", limit, minimum=0)
        kinds = self.token_kinds
        decisive = (kinds == TokenKind.POSITIVE) | (kinds == TokenKind.NEGATIVE)
        hit = decisive[self.counts.indices]
        per_sequence = self.segments.sum(hit.astype(np.int64))
        important = np.full(self.n_samples, -1)
        exactly_one = per_sequence == 1
        only = hit & self.segments.spread(exactly_one)
        important[exactly_one] = self.counts.indices[only]

        violations: list[str] = []
        mixed = np.flatnonzero(kinds == TokenKind.MIXED)
        for s in mixed[:limit]:
            violations.append(
                f"token {self._name(s)} is neither complete nor irrelevant: signed frequency "
                f"{self.signed_frequency[s]:+.3g}, posterior difference {self.posterior_difference[s]:+.3g}"
            )
        if mixed.size > limit:
            violations.append(f"and {mixed.size - limit} more tokens of that kind")
        wrong = np.flatnonzero(~exactly_one)
        for i in wrong[:limit]:
            row = self.counts.indices[self.counts.indptr[i] : self.counts.indptr[i + 1]]
            found = [self._name(s) for s in row[decisive[row]][:5]]
            detail = f": {', '.join(found)}" if found else ""
            violations.append(
                f"sequence {i} has {per_sequence[i]} completely positive or negative token types instead of 1{detail}"
            )
        if wrong.size > limit:
            violations.append(f"and {wrong.size - limit} more sequences of that kind")
        return AssumptionReport(not violations, violations, freeze(important))

    def _name(self, s: int) -> str:
        return f"{s}" if self.vocab is None else f"{s} ({self.vocab[s]!r})"

    def __repr__(self) -> str:
        return f"TokenDataset(n_samples={self.n_samples}, vocab_size={self.vocab_size}, nnz={self.counts.nnz})"


def check_data(data: TokenDataset, vocab_size: int | None = None, name: str = "data") -> None:
    """Raise unless ``data`` is a data set, over the model's vocabulary where its size is given."""
    if not isinstance(data, TokenDataset):
        raise InputTypeError(name, "must be a TokenDataset", got=type(data).__name__)
    if vocab_size is not None and data.vocab_size != vocab_size:
        expected = f"must have the model's vocabulary of {vocab_size} tokens"
        hint = "pass vocab_size to TokenDataset.from_tokens"
        raise InputError(name, expected, got=data.vocab_size, hint=hint)


def _as_names(vocab: Sequence[str] | None) -> tuple[str, ...] | None:
    if vocab is None:
        return None
    if isinstance(vocab, str) or not np.iterable(vocab):
        raise InputTypeError("vocab", "must be a sequence of names, one per token", got=shown(vocab))
    refuse_mask("vocab", vocab)
    return tuple(str(name) for name in vocab)


def make_balanced_dataset(
    *,
    n_samples: int = 200,
    length: int = 16,
    n_positive: int = 2,
    n_negative: int = 2,
    n_irrelevant: int = 40,
    min_length: int | None = None,
    important_per_sequence: int = 1,
    zipf: float = 0.0,
    label_noise: float = 0.0,
    rng: RNGLike = None,
) -> TokenDataset:
    """Generate mirrored pairs: the same irrelevant tokens with a positive and with a negative important token.

    With the default options Assumption 1 holds and the irrelevant tokens have signed frequency exactly 0. Tokens
    0..n_positive-1 are completely positive, the next n_negative completely negative, the rest irrelevant. Each
    important token occurs if n_samples/2 >= max(n_positive, n_negative).

    Parameters
    ----------
    n_samples : even number of sequences
    length : T, tokens per sequence (the longest, if ``min_length`` is given)
    min_length : draw the length of each pair uniformly from min_length..length
    important_per_sequence : important tokens of one sign per sequence; above 1 Assumption 1 fails wherever they differ
    zipf : irrelevant token j has probability proportional to (j+1)^-zipf
    label_noise : share of labels flipped; above 0 Assumption 1 fails

    >>> data = make_balanced_dataset(n_samples=6, length=4, rng=0)
    >>> data.check_assumption().holds, float(np.abs(data.signed_frequency[4:]).max())
    (True, 0.0)
    """
    n_samples = check_integer("n_samples", n_samples, minimum=2)
    if n_samples % 2:
        raise InputError("n_samples", "must be even (sequences come in mirrored pairs)", got=n_samples)
    length = check_integer("length", length, minimum=2)
    n_positive = check_integer("n_positive", n_positive, minimum=1)
    n_negative = check_integer("n_negative", n_negative, minimum=1)
    n_irrelevant = check_integer("n_irrelevant", n_irrelevant, minimum=1)
    shortest = length if min_length is None else check_integer("min_length", min_length, minimum=2)
    k = check_integer("important_per_sequence", important_per_sequence, minimum=1)
    if not k < shortest <= length:
        raise InputError(
            "min_length" if min_length is not None else "length",
            "must satisfy important_per_sequence < min_length <= length",
            got=f"important_per_sequence={k}, min_length={shortest}, length={length}",
        )
    zipf = check_positive("zipf", zipf, zero_ok=True)
    noise = check_share("label_noise", label_noise, closed="left", high=0.5)
    rng = as_rng(rng)

    pairs = n_samples // 2
    weights = np.arange(1, n_irrelevant + 1, dtype=float) ** -zipf
    weights /= weights.sum()
    first_irrelevant = n_positive + n_negative
    chosen = [
        offset + rng.permuted(np.arange(pairs * k) % size).reshape(pairs, k)
        for offset, size in ((0, n_positive), (n_positive, n_negative))
    ]
    lengths = rng.integers(shortest, length, size=pairs, endpoint=True)
    tokens: list[Ints] = []
    for j in range(pairs):
        shared = first_irrelevant + rng.choice(n_irrelevant, size=lengths[j] - k, p=weights)
        tokens += [np.concatenate([important[j], shared]) for important in chosen]
    labels = np.tile([1.0, -1.0], pairs)
    return TokenDataset.from_tokens(tokens, _flip(labels, noise, rng), vocab_size=first_irrelevant + n_irrelevant)


def make_iid_dataset(
    *,
    n_samples: int = 200,
    length: int = 16,
    positive_probs: ArrayLike,
    negative_probs: ArrayLike,
    min_length: int | None = None,
    label_noise: float = 0.0,
    rng: RNGLike = None,
) -> TokenDataset:
    """Draw tokens independently from a distribution per class; the first half of the sequences is positive.

    Irrelevant tokens (equal probabilities) have signed frequency O(sqrt(phi/n)) rather than zero, so Assumption 1 holds
    only approximately, and the margin program can be infeasible.

    Parameters
    ----------
    positive_probs, negative_probs : (V,) nonnegative, summing to one

    >>> data = make_iid_dataset(n_samples=8, length=5, positive_probs=[.2, 0, .8], negative_probs=[0, .2, .8], rng=0)
    >>> data.vocab_size, int(data.labels.sum())
    (3, 0)
    """
    n_samples = check_integer("n_samples", n_samples, minimum=2)
    length = check_integer("length", length, minimum=1)
    shortest = length if min_length is None else check_integer("min_length", min_length, minimum=1)
    if shortest > length:
        raise InputError("min_length", f"must be at most length ({length})", got=shortest)
    noise = check_share("label_noise", label_noise, closed="left", high=0.5)
    probs = [_check_probs("positive_probs", positive_probs), _check_probs("negative_probs", negative_probs)]
    if probs[0].shape != probs[1].shape:
        raise InputError("negative_probs", f"must have shape {probs[0].shape}, like positive_probs", got=probs[1].shape)
    rng = as_rng(rng)
    labels = np.where(np.arange(n_samples) < (n_samples + 1) // 2, 1.0, -1.0)
    lengths = rng.integers(shortest, length, size=n_samples, endpoint=True)
    tokens = [rng.choice(probs[0].size, size=T, p=probs[0 if y > 0 else 1]) for T, y in zip(lengths, labels)]
    return TokenDataset.from_tokens(tokens, _flip(labels, noise, rng), vocab_size=probs[0].size)


def _check_probs(name: str, value: ArrayLike) -> Doubles:
    probs = as_real_array(name, value, ndim=1, dtype=np.float64)
    if (probs < 0).any() or not abs(probs.sum() - 1) <= 1e-8:
        got, hint = f"sum {probs.sum():.6g}, smallest {probs.min(initial=1.0):.6g}", "divide by the sum"
        raise InputError(name, "must be probabilities: >= 0, with sum 1", got=got, hint=hint)
    found: Doubles = probs / probs.sum()
    return found


def _flip(labels: Doubles, share: float, rng: np.random.Generator) -> Doubles:
    flipped = labels.copy()
    flipped[rng.choice(labels.size, size=round(share * labels.size), replace=False)] *= -1
    return flipped
