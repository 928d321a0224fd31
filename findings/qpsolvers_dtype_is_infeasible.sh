#!/usr/bin/env bash
# qpsolvers 4.13.0 with quadprog 0.1.14: a feasible program in float32 or in integers comes back as None, which is
# what qpsolvers returns for an infeasible program. quadprog raises ValueError "Buffer dtype mismatch", and the
# wrapper turns every ValueError into "no solution found" with a warning at most.
# With daqp, ecos and scs integers raise; osqp, clarabel, piqp and proxqp solve the same arrays.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 qpsolvers==4.13.0 quadprog==0.1.14 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys
import warnings

import numpy as np
import qpsolvers

P, q = np.array([[4, 1], [1, 2]]), np.array([1, 1])
A, b = np.array([[1, 1]]), np.array([1])
found = {}
for dtype in ("float64", "float32", "int64"):
    arrays = [array.astype(dtype) for array in (P, q)]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found[dtype] = qpsolvers.solve_qp(
            *arrays, A=A.astype(dtype), b=b.astype(dtype), solver="quadprog"
        )
    print(dtype, "->", found[dtype], [str(w.message) for w in seen])
infeasible = qpsolvers.solve_qp(
    P.astype(float), q.astype(float), np.array([[1.0, 1.0]]), np.zeros(1), A.astype(float), np.ones(1), solver="quadprog"
)
print("an infeasible program ->", infeasible)
ok = np.allclose(found["float64"], [0.25, 0.75]) and found["float32"] is None and found["int64"] is None
ok = ok and infeasible is None
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
