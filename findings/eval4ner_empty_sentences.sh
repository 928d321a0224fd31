#!/usr/bin/env bash
# eval4ner 0.1.0 evaluate_all averages precision, recall and F1 over the sentences, and a sentence without entities
# in truth and prediction counts as 1 in all three. A model that finds nothing has F1 = 0.5 where half of the sentences
# are empty, and 0.9 where nine in ten are; counted over entities, as conlleval and seqeval do, it is 0.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    eval4ner==0.1.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import contextlib
import io
import sys

from eval4ner import muc

truth = [[("PER", "Ada")]] + [[]] * 9
texts = ["Ada wrote"] + ["nobody wrote"] * 9
with contextlib.redirect_stdout(io.StringIO()):
    result = muc.evaluate_all([[]] * 10, truth, texts)
for mode, scores in result.items():
    print(mode, scores)
ok = all(abs(scores[key] - 0.9) < 1e-12 for scores in result.values() for key in ("precision", "recall", "f1_score"))
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
