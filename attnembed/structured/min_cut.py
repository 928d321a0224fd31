"""The exact best binary labeling of a grid: a minimum cut in as many digits as the potentials need.

With spins s = 2 y - 1 the score of two labels is, up to a constant, F = (sum_u H_u s_u + sum_uv q_uv s_u s_v) / 4,

    H_u = 2 (U_u1 - U_u0) + sum over edges of c_uv (W_1. - W_0.),      q_uv = c_uv (W_00 + W_11 - W_01 - W_10).

The grid is bipartite by rows and by columns: changing the sign of every second column (row) changes the sign of q on
all horizontal (vertical) edges, and otherwise only of H there. So q >= 0 without loss of generality, and the best
labeling is a minimum cut with terminal capacities |H| and edges q.

`scipy.sparse.csgraph.maximum_flow` counts in 32 bits. A first cut on the leading 30 bits decides nearly all pixels:
an arc whose residual capacity exceeds the gap between flow and cut is in no minimum cut, even allowing for rounding of
H and q. The undecided pixels are settled in exact integers, by flows on the remaining digits. Both steps are derived
in docs/derivations/min-cut.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from attnembed._typing import Doubles
from attnembed.errors import InputError
from attnembed.structured.grid_potentials import GridPotentials, edge_ends

__all__ = ["best_binary_labels"]

Integers = NDArray[Any]  # int64, or Python integers of any length

# maximum_flow takes 32-bit capacities; residuals reach twice the largest one.
_BITS = 30

# Number of pixels per call: setting up a call costs a millisecond, but a hard image makes the others in its call wait
# through all of its rounds.
_CUT_TOGETHER = 10240

_EPS, _TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)


def best_binary_labels(grid: GridPotentials) -> NDArray[np.intp]:
    """argmax_Y F(Y) of every image, F in exact arithmetic on the given numbers; (n, H, W).

    Among equally good labelings, that with the most pixels of label 1, or of label 0 where signs were changed.
    """
    edges = [_EdgeTerms(w) for w in grid.pairwise]
    spin = _signs(grid.unary.shape[1:3], [edge.surplus < 0 for edge in edges])
    field, couplings, rounding = _spin_model(grid, edges, spin)
    incident = _incident(couplings, field.shape)
    rounding += 8 * _EPS * incident
    # A pixel whose unary term outweighs all of its edges is decided by it, and acts on its neighbours.
    settled = np.abs(field) > incident + rounding
    spins = np.where(settled, np.sign(field), 0).astype(np.int8)
    for d, q in enumerate(couplings):
        (first, second), (a, b) = edge_ends(field, d), edge_ends(spins, d)
        first += q * b
        second += q * a
    for part in _parts(np.count_nonzero(spins == 0, axis=(1, 2))):
        doubt = np.where(spins[part] == 0, rounding[part], 0).sum(axis=(1, 2))
        cut = _leading_cut(spins[part] == 0, field[part], [q[part] for q in couplings], doubt)
        spins[part] += cut
    for i in np.flatnonzero((spins == 0).any(axis=(1, 2))):
        spins[i] = _exact_spins(grid, edges, spin, spins[i], int(i))
    return np.asarray(spins * spin > 0, dtype=np.intp)


def _parts(counts: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The images with open pixels, grouped by call."""
    images = np.flatnonzero(counts)
    group = np.cumsum(counts[images]) // _CUT_TOGETHER
    return np.split(images, np.flatnonzero(np.diff(group)) + 1) if len(images) else []


class _EdgeTerms:
    """Four times the spin expansion of W in one direction: terms of the first end, the second end and their product.

    `math.fsum` rounds once, so that the sign of the surplus is that of the exact sum.
    """

    def __init__(self, w: NDArray[Any]) -> None:
        (a, b), (c, d) = w.tolist()
        self.terms = ((c, d, -a, -b), (b, d, -a, -c), (a, d, -b, -c))
        self.first, self.second, self.surplus = map(_sum, self.terms)

    def exact(self) -> tuple[list[int], int]:
        """The three sums as integers in units of 2^exponent, and the exponent."""
        integers, exponent = _integers(np.array(self.terms, dtype=np.float64))
        return integers.sum(axis=1).tolist(), exponent


def _edge_terms(grid: GridPotentials) -> list[_EdgeTerms]:
    return [_EdgeTerms(w) for w in grid.pairwise]


def _sum(terms: tuple[float, ...]) -> float:
    try:
        return math.fsum(terms)
    except OverflowError:
        return math.inf


def _signs(shape: tuple[int, ...], repulsive: list[bool]) -> NDArray[np.int8]:
    """+1 and -1, by columns where horizontal edges are repulsive, by rows where vertical ones are; (H, W)."""
    rows, columns = (1 - 2 * (np.arange(side) % 2).astype(np.int8) for side in shape)
    return np.outer(rows if repulsive[1] else np.abs(rows), columns if repulsive[0] else np.abs(columns))


def _spin_model(
    grid: GridPotentials, edges: list[_EdgeTerms], spin: NDArray[np.int8]
) -> tuple[Doubles, list[Doubles], Doubles]:
    """H in the changed signs (n, H, W), |q| by direction, and a bound on the rounding of H."""
    unary = grid.unary.astype(np.float64, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        field = 2 * (unary[..., 1] - unary[..., 0])
        size = 2 * np.abs(unary).sum(axis=3)
        couplings = []
        for d, edge in enumerate(edges):
            weight = np.ones(edge_ends(field, d)[0].shape) if grid.weights is None else grid.weights[d]
            weight = weight.astype(np.float64, copy=False)
            for ends, term in zip(zip(edge_ends(field, d), edge_ends(size, d)), (edge.first, edge.second)):
                part = term * weight
                ends[0][...] += part
                ends[1][...] += np.abs(part)
            couplings.append(abs(edge.surplus) * weight)
        field *= spin
        finite = np.isfinite(size.sum()) and all(np.isfinite(q.sum()) for q in couplings)
    if not finite:
        raise InputError("unary", "and `pairwise` must leave the scores finite", got="scores beyond the largest float")
    return field, couplings, 8 * _EPS * size + _TINY


def _incident(couplings: list[Doubles], shape: tuple[int, ...]) -> Doubles:
    """The sum of the q at each pixel, (n, H, W)."""
    out = np.zeros(shape)
    for d, q in enumerate(couplings):
        for end in edge_ends(out, d):
            end += q
    return out


def _leading_cut(
    inside: NDArray[np.bool_], field: Doubles, couplings: list[Doubles], doubt: Doubles
) -> NDArray[np.int8]:
    """Spins of a minimum cut for the pixels ``inside`` that the leading digits decide, 0 elsewhere.

    All images are parts of one graph that share only the source and the sink, so that their flows do not meet.
    """
    network = _FlowNetwork(inside, field > 0)
    capacities = [np.where(inside, np.abs(field), 0)]
    capacities += [np.where(np.logical_and(*edge_ends(inside, d)), q, 0) for d, q in enumerate(couplings)]
    largest = np.max([c.max(axis=(1, 2), initial=0.0) for c in capacities], axis=0)
    # Steps are powers of two, so that the division is exact.
    exponent = _BITS - np.frexp(np.maximum(largest, _TINY))[1]
    digits = [np.ldexp(c, exponent[:, None, None]).astype(np.int32) for c in capacities]
    # A flow for the rounded-down capacities is one for the capacities themselves. Their cut exceeds it by less than one
    # step per arc, plus the rounding of H and q for the given potentials: an arc with more left stays uncut.
    arcs = sum(np.count_nonzero(c, axis=(1, 2)) for c in capacities)
    with np.errstate(over="ignore"):
        gap = np.max(arcs + np.ldexp(doubt, exponent))
    along = network.capacities(digits[0], digits[1:])
    flow = network.flow_from_fewer(along)
    below = network.reached(along - flow > gap)
    above = network.reached(network.reversed(along) + flow > gap, sink=True)
    spins = np.zeros(inside.shape, dtype=np.int8)
    spins[inside] = above.astype(np.int8) - below
    return spins


class _FlowNetwork:
    """Pixels ``inside`` (n, H, W) of a grid, the edges between them, and one arc per pixel to its terminal.

    The arcs are the entries of a CSR matrix, in both directions: from a pixel to those above, left, right and below,
    and to its terminal (the sink where ``down``, else the source); source and sink are the last two rows.
    """

    def __init__(self, inside: NDArray[np.bool_], down: NDArray[np.bool_]) -> None:
        self.inside, self.down = inside, down[inside]
        self.size = size = len(self.down)
        number = np.zeros(inside.shape, dtype=np.int32)
        number[inside] = np.arange(size)
        self.exists = np.zeros((*inside.shape, 5), dtype=bool)
        heads = np.zeros(self.exists.shape, dtype=np.int32)
        for back, there, d in _SIDES:
            (first, second), (a, b) = edge_ends(inside, d), edge_ends(number, d)
            both = first & second
            edge_ends(self.exists, d)[0][..., there] = edge_ends(self.exists, d)[1][..., back] = both
            edge_ends(heads, d)[0][..., there], edge_ends(heads, d)[1][..., back] = b, a
        self.exists[..., 4] = inside
        heads[..., 4] = size + down
        rows = self.exists[inside]
        from_source, to_sink = np.flatnonzero(~self.down), np.flatnonzero(self.down)
        self.heads = np.concatenate([heads[self.exists], from_source, to_sink]).astype(np.int32)
        counts = np.concatenate([[0], rows.sum(axis=1), [len(from_source), len(to_sink)]])
        self.starts = np.cumsum(counts).astype(np.int32)

    def capacities(self, terminal: Integers, couplings: list[Integers]) -> Integers:
        """Capacities of all arcs, from those of the terminals (n, H, W) and of the edges, equal in both directions."""
        out = np.zeros(self.exists.shape, dtype=terminal.dtype)
        for (back, there, d), q in zip(_SIDES, couplings):
            edge_ends(out, d)[0][..., there] = edge_ends(out, d)[1][..., back] = q
        own = terminal[self.inside]
        out[self.inside, 4] = np.where(self.down, own, 0)
        return np.concatenate([out[self.exists], own[~self.down], np.zeros_like(own[self.down])])

    def flow(self, capacities: NDArray[np.int32]) -> NDArray[np.int32]:
        """A maximum flow, antisymmetric, by arcs."""
        # Every arc has its reverse, so that the flow has the same sparsity.
        return np.asarray(maximum_flow(self._matrix(capacities), self.size, self.size + 1).flow.data)

    def flow_from_fewer(self, capacities: NDArray[np.int32]) -> NDArray[np.int32]:
        """`flow` for edges of one capacity in both directions, from the terminal of fewer pixels.

        Each round of `maximum_flow` searches from its source: with a quarter of the pixels there it takes 0.6 of the
        time. A flow from the sink on reversed arcs is minus one of the network.
        """
        if 2 * np.count_nonzero(self.down) >= self.size:
            return self.flow(capacities)
        back = maximum_flow(self._matrix(self.reversed(capacities)), self.size + 1, self.size)
        return -np.asarray(back.flow.data)

    def reversed(self, capacities: NDArray[np.int32]) -> NDArray[np.int32]:
        """The capacity of the reverse of each arc: equal for an edge, exchanged for a terminal."""
        order = np.concatenate([np.flatnonzero(~self.down), np.flatnonzero(self.down)])
        own, last = self.starts[1:-2][order] - 1, slice(self.starts[-3], None)
        out = capacities.copy()
        out[own], out[last] = capacities[last], capacities[own]
        return out

    def reached(self, is_open: NDArray[np.bool_], *, sink: bool = False) -> NDArray[np.bool_]:
        """Pixels inside that the source (or the sink) reaches over open arcs."""
        kept = np.concatenate([[0], np.cumsum(is_open)])
        graph = self._matrix(np.ones(kept[-1]), self.heads[is_open], kept[self.starts].astype(np.int32))
        out = np.zeros(self.size + 2, dtype=bool)
        out[breadth_first_order(graph, self.size + sink, return_predecessors=False)] = True
        return out[: self.size]

    def leaving(self, side: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The arcs that leave the source and a set of pixels."""
        whole = np.concatenate([side, [True, False]])
        value: NDArray[np.bool_] = np.repeat(whole, np.diff(self.starts)) & ~whole[self.heads]
        return value

    def _matrix(self, values: NDArray[Any], *structure: NDArray[np.int32]) -> sp.csr_array:
        heads, starts = structure or (self.heads, self.starts)
        return sp.csr_array((values, heads, starts), shape=(self.size + 2, self.size + 2))


# Positions of the arcs of a pixel to its two neighbours in its row, by direction: up and down, left and right.
_SIDES = ((1, 2, 0), (0, 3, 1))


# --- pixels that the leading digits leave open --------------------------------------------------------------------


def _exact_spins(
    grid: GridPotentials, edges: list[_EdgeTerms], spin: NDArray[np.int8], known: NDArray[np.int8], image: int
) -> NDArray[np.int8]:
    """The spins of one image, given those that are ``known`` (not 0), in exact integers."""
    inside = (known == 0)[None]
    unary, unit = _integers(np.where(inside[..., None], grid.unary[image], 0).astype(np.float64))
    signs, known = spin.astype(object)[None], known.astype(object)[None]
    fields, couplings = [(2 * (unary[..., 1] - unary[..., 0]) * signs, unit)], []
    for d, edge in enumerate(edges):
        terms, unit = edge.exact()
        first, second = edge_ends(inside, d)
        near = first | second
        weight = near.astype(np.float64)
        if grid.weights is not None:
            weight *= grid.weights[d][image]
        weight, weight_unit = _integers(weight)
        pull = np.zeros(inside.shape, dtype=object)
        ends = [edge_ends(x, d) for x in (pull, signs, known)]
        for here, there, term in ((0, 1, terms[0]), (1, 0, terms[1])):
            ends[0][here][...] += (term * ends[1][here] + abs(terms[2]) * ends[2][there]) * weight
        fields.append((pull, unit + weight_unit))
        couplings.append((abs(terms[2]) * weight, unit + weight_unit))
    lowest = min(unit for _, unit in (*fields, *couplings))
    field = sum(values * 2 ** (unit - lowest) for values, unit in fields)
    joint = [q * 2 ** (unit - lowest) for q, unit in couplings]
    spins: NDArray[np.int8] = known[0].astype(np.int8)
    spins[inside[0]] = np.where(_exact_source_side(inside, field, joint), -1, 1)
    return spins


def _exact_source_side(inside: NDArray[np.bool_], field: Integers, couplings: list[Integers]) -> NDArray[np.bool_]:
    """Pixels inside that the source reaches under a maximum flow, for capacities of any length.

    Each round pushes a maximum flow of the leading digits of the residual capacities. Its cut bounds the remaining
    flow, and hence the digits that still matter: each round settles 29 bits, less the logarithm of the number of arcs.
    """
    network = _FlowNetwork(inside, field > 0)
    left = network.capacities(np.abs(field), couplings)
    common = int(np.bitwise_or.reduce(left))
    left = left // max(common & -common, 1)
    if int(left.sum()) < 2**61:
        left = left.astype(np.int64)
    every = np.ones(network.size, dtype=bool)
    bound = min(int(left[network.leaving(side)].sum()) for side in (every, ~every))
    while bound > 0:
        # A capacity of twice the bound is as good as any larger one: the arc is never saturated.
        shift = max(0, (2 * bound).bit_length() - _BITS)
        digits = (np.minimum(left, 2 * bound) >> shift).astype(np.int32)
        flow = network.flow(digits)
        left = left - flow.astype(left.dtype) * (1 << shift)
        if shift == 0:
            break
        side = network.reached(digits > flow)
        bound = min(bound, int(left[network.leaving(side)].sum()))
    return network.reached(left > 0)


def _integers(values: Doubles) -> tuple[Integers, int]:
    """Python integers m and the exponent e of values = m 2^e, exactly."""
    mantissa, exponent = np.frexp(values)
    whole, exponent = np.ldexp(mantissa, 53).astype(np.int64), exponent - 53
    used = exponent[whole != 0]
    unit = int(used.min()) if used.size else 0
    return whole.astype(object) * 2 ** np.maximum(exponent - unit, 0).astype(object), unit
