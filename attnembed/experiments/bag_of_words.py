"""The baseline without attention: logistic regression on word counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attnembed._sparse import with_values
from attnembed._typing import Doubles, Floats, Ints
from attnembed._validation import freeze
from attnembed.attention.data import TokenDataset
from attnembed.experiments.logistic_regression import LogisticRegression
from attnembed.experiments.review_corpus import once_per_data

__all__ = ["BagOfWords", "balanced_accuracy"]

_PENALTIES = (1e-4, 3e-5, 1e-5)


@dataclass(frozen=True, eq=False)
class BagOfWords:
    """Logistic regression on word counts, the baseline without attention: sign(x.weights + constant).

    x_is = log(1 + n_is), each review scaled to unit norm.
    """

    weights: Floats
    constant: float
    penalty: float

    @classmethod
    def fit(cls, data: TokenDataset, validation: TokenDataset) -> BagOfWords:
        """Minimise mean_i l(y_i (x_i.w + b)) + (penalty/2) ||w||^2; penalty chosen on ``validation``."""
        return cls.best(cls.path(data), validation)

    @classmethod
    def path(cls, data: TokenDataset, near: Sequence[BagOfWords] = ()) -> list[BagOfWords]:
        """The minimisers for each penalty, from the largest on.

        ``near`` are those of a similar problem with the same words: the solver then starts from them, which saves time
        and does not change its accuracy.
        """
        problem = LogisticRegression(cls.features(data), data.labels)
        found: list[Doubles] = []
        for k, penalty in enumerate(_PENALTIES):
            start = near[k]._point() if near else _extrapolated(found)
            if near and found:  # the same distance from the similar problem as at the penalty before
                start = start + (found[-1] - near[k - 1]._point())
            found.append(problem.solve(start if start.size else np.zeros(data.vocab_size + 1), penalty))
        return [cls(point[:-1], float(point[-1]), penalty) for point, penalty in zip(found, _PENALTIES)]

    @classmethod
    def best(cls, candidates: Sequence[BagOfWords], validation: TokenDataset) -> BagOfWords:
        """The one with the largest balanced accuracy; the first of several."""
        x = cls.features(validation)
        return max(candidates, key=lambda model: balanced_accuracy(validation, x @ model.weights + model.constant))

    @staticmethod
    @once_per_data
    def features(data: TokenDataset) -> Any:
        """x (n, V), rows of unit norm."""
        counts = data.counts.data
        most = int(counts.max())
        # Few counts are large: the logarithms are looked up, in half the time.
        x = np.log1p(np.arange(most + 1))[counts.astype(np.intp)] if most < 1 << 16 else np.log1p(counts)
        x /= data.segments.spread(np.sqrt(data.segments.sum(x * x)))
        return with_values(data.counts, freeze(x))

    def output(self, data: TokenDataset) -> Floats:
        """x_i.w + b, (n,)."""
        return np.asarray(self.features(data) @ self.weights + self.constant)

    def on(self, words: Ints) -> BagOfWords:
        """The weights of these words alone."""
        return replace(self, weights=self.weights[words])

    def _point(self) -> Doubles:
        return np.append(self.weights, self.constant)


def _extrapolated(found: Sequence[Doubles]) -> Doubles:
    """Where the next penalty's solution may be: on the line through the last two, over the logarithm of the penalty."""
    if len(found) < 2:
        return found[-1] if found else np.zeros(0)
    k = len(found)
    ratio = math.log(_PENALTIES[k] / _PENALTIES[k - 1]) / math.log(_PENALTIES[k - 1] / _PENALTIES[k - 2])
    return found[-1] + ratio * (found[-1] - found[-2])


def balanced_accuracy(data: TokenDataset, output: Floats) -> float:
    """Mean over the two classes of the share of correct signs; the plain accuracy if the classes have equal size."""
    right = data.labels * output > 0
    return float(np.mean([right[data.labels == sign].mean() for sign in (-1, 1)]))
