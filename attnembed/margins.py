"""The max-margin direction, argmin ||p||^2 subject to D p >= 1, with a certificate for either outcome.

The dual of this least-distance program is one non-negative least-squares problem (C. L. Lawson and R. J. Hanson,
*Solving Least Squares Problems*, 1974, chapter 23): u = argmin_{u >= 0} ||D^T u||^2 + (1 - sum u)^2 has residual
r^2 = 1 - sum u, and p = D^T u / r^2; r = 0 says that 0 is a convex combination of the rows, so that there is no p.
It is solved on a working set of rows, which gains the most violated rows of D and loses those without weight, round by
round, until no row is violated. Rows are scaled to norm 1 and p to norm 1, so units and unequal rows do not matter.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr, solve_triangular
from scipy.optimize import nnls

from attnembed._typing import Floats
from attnembed._validation import as_real_array, check_choice, check_shape, freeze
from attnembed.enclosures import margin_enclosure
from attnembed.errors import InputError, NotSeparableError
from attnembed.margin_norms import NORMS, Norm, dual_norm, solve_linear
from attnembed.margin_norms import norm as vector_norm
from attnembed.margin_pivoting import combination_to_zero, shortest
from attnembed.margin_rows import DenseRows, Indices, PairRows, WorkingRows, largest, row_norms, union
from attnembed.results import Result, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MarginResult", "kkt_residual", "max_margin", "max_margin_pairs"]


EPS = float(np.finfo(np.float64).eps)
ROUNDING = 64 * EPS  # smaller values, for rows and p of norm 1, count as 0
CERTIFIED = 1e-12  # the required KKT residual, on top of rounding
LOOSEST = 1e-6  # the largest residual that counts as a certificate, whatever the rounding
MAX_ROUNDS = 200
NEAR_FRACTION = 1e-9  # for weights that are small fractions up to rounding
LARGEST_DENOMINATOR = 1000  # of small fractions
GROWTH = (2.5, 1.8)  # of ||p|| in round 2 and later, beyond which there may be no p; if there is, some time is lost
PIVOTED = 160  # rows from which block pivoting is faster than nnls by more than its overhead
WIDE = 160  # columns from which fewer rows are enough
PIVOTED_IF_WIDE = 64
MOST_PIVOTED = 1.35  # times the columns: of even more rows pivoting keeps more tight ones than there are columns
PATIENCE = 5  # rounds without growth of ||p||, possible only through rounding
EXCHANGES = 50  # exchanges of rows where nnls missed the support; a few suffice
NORM_RANGE = (1e-140, 1e140)  # rows whose squares neither underflow nor overflow, with room for the dual


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MarginResult(Result):
    """The max-margin direction of the rows d_k of D, with its certificate.

    ``p`` (d,) is argmin ||p||^2 subject to D p >= 1, ``direction`` = p / ||p||, ``margin`` = 1 / ||p|| =
    min_k d_k.direction, ``dual`` (m,) >= 0 with p = D^T dual and ||p||^2 = sum(dual), ``support`` the rows with a
    positive dual. p is unique; the dual is not if several supports are possible. ``kkt_residual`` is the value of the
    function of that name, ``rounds`` the number of working sets solved. For a ``norm`` other than "l2" the direction
    has norm 1 in that norm, ``kkt_residual`` is the relative duality gap, and p = D^T dual does not hold.
    """

    p: Floats
    direction: Floats
    margin: float
    dual: Floats
    support: Indices
    kkt_residual: float
    rounds: int
    norm: str = "l2"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw p.d_k of every row in order of size, with the support marked, on new axes if none are given."""
        from attnembed import figures

        return figures.plot_margins(self._rows.price(self.p), self.dual, ax=ax)

    def enclosure(self) -> tuple[float, float]:
        """(low, high) with low <= margin <= high for exactly the given rows, with every rounding error accounted for.

        Derived in docs/derivations/enclosures.md.

        >>> low, high = max_margin([[0.1, 0.3], [0.7, -0.2]]).enclosure()
        >>> bool(low <= high <= low * (1 + 1e-14))
        True
        """
        if self.norm != "l2":
            raise InputError("norm", "must be 'l2' for an enclosure", got=repr(self.norm))
        return margin_enclosure(self._rows, self.p, self.dual)

    @property
    def _rows(self) -> WorkingRows:
        given: WorkingRows = self.__dict__["_given"]
        return given


def max_margin(differences: ArrayLike, *, norm: Norm = "l2") -> MarginResult:
    """Compute the max-margin direction of the rows of ``differences``: argmin ||p|| subject to D p >= 1.

    Parameters
    ----------
    differences : (m, d) rows d_k = E_{s*} - E_s in any unit; they may repeat, be dependent and differ in norm
    norm : of p: "l2" for gradient flow, "linf" for sign descent or "l1" for coordinate descent; in the last two
        p need not be unique, and ``dual`` has sum(dual) = ||p|| and dual norm ||D^T dual||_* = 1

    Returns
    -------
    MarginResult
        ``success`` is False if double precision can certify neither a solution nor its absence, when the margin is
        positive but below about 1e-7 of the norm of the rows.

    Raises
    ------
    NotSeparableError
        if 0 is a convex combination of the rows, up to rounding; its weights (m,) are the ``certificate``.
    InputError
        unless ``differences`` is a finite real matrix with at least one row and one column, and rows that are zero or
        of norm 1e-140 to 1e140.

    Source: the max-margin problem of [WSOM25], Section 4; docs/derivations/max-margin.md.

    >>> result = max_margin([[2.0, 1.0], [2.0, -1.0], [5.0, 0.0]])
    >>> result.p.round(12) + 0.0, round(result.margin, 12), result.support
    (array([0.5, 0. ]), 2.0, array([0, 1]))
    """
    rows = DenseRows(differences)
    return _solve(rows) if check_choice("norm", norm, NORMS) == "l2" else _solve_linear(rows, norm)


def max_margin_pairs(E: ArrayLike, pairs: ArrayLike) -> MarginResult:
    """`max_margin` of the rows E[pairs[k, 0]] - E[pairs[k, 1]], which are never all formed: D p is read off E p.

    Parameters
    ----------
    E : (V, d) embeddings
    pairs : (m, 2) token ids in 0..V-1, as in the ``pairs`` of `margin_constraints`

    Raises
    ------
    NotSeparableError, InputError
        as for `max_margin`; a pair of equal tokens is never separable.

    >>> max_margin_pairs(np.eye(3), [[0, 1], [0, 2]]).p.round(12)
    array([ 0.66666667, -0.33333333, -0.33333333])
    """
    return _solve(PairRows(E, pairs))


def kkt_residual(differences: ArrayLike, p: ArrayLike, dual: ArrayLike) -> float:
    """The distance of p (d,) and dual (m,) from solving argmin ||p||^2 subject to D p >= 1, as one number >= 0.

    The largest of five terms, none of which depends on the unit of D (m, d):

    - feasibility: max_k (1 - d_k.p)_+, for rows longer than s = sum |dual_k| ||d_k|| / sum |dual_k| times s / ||d_k||,
    - stationarity: ||p - D^T dual|| / ||p||,
    - sign: max_k (-dual_k)_+ / sum |dual_k|,
    - complementarity: sum_k |dual_k (d_k.p - 1)| / ||p||^2,
    - duality gap: | ||p||^2 - (2 sum dual - ||D^T dual||^2) | / ||p||^2.

    It is 0 only at the minimiser, and inf if p or the dual is 0. Rounding leaves about 1e-16 s ||p||, that is, 1e-16
    over the margin in units of the norm of the rows.

    Raises
    ------
    InputError
        if an argument is not finite and real, or the shapes do not match.

    Source: convex duality, docs/derivations/max-margin.md.

    >>> D = [[2.0, 1.0], [2.0, -1.0]]
    >>> kkt_residual(D, [0.5, 0.0], [0.125, 0.125]), kkt_residual(D, [0.501, 0.0], [0.125, 0.125]) > 1e-3
    (0.0, True)
    """
    D = as_real_array("differences", differences, ndim=2, dtype=np.float64)
    p = as_real_array("p", p, ndim=1, dtype=np.float64)
    dual = as_real_array("dual", dual, ndim=1, dtype=np.float64)
    check_shape("p", p, D.shape[1:], "one entry per column of `differences`")
    check_shape("dual", dual, D.shape[:1], "one entry per row of `differences`")
    return _residual(D @ p, row_norms(D), D.T @ dual, p, dual)


def _residual(values: Floats, sizes: Floats, combination: Floats, p: Floats, dual: Floats) -> float:
    """`kkt_residual` from values = D p, sizes = ||d_k|| and combination = D^T dual."""
    square, weights = p @ p, np.abs(dual)
    total = weights.sum()
    if square == 0.0 or total == 0.0:
        return np.inf
    parts = (
        0.0,
        ((1.0 - values) / np.maximum(1.0, sizes * total / (weights @ sizes))).max(),
        math.sqrt((off := p - combination).dot(off) / square),
        -dual.min() / total,
        np.abs(dual * (values - 1.0)).sum() / square,
        abs(square - 2.0 * dual.sum() + combination @ combination) / square,
    )
    return float(np.max(parts))  # max() would lose a NaN


def _solve(rows: WorkingRows) -> MarginResult:
    """Constraint generation: solve on a working set, price every row, add the most violated, drop the idle."""
    m, d = rows.shape
    if m == 0 or d == 0:
        raise InputError(rows.name, "must have at least one row and one column", got=f"{m} rows with {d} columns")
    _check_norms(rows)
    batch = min(max(d // 4, 64), 256)
    # Before there is a solution, try the rows with the smallest component along the mean of a sample.
    sample = np.arange(0, m, 1 + m // (4 * d))
    p = np.ones(sample.size).dot(rows.take(sample))
    values = rows.price(p)
    work = largest(-values / rows.sizes, batch)
    dual, dropped = np.zeros(m), np.zeros(m, dtype=bool)
    p_norm, rounds, stalled, trouble = 0.0, 0, 0, ""
    suspect = m <= 10 * d and m > d
    while not trouble:
        block = rows.take(work)
        norms = row_norms(block)
        if not (least := float(norms.min())) > 0.0:
            raise _not_separable(rows, work, norms == 0.0)
        unit = 1.0 / p_norm if p_norm else least  # p / unit is then of norm 1 or more
        try:
            u, q = _least_distance(block / norms[:, None], unit / norms)
        except RuntimeError:
            trouble = "scipy.optimize.nnls did not converge"
            break
        if q is None:
            raise _not_separable(rows, work, u / norms)
        p, previous, p_norm = q / unit, p_norm, math.sqrt(q.dot(q)) / unit
        dual = np.zeros(m)
        dual[work] = u / (unit * norms)
        values = rows.price(p)
        depth = (1.0 - values) / rows.sizes
        depth[work] = 0.0
        violated = np.flatnonzero(depth > ROUNDING * p_norm)
        rounds += 1
        if violated.size == 0:
            break
        if suspect and rounds > 1 and p_norm > GROWTH[rounds > 2] * previous:
            suspect = False
            _raise_if_combined(rows, work, depth)
        # Rows without weight are dropped, but only once: nearly opposite rows would come and go for hundreds of rounds.
        kept = (u > 0.0) | dropped[work]
        dropped[work[~kept]] = True
        work = union(m, work[kept], rows.choose(violated, depth[violated], batch))
        stalled = 0 if p_norm > previous * (1.0 + CERTIFIED) else stalled + 1
        if stalled == PATIENCE or rounds == MAX_ROUNDS:
            trouble = f"{violated.size} rows are still violated"
    return _certified(rows, p, values, dual, rounds, trouble)


def _raise_if_combined(rows: WorkingRows, work: Indices, depth: Floats) -> None:
    """Raise NotSeparableError if 0 is a combination of the rows most violated while p grows."""
    work = union(rows.shape[0], work, largest(depth, 3 * rows.shape[1]))
    block = rows.take(work)
    norms = row_norms(block)
    if norms.all() and (weights := combination_to_zero(block / norms[:, None])) is not None:
        raise _not_separable(rows, work, weights / norms)


def _solve_linear(rows: DenseRows, name: Norm) -> MarginResult:
    """The program in another norm. The existence of a solution does not depend on the norm."""
    euclidean = _solve(rows)  # raises unless the rows are separable
    D = rows.matrix
    x, w = solve_linear(D, name)
    margin, bound = float((D @ x).min()), dual_norm(D.T @ w, name)
    if not margin > 0:
        return dataclasses.replace(
            euclidean, status=Status.FAILED, message=f"the linear program in {name} found no positive margin", norm=name
        )
    gap = abs(bound - margin) / margin
    p, dual = x / margin, w / bound
    status = Status.CONVERGED if gap <= LOOSEST else Status.FAILED
    support = np.flatnonzero(dual)
    verdict = "certified" if status.ok else "not certified"
    return MarginResult(
        status=status,
        message=f"{verdict}: duality gap {gap:.1e}, {support.size} of {dual.size} rows in the support",
        p=freeze(p),
        direction=freeze(p / vector_norm(p, name)),
        margin=margin,
        dual=freeze(dual),
        support=freeze(support),
        kkt_residual=gap,
        rounds=1,
        norm=name,
    )


def _least_distance(rows: Floats, target: Floats) -> tuple[Floats, Floats | None]:
    """u >= 0 and the shortest q = rows^T u with rows q >= target; or u with rows^T u ~ 0, and None, if there is no q.

    The rows have norm 1, so that ||rows^T u|| / sum(u) bounds their margin from above for any u.
    """
    k, d = rows.shape
    pivoted = PIVOTED_IF_WIDE <= k <= MOST_PIVOTED * d if d >= WIDE else k >= PIVOTED
    if pivoted and (found := shortest(rows, target)) is not None:
        return found
    system = np.zeros((d + 1, k + 1))
    system[:d, :k], system[d, :k], system[d, k] = rows.T, target, 1.0
    if d > 1.5 * k:  # the triangular factor is the same least-squares problem in k + 1 rows
        system = qr(system, mode="r")[0][: k + 1]
    u, residual = nnls(system[:, :k], system[:, k], maxiter=10 * k)
    q = rows.T @ u
    if math.sqrt(q.dot(q)) <= ROUNDING * u.sum():
        return u, None
    u, q = u / residual**2, q / residual**2
    # On nearly opposite rows nnls finds the support, but loses digits with the square of the condition number.
    support = np.flatnonzero(u)
    if np.abs(rows[support] @ q - target[support]).max() > 16 * EPS * np.linalg.norm(q):
        return _tight(rows, target, support) or (u, q)
    return u, q


def _tight(rows: Floats, target: Floats, support: Indices) -> tuple[Floats, Floats] | None:
    """u and the shortest q that is tight on the support, after exchanging rows that pull or fall short."""
    for _ in range(EXCHANGES):
        if not 0 < support.size <= rows.shape[1]:
            break
        basis, triangle = qr(rows[support].T, mode="economic")
        try:
            z = solve_triangular(triangle, target[support], trans="T")
            push = solve_triangular(triangle, z)
        except ValueError:  # a singular triangle, or nearly so, with an overflowing solution
            break
        if not push.min() > 0.0:
            support = support[push > 0.0]
            continue
        q = basis @ z
        short = target - rows @ q
        short[support] = 0.0
        if short.max() <= ROUNDING * np.linalg.norm(q):
            u = np.zeros(target.size)
            u[support] = push
            return u, q
        support = np.append(support, short.argmax())
    return None


def _certified(rows: WorkingRows, p: Floats, values: Floats, dual: Floats, rounds: int, trouble: str) -> MarginResult:
    """The result with its KKT residual; a success only if rounding explains the residual."""
    support = np.flatnonzero(dual)
    p_norm = math.sqrt(p.dot(p))
    residual = _residual(values, rows.sizes, rows.take(support).T @ dual[support], p, dual)
    cancellation = float(dual @ rows.sizes) / p_norm  # sum ||dual_k d_k|| / ||p||, 1 over the relative margin
    if residual <= min(CERTIFIED + ROUNDING * cancellation, LOOSEST):
        status = Status.CONVERGED
        message = f"certified: KKT residual {residual:.1e}, {support.size} of {dual.size} rows in the support"
    else:
        status = Status.MAX_ITERATIONS if trouble else Status.FAILED
        trouble = trouble or f"the rows cancel to 1/{cancellation:.0e} of their norm, too close to rounding"
        message = f"not certified: KKT residual {residual:.1e} after round {rounds}; {trouble}"
    result = MarginResult(
        status=status,
        message=message,
        p=freeze(p),
        direction=freeze(p / p_norm),
        margin=1.0 / p_norm,
        dual=freeze(dual),
        support=freeze(support),
        kkt_residual=residual,
        rounds=rounds,
    )
    object.__setattr__(result, "_given", rows)  # for `enclosure`; not a field, because it is not part of the answer
    return result


def _not_separable(rows: WorkingRows, work: Indices, weights: ArrayLike) -> NotSeparableError:
    """The error with the weights spread over all rows, and the actual distance of their combination from 0."""
    block = rows.take(work)
    w: Floats = np.asarray(weights, dtype=np.float64)
    w = w / w.sum()
    simple = _simple_weights(block, w)
    w = w if simple is None else simple
    combined = w.dot(block)
    distance, size = math.sqrt(combined.dot(combined)), float(w @ rows.sizes[work])
    certificate = np.zeros(rows.shape[0])
    certificate[work] = w
    rounded = ", up to rounding" if simple is None else ""
    what = (
        f"no p has D p >= 1{rounded}: 0 is in the convex hull of {np.count_nonzero(w)} of the {w.size} rows, "
        f"||D^T w|| = {distance:.1e} where the rows have norm {size:.1e}"
    )
    if simple is None:  # no p has a larger margin than ||D^T w||, which is known up to the rounding of its terms
        what += f", so that such a p would have norm {1 / (distance + EPS * size):.0e} or more"
    return NotSeparableError(f"{what}; the weights w are in `certificate`", freeze(certificate))


def _simple_weights(block: Floats, weights: Floats) -> Floats | None:
    """Small fractions within rounding of the weights, with which the rows cancel exactly; else None."""
    support = weights.nonzero()[0]
    # Most weights are not small fractions, as the first one shows.
    if support.size * block.shape[1] > 10_000 or not _near_fraction(float(weights[support[0]])):
        return None
    exact = []
    for weight in weights[support].tolist():
        exact.append(Fraction(weight).limit_denominator(LARGEST_DENOMINATOR))
        if abs(exact[-1] - weight) > NEAR_FRACTION:
            return None
    columns = block[support].T.tolist()
    if sum(exact) != 1 or any(sum(w * Fraction(x) for w, x in zip(exact, column)) for column in columns):
        return None
    simple = np.zeros(weights.size)
    simple[support] = [float(w) for w in exact]
    return simple


def _near_fraction(x: float) -> bool:
    """Whether a small fraction is within 2 NEAR_FRACTION of x >= 0: if so, a convergent of x is one (Legendre)."""
    rest, whole = x, math.floor(x)
    above, below = (1, whole), (0, 1)  # numerators and denominators of the last two convergents
    while below[1] <= LARGEST_DENOMINATOR:
        if abs(x - above[1] / below[1]) <= 2.0 * NEAR_FRACTION:
            return True
        rest = 1.0 / (rest - whole)
        whole = math.floor(rest)
        above, below = (above[1], whole * above[1] + above[0]), (below[1], whole * below[1] + below[0])
    return False


def _check_norms(rows: WorkingRows) -> None:
    """Zero rows are not separable; rows whose squares underflow or overflow cannot be used."""
    odd = np.flatnonzero(~((rows.sizes > NORM_RANGE[0]) & (rows.sizes < NORM_RANGE[1])))
    if odd.size == 0:
        return
    zero = odd[~rows.take(odd).any(axis=1)]
    if zero.size:
        raise _not_separable(rows, zero[:1], np.ones(1))
    largest = np.abs(rows.take(odd[:1])).max()
    raise InputError(
        rows.name,
        f"must have rows of norm {NORM_RANGE[0]:g} to {NORM_RANGE[1]:g}, or 0",
        got=f"entries up to {largest:.3g} in row {odd[0]}",
        hint="scale all rows by one number",
    )
