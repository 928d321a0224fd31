#!/usr/bin/env bash
# igraph 1.0.0: with an infinite capacity (the usual "must not be cut") maxflow returns the right value and a flow that
# is nan on that edge, while the minimum cut is right. networkx and scipy have no such case: the one leaves out the
# attribute for "infinite", the other takes integers only.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    igraph==1.0.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import math
import sys

import igraph

graph = igraph.Graph(3, [(0, 1), (1, 2)], directed=True, edge_attrs={"capacity": [math.inf, 4.0]})
result = graph.maxflow(0, 2, capacity="capacity")
finite = graph.copy()
finite.es["capacity"] = [1e9, 4.0]
other = finite.maxflow(0, 2, capacity="capacity")
print("infinite:", result.value, result.flow, "cut", result.cut, " 1e9:", other.value, other.flow)
ok = result.value == 4 and math.isnan(result.flow[0]) and result.flow[1] == 4 and other.flow == [4.0, 4.0]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
