#!/usr/bin/env bash
# scipy 1.17.1: three kinds of functions compute in the type of small integers, and each has a sibling that does not.
# special.softmax and log_softmax subtract the maximum in that type: any two different unsigned counts are wrong, softmax
# of uint8 (3, 1) is (0, nan), and int8 scores more than 127 apart wrap too; logsumexp is right.
# spatial.distance.euclidean, cityblock, chebyshev and cosine of two uint8 vectors wrap: 100 and 200 are 156 apart;
# cdist is right. integrate.trapezoid and cumulative_trapezoid add neighbours in uint8: samples of 200 over two
# steps give the float 144.0; simpson and cumulative_simpson give 400.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from scipy.integrate import cumulative_simpson, cumulative_trapezoid, simpson, trapezoid
from scipy.spatial import distance
from scipy.special import log_softmax, logsumexp, softmax

np.seterr(all="ignore")
ok = True
for x in [np.array([3, 1], dtype=t) for t in ("uint8", "uint16", "uint64")] + [np.array([-100, 100], dtype="int8")]:
    p, right = softmax(x), softmax(x.astype(float))
    print(x.dtype, x, "softmax", p, "log_softmax", log_softmax(x), " right", right.round(4))
    ok &= not np.allclose(p, right, atol=1e-2) and not np.allclose(log_softmax(x), log_softmax(x.astype(float)), atol=1e-2)
    ok &= abs(float(logsumexp(x)) - float(logsumexp(x.astype(float)))) < 1e-6

a, b = np.array([100], dtype=np.uint8), np.array([200], dtype=np.uint8)
u, v = np.array([100, 100], dtype=np.uint8), np.array([200, 0], dtype=np.uint8)
for name, x, y, wrong in (("euclidean", a, b, 156), ("cityblock", a, b, 156), ("chebyshev", a, b, 156), ("cosine", u, v, 0)):
    single, pair = float(getattr(distance, name)(x, y)), float(distance.cdist(x[None], y[None], name)[0, 0])
    print(f"{name:10s} two vectors: {single:g}  cdist: {pair:g}")
    ok &= single == wrong and abs(pair - (1 - 0.5**0.5 if name == "cosine" else 100)) < 1e-12

y = np.full(3, 200, dtype=np.uint8)
areas = [float(f) for f in (trapezoid(y), cumulative_trapezoid(y)[-1], simpson(y), cumulative_simpson(y)[-1])]
print("trapezoid, cumulative_trapezoid, simpson, cumulative_simpson:", areas)
ok &= areas == [144, 144, 400, 400]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
