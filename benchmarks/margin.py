"""The max-margin direction of m differences of token embeddings, or the proof that there is none.

Rows are E_s - E_j for m random pairs of a selected and another token, with Gaussian embeddings in d dimensions. In the
"clear" case the selected tokens are ahead along one axis, and few rows support the solution; in the "tight" case they
are not, and most dimensions are used up; in the "infeasible" case there are too many tokens for any direction to select
them.

``run(quick)`` returns one row a candidate, as `benchmarks.runner.compare` makes them. ``error`` is ||p - p*|| / ||p*||,
where the KKT residual of p*, computed from scratch, is below 1e-12; an infeasible program has to be recognised. Solvers
that would take minutes are "not run".
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runner import Row, compare, progress

Problem = Mapping[str, Any]
Outputs = dict[str, Any]
Call = Callable[[], Outputs]

SIZES = ((2000, 256), (20_000, 512), (100_000, 1024))
QUICK = ((500, 64), (2000, 256))
TOKENS = {"clear": 6, "tight": 2, "infeasible": 10}  # in units of d
LEAD = {"clear": 0.6, "tight": 0.0, "infeasible": 0.0}

CANDIDATES = {
    "attnembed": "attnembed_dense",
    "attnembed, from pairs": "attnembed_pairs",
    "daqp": "daqp",
    "quadprog": "quadprog",
    "Clarabel": "clarabel",
    "LinearSVC, tolerance 1e-6": "linear_svc",
    "nnls on all rows": "nnls_on_all_rows",
}
# The most entries of D for which a solver is run: above, it would take minutes.
LARGEST = {"quadprog": 2e7, "Clarabel": 2e6, "nnls on all rows": 2e7}
SLOW = ("daqp", "quadprog", "Clarabel", "LinearSVC, tolerance 1e-6", "nnls on all rows")


def run(quick: bool, threads: int = 1) -> list[Row]:
    """All sizes and cases."""
    rows: list[Row] = []
    for m, d in QUICK if quick else SIZES:
        for kind in TOKENS:
            rows += measure(kind, m, d, threads, rounds=3 if quick else 7)
    return rows


def measure(kind: str, m: int, d: int, threads: int, rounds: int) -> list[Row]:
    case = f"{kind}, m={m}, d={d}"
    progress(f"margin: {case}")
    problem = make_problem(kind, m, d)
    run_these, other_rows = {}, []
    for name, function in CANDIDATES.items():
        row: Row = {"benchmark": "margin", "case": case, "candidate": name, "threads": threads, "status": "not run"}
        if kind == "infeasible" and function == "linear_svc":
            other_rows.append(row | {"note": "it cannot tell"})
        elif m * d > LARGEST.get(name, np.inf):
            other_rows.append(row | {"note": "it would take minutes"})
        else:
            run_these[name] = f"benchmarks.margin:{function}"
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(
            "margin",
            case,
            problem,
            reference(kind, problem),
            run_these,
            own="attnembed",
            folder=Path(folder),
            threads=threads,
            tolerance=1e-4,
            rounds=rounds,
            limits=dict.fromkeys(SLOW, 1) if m * d > 5e6 else {"Clarabel": 1},
        )
    return rows + other_rows


def make_problem(kind: str, m: int, d: int, seed: int = 0) -> Problem:
    """Embeddings E (V, d) and pairs (m, 2), all different; the first tenth of the tokens are the selected ones."""
    rng = np.random.default_rng(seed)
    V = TOKENS[kind] * d
    selected = max(V // 10, m // (V - V // 10) + 1)
    E = rng.standard_normal((V, d)) / np.sqrt(d)
    E[:selected, 0] += LEAD[kind]
    winner, loser = np.divmod(rng.choice(selected * (V - selected), m, replace=False), V - selected)
    return {"E": E, "pairs": np.column_stack([winner, loser + selected])}


def reference(kind: str, problem: Problem) -> Outputs:
    """The minimiser p, whose KKT residual is computed from scratch, or that the program is infeasible."""
    from attnembed.margins import kkt_residual, max_margin

    if kind == "infeasible":
        return {"infeasible": np.ones(1)}
    D = differences(problem)
    result = max_margin(D)
    residual = kkt_residual(D, result.p, result.dual)
    if not residual < 1e-12:
        raise RuntimeError(f"the reference has a KKT residual of {residual:.1e}")
    return {"p": result.p}


def differences(problem: Problem) -> np.ndarray:
    return problem["E"][problem["pairs"][:, 0]] - problem["E"][problem["pairs"][:, 1]]


def outputs(p: np.ndarray | None) -> Outputs:
    """The compared result: p, or that there is none."""
    return {"p": np.zeros(1), "infeasible": np.ones(1)} if p is None else {"p": p, "infeasible": np.zeros(1)}


# --- candidates: prepare(problem, threads) -> call


def attnembed_dense(problem: Problem, threads: int) -> Call:
    from attnembed.margins import max_margin

    return certified(max_margin, differences(problem))


def attnembed_pairs(problem: Problem, threads: int) -> Call:
    from attnembed.margins import max_margin_pairs

    return certified(max_margin_pairs, problem["E"], problem["pairs"])


def certified(solve: Callable[..., Any], *arguments: np.ndarray) -> Call:
    from attnembed.errors import NotSeparableError

    def call() -> Outputs:
        try:
            result = solve(*arguments)
        except NotSeparableError:
            return outputs(None)
        if not result.success:
            raise RuntimeError(result.message)
        return outputs(result.p)

    return call


def daqp(problem: Problem, threads: int) -> Call:
    import daqp

    D = differences(problem)
    m, d = D.shape
    identity, zero, upper, lower = np.eye(d), np.zeros(d), np.full(m, 1e30), np.ones(m)
    sense = np.zeros(m, dtype=np.int32)

    def call() -> Outputs:
        p, _, flag, _ = daqp.solve(identity, zero, D, upper, lower, sense)
        return outputs(None if flag == -1 else np.asarray(p))

    return call


def quadprog(problem: Problem, threads: int) -> Call:
    import quadprog

    columns = np.asfortranarray(differences(problem).T)
    d, m = columns.shape
    identity, zero, lower = np.eye(d), np.zeros(d), np.ones(m)

    def call() -> Outputs:
        try:
            return outputs(quadprog.solve_qp(identity, zero, columns, lower)[0])
        except ValueError as error:
            if "inconsistent" not in str(error):
                raise
            return outputs(None)

    return call


def clarabel(problem: Problem, threads: int) -> Call:
    import clarabel
    from scipy import sparse

    D = differences(problem)
    m, d = D.shape
    quadratic, rows = sparse.identity(d, format="csc"), sparse.csc_matrix(-D)
    settings = clarabel.DefaultSettings()
    settings.verbose = False

    def call() -> Outputs:
        cones = [clarabel.NonnegativeConeT(m)]
        solution = clarabel.DefaultSolver(quadratic, np.zeros(d), rows, -np.ones(m), cones, settings).solve()
        return outputs(None if "Infeasible" in str(solution.status) else np.array(solution.x))

    return call


def linear_svc(problem: Problem, threads: int) -> Call:
    """Rows of random signs as the two classes, without an intercept; a large C makes the margin effectively hard."""
    from sklearn.svm import LinearSVC

    signs = np.where(np.arange(len(problem["pairs"])) % 2, 1.0, -1.0)
    X = differences(problem) * signs[:, None]
    model = LinearSVC(loss="hinge", C=1e4, fit_intercept=False, tol=1e-6, max_iter=20_000, random_state=0)

    def call() -> Outputs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not converge: its error tells
            return outputs(model.fit(X, signs).coef_[0])

    return call


def nnls_on_all_rows(problem: Problem, threads: int) -> Call:
    """The same dual as attnembed's, without constraint generation."""
    from scipy.optimize import nnls

    D = differences(problem)
    system = np.column_stack([D, np.ones(len(D))]).T
    target = np.eye(D.shape[1] + 1)[-1]

    def call() -> Outputs:
        u, residual = nnls(system, target, maxiter=10 * len(D))
        return outputs(None if residual < 1e-12 else D.T @ u / residual**2)

    return call
