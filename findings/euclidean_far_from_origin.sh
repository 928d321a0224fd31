#!/usr/bin/env bash
# scikit-learn 1.9.1 pairwise_distances expands |x - y|^2 for the metric "euclidean" and not for "sqeuclidean", which it
# leaves to scipy: of points 1 apart at 1e8 the distance is 0 and the squared distance 1; of times in seconds since 1970
# (1.7e9) one second apart it is 22.6 and 1.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from sklearn.metrics import pairwise_distances

points = np.array([[1e8, 1e8], [1e8 + 1, 1e8]])
times = np.array([[1.7e9], [1.7e9 + 1]])
seen = {metric: float(pairwise_distances(points, metric=metric)[0, 1]) for metric in ("euclidean", "sqeuclidean", "cityblock")}
second = {metric: float(pairwise_distances(times, metric=metric)[0, 1]) for metric in seen}
print("1 apart at 1e8:", seen, " a second apart in 2023:", second)
ok = seen == {"euclidean": 0, "sqeuclidean": 1, "cityblock": 1} and abs(second["euclidean"] - 1) > 0.5
ok = ok and second["sqeuclidean"] == second["cityblock"] == 1
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
