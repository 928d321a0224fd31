"""Inference on 4-connected grids: the exact best labeling for two labels, ICM and mean field.

The score of a labeling Y of an image is

    F(Y) = sum_u U[u, y_u] + sum_{(u,v)} c_uv W_d[y_u, y_v],

over horizontal edges (u left of v, W_0) and vertical edges (u above v, W_1), with weights c >= 0 (1 by default; see
`contrast_weights`). Arrays are batched: unary (n, H, W, K), pairwise (2, K, K), or (K, K) for both directions.

With two labels the best labeling is a minimum cut (Greig, Porteous, Seheult 1989; Kolmogorov, Zabih 2004), whatever W
is: `min_cut`. With more there are iterated conditional modes and mean field. Both update all pixels of one checkerboard
colour at once: no edge joins two of them, so each update is an exact coordinate step and never decreases the objective.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr, expit, softmax

from attnembed._typing import Floats, Ints
from attnembed._validation import as_real_array, check_integer, check_positive, freeze
from attnembed.errors import InputError
from attnembed.results import Record
from attnembed.structured.checkerboard import two_label_sweeps
from attnembed.structured.grid_potentials import GridPotentials, Weights, edge_ends
from attnembed.structured.min_cut import best_binary_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "GridMap",
    "MeanField",
    "contrast_weights",
    "grid_decode",
    "grid_icm",
    "grid_map",
    "grid_mean_field",
    "grid_score",
]


@dataclass(frozen=True, eq=False, repr=False)
class GridMap(Record):
    """The best labeling of each image.

    Attributes
    ----------
    labels : (n, H, W), the exact maximiser
    score : (n,) F of these labels, rounded
    gap : no labeling of an image scores more than ``score + gap``, because of rounding in the sum F
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
    bound : (n,) E_q[F] + entropy(q) <= log Z, with equality where W = 0
    change : largest change of q in the last sweep
    sweeps : number of sweeps
    """

    node: Floats
    bound: Floats
    change: float
    sweeps: int

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw q of the last label in the first grid, on new axes if none are given; returns the axes."""
        from attnembed.plotting import new_figure, plot_heatmap

        axes: Axes = new_figure()[1][0, 0] if ax is None else ax
        shown = self.node[0, ..., -1]
        plot_heatmap(axes, np.arange(shown.shape[1]), np.arange(shown.shape[0]), shown, label="q of the last label")
        axes.invert_yaxis()
        axes.set(xlabel="column", ylabel="row")
        return axes

    @property
    def log_partition(self) -> Floats:
        """The old name of ``bound``, which is not log Z; it will be removed."""
        warnings.warn("MeanField.log_partition is now MeanField.bound: it is below log Z", DeprecationWarning, 2)
        return self.bound


def contrast_weights(images: ArrayLike, width: float | None = None) -> Weights:
    """The weights c_uv = exp(-||I_u - I_v||^2 / (2 width^2)), near 1 inside regions, near 0 across edges.

    Parameters
    ----------
    images : (n, H, W, C)
    width : in units of the image; by default the root mean square difference between neighbours

    Returns
    -------
    horizontal (n, H, W-1), vertical (n, H-1, W), in (0, 1]

    Source: Boykov, Jolly 2001.

    >>> [w.shape for w in contrast_weights(np.zeros((1, 2, 3, 1)))]
    [(1, 2, 2), (1, 1, 3)]
    """
    array = as_real_array("images", images, ndim=4, dtype=np.float64)
    steps = (b - a for a, b in (edge_ends(array, d) for d in (0, 1)))
    squares = [np.einsum("nhwc,nhwc->nhw", step, step) for step in steps]  # without an array of the squares
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
    grid = GridPotentials(unary, pairwise, weights)
    return grid.score(grid.labels(labels))


def grid_map(unary: ArrayLike, pairwise: ArrayLike, weights: Weights | None = None) -> GridMap:
    """argmax_Y F(Y) for two labels, exactly, by minimum cuts; any W, capacities of any size.

    ``labels`` are optimal for the given numbers, without rounding; among equally good labelings, that with the
    most pixels of label 1 if W[0,0] + W[1,1] >= W[0,1] + W[1,0] on all edges. ``gap`` is the rounding of ``score``:
    eps times the number of its terms times the sum of their sizes (derived in docs/derivations/min-cut.md).

    Raises
    ------
    InputError
        for more than two labels.

    >>> grid_map(np.array([[[[0.0, 1.0], [0.4, 0.0]]]]), np.eye(2)).labels
    array([[[1, 1]]])
    >>> grid_map(np.array([[[[0.0, 1.0], [0.0, 0.4]]]]), 1 - np.eye(2)).labels
    array([[[1, 0]]])
    """
    grid = GridPotentials(unary, pairwise, weights)
    k = grid.unary.shape[3]
    if k != 2:
        raise InputError("unary", "must have two labels for a cut", got=f"{k} labels", hint="use grid_icm")
    labels = best_binary_labels(grid)
    score, size, terms = grid.score(labels), *grid.score_size(labels)
    gap = float(np.finfo(score.dtype).eps) * terms * float(size.max())
    return GridMap(freeze(labels), freeze(score), gap)


def grid_icm(unary: ArrayLike, pairwise: ArrayLike, weights: Weights | None = None, *, max_sweeps: int = 100) -> Ints:
    """A labeling that no single pixel can improve (Besag 1986), from the unary argmax; (n, H, W).

    >>> grid_icm(np.array([[[[0.0, 2.0], [0.4, 0.0]]]]), np.eye(2))
    array([[[1, 1]]])
    """
    return icm(GridPotentials(unary, pairwise, weights), check_integer("max_sweeps", max_sweeps, minimum=1))


def grid_decode(unary: ArrayLike, pairwise: ArrayLike, weights: Weights | None = None) -> Ints:
    """The best labeling: exact for two labels (`grid_map`), a local optimum for more (`grid_icm`); (n, H, W).

    >>> grid_decode(np.zeros((1, 1, 1, 3)), np.eye(3))
    array([[[0]]])
    """
    return decode(GridPotentials(unary, pairwise, weights))


def grid_mean_field(
    unary: ArrayLike,
    pairwise: ArrayLike,
    weights: Weights | None = None,
    *,
    tolerance: float = 1e-8,
    max_sweeps: int = 500,
) -> MeanField:
    """Mean field: iterate q_u = softmax(U_u + sum over neighbours of c_uv W q_v) from q = softmax(U).

    ``bound`` is below log Z by the divergence of q from P: far below where neighbours attract each other strongly.

    >>> grid_mean_field(np.zeros((1, 2, 2, 2)), np.zeros((2, 2))).bound.round(6)
    array([2.772589])
    """
    grid = GridPotentials(unary, pairwise, weights)
    return mean_field(grid, check_positive("tolerance", tolerance), check_integer("max_sweeps", max_sweeps, minimum=1))


# --- on checked potentials ----------------------------------------------------------------------------------------


def decode(grid: GridPotentials) -> Ints:
    """`grid_decode` on checked potentials."""
    return best_binary_labels(grid) if grid.unary.shape[3] == 2 else icm(grid)


def icm(grid: GridPotentials, max_sweeps: int = 100) -> Ints:
    """`grid_icm` on checked potentials."""
    y: Ints = grid.unary.argmax(axis=3)
    for _ in range(max_sweeps):
        before = y
        for colour in grid.colours():
            y = np.where(colour, grid.field(grid.onehot(y)).argmax(axis=3), y)
        if np.array_equal(y, before):
            break
    return y


def mean_field(grid: GridPotentials, tolerance: float, max_sweeps: int, start: Floats | None = None) -> MeanField:
    """`grid_mean_field` on checked potentials, from ``start`` if given."""
    q = _softmax(grid.unary) if start is None else start
    tolerance = max(tolerance, 4 * float(np.finfo(q.dtype).eps))
    sweeps = _two_label_sweeps if q.shape[3] == 2 else _sweeps
    q, change, sweep = sweeps(grid, q, tolerance, max_sweeps)
    # E_q of the pairwise part is half of q times its field: the field counts every edge from both ends.
    bound = np.sum(q * (grid.unary + grid.field(q)) / 2 + entr(q), axis=(1, 2, 3))
    return MeanField(freeze(q), freeze(bound), change, sweep)


def _sweeps(grid: GridPotentials, q: Floats, tolerance: float, max_sweeps: int) -> tuple[Floats, float, int]:
    """Sweeps from q until none of its entries changes by more than ``tolerance``: q, the last change, their number."""
    change, sweep = np.inf, 0
    while change > tolerance and sweep < max_sweeps:
        before, sweep = q, sweep + 1
        for colour in grid.colours():
            q = np.where(colour[..., None], _softmax(grid.field(q)), q)
        change = float(np.abs(q - before).max())
    return q, change, sweep


def _two_label_sweeps(grid: GridPotentials, q: Floats, tolerance: float, max_sweeps: int) -> tuple[Floats, float, int]:
    """`_sweeps` for two labels, from the difference of the fields alone.

    W_d[1, :] q - W_d[0, :] q = W10 - W00 + surplus q(1), and with W01 for W10 from the other end of an edge.
    """
    constant = grid.unary[..., 1] - grid.unary[..., 0]
    slopes = []
    for d in (0, 1):
        w = grid.pairwise[d]
        edge = grid.weighted(np.ones(edge_ends(constant, d)[0].shape, dtype=constant.dtype), d)
        first, second = edge_ends(constant, d)
        first += (w[1, 0] - w[0, 0]) * edge
        second += (w[0, 1] - w[0, 0]) * edge
        slopes.append(_surplus(w) * edge)
    x, change, sweep = two_label_sweeps(constant, (slopes[0], slopes[1]), q[..., 1], tolerance, max_sweeps)
    return np.stack([expit(-x), expit(x)], axis=3), change, sweep


def _softmax(field: Floats) -> Floats:
    """Softmax over the labels; two of them are one logistic function, ten times as fast."""
    if field.shape[3] != 2:
        return np.asarray(softmax(field, axis=3))
    difference = field[..., 1] - field[..., 0]
    return np.stack([expit(-difference), expit(difference)], axis=3)


def _surplus(w: Floats) -> float:
    """W[0,0] + W[1,1] - W[0,1] - W[1,0]; values that rounding could make of zero count as zero."""
    surplus = float(w[0, 0] + w[1, 1] - w[0, 1] - w[1, 0])
    return surplus if abs(surplus) > 4 * np.finfo(w.dtype).eps * float(np.abs(w).max()) else 0.0


def __getattr__(name: str) -> Any:
    """Names that moved to `grid_objectives`, for one release."""
    if name in ("GRID_OBJECTIVES", "grid_objective"):
        from attnembed.structured import grid_objectives

        warnings.warn(f"{__name__}.{name} is now {grid_objectives.__name__}.{name}", DeprecationWarning, 2)
        return getattr(grid_objectives, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
