#!/usr/bin/env bash
# scipy 1.17.1 special.softmax and log_softmax subtract the maximum in the type of the input. On unsigned integers the
# difference wraps round, so that any two different counts are wrong: softmax of uint8 (3, 1) is (0, nan), log_softmax
# (-inf, -inf); int8 scores more than 127 apart wrap as well. Small integers are also worked on in float16. logsumexp of
# the same arrays is right.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

np.seterr(all="ignore")
cases = [np.array([3, 1], dtype=t) for t in ("uint8", "uint16", "uint64")] + [np.array([-100, 100], dtype="int8")]
ok = True
for x in cases:
    p, right = softmax(x), softmax(x.astype(float))
    print(x.dtype, x, "softmax", p, p.dtype, "log_softmax", log_softmax(x), " right", right.round(4))
    ok &= not np.allclose(p, right, atol=1e-2) and not np.allclose(log_softmax(x), log_softmax(x.astype(float)), atol=1e-2)
    ok &= abs(float(logsumexp(x)) - float(logsumexp(x.astype(float)))) < 1e-6
print("signed", softmax(np.array([3, 1])), softmax(np.array([3, 1])).dtype)
ok &= np.allclose(softmax(np.array([3, 1])), softmax(np.array([3.0, 1.0])))
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
