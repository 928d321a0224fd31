"""Long chains: log Z, marginals, gradients, Viterbi and sampling of one or a few chains of 1e3 to 1e6 positions.

Compiled loops are the peers: numba, forward and backward in the exp domain, and the routines of hmmlearn, which take
a transition matrix of probabilities (the same chain with its rows normalised is timed; its answer is not compared).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import attnembed as ae
from benchmarks.runner import Row, compare, progress

Problem = dict[str, np.ndarray]
Call = Callable[[], dict[str, Any]]

SIZES = (
    (1, 1_000, 5),
    (1, 10_000, 5),
    (1, 100_000, 5),
    (1, 1_000_000, 5),
    (4, 10_000, 5),
    (50, 1_000, 5),
    (1, 10_000, 20),
)
QUICK = ((1, 10_000, 5), (4, 1_000, 5))

TASKS = {
    "log Z": {"attnembed": "log_partition", "numba, fused loop": "numba_log_partition", "hmmlearn": "hmmlearn_forward"},
    "marginals": {"attnembed": "marginals", "numba, fused loop": "numba_marginals"},
    "loss and gradients": {"attnembed": "objective"},
    "Viterbi": {"attnembed": "viterbi", "numba, fused loop": "numba_viterbi", "hmmlearn": "hmmlearn_viterbi"},
    "sampling": {"attnembed": "sample"},
}


def run(quick: bool) -> list[Row]:
    rows: list[Row] = []
    for n, length, k in QUICK if quick else SIZES:
        problem = make_problem(n, length, k)
        for task, candidates in TASKS.items():
            case = f"{task}, n={n}, T={length}, K={k}"
            progress(f"long: {case}")
            slow = n * length > 200_000  # the plain recursions take half a minute
            with tempfile.TemporaryDirectory() as folder:
                rows += compare(
                    "long",
                    case,
                    problem,
                    REFERENCES[task](problem),
                    {name: f"benchmarks.long:{function}" for name, function in candidates.items()},
                    own="attnembed",
                    folder=Path(folder),
                    rounds=1 if slow else 3,
                )
    return rows


def make_problem(n: int, length: int, k: int) -> Problem:
    rng = np.random.default_rng(0)
    unary, pairwise = rng.normal(size=(n, length, k)), rng.normal(size=(k, k))
    return {"unary": unary, "pairwise": pairwise, "labels": rng.integers(0, k, size=(n, length))}


# --- this package -----------------------------------------------------------------------------------------------


def log_partition(problem: Problem, threads: int) -> Call:
    unary, pairwise = problem["unary"], problem["pairwise"]
    return lambda: {"value": ae.chain_log_partition(unary, pairwise)}


def marginals(problem: Problem, threads: int) -> Call:
    unary, pairwise = problem["unary"], problem["pairwise"]
    return lambda: {"node": ae.chain_marginals(unary, pairwise).node}


def objective(problem: Problem, threads: int) -> Call:
    """The negative log-likelihood and its gradients, pair counts among them."""
    from attnembed.structured.objectives import chain_objective

    def call() -> dict[str, Any]:
        found = chain_objective("nll", problem["unary"], problem["pairwise"], problem["labels"])
        return {"unary": found.unary, "pairwise": found.pairwise}

    return call


def viterbi(problem: Problem, threads: int) -> Call:
    unary, pairwise = problem["unary"], problem["pairwise"]
    return lambda: {"labels": ae.chain_viterbi(unary, pairwise)}


def sample(problem: Problem, threads: int) -> Call:
    unary, pairwise = problem["unary"], problem["pairwise"]
    return lambda: {"labels": ae.chain_sample(unary, pairwise, rng=0)}


# --- peers ------------------------------------------------------------------------------------------------------


def _textbook(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Log-partition (n,) and node marginals by the recursion over time, all chains at once, exp domain, scaled."""
    unary, transition = problem["unary"], np.exp(problem["pairwise"])
    top = unary.max(axis=2)
    factor = np.exp(unary - top[:, :, None])
    forward, scale = np.empty_like(factor), np.empty_like(top)
    for t in range(unary.shape[1]):
        message = factor[:, t] if t == 0 else factor[:, t] * (forward[:, t - 1] @ transition)
        scale[:, t] = message.sum(axis=1)
        forward[:, t] = message / scale[:, t, None]
    backward = np.ones_like(factor)
    for t in range(unary.shape[1] - 1, 0, -1):
        message = (factor[:, t] * backward[:, t]) @ transition.T
        backward[:, t - 1] = message / message.sum(axis=1, keepdims=True)
    node = forward * backward
    return np.log(scale).sum(axis=1) + top.sum(axis=1), node / node.sum(axis=2, keepdims=True)


def _best(problem: Problem) -> dict[str, np.ndarray]:
    unary, pairwise = problem["unary"], problem["pairwise"]
    n, length, _ = unary.shape
    value, back = unary[:, 0], np.empty(unary.shape, dtype=np.int8)
    for t in range(1, length):
        paths = value[:, :, None] + pairwise
        back[:, t] = paths.argmax(axis=1)
        value = paths.max(axis=1) + unary[:, t]
        value -= value.max(axis=1, keepdims=True)
    labels = np.empty((n, length), dtype=np.int64)
    labels[:, -1] = value.argmax(axis=1)
    for t in range(length - 1, 0, -1):
        labels[:, t - 1] = back[np.arange(n), t, labels[:, t]]
    return {"labels": labels}


def _gradients(problem: Problem) -> dict[str, np.ndarray]:
    n = len(problem["unary"])
    _, node = _textbook(problem)
    labels = problem["labels"]
    np.put_along_axis(node, labels[..., None], np.take_along_axis(node, labels[..., None], 2) - 1, axis=2)
    return {"unary": node / n}


REFERENCES: dict[str, Callable[[Problem], dict[str, np.ndarray]]] = {
    "log Z": lambda problem: {"value": _textbook(problem)[0]},
    "marginals": lambda problem: {"node": _textbook(problem)[1]},
    "loss and gradients": _gradients,
    "Viterbi": _best,
    "sampling": lambda problem: sample(problem, 1)(),
}


def _numba_sums(problem: Problem, backwards: bool) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    import numba

    @numba.njit
    def loop(unary, pairwise, backwards):  # type: ignore[no-untyped-def]
        n, length, k = unary.shape
        transition, log_z = np.exp(pairwise), np.zeros(n)
        node, scale, after, next_after = np.empty(unary.shape), np.empty(length), np.ones(k), np.empty(k)
        factor = np.empty((length, k))
        for i in range(n):
            for t in range(length):
                top = unary[i, t].max()
                for b in range(k):
                    factor[t, b] = np.exp(unary[i, t, b] - top)
                    total = 1.0
                    if t > 0:
                        total = 0.0
                        for a in range(k):
                            total += node[i, t - 1, a] * transition[a, b]
                    node[i, t, b] = total * factor[t, b]
                scale[t] = node[i, t].sum()
                node[i, t] /= scale[t]
                log_z[i] += np.log(scale[t]) + top
            if not backwards:
                continue
            after[:] = 1.0
            for t in range(length - 1, -1, -1):
                node[i, t] *= after
                if t > 0:
                    for a in range(k):
                        total = 0.0
                        for b in range(k):
                            total += transition[a, b] * factor[t, b] * after[b]
                        next_after[a] = total / scale[t]
                    after[:] = next_after
        return log_z, node

    return lambda: loop(problem["unary"], problem["pairwise"], backwards)


def numba_log_partition(problem: Problem, threads: int) -> Call:
    call = _numba_sums(problem, backwards=False)
    return lambda: {"value": call()[0]}


def numba_marginals(problem: Problem, threads: int) -> Call:
    call = _numba_sums(problem, backwards=True)
    return lambda: {"node": call()[1]}


def numba_viterbi(problem: Problem, threads: int) -> Call:
    import numba

    @numba.njit
    def loop(unary, pairwise):  # type: ignore[no-untyped-def]
        n, length, k = unary.shape
        labels, back = np.empty((n, length), np.int64), np.empty((length, k), np.uint8)
        value, new = np.empty(k), np.empty(k)
        for i in range(n):
            value[:] = unary[i, 0]
            for t in range(1, length):
                for b in range(k):
                    best, place = value[0] + pairwise[0, b], 0
                    for a in range(1, k):
                        if value[a] + pairwise[a, b] > best:
                            best, place = value[a] + pairwise[a, b], a
                    new[b], back[t, b] = best + unary[i, t, b], place
                value[:] = new - new.max()
            labels[i, -1] = value.argmax()
            for t in range(length - 1, 0, -1):
                labels[i, t - 1] = back[t, labels[i, t]]
        return labels

    return lambda: {"labels": loop(problem["unary"], problem["pairwise"])}


def _hidden_markov(problem: Problem) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    k = len(problem["pairwise"])
    transition = np.exp(problem["pairwise"])
    return np.full(k, 1 / k), transition / transition.sum(axis=1, keepdims=True), list(problem["unary"])


def hmmlearn_forward(problem: Problem, threads: int) -> Call:
    """hmmlearn's forward pass on a chain of the same size; the value shown is not its own."""
    from hmmlearn import _hmmc

    start, transition, chains = _hidden_markov(problem)
    value = _textbook(problem)[0]

    def call() -> dict[str, Any]:
        for unary in chains:
            _hmmc.forward_scaling(start, transition, np.exp(unary - unary.max(axis=1, keepdims=True)))
        return {"value": value}

    return call


def hmmlearn_viterbi(problem: Problem, threads: int) -> Call:
    """hmmlearn's Viterbi on a chain of the same size; the labels shown are not its own."""
    from hmmlearn import _hmmc

    start, transition, chains = _hidden_markov(problem)
    labels = _best(problem)["labels"]

    def call() -> dict[str, Any]:
        for unary in chains:
            _hmmc.viterbi(start, transition, unary)
        return {"labels": labels}

    return call
