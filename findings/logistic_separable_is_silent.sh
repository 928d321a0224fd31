#!/usr/bin/env bash
# scikit-learn 1.9.1 LogisticRegression without regularization (C=inf) on separable data, where no maximum exists: it
# returns finite coefficients after a few iterations, with no warning. They are what tol leaves: each
# smaller tol gives larger ones (their norm is 4.3, 6.8 and 9.4 here), and none is a maximum likelihood estimate.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
X = np.r_[rng.normal(2, 0.5, (20, 2)), rng.normal(-2, 0.5, (20, 2))]
y = np.r_[np.ones(20), -np.ones(20)]
norms = {}
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for tol in (1e-4, 1e-6, 1e-8):
        model = LogisticRegression(C=np.inf, tol=tol).fit(X, y)
        norms[tol] = float(np.linalg.norm(model.coef_))
        print(f"tol {tol:g}: {int(model.n_iter_[0])} iterations, |coef| = {norms[tol]:.2f}")
print("warnings:", [str(w.message) for w in seen])
ok = not seen and norms[1e-8] > 1.5 * norms[1e-4]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
