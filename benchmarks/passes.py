"""Loss and all gradients (dense in E, and in p and v) of the attention model, one full batch in float64.

The sequences are drawn from a Zipf distribution. The reference is `textbook`, the formulas of docs/notation.md on
SciPy's matrices. ``bandwidth`` compares with what must be moved at least: E twice, its gradient and the counts twice,
at the speed of a copy of large arrays in the same run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

from benchmarks.runner import Row, compare, progress

Problem = Mapping[str, Any]
Outputs = dict[str, Any]
Call = Callable[[], Outputs]

SIZES = ((1000, 32, 200, 256), (25_000, 256, 20_000, 128), (25_000, 256, 20_000, 1024))
QUICK = ((1000, 32, 200, 256), (2000, 64, 2000, 128))

CANDIDATES = {
    "attnembed": "attnembed_pass",
    "SciPy, textbook": "textbook",
    "numba, fused loops": "numba_fused",
    "torch CSR, hand-written gradients": "torch_csr",
    "torch CSR + torch.compile": "torch_compiled",
    "torch EmbeddingBag, autograd": "torch_embedding_bag",
    "jax jit, autodiff": "jax_jit",
    "jax jit, hand-written gradients": "jax_hand",
}
DENSE = {"torch eager, dense (n, T, d)": "torch_dense"}


def run(quick: bool, threads: tuple[int, ...] = (1, 2)) -> list[Row]:
    """All sizes and thread counts."""
    rows: list[Row] = []
    for size in QUICK if quick else SIZES:
        problem = make_problem(*size)
        outputs = textbook(problem, 1)()
        for count in threads:
            dense = DENSE if size[0] * size[1] * size[3] < 1e8 else {}
            rows += measure(size, problem, outputs, CANDIDATES | dense, count, rounds=5 if quick else 15)
    return rows


def measure(
    size: tuple[int, int, int, int],
    problem: Problem,
    reference: Outputs,
    candidates: Mapping[str, str],
    threads: int,
    rounds: int,
) -> list[Row]:
    n, T, V, d = size
    case = f"n={n}, T={T}, V={V}, d={d}, {problem['data'].size} nonzero counts, {threads} thread{'s' * (threads > 1)}"
    progress(f"passes: {case}")
    targets = {name: f"benchmarks.passes:{function}" for name, function in candidates.items()}
    targets |= {"copy of a large array": "benchmarks.passes:copy"}
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(
            "passes",
            case,
            problem,
            reference,
            targets,
            own="attnembed",
            folder=Path(folder),
            threads=threads,
            rounds=rounds,
            limits={"torch eager, dense (n, T, d)": 3},
        )
    moved = 8 * 3 * V * d + 2 * 12 * problem["data"].size
    copied = next(row for row in rows if row["candidate"].startswith("copy"))
    speed = 2 * COPIED / copied["median"]
    peers = [row["median"] for row in rows if row["candidate"].startswith(("torch", "jax")) and row.get("median")]
    for row in rows:
        if row.get("median") and row is not copied:
            row["bandwidth"] = moved / row["median"] / speed
            row["ratio"] = row["median"] / min(peers) if peers else None
    copied |= {"ratio": None, "error": None, "peak_mib": None, "note": f"{speed / 1e9:.1f} GB/s read and written"}
    needed = 2 * 12 * problem["data"].size + 8 * V * d
    own = rows[0]
    if own.get("peak_mib") and needed > 2**25:  # small ones are lost in what Python itself takes
        own["extra"] = (own["peak_mib"] * 2**20 - 8 * V * d) / needed
        own["note"] = f"beyond E, {own['extra']:.2f} x (counts, transpose, one gradient)"
    return rows


def make_problem(n: int, T: int, V: int, d: int, seed: int = 0) -> dict[str, Any]:
    """Counts in CSR form, labels and parameters; token s has probability proportional to 1/(s+1)."""
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(1 / np.arange(1, V + 1))
    tokens = np.searchsorted(cumulative, cumulative[-1] * rng.random((n, T))).ravel()
    counts = sp.coo_array((np.ones(n * T), (np.repeat(np.arange(n), T), tokens)), shape=(n, V)).tocsr()
    counts.sum_duplicates()
    return {
        "data": counts.data,
        "indices": counts.indices.astype(np.int32),
        "indptr": counts.indptr.astype(np.int32),
        "labels": np.where(np.arange(n) % 2, 1.0, -1.0),
        "E": rng.standard_normal((V, d)) / np.sqrt(d),
        "p": rng.standard_normal(d) / np.sqrt(d),
        "v": rng.choice([-1.0, 1.0], size=d) / np.sqrt(d),
    }


def csr(problem: Problem) -> sp.csr_array:
    shape = (problem["labels"].size, len(problem["E"]))
    return sp.csr_array((problem["data"], problem["indices"], problem["indptr"]), shape=shape)


# --- candidates: prepare(problem, threads) -> call


def attnembed_pass(problem: Problem, threads: int) -> Call:
    from attnembed.attention.data import TokenDataset
    from attnembed.attention.model import AttentionModel
    from attnembed.threads import set_threads

    set_threads(threads)
    data = TokenDataset.from_counts(csr(problem), problem["labels"])
    model = AttentionModel(problem["E"], problem["p"], problem["v"])
    out = np.empty_like(model.E)

    def call() -> Outputs:
        loss, gradients = model.loss_and_grads(data)
        return {"loss": loss, "p": gradients.p, "v": gradients.v, "E": gradients.write_E(out)}

    return call


def textbook(problem: Problem, threads: int) -> Call:
    C, y, E, p, v = csr(problem), problem["labels"], problem["E"], problem["p"], problem["v"]

    def call() -> Outputs:
        u, g = E @ p, E @ v
        e = np.exp(u - u.max())
        Z = C @ e
        f = (C @ (e * g)) / Z
        c = y * expit(-y * f) / y.size
        A = e * (C.T @ (c / Z))
        B = g * A - e * (C.T @ (c * f / Z))
        loss = np.logaddexp(0, -y * f).mean()
        return {"loss": loss, "p": -(E.T @ B), "v": -(E.T @ A), "E": -(np.outer(A, v) + np.outer(B, p))}

    return call


COPIED = 2**28


def copy(problem: Problem, threads: int) -> Call:
    from attnembed.threads import set_threads, share

    set_threads(threads)
    source, target = np.ones(COPIED // 8), np.zeros(COPIED // 8)
    bounds = np.linspace(0, source.size, threads + 1).astype(int)
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    answer = textbook(problem, 1)()  # so that the check passes

    def call() -> Outputs:
        share(lambda part: np.copyto(target[part], source[part]), parts)
        return answer

    return call


def numba_fused(problem: Problem, threads: int) -> Call:
    import numba

    numba.set_num_threads(threads)
    C = csr(problem)
    Ct = C.tocsc()
    y, E, p, v = (problem[name] for name in ("labels", "E", "p", "v"))
    V, d = E.shape
    u, g, r, rf, out = np.empty(V), np.empty(V), np.empty(y.size), np.empty(y.size), np.empty_like(E)
    losses, dp, dv = np.empty(y.size), np.empty((threads, d)), np.empty((threads, d))

    @numba.njit(parallel=True, fastmath=True)
    def forward(E, p, v, u, g):  # type: ignore[no-untyped-def]
        for s in numba.prange(E.shape[0]):
            a = b = 0.0
            for k in range(E.shape[1]):
                a += E[s, k] * p[k]
                b += E[s, k] * v[k]
            u[s], g[s] = a, b

    @numba.njit(parallel=True, fastmath=True)
    def rows(data, indices, indptr, e, eg, y, r, rf, losses):  # type: ignore[no-untyped-def]
        for i in numba.prange(y.size):
            Z = N = 0.0
            for k in range(indptr[i], indptr[i + 1]):
                Z += data[k] * e[indices[k]]
                N += data[k] * eg[indices[k]]
            f = N / Z
            t = np.exp(-abs(f))
            losses[i] = np.log1p(t) + max(-y[i] * f, 0.0)
            c = y[i] * ((t if y[i] * f > 0 else 1.0) / (1 + t)) / y.size
            r[i], rf[i] = c / Z, c * f / Z

    @numba.njit(parallel=True, fastmath=True)
    def columns(data, indices, indptr, e, g, r, rf, E, p, v, out, dp, dv):  # type: ignore[no-untyped-def]
        parts = len(dp)
        V, d = E.shape
        for part in numba.prange(parts):
            dp[part] = 0
            dv[part] = 0
            # Parts with about the same work: nonzeros and rows of E.
            total = indptr[V] + V * d
            for s in range(V):
                if (indptr[s] + s * d) * parts // total != part:
                    continue
                S = Q = 0.0
                for k in range(indptr[s], indptr[s + 1]):
                    S += data[k] * r[indices[k]]
                    Q += data[k] * rf[indices[k]]
                A, B = -e[s] * S, -e[s] * (g[s] * S - Q)
                for k in range(d):
                    dp[part, k] += B * E[s, k]
                    dv[part, k] += A * E[s, k]
                    out[s, k] = A * v[k] + B * p[k]

    def call() -> Outputs:
        forward(E, p, v, u, g)
        e = np.exp(u - u.max())
        rows(C.data, C.indices, C.indptr, e, e * g, y, r, rf, losses)
        columns(Ct.data, Ct.indices, Ct.indptr, e, g, r, rf, E, p, v, out, dp, dv)
        return {"loss": losses.mean(), "p": dp.sum(axis=0), "v": dv.sum(axis=0), "E": out}

    return call


def _torch(problem: Problem, threads: int) -> tuple[Any, ...]:
    import warnings

    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    C = csr(problem)
    Ct = C.T.tocsr()
    matrices = [
        torch.sparse_csr_tensor(
            torch.from_numpy(M.indptr.astype(np.int32)),
            torch.from_numpy(M.indices.astype(np.int32)),
            torch.from_numpy(M.data),
            size=M.shape,
        )
        for M in (C, Ct)
    ]
    return torch, *matrices, *(torch.from_numpy(problem[name]) for name in ("labels", "E", "p", "v"))


def _outputs(loss: Any, p: Any, v: Any, E: Any) -> Outputs:
    return {name: x.detach().numpy() for name, x in zip(("loss", "p", "v", "E"), (loss, p, v, E))}


def torch_csr(problem: Problem, threads: int) -> Call:
    torch, C, Ct, y, E, p, v = _torch(problem, threads)
    out = torch.empty_like(E)

    @torch.no_grad()
    def call() -> Outputs:
        u, g = torch.mv(E, p), torch.mv(E, v)
        e = torch.exp(u - u.max())
        Z, N = (C @ torch.stack([e, e * g], 1)).unbind(1)
        f = N / Z
        r = y * torch.sigmoid(-y * f) / (y.numel() * Z)
        S, Q = (Ct @ torch.stack([r, r * f], 1)).unbind(1)
        A, B = -e * S, -e * (g * S - Q)
        torch.mm(torch.stack([A, B], 1), torch.stack([v, p]), out=out)
        loss = torch.nn.functional.softplus(-y * f, threshold=100).mean()
        return _outputs(loss, torch.mv(E.T, B), torch.mv(E.T, A), out)

    return call


def torch_compiled(problem: Problem, threads: int) -> Call:
    torch, C, Ct, y, E, p, v = _torch(problem, threads)
    out = torch.empty_like(E)

    @torch.compile
    def first(E: Any, p: Any, v: Any) -> tuple[Any, ...]:
        u, g = (E * p).sum(1), (E * v).sum(1)
        e = torch.exp(u - u.max())
        return e, g, torch.stack([e, e * g], 1)

    @torch.compile
    def middle(ZN: Any, y: Any) -> tuple[Any, Any]:
        Z, N = ZN.unbind(1)
        f = N / Z
        r = y * torch.sigmoid(-y * f) / (y.numel() * Z)
        return torch.nn.functional.softplus(-y * f, threshold=100).mean(), torch.stack([r, r * f], 1)

    @torch.compile
    def last(SQ: Any, e: Any, g: Any, E: Any, p: Any, v: Any, out: Any) -> tuple[Any, Any]:
        S, Q = SQ.unbind(1)
        A, B = -e * S, -e * (g * S - Q)
        out.copy_(A[:, None] * v + B[:, None] * p)
        return B @ E, A @ E

    @torch.no_grad()
    def call() -> Outputs:
        e, g, W = first(E, p, v)
        loss, R = middle(C @ W, y)
        dp, dv = last(Ct @ R, e, g, E, p, v, out)
        return _outputs(loss, dp, dv, out)

    return call


def torch_embedding_bag(problem: Problem, threads: int) -> Call:
    torch, _, _, y, E, p, v = _torch(problem, threads)
    columns, offsets = (torch.from_numpy(problem[name].astype(np.int64)) for name in ("indices", "indptr"))
    counts = torch.from_numpy(problem["data"])
    E, p, v = (x.clone().requires_grad_() for x in (E, p, v))

    def call() -> Outputs:
        u, g = E @ p, E @ v
        e = torch.exp(u - u.max().detach())
        table = torch.stack([e, e * g], 1)
        Z, N = torch.nn.functional.embedding_bag(
            columns, table, offsets, mode="sum", per_sample_weights=counts, include_last_offset=True
        ).unbind(1)
        loss = torch.nn.functional.softplus(-y * N / Z, threshold=100).mean()
        dE, dp, dv = torch.autograd.grad(loss, (E, p, v))
        return _outputs(loss, dp, dv, dE)

    return call


def torch_dense(problem: Problem, threads: int) -> Call:
    torch, _, _, y, E, p, v = _torch(problem, threads)
    C = csr(problem)
    tokens = torch.from_numpy(
        np.stack([np.repeat(C.indices[a:b], C.data[a:b].astype(int)) for a, b in pairwise(C.indptr)])
    ).long()
    E, p, v = (x.clone().requires_grad_() for x in (E, p, v))

    def call() -> Outputs:
        X = E[tokens]
        f = (torch.softmax(X @ p, 1)[:, None, :] @ X)[:, 0] @ v
        loss = torch.nn.functional.softplus(-y * f, threshold=100).mean()
        dE, dp, dv = torch.autograd.grad(loss, (E, p, v))
        return _outputs(loss, dp, dv, dE)

    return call


def _jax(problem: Problem, threads: int) -> tuple[Any, ...]:
    import os

    # XLA takes its number of threads from the cores that the process may use.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax

    jax.config.update("jax_enable_x64", True)
    rows = np.repeat(np.arange(problem["labels"].size), np.diff(problem["indptr"])).astype(np.int32)
    arrays = (problem["data"], problem["indices"], rows, *(problem[name] for name in ("labels", "E", "p", "v")))
    return jax, *(jax.numpy.asarray(array) for array in arrays)


def jax_jit(problem: Problem, threads: int) -> Call:
    jax, counts, columns, rows, y, E, p, v = _jax(problem, threads)
    jnp = jax.numpy

    def loss(parameters: Any, counts: Any, columns: Any, rows: Any, y: Any) -> Any:
        E, p, v = parameters
        u, g = E @ p, E @ v
        e = jnp.exp(u - jax.lax.stop_gradient(u.max()))
        W = counts[:, None] * jnp.stack([e, e * g], 1)[columns]
        Z, N = jax.ops.segment_sum(W, rows, y.size, indices_are_sorted=True).T
        return jnp.logaddexp(0, -y * N / Z).mean()

    step = jax.jit(jax.value_and_grad(loss))

    def call() -> Outputs:
        value, (dE, dp, dv) = jax.block_until_ready(step((E, p, v), counts, columns, rows, y))
        return {"loss": value, "p": dp, "v": dv, "E": dE}

    return call


def jax_hand(problem: Problem, threads: int) -> Call:
    jax, counts, columns, rows, y, E, p, v = _jax(problem, threads)
    jnp = jax.numpy

    @jax.jit
    def step(E: Any, p: Any, v: Any, counts: Any, columns: Any, rows: Any, y: Any) -> tuple[Any, ...]:
        u, g = E @ p, E @ v
        e = jnp.exp(u - u.max())
        W = counts[:, None] * jnp.stack([e, e * g], 1)[columns]
        Z, N = jax.ops.segment_sum(W, rows, y.size, indices_are_sorted=True).T
        f = N / Z
        r = y * jax.nn.sigmoid(-y * f) / (y.size * Z)
        R = counts[:, None] * jnp.stack([r, r * f], 1)[rows]
        S, Q = jax.ops.segment_sum(R, columns, e.size).T
        A, B = -e * S, -e * (g * S - Q)
        return jnp.logaddexp(0, -y * f).mean(), B @ E, A @ E, A[:, None] * v + B[:, None] * p

    def call() -> Outputs:
        loss, dp, dv, dE = jax.block_until_ready(step(E, p, v, counts, columns, rows, y))
        return {"loss": loss, "p": dp, "v": dv, "E": dE}

    return call
