"""The baseline without attention: logistic regression on word counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from attnembed._typing import Floats
from attnembed.attention.data import TokenDataset
from attnembed.losses import logistic, logistic_derivative

__all__ = ["BagOfWords", "balanced_accuracy"]


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
        """Minimise mean_i l(y_i (x_i.w + b)) + (penalty/2) ||w||^2 by L-BFGS; penalty chosen on ``validation``."""
        x, y = cls.features(data), data.labels

        def solve(start: Floats, penalty: float) -> Floats:
            def objective(w: Floats) -> tuple[float, Floats]:
                margins = y * (x @ w[:-1] + w[-1])
                pull = y * logistic_derivative(margins) / y.size
                value = float(logistic(margins).mean() + penalty / 2 * (w[:-1] @ w[:-1]))
                return value, np.append(x.T @ pull + penalty * w[:-1], pull.sum())

            found: Floats = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x
            return found

        candidates, w = [], np.zeros(x.shape[1] + 1)
        for penalty in (1e-4, 3e-5, 1e-5):  # each solution is the start of the next problem, with a smaller penalty
            w = solve(w, penalty)
            candidates.append(cls(w[:-1], float(w[-1]), penalty))
        return max(candidates, key=lambda model: balanced_accuracy(validation, model.output(validation)))

    @staticmethod
    def features(data: TokenDataset) -> Any:
        """x (n, V), rows of unit norm."""
        x = data.counts.log1p()
        x.data /= data.segments.spread(np.sqrt(data.segments.sum(x.data**2)))
        return x

    def output(self, data: TokenDataset) -> Floats:
        """x_i.w + b, (n,)."""
        return np.asarray(self.features(data) @ self.weights + self.constant)


def balanced_accuracy(data: TokenDataset, output: Floats) -> float:
    """Mean over the two classes of the share of correct signs; the plain accuracy if the classes have equal size."""
    right = data.labels * output > 0
    return float(np.mean([right[data.labels == sign].mean() for sign in (-1, 1)]))
