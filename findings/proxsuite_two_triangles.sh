#!/usr/bin/env bash
# proxsuite 0.8.0: the dense solver reads the lower triangle of H, the sparse one the upper triangle.
# One and the same unsymmetric-as-stored H (one triangle filled) gives x = (0.3, 0.7) in one of them and
# x = (1/3, 2/3), the answer for the diagonal alone, in the other; both report PROXQP_SOLVED.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 proxsuite==0.8.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import scipy.sparse as sp
from proxsuite import proxqp

H = np.array([[4.0, 1.0], [1.0, 2.0]])
g, A, b = np.ones(2), np.ones((1, 2)), np.ones(1)
C, low, high = np.eye(2), np.zeros(2), np.full(2, 0.7)


def solve(matrix, module, wrap):
    qp = module.QP(2, 1, 2)
    qp.settings.eps_abs = 1e-9
    qp.init(wrap(matrix), g, wrap(A), b, wrap(C), low, high)
    qp.solve()
    return qp.results.x.copy(), qp.results.info.status.name


ok = True
for name, matrix in (("lower", np.tril(H)), ("upper", np.triu(H))):
    for kind, module, wrap in (("dense", proxqp.dense, np.asarray), ("sparse", proxqp.sparse, sp.csc_matrix)):
        x, status = solve(matrix, module, wrap)
        print(f"{name} triangle, {kind} solver: x = {x.round(6)}, {status}")
        mirrored = (name, kind) in {("lower", "dense"), ("upper", "sparse")}
        ok &= status == "PROXQP_SOLVED" and np.allclose(x, [0.3, 0.7] if mirrored else [1 / 3, 2 / 3], atol=1e-5)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
