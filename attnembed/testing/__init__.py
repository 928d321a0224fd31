"""Tools for your own statements: random problems that shrink to readable ones, and a search for counterexamples.

`datasets`, `models`, `problems`, `potentials`, `networks`, `chains` and `grids` are Hypothesis strategies, as are the
parts `sequences`, `grid_potentials`, `reals` and `generators`. Half of the examples are generic, half deliberately
degenerate (ties, repeated and zero rows, one dimension). `falsify` looks for an instance that violates a statement and
returns the smallest one found as a script. Requires hypothesis: install attnembed[test].
"""

from __future__ import annotations

try:
    import hypothesis  # noqa: F401
except ImportError as error:
    raise ImportError(
        "attnembed.testing needs the package hypothesis; install it with: python -m pip install 'attnembed[test]'"
    ) from error

from attnembed.testing.attention import datasets, models, problems, sequences
from attnembed.testing.numbers import generators, reals
from attnembed.testing.problem import Problem
from attnembed.testing.search import Counterexample, falsify
from attnembed.testing.structured import chains, grid_potentials, grids, networks, potentials

__all__ = [
    "Counterexample",
    "Problem",
    "chains",
    "datasets",
    "falsify",
    "generators",
    "grid_potentials",
    "grids",
    "models",
    "networks",
    "potentials",
    "problems",
    "reals",
    "sequences",
]
