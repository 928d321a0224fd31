"""Gradient flow on p to t = 1e8, against general integrators on the same force in the same clock, s = log(1 + t).

The start is the model after one large step on E. Each candidate runs with the loosest of its tolerances 1e-4, 1e-5, ...
whose end point is within 1e-6 (relative) of that of SciPy's DOP853 at rtol 1e-11, so that times are compared at
equal error. Compilation is not counted. Peers get the force (and, by autodiff, its Jacobian) as dense matrices where
that is faster. The last row of a case is attnembed at t = 1e300.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from attnembed import one_step
from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.passes import TokenPasses
from benchmarks.passes import Call, Problem, csr
from benchmarks.runner import Row, compare, progress

# n, T, V, d and the step on E: large steps lead into the basin of selection, where the flow is stiff; after the small
# one attention stays spread and explicit methods do well.
SIZES = ((1000, 32, 200, 256, 1e4), (1000, 32, 2000, 512, 1e4), (1000, 32, 200, 256, 300.0))
QUICK = ((100, 8, 60, 64, 3000.0),)
PATIENCE = 150  # seconds for the search of a tolerance, which takes several runs
END = float(np.log1p(1e8))
TOLERANCE = 1e-6

CANDIDATES = {
    "attnembed": "attnembed_flow",
    "SciPy BDF, force of attnembed": "scipy_bdf",
    "diffrax Kvaerno5": "diffrax_kvaerno5",
    "diffrax Tsit5": "diffrax_tsit5",
    "torchdiffeq dopri5": "torchdiffeq_dopri5",
}


def run(quick: bool, threads: tuple[int, ...] = (1,)) -> list[Row]:
    """Every size at every number of threads; torchdiffeq, which takes minutes, only at the last one.

    One thread by default: the arrays are below the size from which a second one helps.
    """
    rows: list[Row] = []
    for size in QUICK if quick else SIZES:
        problem = make_problem(*size)
        case = "n={}, T={}, V={}, d={}, step on E {:g}, to t = 1e8".format(*size)
        progress(f"flow: {case}: reference")
        problem["end"] = explicit_reference(problem)
        reference = {"p": problem["end"]}
        far = {"p": _own(problem, 1e-7, 300 * np.log(10))}
        for count in threads:
            text = f"{case}, {count} thread{'s' * (count > 1)}"
            progress(f"flow: {text}")
            with tempfile.TemporaryDirectory() as folder:
                found = compare(
                    "flow",
                    text,
                    problem,
                    reference,
                    {
                        name: f"benchmarks.flow:{function}"
                        for name, function in CANDIDATES.items()
                        if count == threads[-1] or not name.startswith("torchdiffeq")
                    },
                    own="attnembed",
                    folder=Path(folder),
                    threads=count,
                    tolerance=TOLERANCE,
                    rounds=3,
                    limits={"torchdiffeq dopri5": 1, "diffrax Tsit5": 1},
                    patience=PATIENCE,
                )
                last = compare(
                    "flow",
                    text,
                    problem,
                    far,
                    {"attnembed to t = 1e300": "benchmarks.flow:attnembed_far"},
                    own="attnembed",
                    folder=Path(folder),
                    threads=count,
                    tolerance=1e-3,
                    rounds=3,
                )
            if "median" in last[0] and "median" in found[0]:
                last[0]["note"] = f"{last[0]['median'] / found[0]['median']:.1f} x the time to t = 1e8"
            peers = [row["median"] for row in found[2:] if "median" in row]  # integrators with forces of their own
            for row in found:
                row["ratio"] = row["median"] / min(peers) if peers and "median" in row else None
            rows += found + last
    return rows


def make_problem(n: int, T: int, V: int, d: int, step_size: float) -> dict[str, Any]:
    """A balanced data set and the model after one step on E from p = 0."""
    data = make_balanced_dataset(n_samples=n, length=T, n_positive=5, n_negative=5, n_irrelevant=V - 10, rng=0)
    model = one_step(AttentionModel.random(V, d, cls_scale=0.0, rng=0), data, step_size).model
    arrays = {"data": data.counts.data, "indices": data.counts.indices, "indptr": data.counts.indptr}
    return arrays | {"labels": data.labels, "E": model.E, "p": model.p, "v": model.v}


def explicit_reference(problem: Problem) -> np.ndarray:
    """The end point from an explicit method of order 8 at rtol 1e-11."""
    rate = own_rate(problem)
    return solve_ivp(rate, (0.0, END), problem["p"], method="DOP853", rtol=1e-11, atol=1e-12, t_eval=[END]).y[:, -1]


def own_rate(problem: Problem) -> Callable[[float, np.ndarray], np.ndarray]:
    E, v = problem["E"], problem["v"]
    passes, g = TokenPasses(TokenDataset.from_counts(csr(problem), problem["labels"])), E @ v

    def rate(s: float, p: np.ndarray) -> np.ndarray:
        sums = passes.sums(E @ p, g)
        return np.exp(s + sums.log_scale) * (E.T @ sums.scaled_B)

    return rate


def loosest(problem: Problem, solve: Callable[[float], np.ndarray]) -> Call:
    """The run with the loosest sufficiently accurate tolerance."""
    reference = problem["end"]
    for tolerance in 10.0 ** -np.arange(4, 11):
        if np.linalg.norm(solve(tolerance) - reference) <= TOLERANCE * np.linalg.norm(reference):
            break
    return lambda: {"p": solve(tolerance)}


# --- candidates: prepare(problem, threads) -> call


def _own(problem: Problem, tolerance: float, until: float) -> np.ndarray:
    data = TokenDataset.from_counts(csr(problem), problem["labels"])
    model = AttentionModel(problem["E"], problem["p"], problem["v"])
    return gradient_flow(model, data, until=until, rtol=tolerance, atol=tolerance / 100).p


def attnembed_flow(problem: Problem, threads: int) -> Call:
    return loosest(problem, lambda tolerance: _own(problem, tolerance, float(np.log(1e8))))


def attnembed_far(problem: Problem, threads: int) -> Call:
    return lambda: {"p": _own(problem, 1e-6, 300 * np.log(10))}


def scipy_bdf(problem: Problem, threads: int) -> Call:
    rate = own_rate(problem)

    def solve(tolerance: float) -> np.ndarray:
        options: dict[str, Any] = {"method": "BDF", "rtol": tolerance, "atol": tolerance / 100, "t_eval": [END]}
        return solve_ivp(rate, (0.0, END), problem["p"], **options).y[:, -1]

    return loosest(problem, solve)


def _coordinates(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings in coordinates of their span, (V, r), and the map (r, d) back, as attnembed itself uses them."""
    E = problem["E"]
    if len(E) >= E.shape[1]:
        return E, np.eye(E.shape[1])
    basis, R = np.linalg.qr(E.T)
    return R.T, basis.T


def _diffrax(problem: Problem, threads: int, solver_name: str) -> Call:
    import os

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import diffrax
    import jax

    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    E, back = _coordinates(problem)
    C = csr(problem)
    values = E @ (back @ problem["v"])
    counts = jnp.asarray(C.toarray())  # a dense product is faster than JAX's sparse one at these sizes
    offset, g, y, E = (jnp.asarray(x) for x in (problem["E"] @ problem["p"], values, problem["labels"], E))

    def rate(s: Any, x: Any, _: Any) -> Any:
        u = offset + E @ x
        e = jnp.exp(u - u.max())
        Z, N = (counts @ jnp.stack([e, e * g], 1)).T
        f = N / Z
        r = y * jax.nn.sigmoid(-y * f) / (y.size * Z)
        S, Q = (counts.T @ jnp.stack([r, r * f], 1)).T
        return jnp.exp(s) * (E.T @ (e * (g * S - Q)))

    @jax.jit
    def integrate(tolerance: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(rate),
            getattr(diffrax, solver_name)(),
            t0=0.0,
            t1=END,
            dt0=1e-2,
            y0=jnp.zeros(E.shape[1]),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance / 100),
            max_steps=200_000,
        ).ys[-1]

    return loosest(problem, lambda tolerance: problem["p"] + np.asarray(integrate(float(tolerance))) @ back)


def diffrax_kvaerno5(problem: Problem, threads: int) -> Call:
    return _diffrax(problem, threads, "Kvaerno5")


def diffrax_tsit5(problem: Problem, threads: int) -> Call:
    return _diffrax(problem, threads, "Tsit5")


def torchdiffeq_dopri5(problem: Problem, threads: int) -> Call:
    import torch
    import torchdiffeq

    torch.set_num_threads(threads)
    counts = torch.from_numpy(csr(problem).toarray())
    y, E, p, v = (torch.from_numpy(problem[name]) for name in ("labels", "E", "p", "v"))
    g = E @ v

    def rate(s: Any, x: Any) -> Any:
        u = E @ x
        e = torch.exp(u - u.max())
        Z, N = (counts @ torch.stack([e, e * g], 1)).unbind(1)
        f = N / Z
        r = y * torch.sigmoid(-y * f) / (y.numel() * Z)
        S, Q = (counts.T @ torch.stack([r, r * f], 1)).unbind(1)
        return torch.exp(s) * (E.T @ (e * (g * S - Q)))

    times = torch.tensor([0.0, END], dtype=torch.float64)

    @torch.no_grad()
    def solve(tolerance: float) -> np.ndarray:
        return torchdiffeq.odeint(rate, p, times, rtol=tolerance, atol=tolerance / 100)[-1].numpy()

    return loosest(problem, solve)
