#!/usr/bin/env bash
# clarabel 0.11.1: a program whose optimal value is small (half |p|^2 = 1e-13, rows in units of 1e6) is "Solved" with
# a p 97 times too long: the gap is below tol_gap_abs = 1e-8 at once. Lowering tol_gap_abs alone changes nothing,
# since tol_gap_rel is taken relative to max(1, value); with both at 1e-20 the answer is right to 1e-6.
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
from scipy.sparse import csc_matrix

rows = 1e6 * np.array([[2.0, 1.0], [2.0, -1.0], [5.0, 0.0]])  # shortest p with rows @ p >= 1: (5e-7, 0)


def solve(**options):
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    for name, value in options.items():
        setattr(settings, name, value)
    cones = [clarabel.NonnegativeConeT(3)]
    found = clarabel.DefaultSolver(csc_matrix(np.eye(2)), np.zeros(2), csc_matrix(-rows), -np.ones(3), cones, settings).solve()
    return str(found.status), 1e6 * np.array(found.x)


default, one, both = solve(), solve(tol_gap_abs=1e-20), solve(tol_gap_abs=1e-20, tol_gap_rel=1e-20)
print("p in units of 1e-6 (right: 0.5, 0); by default, with tol_gap_abs, with both:", default, one, both)
ok = default[0] == one[0] == "Solved" and default[1][0] > 40 and one[1][0] > 40 and abs(both[1][0] - 0.5) < 1e-6
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
