#!/usr/bin/env bash
# bottleneck 1.6.0 nansum and ss and numexpr 2.14.2 sum() add int32 numbers in int32: two numbers of 2^31 - 1 have the
# sum -2. numpy widens to int64 (4294967294), and bottleneck widens uint8.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 bottleneck==1.6.0 numexpr==2.14.2 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import bottleneck
import numexpr
import numpy as np

x = np.full(2, 2**31 - 1, dtype=np.int32)
seen = {
    "numpy.nansum": int(np.nansum(x)),
    "bottleneck.nansum": int(bottleneck.nansum(x)),
    "bottleneck.ss": int(bottleneck.ss(x)),
    "numexpr sum": int(numexpr.evaluate("sum(x)")),
    "bottleneck.nansum of uint8": int(bottleneck.nansum(np.full(2, 200, dtype=np.uint8))),
}
for name, value in seen.items():
    print(f"{name:27s}", value)
ok = list(seen.values()) == [2**32 - 2, -2, 2, -2, 400]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
