"""Problems of the size drawn by property tests: loss and gradients, one step on E, gradient flow to log t = 60.

At these sizes the arithmetic is a few microseconds, and what is measured is what a call costs. No peer is run: the
question is what a thousand instances cost, and that of each peer is its own fixed cost.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import attnembed as ae
from benchmarks.passes import csr
from benchmarks.runner import Row, compare, progress

SIZES = ((6, 3, 6, 8), (20, 4, 12, 30), (60, 6, 22, 64))  # n, T, V, d
LOG_T = 60.0

TASKS = {  # name: function and the largest relative difference from the reference
    "loss_and_grads": ("loss_and_grads", 1e-10),
    "one_step": ("one_step", 1e-10),
    "flow to log t = 60": ("flow", 1e-5),
}

Problem = dict[str, np.ndarray]
Call = Callable[[], dict[str, Any]]


def run(quick: bool) -> list[Row]:
    rows: list[Row] = []
    for size in SIZES[:1] if quick else SIZES:
        problem = make_problem(*size)
        for task, (function, tolerance) in TASKS.items():
            case = "{}, n={}, T={}, V={}, d={}".format(task, *size)
            progress(f"tiny: {case}")
            with tempfile.TemporaryDirectory() as folder:
                rows += compare(
                    "tiny",
                    case,
                    problem,
                    globals()[function](problem, 1)(),
                    {"attnembed": f"benchmarks.tiny:{function}"},
                    own="attnembed",
                    folder=Path(folder),
                    tolerance=tolerance,
                    rounds=5 if quick else 15,
                )
    return rows


def make_problem(n: int, T: int, V: int, d: int) -> Problem:
    """A balanced data set with dimensions as in property tests, and the model after one step on E."""
    n_irrelevant = max(V - 4, 1)
    data = ae.make_balanced_dataset(n_samples=n, length=T, n_positive=2, n_negative=2, n_irrelevant=n_irrelevant, rng=0)
    start = ae.AttentionModel.random(V, d, cls_scale=0.0, rng=0)
    model = ae.one_step(start, data, 100.0).model
    counts = data.counts
    arrays = {"data": counts.data, "indices": counts.indices, "indptr": counts.indptr, "labels": data.labels}
    return arrays | {"E": model.E, "p": model.p, "v": model.v}


def _parts(problem: Problem) -> tuple[ae.AttentionModel, ae.TokenDataset]:
    data = ae.TokenDataset.from_counts(csr(problem), problem["labels"])
    return ae.AttentionModel(problem["E"], problem["p"], problem["v"]), data


def loss_and_grads(problem: Problem, threads: int) -> Call:
    model, data = _parts(problem)

    def call() -> dict[str, Any]:
        loss, grads = model.loss_and_grads(data)
        return {"loss": loss, "E": grads.E, "p": grads.p, "v": grads.v}

    return call


def one_step(problem: Problem, threads: int) -> Call:
    model, data = _parts(problem)
    return lambda: {"E": ae.one_step(model, data, 100.0).model.E}


def flow(problem: Problem, threads: int) -> Call:
    model, data = _parts(problem)
    return lambda: {"p": ae.gradient_flow(model, data, until=LOG_T).p}
