#!/usr/bin/env bash
# osqp 1.1.3, clarabel 0.11.1, scs 3.3.1, piqp 0.7.0 and quadprog 0.1.14 read the upper triangle of the matrix P of a
# quadratic program, cvxopt 1.3.3 the lower one, and none looks at the other: a P of which the wrong triangle is
# filled is solved without its off-diagonal entries, x = (1/3, 2/3) instead of (1/4, 3/4), as solved.
# daqp 0.11.0 has a third answer: the lower triangle alone is the diagonal program, and the upper triangle alone
# counts half, x = (0.3, 0.7), the solution for off-diagonal entries of 1/2 instead of 1.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 osqp==1.1.3 clarabel==0.11.1 scs==3.3.1 piqp==0.7.0 daqp==0.11.0 quadprog==0.1.14 cvxopt==1.3.3 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import clarabel
import cvxopt
import daqp
import numpy as np
import osqp
import piqp
import quadprog
import scipy.sparse as sp
import scs

P = np.array([[4.0, 1.0], [1.0, 2.0]])
q, A, b = np.ones(2), np.ones((1, 2)), np.ones(1)
csc = sp.csc_matrix


def with_osqp(P):
    solver = osqp.OSQP()
    solver.setup(csc(P), q, csc(A), b, b, verbose=False, eps_abs=1e-9, eps_rel=1e-9)
    return solver.solve().x


def with_clarabel(P):
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    return np.array(clarabel.DefaultSolver(csc(P), q, csc(A), b, [clarabel.ZeroConeT(1)], settings).solve().x)


def with_scs(P):
    data = {"P": csc(P), "A": csc(A), "b": b, "c": q}
    return scs.SCS(data, {"z": 1}, verbose=False, eps_abs=1e-9, eps_rel=1e-9).solve()["x"]


def with_piqp(P):
    solver = piqp.DenseSolver()
    solver.setup(P, q, A, b, None, None, None, None, None)
    solver.solve()
    return solver.result.x.copy()


def with_daqp(P):
    return daqp.solve(P, q, A, b, b, np.array([5], dtype=np.int32))[0]


def with_quadprog(P):
    return quadprog.solve_qp(P, -q, A.T, b, 1)[0]


def with_cvxopt(P):
    cvxopt.solvers.options.update(show_progress=False)
    m = cvxopt.matrix
    return np.array(cvxopt.solvers.qp(m(P), m(q), None, None, m(A), m(b))["x"]).ravel()


ok = True
for solve in (with_osqp, with_clarabel, with_scs, with_piqp, with_daqp, with_quadprog, with_cvxopt):
    name = solve.__name__[5:]
    full, lower, upper = solve(P.copy()), solve(np.tril(P)), solve(np.triu(P))
    print(f"{name:9s} full {full.round(5)}  lower {lower.round(5)}  upper {upper.round(5)}")
    if name == "cvxopt":
        lower, upper = upper, lower
    ok &= np.allclose(full, [0.25, 0.75], atol=1e-5)
    ok &= np.allclose(upper, [0.3, 0.7] if name == "daqp" else full, atol=1e-5)
    ok &= np.allclose(lower, [1 / 3, 2 / 3], atol=1e-5)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
