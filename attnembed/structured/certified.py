"""A proved enclosure of log Z of a chain between two floats: the forward recursion, rounded down and up."""

from __future__ import annotations

import decimal
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike

from attnembed._typing import Floats
from attnembed.errors import InputError
from attnembed.structured.chain import ChainBatch

__all__ = ["chain_log_partition_enclosure"]

_DIGITS = 40
_LARGEST = 1e12  # potentials whose exponentials the decimals can represent, for any length


def chain_log_partition_enclosure(unary: ArrayLike, pairwise: ArrayLike) -> tuple[float, float]:
    """Floats (low, high) with low <= log Z <= high for exactly the given potentials, two or three floats apart.

    The recursion sums exponentials, all of them positive, in 40 decimal digits, once with every operation rounded down
    and once up; exp and ln of `decimal` are correctly rounded and moved outwards by one digit. It takes about a
    microsecond per position and pair of labels: a certificate, not a replacement for `chain_log_partition`.

    Parameters
    ----------
    unary : (L, K); -inf for a label that is not allowed
    pairwise : (K, K), row = left label

    Raises
    ------
    InputError
        as for `chain_log_partition`, and for a batch, or potentials above 1e12 in size.

    Source: derived here; docs/derivations/enclosures.md.

    >>> low, high = chain_log_partition_enclosure(np.zeros((3, 2)), np.zeros((2, 2)))
    >>> low <= float(np.log(8)) <= high, high - low < 1e-15
    (True, True)
    """
    batch = ChainBatch(unary, pairwise, None)
    if not batch.single:
        raise InputError("unary", "must have shape (L, K), one sequence", got=f"shape {np.shape(unary)}")
    for name, rows in (("unary", batch.unary), ("pairwise", batch.pairwise)):
        largest = float(np.abs(rows[np.isfinite(rows)]).max(initial=0.0))
        if largest > _LARGEST:
            raise InputError(name, f"must be at most {_LARGEST:g} in size, or -inf", got=f"{largest:g}")
    low, high = (_log_partition(batch.unary, batch.pairwise, up=up) for up in (False, True))
    return low, high


def _log_partition(unary: Floats, pairwise: Floats, *, up: bool) -> float:
    """log Z, rounded up or down."""
    context = decimal.Context(
        prec=_DIGITS,
        rounding=decimal.ROUND_CEILING if up else decimal.ROUND_FLOOR,
        Emin=decimal.MIN_EMIN,
        Emax=decimal.MAX_EMAX,
        traps=[decimal.InvalidOperation, decimal.Overflow],
    )

    def outwards(x: Decimal) -> Decimal:
        return context.next_plus(x) if up else context.next_minus(x)

    def exponentials(rows: Floats) -> list[list[Decimal]]:
        return [
            [Decimal(0) if x == -np.inf else outwards(context.exp(Decimal(x))) for x in row] for row in rows.tolist()
        ]

    weights, columns = exponentials(unary), exponentials(pairwise.T)
    ends = weights[0]
    for own in weights[1:]:
        ends = [
            context.multiply(w, _sum(context, [context.multiply(a, b) for a, b in zip(ends, column, strict=True)]))
            for w, column in zip(own, columns, strict=True)
        ]
    total = _sum(context, ends)
    if not total:
        raise InputError(
            "pairwise", "must leave the sequence a labeling", got="none", hint="allow some label everywhere"
        )
    exact = outwards(context.ln(total))
    nearest = float(exact)  # a float is compared with a Decimal exactly
    if up:
        return nearest if Decimal(nearest) >= exact else float(np.nextafter(nearest, np.inf))
    return nearest if Decimal(nearest) <= exact else float(np.nextafter(nearest, -np.inf))


def _sum(context: decimal.Context, terms: list[Decimal]) -> Decimal:
    total = terms[0]
    for term in terms[1:]:
        total = context.add(total, term)
    return total
