#!/usr/bin/env bash
# torch 2.13.0 and jax 0.10.2 on the CPU: sums by segment run one addition after the other in float32, and 1 + 2^24 is
# 2^24. Of 2^25 ones, bincount with weights, index_add, scatter_add and segment_reduce give 16777216, as
# jax.ops.segment_sum, jnp.bincount and jnp.histogram do; segment_reduce("mean") says that the mean is 0.5. sum() of
# the same ones is 33554432 in both, and numpy.bincount adds in double precision.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 torch==2.13.0 jax==0.10.2 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch

n = 2**25
ones, ids = torch.ones(n), torch.zeros(n, dtype=torch.long)
torch_sums = {
    "bincount": torch.bincount(ids, weights=ones),
    "index_add": torch.zeros(1).index_add(0, ids, ones),
    "scatter_add": torch.zeros(1).scatter_add(0, ids, ones),
    "segment_reduce": torch.segment_reduce(ones, "sum", lengths=torch.tensor([n])),
}
mean = float(torch.segment_reduce(ones, "mean", lengths=torch.tensor([n])))
total = float(ones.sum())
del ids, ones
x, places = jnp.ones(n), jnp.zeros(n, int)
jax_sums = {
    "segment_sum": jax.ops.segment_sum(x, places, 1),
    "bincount": jnp.bincount(places, weights=x, length=1),
    "histogram": jnp.histogram(x, bins=1)[0],
}
ok = mean == 0.5 and total == n == float(x.sum())
for package, sums in (("torch", torch_sums), ("jax", jax_sums)):
    for name, value in sums.items():
        print(package, name, float(value[0]))
        ok &= float(value[0]) == n / 2
print("torch segment_reduce mean", mean, " torch sum", total, " jax sum", float(x.sum()))
exact = float(np.bincount(np.zeros(n, dtype=np.int8), weights=np.ones(n, dtype=np.float32))[0])
print("numpy bincount", exact)
ok &= exact == n
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
