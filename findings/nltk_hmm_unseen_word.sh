#!/usr/bin/env bash
# nltk 3.10.4 HiddenMarkovModelTrainer.train_supervised with its default estimator: one unseen word makes the tags of
# all words after it meaningless. Every path has the stand-in log probability -1e300 from there on, in which the
# differences between tags are lost, so that the first state wins: a word only ever tagged Y comes out as X.
# The model's log_probability of such a sequence is the finite number -1e300. Logarithms are to base 2.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    nltk==3.10.4 numpy==2.4.6 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import math
import sys

from nltk.tag.hmm import HiddenMarkovModelTrainer

sentences = [[("a", "X"), ("b", "Y")], [("b", "Y"), ("a", "X")]]
model = HiddenMarkovModelTrainer().train_supervised(sentences)
known, broken = model.tag(["a", "b"]), model.tag(["a", "new", "b"])
score = float(model.log_probability([("a", None), ("new", None)]))
print("known words:      ", known)
print("after an unseen one:", broken)
print("log probability with an unseen word:", score, "finite:", math.isfinite(score))
print("log probability of the tagged word a/X (probability 1/2):", model.log_probability([("a", "X")]))
ok = known == [("a", "X"), ("b", "Y")] and broken[2] == ("b", "X")
ok = ok and score < -1e299 and math.isfinite(score) and model.log_probability([("a", "X")]) == -1
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
