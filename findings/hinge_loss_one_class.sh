#!/usr/bin/env bash
# scikit-learn 1.9.1 metrics.hinge_loss takes the only label it sees as the negative one: for labels all +1 (a batch
# of positives) the margins are negated, 2.25 instead of 0.25. `labels=[-1, 1]` does not help; it is read for more than
# two classes only. The average over batches therefore is not the loss of the whole.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from sklearn.metrics import hinge_loss

scores = np.array([0.5, 2.0])
right = np.maximum(0, 1 - scores).mean()
alone = hinge_loss([1, 1], scores)
named = hinge_loss([1, 1], scores, labels=[-1, 1])
negatives = hinge_loss([-1, -1], -scores)
together = hinge_loss([1, 1, -1, -1], np.r_[scores, -scores])
print("right:", right, " two positives:", alone, " with labels:", named, " two negatives:", negatives, " all four:", together)
ok = right == negatives == together == 0.25 and alone == named == 2.25
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
