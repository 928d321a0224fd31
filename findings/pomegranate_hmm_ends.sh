#!/usr/bin/env bash
# pomegranate 1.1.2 DenseHMM: without `ends` each state ends a sequence with probability 1/n, on top of transitions
# that sum to 1. log P(X) is low by log n, and the probabilities of all sequences of one length sum to 1/n instead of
# 1: scores cannot be compared with those of hmmlearn or of models with another number of states. ends=[1.0] * n gives
# the plain model.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 torch==2.13.0 pomegranate==1.1.2 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import itertools
import math
import sys

import torch
from pomegranate.distributions import Categorical
from pomegranate.hmm import DenseHMM

emissions = [[0.5, 0.3, 0.2], [0.1, 0.3, 0.6], [0.25, 0.25, 0.5]]
edges, starts = [[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.5, 0.4]], [0.5, 0.3, 0.2]


def total(**options):
    model = DenseHMM([Categorical([row]) for row in emissions], edges=edges, starts=starts, **options)
    sequences = itertools.product(range(3), repeat=3)
    return sum(math.exp(float(model.log_probability(torch.tensor(x)[None, :, None]))) for x in sequences)


sums = [total(), total(ends=[1.0, 1.0, 1.0])]
print("sum of P over all sequences of length 3, without ends, with ends of 1:", sums)
ok = abs(sums[0] - 1 / 3) < 1e-5 and abs(sums[1] - 1) < 1e-5
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
