#!/usr/bin/env bash
# piqp 0.7.0 and proxsuite 0.8.0: the solution of a result is a view of the solver's own memory. An x kept from a
# first solve holds the second solution once the same object has been updated and solved again, with no copy in
# between: a list of solutions over a path of parameters is the last solution, repeated. osqp 1.1.3 and scs 3.3.1
# return arrays of their own.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 piqp==0.7.0 proxsuite==0.8.0 osqp==1.1.3 scs==3.3.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import osqp
import piqp
import scipy.sparse as sp
import scs
from proxsuite import proxqp

P, A, b = np.array([[4.0, 1.0], [1.0, 2.0]]), np.ones((1, 2)), np.ones(1)
costs = [np.array([1.0, 1.0]), np.array([-5.0, 3.0]), np.array([0.0, -8.0])]
csc = sp.csc_matrix


def path_piqp():
    solver, out = piqp.DenseSolver(), []
    solver.setup(P, costs[0], A, b, None, None, None, None, None)
    for c in costs:
        solver.update(c=c)
        solver.solve()
        out.append(solver.result.x)
    return out


def path_proxsuite():
    qp, out = proxqp.dense.QP(2, 1, 0), []
    qp.settings.eps_abs = 1e-9
    qp.init(P, costs[0], A, b, None, None, None)
    for c in costs:
        qp.update(g=c)
        qp.solve()
        out.append(qp.results.x)
    return out


def path_osqp():
    solver, out = osqp.OSQP(), []
    solver.setup(csc(P), costs[0], csc(A), b, b, verbose=False, eps_abs=1e-9, eps_rel=1e-9)
    for c in costs:
        solver.update(q=c)
        out.append(solver.solve().x)
    return out


def path_scs():
    data, out = {"P": csc(np.triu(P)), "A": csc(A), "b": b, "c": costs[0]}, []
    solver = scs.SCS(data, {"z": 1}, verbose=False, eps_abs=1e-9, eps_rel=1e-9)
    for c in costs:
        solver.update(c=c)
        out.append(solver.solve()["x"])
    return out


kkt = np.block([[P, A.T], [A, np.zeros((1, 1))]])
right = [np.linalg.solve(kkt, np.r_[-c, b])[:2] for c in costs]
print("right     ", [x.round(4).tolist() for x in right])
ok = True
for path in (path_piqp, path_proxsuite, path_osqp, path_scs):
    kept = path()
    name = path.__name__[5:]
    print(f"{name:10s}", [x.round(4).tolist() for x in kept])
    expected = [right[-1]] * 3 if name in {"piqp", "proxsuite"} else right
    ok &= np.allclose(kept, expected, atol=1e-4)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
