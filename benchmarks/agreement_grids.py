"""Grids of two labels: the best labeling as a minimum cut, with fractional, tied and large capacities.

Every peer gets the same graph: for a pixel an edge from the source or to the sink with the difference of its two
unary potentials, and between neighbours one edge each way with what they lose by differing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

import attnembed as ae
from benchmarks.agreement import Problem, Reason, Reasons

H, WIDTH = 2, 3
Edge = tuple[int, int, float]  # from, to, capacity; pixels from 0, then source and sink
SOURCE, SINK = H * WIDTH, H * WIDTH + 1


def neighbours() -> Iterator[tuple[int, int]]:
    """Pairs of pixels, numbered row by row."""
    for i, j in product(range(H), range(WIDTH)):
        if j + 1 < WIDTH:
            yield i * WIDTH + j, i * WIDTH + j + 1
        if i + 1 < H:
            yield i * WIDTH + j, (i + 1) * WIDTH + j


class Grid:
    """Label 1 is worth ``gain`` more than label 0; neighbours that differ lose ``coupling``."""

    def __init__(self, gain: np.ndarray, coupling: float) -> None:
        self.gain, self.coupling = gain.ravel(), coupling

    def score(self, labels: tuple[int, ...]) -> float:
        inside = sum(g for g, y in zip(self.gain.tolist(), labels) if y)
        return inside - self.coupling * sum(labels[a] != labels[b] for a, b in neighbours())

    def best(self) -> tuple[int, ...]:
        """By enumeration; of equal scores the one with the most ones."""
        return max(product((0, 1), repeat=len(self.gain)), key=lambda labels: (self.score(labels), sum(labels)))

    def edges(self) -> list[Edge]:
        """Label 1 is the side of the source."""
        ends = [(SOURCE, i, g) if g > 0 else (i, SINK, -g) for i, g in enumerate(self.gain.tolist()) if g]
        return ends + [(a, b, self.coupling) for pair in neighbours() for a, b in (pair, pair[::-1])]

    def own(self) -> np.ndarray:
        unary = np.zeros((1, H, WIDTH, 2))
        unary[0, ..., 1] = self.gain.reshape(H, WIDTH)
        return ae.grid_map(unary, -self.coupling * (1 - np.eye(2))).labels[0].ravel()


def networkx(edges: list[Edge]) -> np.ndarray:
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(range(SINK + 1))
    for a, b, capacity in edges:
        graph.add_edge(a, b, capacity=capacity)
    inside = nx.minimum_cut(graph, SOURCE, SINK)[1][0]
    return np.array([int(i in inside) for i in range(SOURCE)])


def igraph(edges: list[Edge]) -> np.ndarray:
    import igraph as ig

    graph = ig.Graph(SINK + 1, [(a, b) for a, b, _ in edges], directed=True)
    inside = graph.mincut(SOURCE, SINK, [capacity for *_, capacity in edges]).partition[0]
    return np.array([int(i in inside) for i in range(SOURCE)])


def pymaxflow(edges: list[Edge], kind: type) -> np.ndarray:
    import maxflow

    graph = maxflow.Graph[kind](SOURCE, len(edges))
    nodes = graph.add_nodes(SOURCE)
    for a, b, capacity in edges:
        if a == SOURCE:
            graph.add_tedge(nodes[b], capacity, 0)
        elif b == SINK:
            graph.add_tedge(nodes[a], 0, capacity)
        elif a < b:
            graph.add_edge(nodes[a], nodes[b], capacity, capacity)
    graph.maxflow()
    return np.array([1 - graph.get_segment(i) for i in nodes])


def ortools(edges: list[Edge]) -> np.ndarray:
    from ortools.graph.python import max_flow

    solver = max_flow.SimpleMaxFlow()
    a, b, capacity = (np.array(column) for column in zip(*edges))
    solver.add_arcs_with_capacity(a, b, capacity)
    solver.solve(SOURCE, SINK)
    inside = solver.get_source_side_min_cut()
    return np.array([int(i in inside) for i in range(SOURCE)])


def scipy(edges: list[Edge]) -> np.ndarray:
    """The pixels that the source still reaches in the residual graph; capacities are integers in this function."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    a, b, capacity = (np.array(column) for column in zip(*edges))
    graph = csr_array((capacity.astype(np.int64), (a, b)), shape=(SINK + 1,) * 2)
    residual = graph - maximum_flow(graph, SOURCE, SINK).flow
    residual.data = np.maximum(residual.data, 0)
    residual.eliminate_zeros()
    inside = set(breadth_first_order(residual, SOURCE, return_predecessors=False).tolist())
    return np.array([int(i in inside) for i in range(SOURCE)])


PEERS: dict[str, Callable[[list[Edge]], np.ndarray]] = {
    "networkx": networkx,
    "igraph": igraph,
    "PyMaxflow, Graph[float]": lambda edges: pymaxflow(edges, float),
    "PyMaxflow, Graph[int]": lambda edges: pymaxflow(edges, int),
    "ortools": ortools,
    "scipy": scipy,
}
GAIN = np.array([[3.0, -1.5, -4.0], [-2.5, 4.0, -3.0]])
WHOLE, BIG = Grid(2 * GAIN, 2.0), Grid(6e9 * GAIN, 6e9)
FRACTION = Grid(np.array([[0.9, -0.4, -0.8], [-0.2, 0.8, -0.9]]), 0.35)
TIED = Grid(np.array([[2.0, -1.0, -1.0], [-1.0, 1.0, 0.0]]), 1.0)


def labelings(name: str, grid: Grid, by: str = "enumeration") -> Problem:
    return Problem(name, np.array(grid.best()), by, {"attnembed": grid.own, **_asked(grid)})


def _asked(grid: Grid) -> dict[str, Callable[[], Any]]:
    return {name: lambda solve=solve: solve(grid.edges()) for name, solve in PEERS.items()}


INTEGERS, FRACTIONS, LARGE = (
    "best labeling, whole capacities",
    "best labeling, fractions",
    "best labeling, up to 2.4e10",
)
TIES = "best labeling among equal ones"

PROBLEMS = [
    labelings(INTEGERS, WHOLE),
    labelings(FRACTIONS, FRACTION),
    labelings(LARGE, BIG),
    labelings(TIES, TIED, "enumeration, the most pixels of label 1"),
]

SMALLEST = Reason(
    "returns the smallest side of the source; attnembed, networkx, igraph and PyMaxflow return the largest",
    "compare the scores of the labelings, or break the tie with a term of your own",
)
REASONS: Reasons = {
    (FRACTIONS, "PyMaxflow, Graph[int]"): Reason(
        "Graph[int] cuts energies to whole numbers without a word, here all to 0", "use Graph[float], or scale first"
    ),
    (FRACTIONS, "ortools"): Reason(
        "SimpleMaxFlow cuts an array of fractional capacities to whole numbers, while it refuses a single one",
        "scale and round the capacities; all of it is in integers",
    ),
    (FRACTIONS, "scipy"): Reason(
        "csgraph.maximum_flow takes integers only; cutting the fractions is the caller's doing, here astype",
        "scale and round the capacities, below 2^31 (the next row)",
    ),
    (LARGE, "scipy"): Reason(
        "csgraph.maximum_flow takes int64 capacities modulo 2^32 without a word", "scale the capacities below 2^31"
    ),
    (TIES, "ortools"): SMALLEST,
    (TIES, "scipy"): Reason(
        "the cut is read off the residual graph from the source, which gives its smallest side",
        "compare the scores of the labelings",
    ),
}
