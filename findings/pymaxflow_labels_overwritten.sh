#!/usr/bin/env bash
# PyMaxflow 1.3.2 fastmin.aexpansion_grid and abswap_grid work in the array given as starting `labels`: the start is
# lost, and aexpansion_grid returns that very object, so that two runs from one start are one result compared with
# itself.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 PyMaxflow==1.3.2 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from maxflow import fastmin

rng = np.random.default_rng(1)
unary, pair = rng.normal(size=(4, 4, 3)), 0.3 * (1 - np.eye(3))
ok = True
for solve in (fastmin.aexpansion_grid, fastmin.abswap_grid):
    start = np.zeros((4, 4), dtype=int)
    out = solve(unary, pair, labels=start)
    print(solve.__name__, "returns its argument:", out is start, " zeros left in the start:", int((start == 0).sum()))
    ok &= (out is start or solve is fastmin.abswap_grid) and bool((start != 0).any())
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
