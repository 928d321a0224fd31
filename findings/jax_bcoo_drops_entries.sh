#!/usr/bin/env bash
# jax 0.10.2 experimental.sparse: BCOO.fromdense and BCSR.fromdense with nse below the number of nonzero entries, and
# sum_duplicates with such an nse, leave out the entries that do not fit, outside jit as well as inside; nothing is
# raised. A budget taken from one batch silently truncates the next.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 jax==0.10.2 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

A = jnp.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
cut = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
twice = sparse.BCOO((jnp.array([1.0, 2.0, 5.0]), jnp.array([[0, 1], [0, 1], [1, 0]])), shape=(2, 3))
found = {
    "BCOO.fromdense(A, nse=2)": (sparse.BCOO.fromdense(A, nse=2).todense(), cut),
    "the same in jit": (jax.jit(lambda a: sparse.BCOO.fromdense(a, nse=2).todense())(A), cut),
    "BCSR.fromdense(A, nse=2)": (sparse.BCSR.fromdense(A, nse=2).todense(), cut),
    "sum_duplicates(nse=1) of two entries": (twice.sum_duplicates(nse=1).todense(), np.array([[0, 3, 0], [0, 0, 0]])),
}
ok = True
for name, (value, expected) in found.items():
    print(name, np.asarray(value).tolist())
    ok &= np.array_equal(np.asarray(value), expected)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
