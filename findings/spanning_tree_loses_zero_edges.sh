#!/usr/bin/env bash
# scipy 1.17.1 csgraph.minimum_spanning_tree drops edges of weight 0, though they are stored in the sparse graph and
# shortest_path, connected_components and networkx take them for edges: the "tree" of a connected graph
# falls apart.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 networkx==3.6.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import networkx
import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

graph = sp.csr_array((np.array([0.0, 5.0, 1.0]), np.array([1, 2, 2]), np.array([0, 2, 3, 3])), shape=(3, 3))
tree = csgraph.minimum_spanning_tree(graph)
before = csgraph.connected_components(graph, directed=False)[0]
after = csgraph.connected_components(tree, directed=False)[0]
other = networkx.minimum_spanning_tree(networkx.from_scipy_sparse_array(graph)).number_of_edges()
print("edges of the tree:", tree.nnz, "(networkx:", other, ") components before and after:", before, after)
print("distance 0 -> 1:", csgraph.shortest_path(graph)[0, 1])
ok = (tree.nnz, other, before, after) == (1, 2, 1, 2) and csgraph.shortest_path(graph)[0, 1] == 0
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
