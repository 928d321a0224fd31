#!/usr/bin/env bash
# scipy 1.17.1 integrate.trapezoid and cumulative_trapezoid add neighbours in the type of the samples: uint8 samples
# 200, 200 over a unit step give 72.0, a float, and not 200. simpson and cumulative_simpson of such samples are right.
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

y = np.full(3, 200, dtype=np.uint8)
seen = {
    "trapezoid": trapezoid(y),
    "cumulative_trapezoid": cumulative_trapezoid(y)[-1],
    "simpson": simpson(y),
    "cumulative_simpson": cumulative_simpson(y)[-1],
}
for name, value in seen.items():
    print(f"{name:20s} {value!r} (400 is right)")
ok = [float(v) for v in seen.values()] == [144.0, 144.0, 400.0, 400.0]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
