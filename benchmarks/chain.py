"""Linear chains of the size of the OCR data: gradients and decoding against compiled and idiomatic code.

Learning: features, log-likelihood and all gradients of a linear chain CRF, one epoch, from one set of weights.
Decoding: the best labels from given unary potentials. References are the textbook on a padded batch, which is timed as
well. CRFsuite takes no weights from outside and shows no gradient: it is checked at the weights that it has found, its
log-likelihood and its labels against those of attnembed there, and one evaluation of its L-BFGS is timed, before the
others.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from attnembed.structured.chain import decode
from attnembed.structured.data import ChainDataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import mlp
from attnembed.structured.packing import Packing
from benchmarks.runner import Row, compare, progress

Problem = dict[str, np.ndarray]  # inputs (N, F) and labels (N,), one sequence after another; lengths; weights; pairwise
Call = Callable[[], dict[str, np.ndarray]]

K, FEATURES = 26, 128
N_WORDS = 6877

LEARNING = {
    "attnembed": "attnembed_gradient",
    "numba, fused loops": "numba_gradient",
    "torch, same algorithm": "torch_gradient",
    "torch.compile, same algorithm": "torch_compiled_gradient",
    "NumPy, log domain": "log_domain_gradient",
    "pytorch-crf": "pytorch_crf_gradient",
}
DECODING = {
    "attnembed": "attnembed_viterbi",
    "numba, fused loops": "numba_viterbi",
    "NumPy, padded": "padded_viterbi",
    "pytorch-crf": "pytorch_crf_viterbi",
}


def run(quick: bool, data: Path | None) -> list[Row]:
    """The 6,877 words of the OCR data in the folder ``data``, or generated ones of that size; a tenth if ``quick``."""
    problem = load(data, N_WORDS // 10 if quick else N_WORDS)
    words = "OCR words" if data is not None else "made-up words"
    size = f"{len(problem['lengths'])} {words}, {len(problem['labels'])} letters, 1 thread"
    rows: list[Row] = []
    crfsuite = time_crfsuite(problem, rounds=1 if quick else 3)
    for task, candidates, reference in (
        ("log-likelihood and gradients", LEARNING, log_domain_gradient(problem, 1)()),
        ("Viterbi", DECODING, padded_viterbi(problem, 1)()),
    ):
        case = f"{task}, {size}"
        progress(f"chain: {case}")
        with tempfile.TemporaryDirectory() as folder:
            found = compare(
                "chain",
                case,
                problem,
                reference,
                {name: f"benchmarks.chain:{function}" for name, function in candidates.items()},
                own="attnembed",
                folder=Path(folder),
                rounds=3 if quick else 9,
                limits={"pytorch-crf": 3, "NumPy, log domain": 3},
            )
        found.append({"benchmark": "chain", "case": case, "candidate": "CRFsuite", "threads": 1, **crfsuite[task]})
        rows += found
    with tempfile.TemporaryDirectory() as folder:
        case = f"log-likelihood and gradients in float32, {size}"
        own = {"attnembed": "benchmarks.chain:attnembed_gradient_float32"}
        reference = log_domain_gradient(problem, 1)()
        rows += compare("chain", case, problem, reference, own, own="attnembed", folder=Path(folder), tolerance=1e-5)
    return rows


def load(folder: Path | None, limit: int) -> Problem:
    rng = np.random.default_rng(0)
    if folder is not None and (folder / "ocr_letters.npz").is_file():
        with np.load(folder / "ocr_letters.npz") as archive:
            lengths, labels = archive["lengths"].astype(np.int64)[:limit], archive["labels"].astype(np.int64)
            inputs = archive["pixels"].reshape(-1, FEATURES).astype(np.float64)
    else:
        lengths = rng.integers(3, 13, size=limit)
        inputs = (rng.random((lengths.sum(), FEATURES)) < 0.25).astype(np.float64)
        labels = rng.integers(0, K, size=lengths.sum())
    n = lengths.sum()
    weights, pairwise = rng.normal(scale=0.3, size=(FEATURES, K)), rng.normal(size=(K, K))
    return {
        "inputs": inputs[:n],
        "labels": labels[:n],
        "lengths": lengths,
        "weights": weights,
        "pairwise": pairwise,
        "unary": inputs[:n] @ weights,
    }


def _gradients(value: float, problem: Problem, residual: np.ndarray, pairs: np.ndarray) -> dict[str, np.ndarray]:
    """The gradients in the weights from those in the potentials."""
    return {"value": np.asarray(value), "weights": problem["inputs"].T @ residual, "pairwise": pairs}


def _starts(problem: Problem) -> np.ndarray:
    return np.cumsum(problem["lengths"]) - problem["lengths"]


def _sequences(problem: Problem) -> tuple[list[np.ndarray], list[np.ndarray]]:
    cuts = _starts(problem)[1:]
    return np.split(problem["inputs"], cuts), np.split(problem["labels"], cuts)


# --- this package -----------------------------------------------------------------------------------------------


def attnembed_gradient(problem: Problem, threads: int, dtype: Any = np.float64) -> Call:
    """The public call on a ChainCRF over a linear network."""
    inputs, labels = _sequences(problem)
    data = ChainDataset([x.astype(dtype) for x in inputs], labels)
    network = mlp(FEATURES, (), problem["weights"].shape[1], dtype=dtype, rng=0)
    network = network.with_params(network.params | {"0.W": problem["weights"].astype(dtype)})
    model, n = ChainCRF(network, problem["pairwise"].astype(dtype)), len(data)

    def call() -> dict[str, np.ndarray]:
        value, grads = model.loss_and_grads(data, "nll")
        return {
            "value": np.asarray(value * n),
            "weights": grads.network["0.W"] * n,
            "pairwise": grads.pairwise * n,
        }

    return call


def attnembed_gradient_float32(problem: Problem, threads: int) -> Call:
    return attnembed_gradient(problem, threads, np.float32)


def attnembed_viterbi(problem: Problem, threads: int) -> Call:
    """Decoding in the layout in which the network of a ChainCRF leaves its output."""
    packing, pairwise = Packing(problem["lengths"]), problem["pairwise"]
    unary, out = np.asfortranarray(problem["unary"][packing.rows]), np.empty_like(problem["labels"])

    def call() -> dict[str, np.ndarray]:
        out[packing.rows] = decode(unary, pairwise, packing)
        return {"labels": out}

    return call


# --- peers ------------------------------------------------------------------------------------------------------


def _mask(problem: Problem) -> np.ndarray:
    return np.arange(problem["lengths"].max()) < problem["lengths"][:, None]


def log_domain_gradient(problem: Problem, threads: int) -> Call:
    """The textbook version: padded batch, log domain, mask."""
    mask, w = _mask(problem), problem["pairwise"]
    n, longest = mask.shape
    labels = np.zeros((n, longest), dtype=int)
    labels[mask] = problem["labels"]

    def call() -> dict[str, np.ndarray]:
        unary = np.zeros((n, longest, K))
        unary[mask] = problem["inputs"] @ problem["weights"]
        forward = np.empty_like(unary)
        forward[:, 0] = unary[:, 0]
        for t in range(1, longest):
            step = logsumexp(forward[:, t - 1, :, None] + w, axis=1) + unary[:, t]
            forward[:, t] = np.where(mask[:, t, None], step, forward[:, t - 1])
        z = logsumexp(forward[:, -1], axis=1)
        backward = np.zeros_like(unary)
        pairs = np.zeros((K, K))
        for t in range(longest - 2, -1, -1):
            message = (unary[:, t + 1] + backward[:, t + 1])[:, None]
            step = logsumexp(w + message, axis=2)
            backward[:, t] = np.where(mask[:, t + 1, None], step, backward[:, t + 1])
            joint = np.exp(forward[:, t, :, None] + w + message - z[:, None, None])
            pairs += (joint * mask[:, t + 1, None, None]).sum(axis=0)
        residual = np.exp(forward + backward - z[:, None, None])[mask]
        residual[np.arange(len(residual)), problem["labels"]] -= 1
        inner = mask[:, 1:]
        np.subtract.at(pairs, (labels[:, :-1][inner], labels[:, 1:][inner]), 1)
        gold = np.take_along_axis(unary, labels[..., None], axis=2)[..., 0].sum()
        gold += (w[labels[:, :-1], labels[:, 1:]] * inner).sum()
        return _gradients(z.sum() - gold, problem, residual, pairs)

    return call


def padded_viterbi(problem: Problem, threads: int) -> Call:
    """The textbook version: padded batch, back pointers."""
    mask, w = _mask(problem), problem["pairwise"]
    n, longest = mask.shape

    def call() -> dict[str, np.ndarray]:
        unary = np.zeros((n, longest, K))
        unary[mask] = problem["unary"]
        value, back = unary[:, 0], np.empty((n, longest, K), dtype=int)
        for t in range(1, longest):
            paths = value[:, :, None] + w
            back[:, t] = paths.argmax(axis=1)
            value = np.where(mask[:, t, None], paths.max(axis=1) + unary[:, t], value)
        labels = np.zeros((n, longest), dtype=int)
        labels[:, -1] = value.argmax(axis=1)
        for t in range(longest - 1, 0, -1):
            before = back[np.arange(n), t, labels[:, t]]
            labels[:, t - 1] = np.where(mask[:, t], before, labels[:, t])
        return {"labels": labels[mask]}

    return call


def numba_gradient(problem: Problem, threads: int) -> Call:
    """Fused, compiled code as a limit: one sequence at a time, everything in cache."""
    import numba

    @numba.njit(fastmath=True)
    def epoch(unary, w, labels, starts, lengths):  # type: ignore[no-untyped-def]
        total, (n, k) = 0.0, unary.shape
        gradient, counts, gold = np.empty((n, k)), np.zeros((k, k)), np.zeros((k, k))
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
                    gold[labels[i - 1], labels[i]] += 1.0
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
        return total, gradient, counts * m - gold

    starts = _starts(problem)

    def call() -> dict[str, np.ndarray]:
        unary = problem["inputs"] @ problem["weights"]
        value, residual, pairs = epoch(unary, problem["pairwise"], problem["labels"], starts, problem["lengths"])
        return _gradients(value, problem, residual, pairs)

    return call


def numba_viterbi(problem: Problem, threads: int) -> Call:
    import numba

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

    starts = _starts(problem)
    return lambda: {"labels": best(problem["unary"], problem["pairwise"], starts, problem["lengths"])}


def torch_gradient(problem: Problem, threads: int, compiled: bool = False) -> Call:
    """The recursion of `attnembed.structured.chain` on its packed layout, with its hand-written gradients."""
    import torch

    torch.set_num_threads(threads)
    packing = Packing(problem["lengths"])
    rows = packing.rows
    x, y = torch.from_numpy(problem["inputs"][rows]), torch.from_numpy(problem["labels"][rows])
    weights, w = torch.from_numpy(problem["weights"]), torch.from_numpy(problem["pairwise"])
    o = packing.offsets.tolist()
    n, index, left_rows = len(packing), torch.arange(len(rows)), torch.from_numpy(packing.left)
    pairs = y[left_rows] * K + y[torch.from_numpy(packing.right)]
    counts = torch.bincount(pairs, minlength=K * K).reshape(K, K).to(w.dtype)

    def epoch(x: Any, weights: Any, w: Any) -> tuple[Any, ...]:
        unary = x @ weights
        top, top_w = unary.max(), w.max()
        factor, transition = torch.exp(unary - top), torch.exp(w - top_w)
        messages, scales = [factor[:n]], []
        for t in range(1, len(o) - 1):
            scales.append(messages[-1].sum(1, keepdim=True))
            messages[-1] = messages[-1] / scales[-1]
            messages.append((messages[-1][: o[t + 1] - o[t]] @ transition) * factor[o[t] : o[t + 1]])
        scales.append(messages[-1].sum(1, keepdim=True))
        messages[-1] = messages[-1] / scales[-1]
        forward, scale = torch.cat(messages), torch.cat(scales)
        scaled, behind, after = factor / scale, [torch.ones_like(messages[-1])], []
        for t in range(len(o) - 2, 0, -1):
            after.append(scaled[o[t] : o[t + 1]] * behind[-1])
            ended = factor.new_ones(o[t] - o[t - 1] - len(after[-1]), K)
            behind.append(torch.cat([after[-1] @ transition.T, ended]))
        node = torch.cat(behind[::-1]) * forward
        expected = forward[left_rows].T @ torch.cat(after[::-1]) * transition
        gold = unary[index, y].sum() + (w * counts).sum()
        value = torch.log(scale).sum() + len(unary) * top + (len(unary) - n) * top_w - gold
        node[index, y] -= 1
        return value, x.T @ node, expected - counts

    work = torch.compile(epoch) if compiled else epoch

    @torch.no_grad()
    def call() -> dict[str, np.ndarray]:
        return dict(zip(("value", "weights", "pairwise"), (out.numpy() for out in work(x, weights, w))))

    return call


def torch_compiled_gradient(problem: Problem, threads: int) -> Call:
    return torch_gradient(problem, threads, compiled=True)


def _pytorch_crf(problem: Problem, threads: int) -> tuple[Any, ...]:
    """torch, the layer with our weights and without start and end potentials, padded inputs, labels and mask."""
    import torch
    from torchcrf import CRF

    torch.set_num_threads(threads)
    layer, mask = CRF(K, batch_first=True).double(), torch.from_numpy(_mask(problem))
    with torch.no_grad():
        layer.transitions.copy_(torch.from_numpy(problem["pairwise"]))
        layer.start_transitions.zero_()
        layer.end_transitions.zero_()
    inputs = torch.zeros(*mask.shape, FEATURES, dtype=torch.float64)
    labels = torch.zeros(*mask.shape, dtype=torch.long)
    inputs[mask], labels[mask] = torch.from_numpy(problem["inputs"]), torch.from_numpy(problem["labels"])
    return torch, layer, inputs, labels, mask, torch.from_numpy(problem["weights"]).requires_grad_()


def pytorch_crf_gradient(problem: Problem, threads: int) -> Call:
    torch, layer, inputs, labels, mask, weights = _pytorch_crf(problem, threads)

    def call() -> dict[str, np.ndarray]:
        loss = -layer(inputs @ weights, labels, mask=mask, reduction="sum")
        d_weights, d_pairwise = torch.autograd.grad(loss, (weights, layer.transitions))
        return {"value": loss.detach().numpy(), "weights": d_weights.numpy(), "pairwise": d_pairwise.numpy()}

    return call


def pytorch_crf_viterbi(problem: Problem, threads: int) -> Call:
    torch, layer, inputs, _, mask, weights = _pytorch_crf(problem, threads)
    with torch.no_grad():
        emissions = inputs @ weights

    @torch.no_grad()
    def call() -> dict[str, np.ndarray]:
        return {"labels": np.concatenate(layer.decode(emissions, mask=mask))}

    return call


def time_crfsuite(problem: Problem, rounds: int) -> dict[str, Row]:
    """CRFsuite's time for one evaluation of its objective and gradient, and for decoding, by case."""
    try:
        import pycrfsuite
    except ImportError:
        missing = {"status": "missing", "note": "python-crfsuite is not installed"}
        return {"log-likelihood and gradients": missing, "Viterbi": missing}
    inputs, labels = _sequences(problem)
    sequences = [pycrfsuite.ItemSequence([{f"x{f}": row[f] for f in np.flatnonzero(row)} for row in x]) for x in inputs]
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    for sequence, y in zip(sequences, labels):
        trainer.append(sequence, [f"y{label}" for label in y])
    trainer.set_params(
        {"feature.possible_transitions": True, "feature.possible_states": True, "c2": 1.0, "max_iterations": 15}
    )
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "model.crfsuite"))
        trainer.train(file)
        # By its own clock, in ms; the first iteration makes one evaluation more than it says.
        seconds = [step["time"] / step["linesearch_trials"] for step in trainer.logparser.iterations[1:]]
        decoding = []
        tagger = pycrfsuite.Tagger()
        tagger.open(file)
        for _ in range(rounds):
            start = time.perf_counter()
            found = [tagger.tag(sequence) for sequence in sequences]
            decoding.append(time.perf_counter() - start)
        weights, pairwise = np.zeros((FEATURES, K)), np.zeros((K, K))
        info = tagger.info()
    for (feature, label), value in info.state_features.items():
        weights[int(feature[1:]), int(label[1:])] = value
    for (left, right), value in info.transitions.items():
        pairwise[int(left[1:]), int(right[1:])] = value
    # It knows only the labels that it has seen.
    seen, labels_seen = np.unique(problem["labels"], return_inverse=True)
    weights, pairwise = weights[:, seen], pairwise[np.ix_(seen, seen)]
    there = problem | {"labels": labels_seen, "weights": weights, "pairwise": pairwise}
    there["unary"] = problem["inputs"] @ weights
    value = float(attnembed_gradient(there, 1)()["value"]) + float(np.sum(weights**2) + np.sum(pairwise**2))
    theirs = trainer.logparser.last_iteration["loss"]
    ours = seen[attnembed_viterbi(there, 1)()["labels"]]
    # The weights are given to six decimals: the value agrees to about that, and near ties may go either way.
    wrong = float(np.mean(ours != [int(label[1:]) for word in found for label in word]))
    out = {}
    for task, error, limit, times in (
        ("log-likelihood and gradients", abs(theirs / value - 1), 1e-5, seconds),
        ("Viterbi", wrong, 1e-3, decoding),
    ):
        row: Row = {"status": "ok" if error <= limit else "differs", "error": error}
        if error <= limit:
            row |= {"median": statistics.median(times), "min": min(times), "max": max(times), "rounds": len(times)}
        out[task] = row | {"note": "at its own weights, outside the rounds"}
    progress(f"  CRFsuite: {out}")
    return out
