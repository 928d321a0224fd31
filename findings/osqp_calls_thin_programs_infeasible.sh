#!/usr/bin/env bash
# osqp 1.1.3: two rows that are nearly opposite, (1, 2^-20) and (-1, 2^-20), have a solution, p = (0, 2^20), and are
# called "primal infeasible". Lowering eps_prim_inf from 1e-4 to 1e-12 gives "maximum iterations reached" after 4000
# and after 100000 iterations, no solution. quadprog 0.1.14 solves them to 1e-9.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 osqp==1.1.3 quadprog==0.1.14 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import osqp
import quadprog
from scipy.sparse import csc_matrix

t = 2.0**-20
D = np.array([[1.0, t], [-1.0, t]])


def solve(**options):
    solver = osqp.OSQP()
    solver.setup(csc_matrix(np.eye(2)), np.zeros(2), csc_matrix(D), np.ones(2), np.full(2, np.inf), verbose=False, **options)
    return solver.solve(raise_error=False).info.status


seen = [solve(), solve(eps_prim_inf=1e-12), solve(eps_prim_inf=1e-12, max_iter=100_000)]
p = quadprog.solve_qp(np.eye(2), np.zeros(2), D.T.copy(), np.ones(2))[0]
print("osqp by default, with eps_prim_inf=1e-12, and with 100000 iterations:", seen, " quadprog:", p)
ok = seen == ["primal infeasible", "maximum iterations reached", "maximum iterations reached"]
ok &= bool(np.allclose(p, [0.0, 1 / t], rtol=1e-9, atol=1e-3))
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
