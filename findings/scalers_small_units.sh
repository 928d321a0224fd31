#!/usr/bin/env bash
# scikit-learn 1.9.1: MinMaxScaler, MaxAbsScaler and RobustScaler take a column whose range is below 10 eps (2.2e-15,
# an absolute number) for a constant and leave it as it is, with no warning: charges in coulombs, 1e-19 and so on, stay
# at 1e-19. StandardScaler scales the same column.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

ok = True
for unit in (1e-14, 1e-19):
    X = np.array([[1.0], [2.0], [3.0]]) * unit
    for scaler in (MinMaxScaler(), MaxAbsScaler(), RobustScaler(), StandardScaler()):
        Z = scaler.fit_transform(X)
        spread = float(Z.max() - Z.min())
        name = type(scaler).__name__
        print(f"unit {unit:g}: {name:14s} spread {spread:.3g}")
        ok &= spread < 1e-15 if unit == 1e-19 and name != "StandardScaler" else spread > 0.1
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
