#!/usr/bin/env bash
# scipy 1.17.1 sparse arrays and h5py 3.16.0 datasets take a numpy masked array for its data: A * m, A.multiply(m) and
# A @ m use the number under the mask, create_dataset writes it, and nothing is masked in the result. numpy.ma.dot of
# the same operands leaves it out.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 h5py==3.16.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import h5py
import numpy as np
import scipy.sparse as sp

A = sp.csr_array(np.array([[1.0, 2.0], [3.0, 4.0]]))
m = np.ma.array([1.0, 100.0], mask=[False, True])
product = A.multiply(m).toarray()
vector = np.asarray(A @ m)
masked = np.ma.dot(np.ma.array(A.toarray()), m)
with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
    stored = file.create_dataset("x", data=m)[:]
print("multiply:", product.tolist(), " A @ m:", vector, type(A @ m).__name__, " numpy.ma.dot:", masked, " h5py:", stored)
ok = product.tolist() == [[1, 200], [3, 400]] and vector.tolist() == [201, 403]
ok = ok and np.asarray(masked).tolist() == [1, 3] and stored.tolist() == [1, 100]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
