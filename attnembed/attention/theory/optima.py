"""The locally optimal selections of small data, in which an open set of flows ends, by enumeration.

Derivation: docs/derivations/limit-direction.md.
"""

from __future__ import annotations

import numpy as np

from attnembed._typing import Floats, Ints
from attnembed._validation import check_integer, freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.theory._inputs import parameters
from attnembed.attention.theory.rates import asymptotics
from attnembed.errors import InputError, NotSeparableError
from attnembed.margins import max_margin

__all__ = ["local_optima"]


def local_optima(model: Parameters, data: TokenDataset, *, limit: int = 10_000) -> tuple[Ints, ...]:
    """Enumerate the selections (n,) in which flows from an open set of starts end, in lexicographic order.

    The model's p plays no part. A selection sigma counts if every hypothesis of `asymptotics` holds for it: its margin
    program is feasible, each active row has C_k = sum_i (sigma(-gamma_i)/n) D_is n_is/n_{i sigma_i} > 0 with
    D_is = y_i (g_{sigma_i} - g_s), and p_mm is a positive combination of all active rows. Flows may also end where no
    token is selected, at a finite p or along a direction that leaves two tokens of a sequence level; no selection
    stands for these.

    Sequences are decided one after the other, those with the same token types together, and a partial selection
    without a feasible program is abandoned: few selections of generic embeddings remain in a low dimension.

    Parameters
    ----------
    limit : the largest number of partial selections to examine, a fraction of a millisecond each

    Raises
    ------
    InputError
        if more would have to be examined.

    Source: [TLTO23] for local optimality; the hypotheses are derived here.

    >>> from attnembed.attention.model import AttentionModel
    >>> data = TokenDataset.from_tokens([[0, 1, 2], [3]], [1, -1])
    >>> model = AttentionModel([[1, 0], [-1, 1], [0, 0], [0, -1]], [0, 0], [0.5, 1.5])
    >>> local_optima(model, data)
    (array([0, 3]), array([1, 3]))
    """
    check_integer("limit", limit, minimum=1)
    E, _, _ = parameters(model, data)
    groups: dict[bytes, list[int]] = {}
    for i in range(data.n_samples):
        groups.setdefault(_types(data, i).tobytes(), []).append(i)
    kinds = [np.frombuffer(key, dtype=np.int64) for key in groups]
    # Few types first: early decisions prune later ones.
    order = sorted(range(len(kinds)), key=lambda k: len(kinds[k]))
    several = [kinds[k] for k in order]
    found: list[Ints] = []
    examined = 0

    def extend(chosen: list[int], rows: Floats) -> None:
        nonlocal examined
        if len(chosen) == len(several):
            selection = np.empty(data.n_samples, dtype=np.int64)
            for k, token in zip(order, chosen):
                selection[list(groups.values())[k]] = token
            if asymptotics(model, data, selection).holds:
                found.append(freeze(selection))
            return
        types = several[len(chosen)]
        for token in types.tolist():
            examined += 1
            if examined > limit:
                raise InputError(
                    "data",
                    f"must not have more than {limit} selections to examine",
                    got=f"{data.n_samples} sequences of up to {max(map(len, several))} token types",
                    hint="use fewer sequences, or a larger `limit`",
                )
            new = E[token] - E[types[types != token]]
            both = np.vstack([rows, new])
            if _may_be_feasible(both, len(new)):
                extend([*chosen, token], both)

    extend([], np.empty((0, E.shape[1])))
    return tuple(sorted(found, key=lambda selection: selection.tolist()))


def _types(data: TokenDataset, i: int) -> Ints:
    """The token types of a sequence, in ascending order."""
    value: Ints = data.counts.indices[data.counts.indptr[i] : data.counts.indptr[i + 1]].astype(np.int64)
    return value


def _may_be_feasible(rows: Floats, n_new: int) -> bool:
    """False only if it is certain that no p has D p >= 1, D (m, d)."""
    if n_new == 0:
        return True
    unit = float(np.abs(rows).max()) or 1.0
    try:
        max_margin(rows / unit)
    except NotSeparableError:
        return False
    except InputError:  # rows out of the solver's range: left to `asymptotics`
        return True
    return True
