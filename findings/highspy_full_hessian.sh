#!/usr/bin/env bash
# highspy 1.16.0: a full symmetric Hessian passed in the format kTriangular is not cut to its lower triangle: the
# entries above the diagonal are added to those below, so that every off-diagonal entry counts twice. passHessian
# answers kWarning, run kOk, the status is Optimal. The upper triangle alone passed as kTriangular is mirrored, and
# passed as kSquare it is an error after which run() minimizes the linear cost alone, again "Optimal".
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 highspy==1.16.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import highspy
import numpy as np
import scipy.sparse as sp

P, q, A, b = np.array([[4.0, 1.0], [1.0, 2.0]]), np.array([1.0, 1.5]), np.ones((1, 2)), np.ones(1)
triangular, square = highspy.HessianFormat.kTriangular, highspy.HessianFormat.kSquare


def solve(matrix, form):
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = 2, 1
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = q, np.zeros(2), np.ones(2)
    lp.row_lower_ = lp.row_upper_ = b
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = np.array([0, 1, 2]), np.array([0, 0]), np.ones(2)
    solver.passModel(lp)
    matrix = sp.csc_matrix(matrix)
    hessian = highspy.HighsHessian()
    hessian.dim_, hessian.format_ = 2, form
    hessian.start_, hessian.index_, hessian.value_ = matrix.indptr, matrix.indices, matrix.data
    passed = solver.passHessian(hessian)
    solver.run()
    status = solver.modelStatusToString(solver.getModelStatus())
    return np.array(solver.getSolution().col_value), passed.name, status


def minimum(matrix):
    kkt = np.block([[matrix, A.T], [A, np.zeros((1, 1))]])
    return np.linalg.solve(kkt, np.r_[-q, b])[:2]


doubled = P * np.array([[1.0, 2.0], [2.0, 1.0]])
right = minimum(P)
rows = {
    "full, kSquare": (solve(P, square), right, "kOk"),
    "lower, kTriangular": (solve(np.tril(P), triangular), right, "kOk"),
    "full, kTriangular": (solve(P, triangular), minimum(doubled), "kWarning"),
    "upper, kTriangular": (solve(np.triu(P), triangular), right, "kWarning"),
    "upper, kSquare": (solve(np.triu(P), square), np.array([1.0, 0.0]), "kError"),
}
ok = True
for name, ((x, passed, status), expected, word) in rows.items():
    print(f"{name:19s} x = {x.round(5)}  passHessian {passed}  {status}")
    ok &= np.allclose(x, expected, atol=1e-4) and passed == word and status == "Optimal"
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
