#!/usr/bin/env bash
# osqp 1.1.3: setup takes a full symmetric P, update(Px=...) only the entries of its upper triangle.
# update(Px=P.data) with a full P prints "new number of elements (4) out of bounds for P (3 max)", returns None,
# raises nothing, and the next solve answers for the old P with status "solved".
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 osqp==1.1.3 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import osqp
import scipy.sparse as sp

first, second = (sp.csc_matrix(np.array(m)) for m in ([[4.0, 1.0], [1.0, 2.0]], [[4.0, 3.0], [3.0, 10.0]]))
A, b, q = sp.csc_matrix(np.ones((1, 2))), np.ones(1), np.ones(2)
options = {"verbose": False, "eps_abs": 1e-9, "eps_rel": 1e-9}


def solver(P):
    out = osqp.OSQP()
    out.setup(P, q, A, b, b, **options)
    return out


updated = solver(first)
old = updated.solve().x
returned = updated.update(Px=second.data)
result = updated.solve()
new = solver(second).solve().x
partial = solver(first)
partial.update(Px=sp.triu(second, format="csc").data)
print("old P:", old.round(6), " after update(Px=P.data):", result.x.round(6), result.info.status)
print("new P from setup:", new.round(6), " after update with the upper triangle:", partial.solve().x.round(6))
ok = returned is None and np.allclose(result.x, old, atol=1e-6) and result.info.status == "solved"
ok = ok and not np.allclose(old, new, atol=1e-2) and np.allclose(partial.solve().x, new, atol=1e-6)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
