#!/usr/bin/env bash
# scikit-learn 1.9.1 dump_svmlight_file writes "%.16g": 16 digits, one short of what a float64 needs. 0.1 + 0.2 comes
# back as 0.3, and about half of random values differ in the last bit, in features and in real-valued labels. numpy's
# savetxt ("%.18e") and repr keep them.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import io
import sys

import numpy as np
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

values = np.r_[0.1 + 0.2, np.random.default_rng(0).normal(size=999)]
file = io.BytesIO()
dump_svmlight_file(values[:, None], values, file)
file.seek(0)
X, y = load_svmlight_file(file, zero_based=True)
back = X.toarray().ravel()
lost = int((back != values).sum())
print("0.1 + 0.2 ->", repr(float(back[0])), "; values changed:", lost, "of 1000; labels changed:", int((y != values).sum()))
print("largest relative change:", np.abs(back / values - 1).max())
ok = back[0] == 0.3 and lost > 200 and (y != values).sum() == lost
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
