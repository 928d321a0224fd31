#!/usr/bin/env bash
# scipy 1.17.1 sparse.linalg.norm(A, axis=1) squares integers in their own type: rows of int32 counts (50000 once)
# have the norm nan, a uint8 row of a single 16 has the norm 0. norm(A), ord=1 and numpy.linalg.norm are right, and
# scipy 1.18.1 is.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import norm

np.seterr(all="ignore")
ok = True
for dtype, rows, wrong in (("int32", [[50000, 3], [0, 60000]], [np.nan, np.nan]), ("uint8", [[16, 0], [3, 4]], [0, 5])):
    A = np.array(rows, dtype=dtype)
    sparse, dense = norm(csr_array(A), axis=1), np.linalg.norm(A, axis=1)
    whole, dense_whole = float(norm(csr_array(A))), float(np.linalg.norm(A))
    print(dtype, "norm(A, axis=1)", sparse, " numpy", dense, " norm(A)", whole)
    ok &= np.array_equal(sparse, wrong, equal_nan=True) and abs(whole - dense_whole) < 1e-9 * dense_whole
    ok &= np.allclose(norm(csr_array(A), ord=1, axis=1), np.linalg.norm(A, ord=1, axis=1))
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
