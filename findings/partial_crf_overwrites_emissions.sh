#!/usr/bin/env bash
# pytorch-partial-crf 0.1.2 (the latest that goes with torch 2) PartialCRF: for a batch of one sequence the loss
# writes -1e7 into the emissions it was given, wherever a label is known and another. The normalizer is computed after
# that, from the same memory: what is left of the loss of a fully labelled sequence is that of its first label, given
# the others. In a batch of two the loss is right and the emissions stay. A final score of exactly 0 counts as
# forbidden: with end_transitions at 0 the loss is 1e7.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 torch==2.13.0 pytorch-partial-crf==0.1.2 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import itertools
import sys

import torch
from pytorch_partial_crf import PartialCRF

torch.manual_seed(0)
crf, emissions, labels = PartialCRF(3), torch.randn(1, 4, 3), torch.tensor([[0, 1, 1, 2]])
for parameter in crf.parameters():
    parameter.data.uniform_(0.1, 1.0)


def score(y):
    value = crf.start_transitions[y[0]] + sum(emissions[0, t, k] for t, k in enumerate(y)) + crf.end_transitions[y[-1]]
    return value + sum(crf.transitions[a, b] for a, b in zip(y, y[1:]))


with torch.no_grad():
    scores = torch.stack([score(y) for y in itertools.product(range(3), repeat=4)])
    right = float(scores.logsumexp(0) - score(labels[0].tolist()))
    both = float(crf(emissions.repeat(2, 1, 1), labels.repeat(2, 1))) / 2
    given = emissions.clone()
    one = float(crf(given, labels))
    crf.end_transitions.zero_()
    ends = float(crf(emissions.repeat(2, 1, 1), labels.repeat(2, 1))) / 2
print(f"loss by enumeration {right:.4f}, in a batch of two {both:.4f}, alone {one:.4f}; with end scores 0: {ends:.4g}")
print("emissions afterwards", given[0, 1].tolist())
ok = abs(both - right) < 1e-4 and abs(one - right) > 0.1 and float(given.min()) == -1e7 and ends > 1e6
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
