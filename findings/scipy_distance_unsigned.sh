#!/usr/bin/env bash
# scipy 1.17.1 scipy.spatial.distance: on uint8 vectors the functions of two vectors subtract and multiply in uint8,
# cdist casts to float64 first. The distance of 100 and 200 is 156 by euclidean, cityblock and chebyshev and 100 by
# cdist. cosine of (100, 100) and (200, 0) is 0 instead of 0.29.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from scipy.spatial import distance

a, b = np.array([100], dtype=np.uint8), np.array([200], dtype=np.uint8)
u, v = np.array([100, 100], dtype=np.uint8), np.array([200, 0], dtype=np.uint8)
ok = True
for name, x, y, wrong in (
    ("euclidean", a, b, 156),
    ("cityblock", a, b, 156),
    ("chebyshev", a, b, 156),
    ("cosine", u, v, 0),
):
    single = float(getattr(distance, name)(x, y))
    pair = float(distance.cdist(x[None], y[None], name)[0, 0])
    print(f"{name:10s} two vectors: {single:g}  cdist: {pair:g}")
    ok &= single == wrong and abs(pair - (1 - 0.5**0.5 if name == "cosine" else 100)) < 1e-12
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
