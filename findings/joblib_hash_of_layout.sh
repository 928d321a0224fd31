#!/usr/bin/env bash
# joblib 1.6.0: hash takes in the memory layout. Two equal arrays of one type hash differently in C and in Fortran
# order, and a strided view differs from its copy, so that a function cached with Memory runs again
# for an argument that compares equal; a transposed round trip is enough.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 joblib==1.6.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys
import tempfile

import joblib
import numpy as np

a = np.arange(6.0).reshape(2, 3)
views = {"Fortran order": np.asfortranarray(a), "strided view": np.repeat(a, 2, axis=1)[:, ::2], "copy": a.copy()}
calls = []


def work(x):
    calls.append(1)
    return x.sum()


same = {}
with tempfile.TemporaryDirectory() as folder:
    cached = joblib.Memory(folder, verbose=0).cache(work)
    cached(a)
    for name, b in views.items():
        before = len(calls)
        cached(b)
        same[name] = (bool(np.array_equal(a, b)), joblib.hash(a) == joblib.hash(b), len(calls) > before)
for name, (equal, hashed, again) in same.items():
    print(f"{name:14s} equal: {equal}  same hash: {hashed}  runs again: {again}")
ok = same == {"Fortran order": (True, False, True), "strided view": (True, False, True), "copy": (True, True, False)}
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
