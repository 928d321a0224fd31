"""The convolutional network of the letters and its chain: one batch, likelihood and every gradient, in float32.

attnembed writes the derivatives of network and chain by hand; the peers are the same network under automatic
differentiation, with the same algorithm for the chain. The reference is the textbook in float64: windows as the rows
of a matrix, pooling by a reshape, and a chain in the log domain. One thread: the comparisons of the letters
(`attnembed reproduce ocr`) run a process per core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import logsumexp

from attnembed.structured.data import ChainDataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import lenet
from attnembed.structured.packing import Packing
from benchmarks.runner import Row, compare, progress

Arrays = dict[str, np.ndarray]
Call = Callable[[], Arrays]

K, HEIGHT, WIDTH = 26, 16, 8
WORDS = {"20 words": 20, "200 words": 200}
WEIGHTS = ("1.W", "1.b", "4.W", "4.b", "8.W", "8.b", "10.W", "10.b")

CANDIDATES = {
    "attnembed": "attnembed_gradient",
    "torch eager, autograd": "torch_gradient",
    "torch eager, channels last": "torch_channels_last_gradient",
    "torch.compile, autograd": "torch_compiled_gradient",
    "jax jit, autodiff": "jax_gradient",
    "NumPy, textbook in float32": "textbook_gradient",
}


def run(quick: bool) -> list[Row]:
    """Batches of generated words; only the smaller one if ``quick``."""
    rows: list[Row] = []
    for name, n_words in WORDS.items() if not quick else [*WORDS.items()][:1]:
        problem = load(n_words)
        reference = textbook({key: _double(value) for key, value in problem.items()})
        case = f"LeNet and chain, one batch of {name}, {len(problem['labels'])} letters, 1 thread"
        progress(f"network: {case}")
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(
                "network",
                case,
                problem,
                reference,
                {key: f"benchmarks.network:{function}" for key, function in CANDIDATES.items()},
                own="attnembed",
                folder=Path(folder),
                tolerance=1e-4,
                rounds=3 if quick else 15,
            )
    return rows


def load(n_words: int) -> Arrays:
    """Images (N, 128) in the packed order of the words, so that no candidate has to sort."""
    rng = np.random.default_rng(0)
    lengths = np.sort(rng.integers(3, 13, size=n_words))[::-1]
    n = int(lengths.sum())
    network = lenet(dtype=np.float32, rng=1)
    return {
        "inputs": (rng.random((n, HEIGHT * WIDTH)) < 0.25).astype(np.float32),
        "labels": rng.integers(0, K, size=n),
        "lengths": lengths.copy(),
        "pairwise": rng.normal(size=(K, K)).astype(np.float32),
        **{name: network.params[name] for name in WEIGHTS},
    }


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


# --- attnembed --------------------------------------------------------------------------------------------------------


def attnembed_gradient(problem: Arrays, threads: int) -> Call:
    packing = Packing(problem["lengths"])
    one_after_another = np.argsort(packing.rows)  # the data set packs them again, into the order that they have here
    cuts = np.cumsum(problem["lengths"])[:-1]
    data = ChainDataset(*(np.split(problem[name][one_after_another], cuts) for name in ("inputs", "labels")))
    network = lenet(dtype=np.float32).with_params({name: problem[name] for name in WEIGHTS})
    model = ChainCRF(network, problem["pairwise"])

    def call() -> Arrays:
        loss, grads = model.loss_and_grads(data)
        return {"loss": np.asarray(loss), "pairwise": grads.pairwise, **grads.network}

    return call


# --- the textbook -----------------------------------------------------------------------------------------------------


def textbook(problem: Arrays) -> Arrays:
    """Loss and gradients from the formulas, layer by layer."""
    images = problem["inputs"].reshape(-1, HEIGHT, WIDTH, 1)
    first, windows_1 = _convolve(images, problem["1.W"], problem["1.b"])
    pooled_1, taken_1 = _pool(first)
    active_1 = np.maximum(pooled_1, 0)
    second, windows_2 = _convolve(active_1, problem["4.W"], problem["4.b"])
    pooled_2, taken_2 = _pool(second)
    flat = np.maximum(pooled_2, 0).reshape(len(images), -1)
    hidden = np.maximum(flat @ problem["8.W"] + problem["8.b"], 0)
    loss, up, pairwise = _chain(hidden @ problem["10.W"] + problem["10.b"], problem)

    out = {"loss": loss, "pairwise": pairwise, "10.W": hidden.T @ up, "10.b": up.sum(axis=0)}
    up = (up @ problem["10.W"].T) * (hidden > 0)
    out |= {"8.W": flat.T @ up, "8.b": up.sum(axis=0)}
    up = ((up @ problem["8.W"].T) * (flat > 0)).reshape(pooled_2.shape)
    up = _unpool(up, taken_2)
    out |= {"4.W": _kernel_gradient(windows_2, up, problem["4.W"]), "4.b": up.sum(axis=(0, 1, 2))}
    flipped = problem["4.W"][:, ::-1, ::-1].transpose(3, 1, 2, 0)
    up = _convolve(up, flipped, np.zeros(flipped.shape[3], up.dtype))[0] * (pooled_1 > 0)
    up = _unpool(up, taken_1)
    out |= {"1.W": _kernel_gradient(windows_1, up, problem["1.W"]), "1.b": up.sum(axis=(0, 1, 2))}
    return {name: np.asarray(value) for name, value in out.items()}


def textbook_gradient(problem: Arrays, threads: int) -> Call:
    return lambda: textbook(problem)


def _convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    windows = sliding_window_view(padded, (5, 5), axis=(1, 2)).reshape(-1, x.shape[3] * 25)
    return (windows @ kernel.reshape(-1, kernel.shape[3]) + bias).reshape(*x.shape[:3], -1), windows


def _kernel_gradient(windows: np.ndarray, up: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return (windows.T @ up.reshape(len(windows), -1)).reshape(kernel.shape)


def _pool(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maxima over 2 x 2 blocks, and the position of the first of them in each."""
    n, height, width, c = x.shape
    blocks = x.reshape(n, height // 2, 2, width // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)
    taken = blocks.argmax(axis=1)
    return blocks[np.arange(len(blocks)), taken].reshape(n, height // 2, width // 2, c), taken


def _unpool(up: np.ndarray, taken: np.ndarray) -> np.ndarray:
    n, height, width, c = up.shape
    blocks = np.zeros((up.size, 4), up.dtype)
    blocks[np.arange(up.size), taken] = up.ravel()
    return blocks.reshape(n, height, width, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(n, 2 * height, 2 * width, c)


def _steps(lengths: np.ndarray) -> list[tuple[slice, slice]]:
    """The rows of each time after the first, and those before them."""
    counts = [int(np.sum(lengths > t)) for t in range(int(lengths.max()))]
    starts = [0, *accumulate(counts)]  # whole numbers of Python, for torch.compile
    times = range(1, len(counts))
    return [(slice(starts[t], starts[t + 1]), slice(starts[t - 1], starts[t - 1] + counts[t])) for t in times]


def _chain(unary: np.ndarray, problem: Arrays) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean negative log-likelihood with its gradients in the potentials, in the log domain."""
    labels, lengths, w = problem["labels"], problem["lengths"], problem["pairwise"]
    n, steps = len(lengths), _steps(lengths)
    forward, backward = unary.copy(), np.zeros_like(unary)
    for here, left in steps:
        forward[here] += logsumexp(forward[left][:, :, None] + w, axis=1)
    for here, left in reversed(steps):
        backward[left] = logsumexp(w + (unary[here] + backward[here])[:, None], axis=2)
    log_z = logsumexp(unary[:n] + backward[:n], axis=1)
    sequence = np.concatenate([np.arange(n), *(np.arange(here.stop - here.start) for here, _ in steps)])
    node = np.exp(forward + backward - log_z[sequence, None])
    score = unary[np.arange(len(labels)), labels].sum()
    pairs = np.zeros_like(w)
    for here, left in steps:
        edge = forward[left][:, :, None] + w + (unary[here] + backward[here])[:, None]
        pairs += np.exp(edge - log_z[sequence[here], None, None]).sum(axis=0)
        np.subtract.at(pairs, (labels[left], labels[here]), 1)
        score += w[labels[left], labels[here]].sum()
    node[np.arange(len(labels)), labels] -= 1
    return (log_z.sum() - score) / n, node / n, pairs / n


# --- automatic differentiation ----------------------------------------------------------------------------------------


def torch_gradient(problem: Arrays, threads: int) -> Call:
    return _torch(problem, threads)


def torch_channels_last_gradient(problem: Arrays, threads: int) -> Call:
    return _torch(problem, threads, channels_last=True)


def torch_compiled_gradient(problem: Arrays, threads: int) -> Call:
    return _torch(problem, threads, compiled=True)


def _torch(problem: Arrays, threads: int, *, channels_last: bool = False, compiled: bool = False) -> Call:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    images = torch.from_numpy(problem["inputs"]).reshape(-1, 1, HEIGHT, WIDTH)
    weights = {}
    for name in WEIGHTS:
        value = problem[name].transpose(3, 0, 1, 2) if problem[name].ndim == 4 else problem[name]
        weights[name] = torch.from_numpy(np.ascontiguousarray(value))
    # Channels first, as torch has it: the rows of the first dense layer in that order.
    weights["8.W"] = weights["8.W"].reshape(4, 2, 20, -1).permute(2, 0, 1, 3).reshape(160, -1).contiguous()
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
        weights = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in weights.items()}
    pairwise = torch.from_numpy(problem["pairwise"])
    trained = {**weights, "pairwise": pairwise}
    for value in trained.values():
        value.requires_grad_(True)
    labels, steps, n = torch.from_numpy(problem["labels"]), _steps(problem["lengths"]), len(problem["lengths"])
    left = torch.cat([torch.arange(len(labels))[before] for _, before in steps])
    right = torch.cat([torch.arange(len(labels))[here] for here, _ in steps])

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.max_pool2d(F.conv2d(images, weights["1.W"], weights["1.b"], padding=2), 2))
        x = F.relu(F.max_pool2d(F.conv2d(x, weights["4.W"], weights["4.b"], padding=2), 2))
        x = F.relu(x.reshape(len(images), -1) @ weights["8.W"] + weights["8.b"])
        unary = x @ weights["10.W"] + weights["10.b"]
        # The exp domain, rescaled at every step.
        top, top_w = unary.max(), pairwise.max()
        factor, transition = torch.exp(unary - top), torch.exp(pairwise - top_w)
        message = factor[:n]
        total = message.sum(dim=1)
        log_z = torch.log(total).sum()
        message = message / total[:, None]
        for here, before in steps:
            message = (message[: before.stop - before.start] @ transition) * factor[here]
            total = message.sum(dim=1)
            log_z = log_z + torch.log(total).sum()
            message = message / total[:, None]
        log_z = log_z + len(labels) * top + len(left) * top_w
        score = unary.gather(1, labels[:, None]).sum() + pairwise[labels[left], labels[right]].sum()
        return (log_z - score) / n

    function = torch.compile(loss_of) if compiled else loss_of

    def call() -> Arrays:
        for value in trained.values():
            value.grad = None
        loss = function(images)
        loss.backward()
        found = {name: value.grad for name, value in trained.items()}
        out = {"loss": loss.detach().numpy()}
        for name, gradient in found.items():
            array = gradient.numpy()
            if name == "8.W":
                array = array.reshape(20, 4, 2, -1).transpose(1, 2, 0, 3).reshape(160, -1)
            out[name] = array.transpose(1, 2, 3, 0) if array.ndim == 4 else array
        return out

    return call


def jax_gradient(problem: Arrays, threads: int) -> Call:
    import os

    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    import jax
    import jax.numpy as jnp

    images = jnp.asarray(problem["inputs"]).reshape(-1, HEIGHT, WIDTH, 1)
    trained = {name: jnp.asarray(problem[name]) for name in (*WEIGHTS, "pairwise")}
    labels, steps, n = jnp.asarray(problem["labels"]), _steps(problem["lengths"]), len(problem["lengths"])
    left = np.concatenate([np.arange(len(labels))[before] for _, before in steps])
    right = np.concatenate([np.arange(len(labels))[here] for here, _ in steps])

    def convolve(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        kernel = kernel.transpose(1, 2, 0, 3)
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def loss_of(p: dict[str, jax.Array]) -> jax.Array:
        x = jax.nn.relu(convolve(images, p["1.W"], p["1.b"]))
        x = jax.nn.relu(convolve(x, p["4.W"], p["4.b"]))
        x = jax.nn.relu(x.reshape(len(images), -1) @ p["8.W"] + p["8.b"])
        unary, w = x @ p["10.W"] + p["10.b"], p["pairwise"]
        top, top_w = unary.max(), w.max()
        factor, transition = jnp.exp(unary - top), jnp.exp(w - top_w)
        message, log_z = factor[:n], 0.0
        for here, before in [(None, None), *steps]:
            if here is not None:
                message = (message[: before.stop - before.start] @ transition) * factor[here]
            total = message.sum(axis=1)
            log_z = log_z + jnp.log(total).sum()
            message = message / total[:, None]
        log_z = log_z + len(labels) * top + len(left) * top_w
        score = jnp.take_along_axis(unary, labels[:, None], axis=1).sum() + w[labels[left], labels[right]].sum()
        return (log_z - score) / n

    function = jax.jit(jax.value_and_grad(loss_of))

    def call() -> Arrays:
        loss, grads = function(trained)
        return {"loss": np.asarray(loss), **{name: np.asarray(value) for name, value in grads.items()}}

    return call
