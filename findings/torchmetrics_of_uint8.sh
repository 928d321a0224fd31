#!/usr/bin/env bash
# torchmetrics 1.9.0 regression metrics of uint8 tensors, such as images, subtract in uint8: an error of 2 counts as
# 254 in MeanAbsoluteError, one of 190 as 4 in MeanSquaredError (squares wrap, too), and R2Score of a bad prediction
# is 0.8. PeakSignalNoiseRatio and MeanSquaredLogError are those of floats; PearsonCorrCoef and SpearmanCorrCoef
# refuse.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 torch==2.13.0 torchmetrics==1.9.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import torch
import torchmetrics
from torchmetrics.image import PeakSignalNoiseRatio

predicted, true = (torch.tensor(x, dtype=torch.uint8) for x in ([10, 200, 3], [12, 10, 3]))
metrics = {
    "MeanAbsoluteError": (torchmetrics.MeanAbsoluteError, 148.0, 64.0),
    "MeanSquaredError": (torchmetrics.MeanSquaredError, 8 / 3, 36104 / 3),
    "R2Score": (torchmetrics.R2Score, 0.8209, -807.2984),
    "PeakSignalNoiseRatio": (lambda: PeakSignalNoiseRatio(data_range=255.0), 7.3265, 7.3265),
    "MeanSquaredLogError": (torchmetrics.MeanSquaredLogError, 2.8231, 2.8231),
}
ok = True
for name, (make, seen, right) in metrics.items():
    values = [float(make()(predicted, true)), float(make()(predicted.float(), true.float()))]
    print(f"{name:21s} of uint8 {values[0]:10.4f}  of floats {values[1]:11.4f}")
    ok &= abs(values[0] - seen) < 1e-3 and abs(values[1] - right) < 1e-3 * abs(right)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
