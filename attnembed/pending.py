"""Adam on the rows of a table of which a step reads few: the steps of the other rows are left pending.

A row without a gradient still moves, as its mean decays: with m and v at its last own step, j steps later

    theta <- keep_j theta - c_j beta1^j m / (beta2^(j/2) sqrt(v) + e_j).

Over s pending steps its displacement is m F(sqrt(v)), F(r) = sum_j a_j / (r + b_j) with a_j, b_j > 0 the same for all
rows that have been pending for as long. F is a Stieltjes function of a discrete measure: its Gauss rule with n nodes,
F(r) = sum_i w_i / (r + x_i), is off by at most 2 rho^(2n) in relative terms for all r >= 0, where
rho = (sqrt(b_max / b_min) - 1) / (sqrt(b_max / b_min) + 1) (Markov's theorem; Gautschi, Orthogonal Polynomials, 2004,
section 1.4). The b_j differ by parts of a per cent, so that two nodes give single precision and four double. The result
is that of the steps one by one up to rounding, whatever the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from attnembed._typing import Doubles, Floats, Ints
from attnembed.optim import Adam, OptimizerState

__all__ = ["PendingRows", "distinct", "gauss_rules"]

# Steps of pending rows are taken at the latest after so many, which bounds the cost of the rules.
_LONGEST = 32

# Entries at a time: rows of parameter, moments and scratch stay in the cache.
_BLOCK = 2**14


class PendingRows:
    """The parameter ``name`` (V, d), its moments, and the number of the last step that each of its rows has taken.

    `take` and `put` enclose a step that reads the rows taken alone; `settle` takes all pending steps, and must precede
    any other use of the arrays.
    """

    def __init__(self, optimizer: Adam, state: OptimizerState, name: str, parameter: Floats) -> None:
        self.optimizer, self.state, self.name, self.parameter = optimizer, state, name, parameter
        self.last: Ints = np.full(len(parameter), state.step, dtype=np.int32)
        self.rows: Ints = np.zeros(0, dtype=np.intp)
        self.place: Ints = np.zeros(len(parameter), dtype=np.int32)
        self.start = state.step
        self.rates: list[tuple[float, float, float]] = []  # c, e and keep of the steps since `start`

    def take(self, rows: Ints, step_size: float) -> dict[str, Floats] | None:
        """Copies of the parameter and the moments of these rows, up to date, for a step of that size.

        None where the formula does not hold, or too many rows are read to gain: then nothing is pending.
        """
        if 2 * len(rows) > len(self.parameter) or not self._possible(step_size):
            self.settle()
            return None
        if len(self.rates) >= _LONGEST:
            self.settle()
        if not self.rates:
            self._start_anew()
        last = self.last[rows]
        order = np.argsort(last, kind="stable")
        self.rows = rows[order]
        self.place[self.rows] = np.arange(len(rows))
        arrays = {name: array.take(self.rows, axis=0) for name, array in self._arrays().items()}
        self._catch_up(last[order], arrays)
        return arrays

    def places(self, ids: Ints) -> Ints:
        """The places of ids among the rows taken, which come in the order of their last steps."""
        return self.place.take(ids)

    def instead(
        self, arrays: Mapping[str, Floats], taken: Mapping[str, Floats]
    ) -> tuple[dict[str, Floats], OptimizerState]:
        """All parameters and the state of the optimiser, with the rows taken in place of the whole."""
        slots = {slot: {**held, self.name: taken[slot]} for slot, held in self.state.slots.items()}
        return {**arrays, self.name: taken["theta"]}, OptimizerState(self.state.step, slots, self.state.wide)

    def put(self, taken: Mapping[str, Floats], step: int, step_size: float) -> None:
        """Store the rows taken, after step number ``step``; the others have it pending."""
        self.state.step = step
        for name, array in self._arrays().items():
            _store(array, self.rows, taken[name])
        self.last[self.rows] = step
        adam = self.optimizer
        rate, keep = adam.rates(self.name, step_size)
        root = math.sqrt(1 - adam.beta2**step)
        self.rates.append((rate * root / (1 - adam.beta1**step), adam.epsilon * root, keep))

    def _possible(self, step_size: float) -> bool:
        """Whether all weights are positive, and no square has left the floating-point range."""
        adam, kind = self.optimizer, self.parameter.dtype
        least = math.sqrt(np.finfo(kind).tiny) / float(np.finfo(kind).eps)
        wide = self.name in self.state.wide or adam.epsilon * math.sqrt(1 - adam.beta2) <= least
        return not wide and adam.beta2 >= 0.5 and adam.rates(self.name, step_size)[1] >= 0

    def settle(self) -> None:
        """Take all pending steps."""
        behind = np.flatnonzero(self.last < self.state.step) if self.rates else self.rows[:0]
        if behind.size:
            behind = behind[np.argsort(self.last[behind], kind="stable")]
            size = max(1, _BLOCK // max(1, self.parameter[0].size))
            rules = self._rules()
            for start in range(0, behind.size, size):
                rows = behind[start : start + size]
                arrays = {name: array.take(rows, axis=0) for name, array in self._arrays().items()}
                self._catch_up(self.last[rows], arrays, rules)
                for name, array in self._arrays().items():
                    _store(array, rows, arrays[name])
        self._start_anew()

    def _start_anew(self) -> None:
        """Nothing is pending: steps on the whole array, too, leave all rows at the state's step."""
        self.rates, self.start = [], self.state.step
        self.last.fill(self.start)

    def _arrays(self) -> dict[str, Floats]:
        slots = self.state.slots
        return {"theta": self.parameter, **{slot: slots[slot][self.name] for slot in ("mean", "square")}}

    def _rules(self) -> _Rules:
        return _Rules(self.rates, self.optimizer, float(np.finfo(self.parameter.dtype).eps))

    def _catch_up(self, last: Ints, arrays: dict[str, Floats], rules: _Rules | None = None) -> None:
        """Take the pending steps of rows sorted by ``last``, in place."""
        bounds = [0, *(np.flatnonzero(np.diff(last)) + 1).tolist(), len(last)]
        if not len(last) or last[0] == self.state.step:
            return
        rules = self._rules() if rules is None else rules
        size = max(1, _BLOCK // max(1, self.parameter[0].size))
        for first, end in pairwise(bounds):
            done = int(last[first]) - self.start
            if done == len(self.rates):
                continue
            for start in range(first, end, size):
                rows = slice(start, min(start + size, end))
                rules.apply(done, arrays["theta"][rows], arrays["mean"][rows], arrays["square"][rows])


def _store(array: Floats, rows: Ints, values: Floats) -> None:
    """array[rows] = values, each row as one item: half the time of assigning its entries."""
    item = np.dtype((np.void, array[0].nbytes))
    array.view(item).reshape(-1)[rows] = values.view(item).reshape(-1)


class _Rules:
    """The Gauss rules of the steps pending after each of the steps noted: row i for those from step i on."""

    def __init__(self, rates: list[tuple[float, float, float]], adam: Adam, eps: float) -> None:
        c, e, keep = np.array(rates, dtype=np.float64).T
        count = len(rates)
        passed = np.arange(1, count + 1) - np.arange(count)[:, None]  # j of step column, for rows behind since row
        pending = passed > 0
        j = np.where(pending, passed, 0)
        after = np.append(np.cumprod(keep[::-1])[::-1], 1.0)  # the product of keep over a step and all later ones
        self.keep = after[:-1]
        self.steps = count - np.arange(count)
        self.decays = adam.beta1**self.steps, adam.beta2**self.steps
        grown = adam.beta2 ** (-j / 2)
        weights = np.where(pending, c * after[1:] * adam.beta1**j * grown, 0.0)
        self.weights, self.nodes = gauss_rules(weights, np.where(pending, e * grown, 0.0), pending, eps)

    def apply(self, done: int, theta: Floats, mean: Floats, square: Floats) -> None:
        """Take the steps after number ``done``, in place."""
        root = np.sqrt(square)
        total: Floats | None = None
        for weight, node in zip(self.weights[done].tolist(), self.nodes[done].tolist()):
            if weight == 0:
                continue
            term = root + node
            np.divide(weight, term, out=term)
            total = term if total is None else np.add(total, term, out=total)
        if self.keep[done] != 1:
            theta *= float(self.keep[done])
        if total is not None:
            total *= mean
            theta -= total
        mean *= float(self.decays[0][done])
        square *= float(self.decays[1][done])


def gauss_rules(weights: Doubles, nodes: Doubles, used: np.ndarray, eps: float) -> tuple[Doubles, Doubles]:
    """Weights and nodes (S, n) of Gauss rules for S measures on points > 0, with n such that F is right to ``eps``.

    Where ``used`` is False, a point does not count. A measure on fewer than n points has weights 0 in its rule.

    >>> w, x = gauss_rules(np.array([[1.0, 2.0, 1.0]]), np.array([[1.0, 1.01, 1.02]]), np.ones((1, 3), bool), 1e-16)
    >>> w.shape, float((w / (0.5 + x)).sum() - (1 / 1.5 + 2 / 1.51 + 1 / 1.52)) < 1e-15
    ((1, 3), True)
    """
    count, mass = _nodes_needed(nodes, used, eps), weights.sum(axis=1, keepdims=True)
    total = np.where(mass > 0, mass, 1.0)
    share = weights / total
    centre = np.where(mass > 0, (share * nodes).sum(axis=1, keepdims=True), 1.0)
    points = np.where(used, nodes / centre - 1, 0.0)
    spread = np.maximum(np.abs(points).max(axis=1, keepdims=True, initial=0.0), np.finfo(float).tiny)
    points /= spread
    # Lanczos: the Jacobi matrix of the measure (Golub and Welsch 1969).
    jacobi = np.zeros((len(weights), count, count))
    vector, previous, off = np.sqrt(share), np.zeros_like(share), np.zeros((len(weights), 1))
    for i in range(count):
        image = points * vector
        diagonal = np.einsum("ij,ij->i", vector, image)
        jacobi[:, i, i] = diagonal
        if i + 1 < count:
            image -= diagonal[:, None] * vector
            image -= off * previous
            off = np.sqrt(np.einsum("ij,ij->i", image, image))[:, None]
            off[off < 1e-8] = 0.0  # the measure has no more points, or none that matter
            jacobi[:, i + 1, i] = jacobi[:, i, i + 1] = off[:, 0]
            previous, vector = vector, image / np.where(off > 0, off, np.inf)
    found, vectors = np.linalg.eigh(jacobi)
    return mass * vectors[:, 0] ** 2, centre * (1 + spread * found)


def _nodes_needed(nodes: Doubles, used: np.ndarray, eps: float) -> int:
    """The least n with 2 rho^(2n) below eps / 4, or the number of points if that is smaller."""
    most = int(used.sum(axis=1).max())
    low, high = (np.where(used, nodes, fill) for fill in (np.inf, 0.0))
    ratio = float(np.max(high.max(axis=1)[used.any(axis=1)] / low.min(axis=1)[used.any(axis=1)], initial=1.0))
    rho = (math.sqrt(ratio) - 1) / (math.sqrt(ratio) + 1)
    if rho <= 0:
        return 1
    return max(1, min(most, math.ceil(math.log(eps / 8) / (2 * math.log(rho)))))


def distinct(ids: Ints, size: int) -> Ints:
    """The ids that occur, ascending, of those in 0..size-1.

    >>> distinct(np.array([[3, 0], [3, 2]]), 5)
    array([0, 2, 3])
    """
    seen = np.zeros(size, dtype=bool)
    seen[ids] = True
    return np.flatnonzero(seen)
