#!/usr/bin/env bash
# piqp 0.7.0: a CSC constraint matrix with repeated entries (which SciPy reads as sums) is taken as given.
# The identity written as 0.5 + 0.5 at each place ends in PIQP_MAX_ITER_REACHED or in a wrong x, and nothing says why;
# after sum_duplicates() the same matrix is solved at once. clarabel and osqp sum such entries.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 piqp==0.7.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import piqp
import scipy.sparse as sp

P, c = sp.csc_matrix(np.array([[4.0, 1.0], [1.0, 2.0]])), np.ones(2)
A, b = sp.csc_matrix(np.ones((1, 2))), np.ones(1)
twice = sp.csc_matrix((np.full(4, 0.5), np.array([0, 0, 1, 1]), np.array([0, 2, 4])), shape=(2, 2))


def solve(G):
    solver = piqp.SparseSolver()
    solver.setup(P, c, A, b, G, np.zeros(2), np.full(2, 0.7), None, None)
    status = solver.solve()
    return solver.result.x.copy(), status.name


x, status = solve(twice)
print("repeated entries:", x, status, " G @ (1, 2) =", twice @ np.array([1.0, 2.0]))
twice.sum_duplicates()
right, good = solve(twice)
print("summed:", right, good)
ok = not np.allclose(x, right, atol=1e-3) and good == "PIQP_SOLVED" and np.allclose(right, [0.3, 0.7], atol=1e-6)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
