"""Linear chains of the size of the OCR data: gradients and decoding against compiled and idiomatic code.

``run(quick, data)`` returns one row a candidate: ``benchmark``, ``case``, ``candidate``, ``status`` ("ok", "differs",
"missing", or "unchecked" where a peer does not tell its value), ``median``, ``min`` and ``max`` in seconds and
``peak_mib`` (None). A candidate is timed only if its value (log-likelihood, or best score) agrees; the timing goes in
rounds that take every candidate once. Set OMP_NUM_THREADS=1 for figures of one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from attnembed.structured.chain import decode, score
from attnembed.structured.data import ChainDataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import mlp
from attnembed.structured.packing import Packing

K, FEATURES = 26, 128


@dataclass(frozen=True)
class Problem:
    """Sequences one after another, with the weights of a linear chain CRF."""

    inputs: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray
    pairwise: np.ndarray

    @property
    def cuts(self) -> np.ndarray:
        return np.cumsum(self.lengths)[:-1]

    @property
    def unary(self) -> np.ndarray:
        return self.inputs @ self.weights


def run(quick: bool, data: Path | None) -> list[dict[str, Any]]:
    """One epoch over the 6,877 words of the OCR data in the folder ``data``, or over made-up ones of that size."""
    problem = load(data, 700 if quick else None)
    case = f"{len(problem.lengths)} {'OCR words' if data is not None else 'made-up words'}"
    rounds = 3 if quick else 9
    learning: dict[str, Callable[[], float] | None] = {
        "attnembed": attnembed_gradient(problem, np.float64),
        "attnembed float32": attnembed_gradient(problem, np.float32),
        "numba, fused loops": numba_gradient(problem),
        "NumPy logsumexp, padded": logsumexp_gradient(problem),
        "pytorch-crf": pytorch_crf_gradient(problem),
        "CRFsuite": None,
    }
    decoding: dict[str, Callable[[], float] | None] = {
        "attnembed": attnembed_viterbi(problem),
        "numba, fused loops": numba_viterbi(problem),
        "pytorch-crf": pytorch_crf_viterbi(problem),
    }
    rows = compare(f"{case}, log-likelihood and gradient", learning, rounds)
    rows += compare(f"{case}, Viterbi", decoding, rounds)
    crfsuite = time_crfsuite(problem)
    if crfsuite is not None:
        rows[5].update(status="unchecked", median=crfsuite, min=crfsuite, max=crfsuite)
    return rows


def load(folder: Path | None, limit: int | None) -> Problem:
    rng = np.random.default_rng(0)
    if folder is not None and (folder / "ocr_letters.npz").is_file():
        with np.load(folder / "ocr_letters.npz") as archive:
            lengths, labels = archive["lengths"].astype(int)[:limit], archive["labels"].astype(int)
            inputs = archive["pixels"].astype(np.float64)
    else:
        lengths = rng.integers(3, 13, size=limit or 6877)
        inputs = (rng.random((lengths.sum(), FEATURES)) < 0.25).astype(np.float64)
        labels = rng.integers(0, K, size=lengths.sum())
    n = lengths.sum()
    weights = rng.normal(scale=0.3, size=(FEATURES, K))
    return Problem(inputs[:n], labels[:n], lengths, weights, rng.normal(size=(K, K)))


def compare(case: str, candidates: dict[str, Callable[[], float] | None], rounds: int) -> list[dict[str, Any]]:
    """Check every candidate's value against the first one's, then time those that agree, interleaved."""
    rows, valid, expected = [], {}, None
    for name, candidate in candidates.items():
        row = {"benchmark": "chain", "case": case, "candidate": name, "status": "missing"}
        rows.append(row | dict.fromkeys(("median", "min", "max", "peak_mib")))
        if candidate is not None:
            value = candidate()
            expected = value if expected is None else expected
            same = abs(value / expected - 1) < (1e-4 if "float32" in name or "pytorch" in name else 1e-10)
            rows[-1]["status"] = "ok" if same else "differs"
            if same:
                valid[name] = candidate
    seconds: dict[str, list[float]] = {name: [] for name in valid}
    for _ in range(rounds):
        for name, candidate in valid.items():
            start = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - start)
    for row in rows:
        if (name := row["candidate"]) in valid:
            taken = seconds[name]
            row.update(median=statistics.median(taken), min=min(taken), max=max(taken))
    return rows


# --- this package -----------------------------------------------------------------------------------------------


def attnembed_gradient(problem: Problem, dtype: type) -> Callable[[], float]:
    """Features, log-likelihood and all gradients of a ChainCRF over a linear network."""
    inputs = np.split(problem.inputs.astype(dtype), problem.cuts)
    data = ChainDataset(inputs, np.split(problem.labels, problem.cuts))
    network = mlp(FEATURES, (), K, dtype=dtype, rng=0)
    network = network.with_params(network.params | {"0.W": problem.weights.astype(dtype)})
    model = ChainCRF(network, problem.pairwise.astype(dtype))
    return lambda: model.loss_and_grads(data, "nll")[0] * len(data)


def attnembed_viterbi(problem: Problem) -> Callable[[], float]:
    packing = Packing(problem.lengths)
    unary = np.asfortranarray(problem.unary[packing.rows])
    return lambda: score(unary, problem.pairwise, decode(unary, problem.pairwise, packing), packing).sum()


# --- peers ------------------------------------------------------------------------------------------------------


def logsumexp_gradient(problem: Problem) -> Callable[[], float]:
    """The textbook: padded batch, log domain, a mask."""
    n, longest = len(problem.lengths), problem.lengths.max()
    mask = np.arange(longest) < problem.lengths[:, None]
    labels = np.zeros((n, longest), dtype=int)
    labels[mask] = problem.labels
    w = problem.pairwise

    def call() -> float:
        unary = np.zeros((n, longest, K))
        unary[mask] = problem.unary
        forward = np.empty_like(unary)
        forward[:, 0] = unary[:, 0]
        for t in range(1, longest):
            step = logsumexp(forward[:, t - 1, :, None] + w, axis=1) + unary[:, t]
            forward[:, t] = np.where(mask[:, t, None], step, forward[:, t - 1])
        z = logsumexp(forward[:, -1], axis=1)
        backward = np.zeros_like(unary)
        counts = np.zeros((K, K))
        for t in range(longest - 2, -1, -1):
            message = (unary[:, t + 1] + backward[:, t + 1])[:, None]
            step = logsumexp(w + message, axis=2)
            backward[:, t] = np.where(mask[:, t + 1, None], step, backward[:, t + 1])
            joint = np.exp(forward[:, t, :, None] + w + message - z[:, None, None])
            counts += (joint * mask[:, t + 1, None, None]).sum(axis=0)
        node = np.exp(forward + backward - z[:, None, None])
        problem.inputs.T @ node[mask]
        gold = np.take_along_axis(unary, labels[..., None], axis=2)[..., 0].sum()
        gold += (w[labels[:, :-1], labels[:, 1:]] * mask[:, 1:]).sum()
        return float(z.sum() - gold)

    return call


def numba_gradient(problem: Problem) -> Callable[[], float] | None:
    """What fused, compiled code reaches: one sequence at a time, everything in cache."""
    try:
        import numba
    except ImportError:
        return None

    @numba.njit(fastmath=True)
    def epoch(unary, w, labels, starts, lengths):  # type: ignore[no-untyped-def]
        total, (n, k) = 0.0, unary.shape
        gradient, counts = np.empty((n, k)), np.zeros((k, k))
        top_u, top_w = unary.max(), w.max()
        m = np.exp(w - top_w)
        e, forward, scale = np.empty((n, k)), np.empty((n, k)), np.empty(n)
        backward, new = np.empty(k), np.empty(k)
        for s in range(len(starts)):
            start, length = starts[s], lengths[s]
            for i in range(start, start + length):
                for a in range(k):
                    e[i, a] = np.exp(unary[i, a] - top_u)
                if i == start:
                    forward[i] = e[i]
                else:
                    forward[i] = 0.0
                    for b in range(k):
                        f = forward[i - 1, b]
                        for a in range(k):
                            forward[i, a] += f * m[b, a]
                    forward[i] *= e[i]
                    total -= w[labels[i - 1], labels[i]] - top_w
                scale[i] = forward[i].sum()
                forward[i] /= scale[i]
                total += np.log(scale[i]) + top_u - unary[i, labels[i]]
            backward[:] = 1.0
            for i in range(start + length - 1, start - 1, -1):
                gradient[i] = forward[i] * backward
                gradient[i, labels[i]] -= 1.0
                if i > start:
                    backward *= e[i] / scale[i]
                    for b in range(k):
                        f, inner = forward[i - 1, b], 0.0
                        for a in range(k):
                            inner += m[b, a] * backward[a]
                            counts[b, a] += f * backward[a]
                        new[b] = inner
                    backward[:] = new
        return total, gradient, counts * m

    starts = np.cumsum(problem.lengths) - problem.lengths

    def call() -> float:
        value, gradient, _ = epoch(problem.unary, problem.pairwise, problem.labels, starts, problem.lengths)
        problem.inputs.T @ gradient
        return float(value)

    return call


def numba_viterbi(problem: Problem) -> Callable[[], float] | None:
    try:
        import numba
    except ImportError:
        return None

    @numba.njit(fastmath=True)
    def best(unary, w, starts, lengths):  # type: ignore[no-untyped-def]
        n, k = unary.shape
        labels, back = np.empty(n, np.int64), np.empty((n, k), np.int64)
        value, new, transposed = np.empty(k), np.empty(k), w.T.copy()
        for s in range(len(starts)):
            start, length = starts[s], lengths[s]
            value[:] = unary[start]
            for i in range(start + 1, start + length):
                for a in range(k):
                    top, arg = -np.inf, 0
                    for b in range(k):
                        x = value[b] + transposed[a, b]
                        if x > top:
                            top, arg = x, b
                    new[a], back[i, a] = top + unary[i, a], arg
                value[:] = new
            y = np.argmax(value)
            labels[start + length - 1] = y
            for i in range(start + length - 1, start, -1):
                y = back[i, y]
                labels[i - 1] = y
        return labels

    starts, unary = np.cumsum(problem.lengths) - problem.lengths, problem.unary
    inner = np.ones(len(unary), dtype=bool)
    inner[starts] = False
    right = np.flatnonzero(inner)

    def call() -> float:
        labels = best(unary, problem.pairwise, starts, problem.lengths)
        value = unary[np.arange(len(labels)), labels].sum()
        return float(value + problem.pairwise[labels[right - 1], labels[right]].sum())

    return call


def _pytorch_crf(problem: Problem) -> Any:
    """torch, the layer with our weights, padded inputs, labels and mask; None where not installed."""
    try:
        import torch
        from torchcrf import CRF
    except ImportError:
        return None
    layer = CRF(K, batch_first=True).double()
    with torch.no_grad():
        layer.transitions.copy_(torch.from_numpy(problem.pairwise))
        layer.start_transitions.zero_()
        layer.end_transitions.zero_()
    n, longest = len(problem.lengths), int(problem.lengths.max())
    mask = torch.arange(longest) < torch.from_numpy(problem.lengths)[:, None]
    inputs, labels = torch.zeros(n, longest, FEATURES, dtype=torch.float64), torch.zeros(n, longest, dtype=torch.long)
    inputs[mask] = torch.from_numpy(problem.inputs)
    labels[mask] = torch.from_numpy(problem.labels)
    weights = torch.from_numpy(problem.weights).requires_grad_()
    return torch, layer, inputs, labels, mask, weights


def pytorch_crf_gradient(problem: Problem) -> Callable[[], float] | None:
    parts = _pytorch_crf(problem)
    if parts is None:
        return None
    _, layer, inputs, labels, mask, weights = parts

    def call() -> float:
        loss = -layer(inputs @ weights, labels, mask=mask, reduction="sum")
        loss.backward()
        return float(loss)

    return call


def pytorch_crf_viterbi(problem: Problem) -> Callable[[], float] | None:
    parts = _pytorch_crf(problem)
    if parts is None:
        return None
    torch, layer, inputs, _, mask, weights = parts
    packing, unary = Packing(problem.lengths), problem.unary
    with torch.no_grad():
        emissions = inputs @ weights

    def call() -> float:
        with torch.no_grad():
            labels = np.concatenate(layer.decode(emissions, mask=mask))
        return score(unary[packing.rows], problem.pairwise, labels[packing.rows], packing).sum()

    return call


def time_crfsuite(problem: Problem) -> float | None:
    """Seconds per epoch of CRFsuite's L-BFGS: the difference of a long and a short run, per iteration."""
    try:
        import pycrfsuite
    except ImportError:
        return None
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    for x, y in zip(np.split(problem.inputs, problem.cuts), np.split(problem.labels, problem.cuts)):
        trainer.append([{str(f): 1.0 for f in np.flatnonzero(row)} for row in x], [str(label) for label in y])
    seconds = []
    for iterations in (1, 11):
        trainer.set_params({"max_iterations": iterations, "feature.possible_transitions": True, "c2": 1.0})
        start = time.perf_counter()
        trainer.train("")
        seconds.append(time.perf_counter() - start)
    return (seconds[1] - seconds[0]) / 10
