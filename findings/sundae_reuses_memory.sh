#!/usr/bin/env bash
# scikit-sundae 1.2.0 CVODE: the y that the right-hand side receives is the solver's memory, and yp is not cleared.
# States kept from inside the function (to log them) are other numbers after the next call; a component of yp that is
# left alone keeps the derivative of an earlier call. A function that returns the derivative, as for scipy's
# solve_ivp, solves y' = 0: y stays at its start, success True.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-sundae==1.2.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from sksundae.cvode import CVODE

kept = []


def decay(t, y, yp):
    kept.append((y, y.copy()))
    yp[:] = -y


def until_half(t, y, yp):
    yp[0] = -y[0]
    if t < 0.5:
        yp[1] = 1.0


CVODE(decay).solve(np.array([0.0, 1.0]), np.ones(1))
changed = sum(not np.array_equal(y, then) for y, then in kept)
print(f"{changed} of {len(kept)} kept states are other numbers now")
stale = CVODE(until_half, rtol=1e-8, atol=1e-10).solve(np.array([0.0, 1.0]), np.array([1.0, 3.0])).y[-1, 1]
print("y' = 1 up to t = 1/2, left alone after it: y(1) - y(0) =", stale - 3)
returned = CVODE(lambda t, y, yp: -y).solve(np.array([0.0, 1.0]), np.ones(1))
print("y' = -y returned, as for solve_ivp: y(1) =", returned.y[-1], "success", returned.success)
ok = changed > len(kept) // 2 and abs(stale - 4) < 1e-6 and bool(returned.success) and float(returned.y[-1, 0]) == 1.0
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
