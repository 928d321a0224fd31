"""The margin program of a selection, with its solution or a certificate that there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Floats
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.selection import margin_constraints
from attnembed.attention.theory.hypotheses import Hypothesis
from attnembed.errors import InputError, NotSeparableError
from attnembed.margins import max_margin

# The largest residual of the optimality conditions at which a solution counts as the max-margin point.
_CERTIFIED = 1e-6


@dataclass(frozen=True, eq=False)
class MarginProgram:
    """p_mm = argmin ||p||^2 s.t. D p >= 1 for the rows D of ``pairs`` (s*, s).

    Infeasible: ``p`` is NaN, ``margin`` is 0, and ``certificate`` (m,) holds convex weights w with D^T w = 0. Without
    rows (every sequence of one token type) ``p`` is 0 and ``margin`` inf; rows out of the solver's range, NaN.
    """

    pairs: NDArray[np.integer[Any]]
    differences: Floats
    p: Floats
    margin: float
    kkt_residual: float
    certificate: Floats | None = None

    @property
    def hypotheses(self) -> tuple[Hypothesis, Hypothesis]:
        """The hypotheses that the program is feasible, and solved."""
        return (
            Hypothesis("there is something to select: rows of the margin program", float(len(self.pairs)), ">=", 1.0)
            if len(self.pairs) == 0
            else Hypothesis("the margin program is feasible: margin", self.margin, ">", 0.0),
            Hypothesis("its solution is certified: KKT residual", self.kkt_residual, "<=", _CERTIFIED),
        )


def solve_program(model: Parameters, data: TokenDataset, selected: NDArray[np.integer[Any]]) -> MarginProgram:
    """Build and solve the program for one selected token per sequence, (n,)."""
    d = model.E.shape[1]
    if (np.diff(data.counts.indptr) <= 1).all():
        return MarginProgram(np.empty((0, 2), dtype=np.int64), np.empty((0, d)), np.zeros(d), np.inf, 0.0)
    constraints = margin_constraints(model, data, selected)
    pairs, D = constraints.pairs, np.asarray(constraints.differences, dtype=np.float64)
    # In units of the longest row, because the solver squares norms: embeddings may be of any size.
    unit = float(np.abs(D).max()) or 1.0
    try:
        solution = max_margin(D / unit)
    except NotSeparableError as error:
        return MarginProgram(pairs, D, np.full(d, np.nan), 0.0, np.nan, error.certificate)
    except InputError:  # the norms of the rows differ by more than any solver's range
        return MarginProgram(pairs, D, np.full(d, np.nan), np.nan, np.nan)
    return MarginProgram(pairs, D, solution.p / unit, solution.margin * unit, solution.kkt_residual)
