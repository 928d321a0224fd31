#!/usr/bin/env bash
# torch 2.13.0 logcumsumexp, jax 0.10.2 lax.cumlogsumexp and jnp.logaddexp: where a row begins with two -inf (masked
# entries, a forced first state of a chain), the values are right and the gradients in those entries are nan, also for
# the last sum, which has finite terms. logsumexp in both packages has the gradient 0 there.
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

row = [-np.inf, -np.inf, 0.0, 1.0]
x, y = torch.tensor(row, requires_grad=True), jnp.array(row)
found = {
    "torch.logcumsumexp": torch.autograd.grad(x.logcumsumexp(0)[-1], x)[0].numpy(),
    "jax.lax.cumlogsumexp": np.asarray(jax.grad(lambda v: jax.lax.cumlogsumexp(v)[-1])(y)),
    "jnp.logaddexp of the first two, then the others": np.asarray(
        jax.grad(lambda v: jnp.logaddexp(jnp.logaddexp(jnp.logaddexp(v[0], v[1]), v[2]), v[3]))(y)
    ),
}
right = {
    "torch.logsumexp": torch.autograd.grad(x.logsumexp(0), x)[0].numpy(),
    "jax.nn.logsumexp": np.asarray(jax.grad(jax.nn.logsumexp)(y)),
}
expected = np.array([0, 0, 1, np.e]) / (1 + np.e)
ok = abs(float(x.logcumsumexp(0)[-1]) - np.log(1 + np.e)) < 1e-6
for name, gradient in found.items():
    print(name, gradient)
    ok &= bool(np.isnan(gradient[:2]).all()) and np.allclose(gradient[2:], expected[2:], atol=1e-6)
for name, gradient in right.items():
    print(name, gradient)
    ok &= np.allclose(gradient, expected, atol=1e-6)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
