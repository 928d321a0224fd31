#!/usr/bin/env bash
# bottleneck 1.6.0 move_mean, move_sum and move_var update a running sum: a nan leaves the window again, an infinity
# never does (all later windows are nan), and after one large number the windows behind it are 0: move_sum of
# 1e16, 1, 1, 1 over two is 0 where 2 is right, move_var is 0 where 0.5 is right.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 bottleneck==1.6.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import bottleneck
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

x, big = np.array([1.0, np.inf, 3.0, 4.0, 5.0]), np.array([1e16, 1.0, 1.0, 1.0])
steps = np.array([1e8, 1.0, 2.0, 3.0, 4.0])
mean, total, spread = bottleneck.move_mean(x, 2), bottleneck.move_sum(big, 2), bottleneck.move_var(steps, 2, ddof=1)
print("move_mean after an infinity:", mean, " right:", sliding_window_view(x, 2).mean(1))
print("move_sum after 1e16:", total, " right:", sliding_window_view(big, 2).sum(1))
print("move_var after 1e8:", spread, " right:", sliding_window_view(steps, 2).var(1, ddof=1))
nan_mean = bottleneck.move_mean(np.array([1.0, np.nan, 3.0, 4.0, 5.0]), 2)
print("move_mean after a nan:", nan_mean)
ok = np.isnan(mean[3:]).all() and (total[2:] == 0).all() and (spread[2:] == 0).all() and (nan_mean[3:] == [3.5, 4.5]).all()
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
