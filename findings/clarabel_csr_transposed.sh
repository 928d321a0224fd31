#!/usr/bin/env bash
# clarabel 0.11.1 reads the arrays of a CSR matrix as if they were those of a CSC matrix.
# A square CSR constraint matrix is therefore transposed without a word: A x = b becomes A' x = b, status Solved,
# x = (4, -7) where (2, 1) is right. scs, osqp, ecos and piqp convert such a matrix.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 clarabel==0.11.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import clarabel
import numpy as np
import scipy.sparse as sp

P, q = sp.csc_matrix(np.eye(2)), np.zeros(2)
A, b = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([4.0, 1.0])
settings = clarabel.DefaultSettings()
settings.verbose = False


def solve(matrix, rhs):
    solver = clarabel.DefaultSolver(P, q, matrix, rhs, [clarabel.ZeroConeT(len(rhs))], settings)
    result = solver.solve()
    return np.array(result.x), str(result.status)


right, _ = solve(sp.csc_matrix(A), b)
wrong, status = solve(sp.csr_matrix(A), b)
print("A as CSC:", right, " A as CSR:", wrong, status)
print("A x of the second:", A @ wrong, " A' x:", A.T @ wrong, " b:", b)
ok = np.allclose(right, [2, 1], atol=1e-6) and np.allclose(A.T @ wrong, b, atol=1e-6) and status == "Solved"
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
