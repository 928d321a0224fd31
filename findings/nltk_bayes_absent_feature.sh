#!/usr/bin/env bash
# nltk 3.10.4 NaiveBayesClassifier: a feature that a training document lacks is counted as the value None, a feature
# that a document to be classified lacks is left out. With the usual features {word: True} a classifier therefore
# learns from absent words and forgets them: the training document {"good": True} is not scored as it was counted
# unless its absent words are written as None. Writing them as False, the natural way, is a third answer: False is
# a value never seen.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    nltk==3.10.4 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from nltk import NaiveBayesClassifier

train = [({"good": True}, "pos"), ({"bad": True}, "neg"), ({"good": True, "bad": True}, "pos")]
model = NaiveBayesClassifier.train(train)
documents = [{"good": True}, {"good": True, "bad": None}, {"good": True, "bad": False}]
values = [model.prob_classify(document).prob("pos") for document in documents]
for document, value in zip(documents, values):
    print(f"P(pos | {document}) = {value:.4f}")
ok = all(abs(a - b) < 1e-3 for a, b in zip(values, [0.8475, 0.9174, 0.7874]))
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
