"""The margin program of a selection, with its solution or a certificate that there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Floats
from attnembed._validation import freeze
from attnembed.attention.data import TokenDataset
from attnembed.attention.parameters import Parameters
from attnembed.attention.selection import selected_pairs
from attnembed.attention.theory.hypotheses import Hypothesis
from attnembed.errors import InputError, NotSeparableError
from attnembed.margin_norms import norm
from attnembed.margins import max_margin

# The largest residual of the optimality conditions at which a solution counts as the max-margin point.
_CERTIFIED = 1e-6


@dataclass(frozen=True, eq=False)
class MarginProgram:
    """p_mm = argmin ||p||^2 s.t. D p >= 1 for the rows D of ``pairs`` (s*, s) of the embeddings ``E``.

    Infeasible: ``p`` is NaN, ``margin`` is 0, and ``certificate`` (m,) holds convex weights w with D^T w = 0. Without
    rows (every sequence of one token type) ``p`` is 0 and ``margin`` inf; rows out of the solver's range, NaN.
    """

    pairs: NDArray[np.integer[Any]]
    E: Floats
    p: Floats
    margin: float
    kkt_residual: float
    certificate: Floats | None = None

    @cached_property
    def differences(self) -> Floats:
        """The rows D, (m, d)."""
        rows: Floats = self.E[self.pairs[:, 0]]
        rows -= self.E[self.pairs[:, 1]]
        return rows

    @property
    def hypotheses(self) -> tuple[Hypothesis, Hypothesis]:
        """The hypotheses that the program is feasible, and solved."""
        return (
            Hypothesis("there is something to select: rows of the margin program", float(len(self.pairs)), ">=", 1.0)
            if len(self.pairs) == 0
            else Hypothesis("the margin program is feasible: margin", self.margin, ">", 0.0),
            Hypothesis("its solution is certified: KKT residual", self.kkt_residual, "<=", _CERTIFIED),
        )

    def attained(self, p: Floats, margins: Mapping[str, float]) -> dict[str, float]:
        """min_k d_k.p / ||p|| in each norm, as a share of the largest margin in it; empty for p = 0."""
        if not margins or not p.any():
            return {}
        direction = p / np.abs(p).max()
        least = float((self.differences @ direction).min())
        return {name: least / norm(direction, name) / margin for name, margin in margins.items()}

    def conflict(self, vocab: Sequence[str] | None = None) -> str:
        """What makes the program infeasible, in words; empty where it is feasible."""
        if self.certificate is None:
            return ""
        support = np.flatnonzero(self.certificate)
        pairs = self.pairs[support]
        if support.size == 1:
            return "two tokens of a sequence have the same embedding: asymptotics.certificate has their row"
        if support.size == 2 and (pairs[0] == pairs[1][::-1]).all():
            first, second = (repr(vocab[s]) if vocab else f"token {s}" for s in pairs[0])
            return f"{first} would have to score above {second} in one sequence, and below it in another"
        rest = np.linalg.norm(self.certificate[support] @ (self.E[pairs[:, 0]] - self.E[pairs[:, 1]]))
        return (
            f"{support.size} of its {len(self.pairs)} rows add up to 0 with the weights w of asymptotics.certificate: "
            f"||D^T w|| = {rest:.1e}"
        )


def solve_program(model: Parameters, data: TokenDataset, selected: NDArray[np.integer[Any]]) -> MarginProgram:
    """Build and solve the program for one selected token per sequence, (n,)."""
    E = np.asarray(model.E, dtype=np.float64)
    d = E.shape[1]
    if (np.diff(data.counts.indptr) <= 1).all():
        return MarginProgram(np.empty((0, 2), dtype=np.int64), E, np.zeros(d), np.inf, 0.0)
    pairs = selected_pairs(data, selected)
    nothing, opposite = np.full(d, np.nan), _opposite(pairs, len(E))
    if opposite is not None:
        return MarginProgram(pairs, E, nothing, 0.0, np.nan, opposite)
    program = MarginProgram(pairs, E, nothing, np.nan, np.nan)
    # In units of the longest row, because the solver squares norms: embeddings may be of any size.
    unit = float(np.abs(program.differences).max()) or 1.0
    try:
        solution = max_margin(program.differences / unit)
    except NotSeparableError as error:
        return MarginProgram(pairs, E, nothing, 0.0, np.nan, error.certificate)
    except InputError:  # the norms of the rows differ by more than any solver's range
        return program
    return MarginProgram(pairs, E, solution.p / unit, solution.margin * unit, solution.kkt_residual)


def _opposite(pairs: NDArray[np.integer[Any]], vocab_size: int) -> Floats | None:
    """Weights 1/2 on two rows d and -d, (s, r) and (r, s), if there are such: real counts have them at once."""
    first, second = pairs.T
    keys = first * vocab_size + second  # in ascending order
    turned = second * vocab_size + first
    place = np.minimum(np.searchsorted(keys, turned), len(keys) - 1)
    found = np.flatnonzero(keys[place] == turned)
    if found.size == 0:
        return None
    weights = np.zeros(len(pairs))
    weights[[found[0], place[found[0]]]] = 0.5
    value: Floats = freeze(weights)
    return value
