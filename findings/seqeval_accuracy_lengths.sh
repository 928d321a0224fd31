#!/usr/bin/env bash
# seqeval 1.2.2: accuracy_score joins all sentences before it compares, and never looks at their lengths. Predictions
# whose sentences are cut elsewhere score 1.0 as long as the joined tags agree, and a prediction that stops early is
# compared as far as it goes and divided by the length of the truth. f1_score refuses the same input.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scikit-learn==1.9.1 seqeval==1.2.2 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from seqeval.metrics import accuracy_score, f1_score

truth = [["O", "B-A"], ["O"]]
shifted = [["O"], ["B-A", "O"]]
short = [["O", "B-A"], []]
print("sentences of lengths (2, 1) against (1, 2):", accuracy_score(truth, shifted))
print("the last sentence missing:", accuracy_score(truth, short))
raised = []
for prediction in (shifted, short):
    try:
        f1_score(truth, prediction)
        raised.append(None)
    except ValueError as error:
        raised.append(type(error).__name__)
print("f1_score on the two:", raised)
ok = accuracy_score(truth, shifted) == 1.0 and abs(accuracy_score(truth, short) - 2 / 3) < 1e-12
ok = ok and raised == ["ValueError", "ValueError"]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
