"""Claims about the population that a relative scale is right for: words of a list, and words outside it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.special import logit

from attnembed._typing import Doubles, Ints
from attnembed.evidence.registry import Evidence, by_construction, claim
from attnembed.structured.chain import chain_marginals
from attnembed.structured.data import ChainDataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import identity
from attnembed.structured.scaling import best_pairwise_factor

_LETTERS, _LENGTH, _LISTED = 3, 4, 3
_EVERY = np.array(list(product(range(_LETTERS), repeat=_LENGTH)))  # all words, and all readings of them
_SHARES = (0.25, 0.5, 1.0)
_LEAST = -1024.0  # of the best scale, in the search


class _World:
    """A list of words, the bigrams of the list as a law, new words with a pair of their own, and a noisy reader.

    Everything is a sum over all words and all readings of them: nothing is sampled.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        pairs: Doubles = np.ones((_LETTERS, _LETTERS))
        while (pairs >= 1).all():  # a list that has every pair has no new words
            self.listed = rng.choice(len(_EVERY), _LISTED, replace=False)
            start, pairs = np.full(_LETTERS, 0.1), np.full_like(pairs, 0.1)
            for word in _EVERY[self.listed]:
                start[word[0]] += 1
                np.add.at(pairs, (word[:-1], word[1:]), 1)
        self.pairwise: Doubles = np.log(pairs / pairs.sum(axis=1, keepdims=True))
        # A word is new if it has a pair that no word of the list has.
        has_new = (pairs < 1)[_EVERY[:, :-1], _EVERY[:, 1:]].any(axis=1)
        self.new = rng.choice(np.flatnonzero(has_new), _LISTED, replace=False)
        right = rng.uniform(0.5, 0.9)
        reader = np.full((_LETTERS, _LETTERS), (1 - right) / (_LETTERS - 1))
        np.fill_diagonal(reader, right)
        self.unary = np.log(reader)[:, _EVERY].transpose(1, 2, 0)  # (readings, positions, letters)
        self.readings = np.prod(reader[_EVERY[None], _EVERY[:, None]], axis=-1)  # P(reading | word)
        self.unary[:, 0] += np.log(start / start.sum())
        self.scores = self.pairwise[_EVERY[:, :-1], _EVERY[:, 1:]].sum(axis=1)  # W(y)
        self.law: Doubles = start[_EVERY[:, 0]] / start.sum() * np.exp(self.scores)

    def words(self, places: Ints) -> Doubles:
        """The law that draws one of these words, all alike."""
        out = np.zeros(len(_EVERY))
        out[places] = 1 / len(places)
        return out

    def slope(self, law: Doubles, scale: float) -> float:
        """d/db of the expected negative log-likelihood of b W: what the posterior expects of W, less what is there."""
        node = chain_marginals(self.unary, scale * self.pairwise)
        expected = np.einsum("xtkl,kl->x", node.edge, self.pairwise)
        return float((law @ self.readings) @ expected - law @ self.scores)

    def best_scale(self, law: Doubles) -> float:
        """The zero of the slope, which rises; it is looked for below 1 as far as need be, and above."""
        at: Callable[[float], float] = lambda b: self.slope(law, b)  # noqa: E731
        low, high = 0.0, 1.5
        while at(low) > 0 and low > _LEAST:
            low = 2 * low - 1
        while at(high) < 0 and high < -_LEAST:
            high *= 2
        return float(brentq(at, low, high, xtol=1e-10)) if at(low) < 0 < at(high) else low


@claim(
    "structured/scale-of-a-population",
    statement="the best scale of W is 1 on words of the law that W is, and falls with the share s of new words, by at "
    "least s times the slope on new words over a quarter of the squared range of W(y)",
    tex=r"b^*(0) = 1,\quad 1 - b^*(s) \ge \frac{4 s L_{\mathrm{new}}'(1)}{(\max_y W(y) - \min_y W(y))^2}",
    reference="derived here",
    hypotheses=(
        "the posterior expects more of W than new words have",
        by_construction("new words have a pair that the list has not", code="rng.choice(np.flatnonzero(has_new)"),
    ),
    control="the same statement about the words of the list itself, of which the chain knows the pairs only",
    derivation="derivations/population-scale.md",
)
def scale_of_a_population(rng: np.random.Generator) -> Evidence:
    world = _World(rng)
    new = world.words(world.new)
    slope = world.slope(new, 1.0)
    best = [world.best_scale((1 - s) * world.law + s * new) for s in _SHARES]
    least = np.array(_SHARES) * 4 * slope / np.ptp(world.scores) ** 2
    ratio = float(np.max(least / (1 - np.array(best)))) if max(best) < 1 else np.inf
    falls = bool(np.all(np.diff(best) < 0))

    def off(law: Doubles) -> float:
        return 1e7 * abs(world.best_scale(law) - 1)

    measured = max(ratio, off(world.law)) if falls else np.inf
    return Evidence(
        measured=measured,
        bound=1.0,
        control=off(world.words(world.listed)),
        hypotheses={"the posterior expects more of W than new words have: L_new'(1) > 0": slope > 0},
        note="best scale " + ", ".join(f"{b:.2f} at s = {s:g}" for b, s in zip(best, _SHARES)),
    )


def _words(rng: np.random.Generator, n: int, length: int, same: float) -> list[Ints]:
    """Words of two letters; the share ``same`` of all their pairs, to the next whole number, repeats a letter."""
    pairs = np.ones(n * (length - 1), dtype=int)
    pairs[: round(same * pairs.size)] = 0
    changes = rng.permutation(pairs).reshape(n, length - 1)
    first = rng.integers(0, 2, size=(n, 1))
    return list(np.cumsum(np.hstack([first, changes]), axis=1) % 2)


@claim(
    "structured/scale-of-a-share",
    statement="without anything to read, two letters and W that of pairs which are equal at rate q: where new words "
    "bring the rate to p, the best scale is logit p / logit q",
    tex=r"b^* = \frac{\mathrm{logit}((1 - s) q + s r)}{\mathrm{logit}\, q}",
    reference="derived here",
    control="the formula for a share that is a tenth larger",
    derivation="derivations/population-scale.md",
)
def scale_of_a_share(rng: np.random.Generator) -> Evidence:
    q, r, share, length = rng.uniform(0.75, 0.9), rng.uniform(0.4, 0.6), rng.uniform(0.1, 0.5), int(rng.integers(2, 7))
    n_new = round(200 * share)
    words = _words(rng, 200 - n_new, length, q) + _words(rng, n_new, length, r)
    data = ChainDataset([np.zeros((length, 2))] * 200, words)
    rates = [float(np.mean([word[1:] == word[:-1] for word in part])) for part in (words[:-n_new], words[-n_new:])]
    pairwise = np.log(np.where(np.eye(2) == 1, rates[0], 1 - rates[0]))
    found = best_pairwise_factor(ChainCRF(identity(), pairwise), data, low=-10, high=10, tolerance=1e-10).factor

    def off(s: float) -> float:
        return float(abs(found - logit((1 - s) * rates[0] + s * rates[1]) / logit(rates[0])))

    return Evidence(measured=off(n_new / 200), tolerance=1e-5, control=off(n_new / 200 + 0.1))
