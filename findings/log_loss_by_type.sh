#!/usr/bin/env bash
# scikit-learn 1.9.1 metrics.log_loss clips probabilities by the machine epsilon of their own type: one and the same
# certain mistake costs 36.04 in float64, 15.94 in float32 and 6.93 in float16, so that a model looks better for
# having been evaluated in float32.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from sklearn.metrics import log_loss

losses = {t: float(log_loss([0, 1], np.array([[0, 1], [0, 1]], dtype=t))) for t in ("float64", "float32", "float16")}
for name, value in losses.items():
    print(name, round(2 * value, 2), "for the mistake;", "-log(eps) =", round(float(-np.log(float(np.finfo(name).eps))), 2))
ok = all(abs(2 * v + np.log(float(np.finfo(t).eps))) < 0.01 for t, v in losses.items())
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
