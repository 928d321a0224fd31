#!/usr/bin/env bash
# proxsuite 0.8.0: by default "solved" does not test complementarity. On a quadratic program with a singular P the
# returned x misses the minimum by 2 %, with multiplier 1 on a bound that is 0.026 slack: primal and dual residuals
# are below eps_abs, the duality gap is not looked at unless settings.check_duality_gap is set.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 proxsuite==0.8.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from proxsuite import proxqp

H, g = np.ones((2, 2)), np.array([-1.0, -2.0])
C, low, high = np.eye(2), np.zeros(2), np.full(2, 0.7)


def solve(check):
    qp = proxqp.dense.QP(2, 0, 2)
    qp.settings.check_duality_gap = check
    qp.init(H, g, None, None, C, low, high)
    qp.solve()
    return qp.results.x.copy(), qp.results.z.copy(), qp.results.info.status.name


best = np.array([0.3, 0.7])
value = lambda x: 0.5 * x @ H @ x + g @ x
x, z, status = solve(False)
checked, _, _ = solve(True)
print("default:", x, "z", z, status, "value", value(x), "minimum", value(best))
print("slack times multiplier:", (high - x) * z)
print("with check_duality_gap:", checked, "value", value(checked))
ok = status == "PROXQP_SOLVED" and value(x) - value(best) > 0.01 and abs(value(checked) - value(best)) < 1e-3
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
