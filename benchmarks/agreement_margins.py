"""The least p with D p >= 1, in units from 1e-6 to 1e6, with repeated rows, nearly and exactly without a solution."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

import attnembed as ae
from benchmarks.agreement import Problem, Reason, Reasons

NONE = "no solution"
ROWS = [[2, 1], [2, -1], [5, 0]]  # p = (1/2, 0): the first two are tight, and p is half their mean


def right(rows: list[list[int]], unit: Fraction) -> np.ndarray:
    """p in units of 1/unit, from its KKT conditions in fractions: p = sum of w_k d_k, w >= 0, D p = 1 where w > 0."""
    D = [[Fraction(x) * unit for x in row] for row in rows]
    p = [Fraction(1, 2) / unit, Fraction(0)]
    w = [Fraction(1, 8) / unit**2] * 2
    slack = [sum(a * b for a, b in zip(row, p)) - 1 for row in D]
    combined = [sum(weight * row[i] for weight, row in zip(w, D)) for i in range(2)]
    if min(slack) < 0 or any(slack[:2]) or combined != p:
        raise ArithmeticError("not the solution")
    return np.array([float(x * unit) for x in p])


def own(D: np.ndarray) -> Any:
    try:
        result = ae.max_margin(D)
    except ae.NotSeparableError:
        return NONE
    return result.p if result.success else result.status.value


def quadprog(D: np.ndarray) -> Any:
    import quadprog as solver

    try:
        return solver.solve_qp(np.eye(D.shape[1]), np.zeros(D.shape[1]), D.T.copy(), np.ones(len(D)))[0]
    except ValueError as error:
        return NONE if "inconsistent" in str(error) else str(error)


def daqp(D: np.ndarray) -> Any:
    import daqp as solver

    m, d = D.shape
    kinds = np.zeros(m, dtype=np.int32)
    x, _, flag, _ = solver.solve(np.eye(d), np.zeros(d), D.copy(), np.full(m, 1e30), np.ones(m), kinds)
    return x if flag == 1 else NONE if flag == -1 else f"exit flag {flag}"


def clarabel(D: np.ndarray) -> Any:
    import clarabel as solver
    from scipy.sparse import csc_matrix

    m, d = D.shape
    settings = solver.DefaultSettings()
    settings.verbose = False
    cones = [solver.NonnegativeConeT(m)]
    found = solver.DefaultSolver(
        csc_matrix(np.eye(d)), np.zeros(d), csc_matrix(-D), -np.ones(m), cones, settings
    ).solve()
    status = str(found.status)
    return np.array(found.x) if status == "Solved" else NONE if status == "PrimalInfeasible" else status


def osqp(D: np.ndarray) -> Any:
    import osqp as solver
    from scipy.sparse import csc_matrix

    m, d = D.shape
    problem = solver.OSQP()
    problem.setup(csc_matrix(np.eye(d)), np.zeros(d), csc_matrix(D), np.ones(m), np.full(m, np.inf), verbose=False)
    found = problem.solve(raise_error=False)
    status = found.info.status
    return found.x if status == "solved" else NONE if status == "primal infeasible" else status


def slsqp(D: np.ndarray) -> Any:
    from scipy.optimize import minimize

    constraint = {"type": "ineq", "fun": lambda p: D @ p - 1, "jac": lambda p: D}
    start = np.zeros(D.shape[1])
    found = minimize(lambda p: p @ p / 2, start, jac=lambda p: p, constraints=[constraint], method="SLSQP")
    return found.x if found.success else NONE if "incompatible" in found.message else found.message


SOLVERS: dict[str, Callable[[np.ndarray], Any]] = {
    "attnembed": own,
    "quadprog": quadprog,
    "daqp": daqp,
    "clarabel": clarabel,
    "osqp": osqp,
    "scipy, SLSQP": slsqp,
}


def solved(D: np.ndarray, unit: float) -> dict[str, Callable[[], Any]]:
    """The answers, in units of 1/unit."""

    def answer(solve: Callable[[np.ndarray], Any]) -> Any:
        p = solve(D)
        return p if isinstance(p, str) else np.asarray(p) * unit

    return {name: lambda solve=solve: answer(solve) for name, solve in SOLVERS.items()}


SMALL, ONE, LARGE = "rows in units of 1e-6", "rows in units of 1", "rows in units of 1e6"
TWICE, EXACTLY = "every row three times", "rows (1, 0) and (-1, 0)"
NEARLY = "rows (1, 2^-20) and (-1, 2^-20)"
TILT = 2.0**-20

PROBLEMS = [
    *(
        Problem(name, right(ROWS, Fraction(unit)), "fractions", solved(unit * np.array(ROWS), unit), tolerance=1e-6)
        for name, unit in ((SMALL, 1e-6), (ONE, 1.0), (LARGE, 1e6))
    ),
    Problem(TWICE, right(ROWS, Fraction(1)), "fractions", solved(np.repeat(np.array(ROWS, float), 3, 0), 1.0), 1e-6),
    Problem(
        NEARLY,
        np.array([0.0, 1.0]),
        "symmetry: p = (0, 2^20)",
        solved(np.array([[1.0, TILT], [-1.0, TILT]]), TILT),
        1e-6,
    ),
    Problem(EXACTLY, NONE, "their sum is 0", solved(np.array([[1.0, 0.0], [-1.0, 0.0]]), 1.0)),
]

RESCALE = "divide the rows by their length, or by one number, before the call"
ABSOLUTE = "its test of infeasibility is absolute: rows of length 1e-6 pass for zero rows that cannot reach 1"
LOOSE = Reason("its tolerances are 1e-3 by default (eps_abs, eps_rel)", "set eps_abs and eps_rel to 1e-9")
STUCK = Reason(
    "SLSQP ends with success False and a message about its line search, which does not say what is wrong",
    "rescale; use it for small dense programs of unit scale only",
)
REASONS: Reasons = {
    (SMALL, "daqp"): Reason(ABSOLUTE, RESCALE + "; zero_tol=1e-20 works, too"),
    (SMALL, "clarabel"): Reason(ABSOLUTE, RESCALE + "; or lower tol_infeas_abs and tol_infeas_rel"),
    (SMALL, "osqp"): Reason(ABSOLUTE, RESCALE),
    (SMALL, "scipy, SLSQP"): STUCK,
    (ONE, "osqp"): LOOSE,
    (TWICE, "osqp"): LOOSE,
    (LARGE, "clarabel"): Reason(
        "half the squared length of p is 1e-13 here; a gap of 1e-8 passes for solved, and the relative one is beside 1",
        "lower tol_gap_abs and tol_gap_rel, both; or " + RESCALE,
    ),
    (LARGE, "osqp"): Reason("p is 1e-6 here, below the absolute tolerance of 1e-3 that it accepts as solved", RESCALE),
    (NEARLY, "daqp"): Reason(
        "below 1e-6 what is left of a row beside the others counts as nothing",
        "zero_tol, primal_tol and pivot_tol, each alone, do not mend it: use another solver",
    ),
    (NEARLY, "osqp"): Reason(
        "its test of infeasibility has the tolerance 1e-4 (eps_prim_inf); below, it runs out of iterations",
        "use a solver of active sets, such as quadprog",
    ),
    (NEARLY, "scipy, SLSQP"): Reason(
        "its relative error grows with the squared length of p, 1e12, times the rounding; success is True",
        "check D p >= 1 yourself",
    ),
    (EXACTLY, "scipy, SLSQP"): STUCK,
}
