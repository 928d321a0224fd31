#!/usr/bin/env bash
# scikit-learn 1.9.1 load_svmlight_file(query_id=True): a line without qid adds nothing to the array of query ids, so
# that it is shorter than y, and every id after the gap stands one row too early. Nothing is raised
# or warned of.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import io
import sys

from sklearn.datasets import load_svmlight_file

X, y, qid = load_svmlight_file(io.BytesIO(b"1 qid:3 1:2\n-1 1:5\n1 qid:7 1:4\n"), query_id=True)
print("rows:", X.shape[0], " labels:", y.tolist(), " query ids:", qid.tolist())
ok = X.shape[0] == len(y) == 3 and qid.tolist() == [3, 7]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
