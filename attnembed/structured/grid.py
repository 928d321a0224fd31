"""Inference and objectives on 4-connected grids: min-cut, ICM, mean field, pseudolikelihood.

The score of a labeling Y of an image is

    F(Y) = sum_u U[u, y_u] + sum_{(u,v)} c_uv W_d[y_u, y_v],

over horizontal edges (u left of v, W_0) and vertical edges (u above v, W_1), with weights c >= 0 (1 by default; see
`contrast_weights`). Arrays are batched: unary (n, H, W, K), pairwise (2, K, K), or (K, K) for both directions.

With two labels and attractive edges, W[0,0] + W[1,1] >= W[0,1] + W[1,0], the best labeling is a minimum cut
(Greig, Porteous, Seheult 1989; Kolmogorov, Zabih 2004). Otherwise there are iterated conditional modes and mean field.
Both update all pixels of one checkerboard colour at once: no edge joins two of them, so that each update is an exact
coordinate step and never makes things worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from scipy.special import entr, expit, log_softmax, softmax

from attnembed._validation import (
    as_array,
    as_real_array,
    check_choice,
    check_integer,
    check_positive,
    check_shape,
    freeze,
)
from attnembed.errors import InputError, InputTypeError
from attnembed.results import Record
from attnembed.structured.objectives import ObjectiveValue

__all__ = [
    "GRID_OBJECTIVES",
    "GridMap",
    "MeanField",
    "contrast_weights",
    "grid_decode",
    "grid_icm",
    "grid_map",
    "grid_mean_field",
    "grid_objective",
    "grid_score",
]

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Weights = tuple[Floats, Floats]

# maximum_flow takes 32-bit capacities; residuals reach twice the largest one.
_LARGEST_CAPACITY = 2**30 - 1

# Images whose cuts are found in one call: setting a call up costs as much as an easy cut, but a hard image makes the
# others of its call wait through all of its rounds.
_CUT_TOGETHER = 3


@dataclass(frozen=True, eq=False, repr=False)
class GridMap(Record):
    """The best labeling of each image.

    Attributes
    ----------
    labels : (n, H, W)
    score : (n,) F of these labels
    gap : no labeling of an image scores more than ``score + gap``; from rounding capacities to integers
    """

    labels: Ints
    score: Floats
    gap: float


@dataclass(frozen=True, eq=False, repr=False)
class MeanField(Record):
    """A fixed point of mean field: the factorised q that (locally) maximises the bound on log Z.

    Attributes
    ----------
    node : (n, H, W, K) q
    log_partition : (n,) E_q[F] + entropy(q) <= log Z
    change : largest change of q in the last sweep
    sweeps : how many were made
    """

    node: Floats
    log_partition: Floats
    change: float
    sweeps: int


def contrast_weights(images: ArrayLike, width: float | None = None) -> Weights:
    """c_uv = exp(-||I_u - I_v||^2 / (2 width^2)): near 1 inside regions, near 0 across edges (Boykov, Jolly 2001).

    Parameters
    ----------
    images : (n, H, W, C)
    width : in units of the image; by default the root mean square difference between neighbours

    Returns
    -------
    horizontal (n, H, W-1), vertical (n, H-1, W), in (0, 1]

    >>> [w.shape for w in contrast_weights(np.zeros((1, 2, 3, 1)))]
    [(1, 2, 2), (1, 1, 3)]
    """
    array = as_real_array("images", images, ndim=4, dtype=np.float64)
    squares = [np.sum((b - a) ** 2, axis=-1) for a, b in (_ends(array, d) for d in (0, 1))]
    if width is None:
        total, count = sum(s.sum() for s in squares), sum(s.size for s in squares)
        variance = float(total / count) if total else 1.0
    else:
        variance = check_positive("width", width) ** 2
    horizontal, vertical = (np.exp(-s / (2 * variance)) for s in squares)
    return horizontal, vertical


def grid_score(unary: ArrayLike, pairwise: ArrayLike, labels: ArrayLike, weights: Weights | None = None) -> Floats:
    """F(Y) of each image, (n,); ``labels`` (n, H, W).

    >>> grid_score(np.zeros((1, 2, 2, 2)), np.eye(2), [[[0, 0], [0, 1]]])
    array([2.])
    """
    problem = _Grid(unary, pairwise, weights)
    return problem.score(problem.labels(labels))


def grid_map(unary: ArrayLike, pairwise: ArrayLike, weights: Weights | None = None) -> GridMap:
    """argmax_Y F(Y) for two labels and attractive edges, by a minimum cut.

    Capacities are rounded to multiples of h = max capacity / (2^30 - 1). A labeling's score changes by at most h/2 per
    capacity in its cut, so that the result is within ``gap`` = h * (number of capacities of an image) of the best
    (derived in docs/derivations/min-cut.md).

    Raises
    ------
    InputError
        for more than two labels, or edges that are not attractive.

    >>> grid_map(np.array([[[[0.0, 1.0], [0.4, 0.0]]]]), np.eye(2)).labels
    array([[[1, 1]]])
    """
    problem = _Grid(unary, pairwise, weights)
    reason = problem.obstacle()
    if reason:
        raise InputError("pairwise", reason[0], got=reason[1], hint="use grid_icm or grid_mean_field")
    return problem.min_cut()


def grid_icm(unary: ArrayLike, pairwise: ArrayLike, weights: Weights | None = None, *, max_sweeps: int = 100) -> Ints:
    """A labeling that no single pixel can improve (Besag 1986), from the unary argmax; (n, H, W).

    >>> grid_icm(np.array([[[[0.0, 2.0], [0.4, 0.0]]]]), np.eye(2))
    array([[[1, 1]]])
    """
    problem = _Grid(unary, pairwise, weights)
    return problem.icm(check_integer("max_sweeps", max_sweeps, minimum=1))


def grid_decode(unary: ArrayLike, pairwise: ArrayLike, weights: Weights | None = None) -> Ints:
    """The best labeling by `grid_map` where that is exact, else by `grid_icm`; (n, H, W).

    >>> grid_decode(np.zeros((1, 1, 1, 3)), np.eye(3))
    array([[[0]]])
    """
    return _Grid(unary, pairwise, weights).decode()


def grid_mean_field(
    unary: ArrayLike,
    pairwise: ArrayLike,
    weights: Weights | None = None,
    *,
    tolerance: float = 1e-8,
    max_sweeps: int = 500,
) -> MeanField:
    """Mean field, q_u = softmax(U_u + sum over neighbours of c_uv W q_v), from q = softmax(U).

    >>> grid_mean_field(np.zeros((1, 2, 2, 2)), np.zeros((2, 2))).log_partition.round(6)
    array([2.772589])
    """
    problem = _Grid(unary, pairwise, weights)
    return problem.mean_field(
        check_positive("tolerance", tolerance), check_integer("max_sweeps", max_sweeps, minimum=1)
    )


class _Grid:
    """Checked potentials of a batch of images."""

    def __init__(self, unary: ArrayLike, pairwise: ArrayLike, weights: Weights | None) -> None:
        self.unary = as_real_array("unary", unary, ndim=4)
        if 0 in self.unary.shape:
            raise InputError("unary", "must have shape (n, H, W, K), no axis empty", got=f"shape {self.unary.shape}")
        k = self.unary.shape[3]
        raw = as_array("pairwise", pairwise)
        self.shared = raw.ndim == 2
        array = as_real_array("pairwise", raw, ndim=2 if self.shared else 3)
        check_shape("pairwise", array, (k, k) if self.shared else (2, k, k), "(K, K), or (2, K, K) by direction")
        self.pairwise = np.broadcast_to(array, (2, k, k))
        self.weights: Weights | None = None
        if weights is not None:
            if not isinstance(weights, (tuple, list)) or len(weights) != 2:
                raise InputTypeError(
                    "weights", "must be two arrays, for horizontal and vertical edges", got=type(weights).__name__
                )
            horizontal, vertical = (
                as_real_array(f"weights[{d}]", w, ndim=3, dtype=self.unary.dtype) for d, w in enumerate(weights)
            )
            self.weights = horizontal, vertical
            for d in (0, 1):
                check_shape(f"weights[{d}]", self.weights[d], _ends(self.unary, d)[0].shape[:3])
                if self.weights[d].size and self.weights[d].min() < 0:
                    raise InputError(f"weights[{d}]", "must be >= 0", got=self.weights[d].min())

    def labels(self, labels: ArrayLike) -> Ints:
        array = np.asarray(labels)
        if array.dtype.kind not in "iu":
            raise InputTypeError("labels", "must be integers", got=f"dtype {array.dtype}")
        check_shape("labels", array, self.unary.shape[:3], "one per pixel")
        k = self.unary.shape[3]
        if array.min() < 0 or array.max() >= k:
            bad = array[(array < 0) | (array >= k)][0]
            raise InputError("labels", f"must be in 0..{k - 1}", got=bad)
        return array

    def score(self, y: Ints) -> Floats:
        total = np.take_along_axis(self.unary, y[..., None], axis=3).sum(axis=(1, 2, 3))
        for d in (0, 1):
            first, second = _ends(y, d)
            total = total + self._weighted(self.pairwise[d][first, second], d).sum(axis=(1, 2))
        return total

    def field(self, q: Floats) -> Floats:
        """U_u plus the expected pairwise potentials of the neighbours under q, (n, H, W, K)."""
        out = self.unary.copy()
        for d in (0, 1):
            (a, b), (qa, qb) = _ends(out, d), _ends(q, d)
            a += self._weighted(qb @ self.pairwise[d].T, d)
            b += self._weighted(qa @ self.pairwise[d], d)
        return out

    def pair_counts(self, a: Floats, b: Floats) -> Floats:
        """sum over edges of c_uv a_u b_v^T, in the shape of the caller's pairwise."""
        k = self.unary.shape[3]
        counts = np.stack(
            [
                self._weighted(_ends(a, d)[0], d).reshape(-1, k).T @ np.ascontiguousarray(_ends(b, d)[1]).reshape(-1, k)
                for d in (0, 1)
            ]
        )
        return counts.sum(axis=0) if self.shared else counts

    def onehot(self, y: Ints) -> Floats:
        return np.eye(self.unary.shape[3], dtype=self.unary.dtype)[y]

    def obstacle(self) -> tuple[str, str] | None:
        """Why min-cut does not apply: what is expected and what is there."""
        if self.unary.shape[3] != 2:
            return "must have two labels for min-cut", f"{self.unary.shape[3]} labels"
        for d, name in enumerate(("horizontal", "vertical")):
            surplus = _surplus(self.pairwise[d])
            if surplus < 0:
                return (
                    "must be attractive for min-cut: W[0,0] + W[1,1] >= W[0,1] + W[1,0]",
                    f"a difference of {surplus:.3g} on {name} edges",
                )
        return None

    def decode(self) -> Ints:
        return self.icm(100) if self.obstacle() else self.min_cut().labels

    def icm(self, max_sweeps: int) -> Ints:
        y = self.unary.argmax(axis=3)
        for _ in range(max_sweeps):
            before = y
            for colour in self._colours():
                y = np.where(colour, self.field(self.onehot(y)).argmax(axis=3), y)
            if np.array_equal(y, before):
                break
        return y

    def mean_field(self, tolerance: float, max_sweeps: int, start: Floats | None = None) -> MeanField:
        q, change, sweep = _softmax(self.unary) if start is None else start, np.inf, 0
        tolerance = max(tolerance, 4 * float(np.finfo(q.dtype).eps))
        update = self._two_label_update() if q.shape[3] == 2 else lambda p: _softmax(self.field(p))
        while change > tolerance and sweep < max_sweeps:
            before, sweep = q, sweep + 1
            for colour in self._colours():
                q = np.where(colour[..., None], update(q), q)
            change = float(np.abs(q - before).max())
        # E_q of the pairwise part is half of q times its field: the field counts every edge from both ends.
        bound = np.sum(q * (self.unary + self.field(q)) / 2 + entr(q), axis=(1, 2, 3))
        return MeanField(q, bound, change, sweep)

    def _two_label_update(self) -> Callable[[Floats], Floats]:
        """softmax(field(q)) for two labels, from the difference of the fields alone: a quarter of the work.

        W_d[1, :] q - W_d[0, :] q = W10 - W00 + surplus q(1), and with W01 for W10 from the other end of an edge.
        """
        constant = self.unary[..., 1] - self.unary[..., 0]
        slopes = []
        for d in (0, 1):
            w = self.pairwise[d]
            edge = self._weighted(np.ones(_ends(constant, d)[0].shape, dtype=constant.dtype), d)
            first, second = _ends(constant, d)
            first += (w[1, 0] - w[0, 0]) * edge
            second += (w[0, 1] - w[0, 0]) * edge
            slopes.append(_surplus(w) * edge)

        def update(q: Floats) -> Floats:
            ones, difference = q[..., 1], constant.copy()
            for d, slope in enumerate(slopes):
                (a, b), (first, second) = _ends(ones, d), _ends(difference, d)
                first += slope * b
                second += slope * a
            return np.stack([expit(-difference), expit(difference)], axis=3)

        return update

    def min_cut(self) -> GridMap:
        # Energy of label 1 against label 0, with the linear parts of the edges moved to the pixels:
        # -W[a, b] = const - (W10 - W00) a - (W11 - W10) b + surplus (1 - a) b.
        cost = self.unary[..., 0].astype(np.float64) - self.unary[..., 1]
        edges = []
        for d in (0, 1):
            w = self.pairwise[d]
            edge = self._weighted(np.ones(_ends(cost, d)[0].shape), d)
            first, second = _ends(cost, d)
            first -= (w[1, 0] - w[0, 0]) * edge
            second -= (w[1, 1] - w[1, 0]) * edge
            edges.append(_surplus(w) * edge)
        # Pixels on the sink side take label 1: they cut their edge from the source, the others that to the sink.
        capacities = [np.maximum(cost, 0), np.maximum(-cost, 0), *edges]
        largest = np.max([c.max(axis=(1, 2), initial=0.0) for c in capacities], axis=0)
        step = np.where(largest > 0, largest, 1) / _LARGEST_CAPACITY
        rounded = [np.rint(c / step[:, None, None]).astype(np.int32) for c in capacities]
        parts = [slice(start, start + _CUT_TOGETHER) for start in range(0, len(cost), _CUT_TOGETHER)]
        y = np.concatenate([_sink_side([c[part] for c in rounded]) for part in parts])
        # One of the two terminal capacities of a pixel is zero. The sums behind the others round as well.
        count = sum(c[0].size for c in capacities[1:])
        rounding = 16 * np.finfo(self.pairwise.dtype).eps * np.maximum(largest, np.abs(self.pairwise).max())
        gap = float(np.max(step + rounding)) * count
        return GridMap(freeze(y), self.score(y), gap)

    def _weighted(self, values: NDArray[Any], d: int) -> NDArray[Any]:
        if self.weights is None:
            return values
        w = self.weights[d]
        return values * (w[..., None] if values.ndim == 4 else w)

    def _colours(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        odd = np.add.outer(np.arange(self.unary.shape[1]), np.arange(self.unary.shape[2])) % 2 == 1
        return ~odd, odd


def _ends(array: NDArray[Any], direction: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two ends of every horizontal (0) or vertical (1) edge, as views."""
    return (array[:, :, :-1], array[:, :, 1:]) if direction == 0 else (array[:, :-1], array[:, 1:])


def _softmax(field: Floats) -> Floats:
    """Softmax over the labels; two of them are one logistic function, ten times as fast."""
    if field.shape[3] != 2:
        return np.asarray(softmax(field, axis=3))
    difference = field[..., 1] - field[..., 0]
    return np.stack([expit(-difference), expit(difference)], axis=3)


def _sink_side(capacities: list[Ints]) -> Ints:
    """1 for the pixels on the sink's side of a minimum cut of each image, (n, H, W).

    ``capacities``: from the source and to the sink (n, H, W), of horizontal and of vertical edges. All images are parts
    of one graph that share nothing but the source and the sink: their flows do not meet, and scipy is called once.
    """
    shape = capacities[0].shape
    order, heads, starts = _flow_network(*shape)
    forward = np.concatenate([c.ravel() for c in capacities])
    residual = np.concatenate([forward, np.zeros_like(forward)])[order]
    size = capacities[0].size
    graph = sp.csr_array((residual, heads, starts), shape=(size + 2, size + 2))
    # Every arc has its reverse, so that the flow comes in the same places.
    residual = residual - maximum_flow(graph, size, size + 1).flow.data
    left = sp.csr_array((residual, heads, starts), shape=graph.shape, copy=True)
    left.eliminate_zeros()
    side = np.ones(size + 2, dtype=np.intp)
    side[breadth_first_order(left, size, return_predecessors=False)] = 0
    return side[:size].reshape(shape)


@lru_cache(maxsize=8)
def _flow_network(n: int, height: int, width: int) -> tuple[Ints, NDArray[np.int32], NDArray[np.int32]]:
    """The arcs of `_sink_side`, those back included, as rows of a CSR matrix; source and sink are the last two nodes.

    Returns the order in which the arcs (forward, then back) stand in the matrix, their heads and the starts of rows.
    """
    size = n * height * width
    pixel = np.arange(size).reshape(n, height, width)
    source, sink = np.full(size, size), np.full(size, size + 1)
    ends = [(source, pixel.ravel()), (pixel.ravel(), sink)]
    for first, second in (_ends(pixel, d) for d in (0, 1)):
        ends.append((first.ravel(), second.ravel()))
    a, b = (np.concatenate(part) for part in zip(*ends))
    tails, heads = np.concatenate([a, b]), np.concatenate([b, a])
    order = np.lexsort((heads, tails))
    starts = np.concatenate([[0], np.cumsum(np.bincount(tails, minlength=size + 2))])
    return freeze(order), heads[order].astype(np.int32), starts.astype(np.int32)  # scipy refuses read-only ones


def _surplus(w: Floats) -> float:
    """W[0,0] + W[1,1] - W[0,1] - W[1,0]; what rounding alone can leave of zero counts as zero."""
    surplus = float(w[0, 0] + w[1, 1] - w[0, 1] - w[1, 0])
    return surplus if abs(surplus) > 4 * np.finfo(w.dtype).eps * float(np.abs(w).max()) else 0.0


# --- objectives -------------------------------------------------------------------------------------------------


def _nll(problem: _Grid, y: Ints) -> ObjectiveValue:
    # At a fixed point the bound is stationary in q, so that its gradient is that of E_q[F] with q held (envelope).
    # In single precision few sweeps: the walls between regions move on for long and hardly change the bound.
    tolerance = max(1e-6, float(np.sqrt(np.finfo(problem.unary.dtype).eps)))
    sweeps = 100 if tolerance < 1e-5 else 20
    n, field = len(y), problem.mean_field(tolerance, sweeps)
    # Where neighbours attract each other strongly, q keeps the regions that it began with, and its bound can fall below
    # F(y): the value would sink without end as W grows. A sweep never lowers the bound, so a second start from the best
    # labeling with one label everywhere keeps it above the score of that.
    constant = np.stack([problem.score(np.full_like(y, k)) for k in range(problem.unary.shape[3])])
    stuck = constant.max(axis=0) > field.log_partition
    if stuck.any():
        uniform = problem.onehot(np.broadcast_to(constant.argmax(axis=0)[:, None, None], y.shape))
        field = problem.mean_field(tolerance, sweeps, np.where(stuck[:, None, None, None], uniform, field.node))
    onehot = problem.onehot(y)
    value = float(np.mean(field.log_partition - problem.score(y)))
    d_pairwise = problem.pair_counts(field.node, field.node) - problem.pair_counts(onehot, onehot)
    return ObjectiveValue(value, (field.node - onehot) / n, d_pairwise / n)


def _ssvm(problem: _Grid, y: Ints, margin: float = 1.0) -> ObjectiveValue:
    n, (height, width) = len(y), y.shape[1:]
    onehot = problem.onehot(y)
    plain = problem.unary
    problem.unary = plain + (1 - onehot) * (margin / (height * width))
    rival = problem.decode()
    best = problem.score(rival)
    problem.unary = plain
    value = float(np.mean(best - problem.score(y)))
    other = problem.onehot(rival)
    d_pairwise = problem.pair_counts(other, other) - problem.pair_counts(onehot, onehot)
    return ObjectiveValue(value, (other - onehot) / n, d_pairwise / n)


def _pseudolikelihood(problem: _Grid, y: Ints) -> ObjectiveValue:
    onehot = problem.onehot(y)
    value, residual = _cross_entropy(problem.field(onehot), y)
    d_pairwise = problem.pair_counts(residual, onehot) + problem.pair_counts(onehot, residual)
    return ObjectiveValue(value, residual, d_pairwise)


def _unary(problem: _Grid, y: Ints) -> ObjectiveValue:
    value, residual = _cross_entropy(problem.unary, y)
    return ObjectiveValue(value, residual, 0 * problem.pair_counts(residual, residual))


def _cross_entropy(logits: Floats, y: Ints) -> tuple[float, Floats]:
    log_q = log_softmax(logits, axis=3)
    picked = np.take_along_axis(log_q, y[..., None], axis=3)
    residual = np.exp(log_q)
    np.put_along_axis(residual, y[..., None], np.take_along_axis(residual, y[..., None], axis=3) - 1, axis=3)
    return -float(picked.sum()) / len(y), residual / len(y)


GRID_OBJECTIVES: dict[str, Callable[..., ObjectiveValue]] = {
    "nll": _nll,
    "ssvm": _ssvm,
    "pseudolikelihood": _pseudolikelihood,
    "unary": _unary,
}


def grid_objective(
    objective: str,
    unary: ArrayLike,
    pairwise: ArrayLike,
    labels: ArrayLike,
    weights: Weights | None = None,
    *,
    margin: float = 1.0,
) -> ObjectiveValue:
    """Value and gradient in the potentials, averaged over images.

    Parameters
    ----------
    objective : "pseudolikelihood" and "unary" are exact. "ssvm" is exact where `grid_map` applies, otherwise its
        maximum is taken over what ICM finds and is too small. "nll" replaces log Z by the mean-field bound (never below
        the score of one label everywhere): it is too small by the divergence of q from P, and its gradient is that of
        the bound. Unlike the others it is not convex in the potentials.
    unary, pairwise, weights : as in the module's text
    labels : (n, H, W)
    margin : of "ssvm", what a labeling wrong in all pixels must fall behind by; a wrong pixel costs margin / (H W)

    >>> round(grid_objective("nll", np.zeros((1, 1, 2, 2)), np.zeros((2, 2)), [[[0, 1]]]).value, 6)
    1.386294
    """
    name = check_choice("objective", objective, GRID_OBJECTIVES)
    problem = _Grid(unary, pairwise, weights)
    options = {"margin": check_positive("margin", margin)} if name == "ssvm" else {}
    return GRID_OBJECTIVES[name](problem, problem.labels(labels), **options)
