#!/usr/bin/env bash
# scipy 1.17.1: tests and statistics of uint8 numbers, where most of scipy.stats converts first (ttest_ind and
# ttest_1samp do). ttest_rel subtracts pairs in uint8: a constant drop of 10 with a little noise, over six pairs, is a
# significant rise. kstat(x, 2), the unbiased variance, comes out negative, and gmean is computed in half precision,
# 4e-4 off (mended in 1.18.1).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from scipy import stats

before = np.array([200, 180, 150, 220, 90, 130], dtype=np.uint8)
after = np.array([190, 171, 139, 210, 81, 120], dtype=np.uint8)
wrong, right = stats.ttest_rel(after, before), stats.ttest_rel(after.astype(float), before.astype(float))
print(f"ttest_rel(after, before): t = {wrong.statistic:.1f}, p = {wrong.pvalue:.1e}; as floats t = {right.statistic:.1f}")
ok = wrong.statistic > 100 and right.statistic < -10 and wrong.pvalue < 1e-6
same = [float(stats.ttest_ind(a, b).statistic) for a, b in ((after, before), (after.astype(float), before.astype(float)))]
print("ttest_ind, uint8 and float:", same)
ok &= abs(same[0] - same[1]) < 1e-9
x = np.array([10, 200, 3, 90], dtype=np.uint8)
variances = [float(stats.kstat(x, 2)), float(stats.kstat(x.astype(float), 2)), float(x.var(ddof=1))]
print("kstat(x, 2), the same of floats, x.var(ddof=1):", variances)
ok &= variances[0] < 0 and abs(variances[1] - variances[2]) < 1e-9 * variances[2]
y = np.array([3, 7, 250, 120, 9, 33], dtype=np.uint8)
means = [float(stats.gmean(y)), float(stats.gmean(y.astype(float)))]
print("gmean, the same of floats:", means)
ok &= 1e-4 < abs(means[0] / means[1] - 1) < 1e-3
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
