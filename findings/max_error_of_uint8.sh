#!/usr/bin/env bash
# scikit-learn 1.9.1 metrics.max_error subtracts in the type of its arguments: for uint8 pixels 12 predicted for 10 is
# an error of 254, above what mean_absolute_error, which converts, allows for. metrics.auc wraps, too: a curve of
# uint8 points has the area 86 instead of 4950.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from sklearn import metrics

true, predicted = np.array([10, 100], dtype=np.uint8), np.array([12, 100], dtype=np.uint8)
errors = [float(f(true, predicted)) for f in (metrics.max_error, metrics.mean_absolute_error, metrics.mean_squared_error)]
print("max_error, mean_absolute_error, mean_squared_error:", errors)
ok = errors == [254, 1, 2]
x, y = np.array([3, 7, 10, 90, 200], dtype=np.uint8), np.array([200, 10, 90, 3, 9], dtype=np.uint8)
areas = [float(metrics.auc(x, y)), float(metrics.auc(x.astype(float), y.astype(float)))]
print("auc of uint8 points, of floats:", areas)
ok &= areas == [86, 4950]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
