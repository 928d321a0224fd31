#!/usr/bin/env bash
# scipy 1.17.1 signal.filtfilt, sosfiltfilt and decimate of a uint8 signal extend it at its ends by 2 x[0] - x[i] in
# uint8, which wraps: results near the ends are wrong, those in the middle of filtfilt right. wiener squares in uint8.
# savgol_filter, detrend, sosfilt and welch of the same signal are those of floats.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from scipy import signal

x = np.array([200, 100] * 20, dtype=np.uint8)
sos, (b, a) = signal.butter(2, 0.3, output="sos"), signal.butter(2, 0.3)
calls = {
    "filtfilt": lambda v: signal.filtfilt(b, a, v),
    "sosfiltfilt": lambda v: signal.sosfiltfilt(sos, v),
    "decimate": lambda v: signal.decimate(v, 2),
    "wiener": lambda v: signal.wiener(v, 5),
}
plain = {
    "savgol_filter": lambda v: signal.savgol_filter(v, 7, 2),
    "detrend": signal.detrend,
    "sosfilt": lambda v: signal.sosfilt(sos, v),
    "welch": lambda v: signal.welch(v, nperseg=16)[1],
}
ok = True
for name, call in calls.items():
    found, right = call(x), call(x.astype(float))
    print(f"{name:12s} begins {np.round(found[:3], 1)}, of floats {np.round(right[:3], 1)}")
    ok &= float(np.abs(found - right).max()) > 5
    if "filtfilt" in name:
        middle = slice(len(right) // 2 - 2, len(right) // 2 + 2)
        ok &= float(np.abs(found - right)[middle].max()) < 0.5
for name, call in plain.items():
    ok &= np.allclose(call(x), call(x.astype(float)), rtol=1e-5, atol=1e-3)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
