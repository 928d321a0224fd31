"""A proof in rational arithmetic that no direction has a positive margin: exact convex weights with D^T w = 0.

If w >= 0, sum w = 1 and sum_k w_k d_k = 0 exactly, every x has sum_k w_k (d_k.x) = 0, so that some d_k.x <= 0 (Gordan's
alternative). Floating-point weights only come close. If the rows that they use are affinely independent, the equations
have one solution, close to these weights: it is found by elimination with fractions, and if none of its weights is
negative, it is the proof. Derived in docs/derivations/enclosures.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from attnembed._typing import Floats
from attnembed._validation import as_real_array, check_shape, freeze
from attnembed.enclosures import combination_above
from attnembed.errors import InputError
from attnembed.results import Record

__all__ = ["InfeasibilityProof", "infeasibility_proof"]

# Rows of the certificate times their dimension beyond which fractions take too long.
_MOST_EXACT = 4000


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class InfeasibilityProof(Record):
    """Whether it is proved that no direction separates the rows, and a bound on the margin.

    ``proved``: exact weights were found, ``numerators`` (m,) over the common ``denominator``, with sum_k w_k d_k = 0 in
    exact arithmetic; otherwise both are None. ``margin_bound`` >= 0: no unit x has min_k d_k.x above it, with every
    rounding error accounted for; 0 with a proof.
    """

    proved: bool
    numerators: tuple[int, ...] | None
    denominator: int | None
    margin_bound: float


def infeasibility_proof(differences: ArrayLike, certificate: ArrayLike) -> InfeasibilityProof:
    """Turn the ``certificate`` of a `NotSeparableError` into a proof for exactly the given rows.

    Parameters
    ----------
    differences : (m, d) the rows d_k, as given to `max_margin`
    certificate : (m,) weights >= 0, not all zero; they need not be exact

    Returns
    -------
    InfeasibilityProof
        not ``proved`` if the rows can be separated, if 0 is on the boundary of their hull and rounding has moved it
        out, or if too many rows are used for fractions; ``margin_bound`` holds in any case.

    Raises
    ------
    InputError
        for arrays that are not finite or do not match, and weights that are negative or all zero.

    >>> import attnembed as ae
    >>> rows = [[0.1, 0.2], [-0.3, 0.1], [0.1, -0.7]]
    >>> try:
    ...     ae.max_margin(rows)
    ... except ae.NotSeparableError as error:
    ...     proof = infeasibility_proof(rows, error.certificate)
    >>> proof.proved, proof.margin_bound
    (True, 0.0)
    """
    rows = as_real_array("differences", differences, ndim=2, dtype=np.float64)
    weights = as_real_array("certificate", certificate, ndim=1, dtype=np.float64)
    check_shape("certificate", weights, (len(rows),), "one weight per row")
    if (weights < 0).any() or not weights.any():
        raise InputError("certificate", "must have weights >= 0, not all zero", got=f"the least is {weights.min():g}")
    support = np.flatnonzero(weights)
    exact = _exact_weights(rows[support], weights[support]) if support.size * rows.shape[1] <= _MOST_EXACT else None
    if exact is None:
        bound = combination_above(freeze(rows.copy()), weights)
        return InfeasibilityProof(proved=False, numerators=None, denominator=None, margin_bound=bound)
    denominator = int(np.lcm.reduce([w.denominator for w in exact], dtype=object))
    numerators = [0] * len(rows)
    for k, w in zip(support.tolist(), exact, strict=True):
        numerators[k] = int(w * denominator)
    return InfeasibilityProof(proved=True, numerators=tuple(numerators), denominator=denominator, margin_bound=0.0)


def _exact_weights(rows: Floats, near: Floats) -> list[Fraction] | None:
    """Weights w >= 0 with D^T w = 0 and sum w = 1 exactly, or None; where they are not unique, as in ``near``."""
    n = len(near)
    table = [[Fraction(x) for x in column] + [Fraction(0)] for column in rows.T.tolist()]
    table.append([Fraction(1)] * (n + 1))
    pivots: list[int] = []
    # Columns with large weights first: the remaining ones keep their given weight.
    for c in np.argsort(-near).tolist():
        r = next((r for r in range(len(pivots), len(table)) if table[r][c]), None)
        if r is None:
            continue
        k = len(pivots)
        table[k], table[r] = table[r], table[k]
        table[k] = [x / table[k][c] for x in table[k]]
        for other in range(len(table)):
            factor = table[other][c]
            if other != k and factor:
                table[other] = [x - factor * y for x, y in zip(table[other], table[k], strict=True)]
        pivots.append(c)
    if any(row[n] for row in table[len(pivots) :]):  # 0 is not even an affine combination
        return None
    free = {c: Fraction(float(near[c])) for c in range(n) if c not in pivots}
    found = dict(free)
    for row, c in zip(table, pivots):
        found[c] = row[n] - sum((row[f] * w for f, w in free.items()), Fraction(0))
    return [found[c] for c in range(n)] if min(found.values()) >= 0 else None
