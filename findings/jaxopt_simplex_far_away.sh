#!/usr/bin/env bash
# jaxopt 0.8.5 projection_simplex and projection_l1_ball in float32: the projection of two numbers near 1e8 is (0.5,
# 8.5), which sums to 9 where it must sum to 1, since the threshold is rounded in the size of the arguments; around
# 1000 the sum is right and the entries are 2e-5 off. Subtracting the maximum first, which leaves a projection onto
# the simplex as it is, gives (0, 1).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 jax==0.10.2 jaxopt==0.8.5 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import jax.numpy as jnp
import numpy as np
from jaxopt.projection import projection_l1_ball, projection_simplex

x = jnp.array([1e8, 1e8 + 8], dtype=jnp.float32)
found, ball, shifted = projection_simplex(x), projection_l1_ball(x), projection_simplex(x - x.max())
print("projection_simplex", found, "sum", float(found.sum()), " projection_l1_ball", ball, " after x - max", shifted)
ok = float(found.sum()) == 9 == float(ball.sum()) and np.array_equal(shifted, [0, 1])
near = projection_simplex(jnp.array([1000.1, 1000.4], dtype=jnp.float32))
print("around 1000:", near, "sum", float(near.sum()))
ok &= 1e-6 < abs(float(near[0]) - 0.35) < 1e-4
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
