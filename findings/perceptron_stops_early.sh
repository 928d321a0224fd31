#!/usr/bin/env bash
# scikit-learn 1.9.1 Perceptron stops once the training loss has not fallen by tol=1e-3 for five epochs, not when it
# makes no mistake. On separable data away from the origin the mistakes come and go, so that it ends after about ten
# epochs no better than chance, without ConvergenceWarning; with tol=None it separates the same data.
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
from sklearn.linear_model import Perceptron

rng = np.random.default_rng(0)
X = np.r_[rng.normal(2, 0.5, (20, 2)), rng.normal(-2, 0.5, (20, 2))] * 0.1 + np.array([0.0, 100.0])
y = np.r_[np.ones(20), -np.ones(20)]
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    early = Perceptron().fit(X, y)
late = Perceptron(tol=None, max_iter=200_000).fit(X, y)
print("default:", early.n_iter_, "epochs, accuracy", early.score(X, y), [str(w.message) for w in seen])
print("tol=None:", late.n_iter_, "epochs, accuracy", late.score(X, y))
ok = early.score(X, y) < 0.8 and not seen and early.n_iter_ < 100 and late.score(X, y) == 1.0
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
