#!/usr/bin/env bash
# torch 2.13.0: a sparse tensor stands for the sum of its repeated entries, and arithmetic with it honours that.
# Tensor.sparse_mask does not: filtered by a mask in which a place stands twice, the value 7 becomes 14. A.int() cuts
# each repeated entry to a whole number before they are added: 0.6 three times is 0, and 1 after coalesce().
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 torch==2.13.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import torch

mask = torch.sparse_coo_tensor([[0, 0, 1], [1, 1, 0]], [1.0, 2.0, 5.0], (2, 3))
masked = torch.full((2, 3), 7.0).sparse_mask(mask).to_dense().tolist()
coalesced = torch.full((2, 3), 7.0).sparse_mask(mask.coalesce()).to_dense().tolist()
print("7 everywhere, sparse_mask:", masked, " after mask.coalesce():", coalesced)
ok = masked == [[0, 14, 0], [7, 0, 0]] and coalesced == [[0, 7, 0], [7, 0, 0]]
thrice = torch.sparse_coo_tensor([[0, 0, 0], [0, 0, 0]], [0.6, 0.6, 0.6], (1, 1))
whole = [thrice.int().to_dense().item(), thrice.coalesce().int().to_dense().item(), thrice.to_dense().int().item()]
print("0.6 three times as int, after coalesce(), after to_dense():", whole)
ok &= whole == [0, 1, 1]
ok &= (mask * mask).to_dense().tolist() == [[0, 9, 0], [25, 0, 0]]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
