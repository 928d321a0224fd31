#!/usr/bin/env bash
# polars 2.1.0: nan is greater than every number when values are compared, sorted or ranked, equal to itself, and left
# out by max, min, arg_max and cum_max. So s.sort()[-1] is not s.max(), and s > s.max() holds for the nan. nan_max() is numpy's max.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    polars==2.1.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import math
import sys

import polars as pl

s = pl.Series([1.0, math.nan, 3.0])
print("sort()[-1]", s.sort()[-1], " max()", s.max(), " arg_max()", s.arg_max(), " nan_max()", s.nan_max())
print("rank", s.rank().to_list(), " cum_max", s.cum_max().to_list(), " s > max():", (s > s.max()).to_list())
print("nan == nan:", (s == s).to_list())
ok = math.isnan(s.sort()[-1]) and s.max() == 3 and s.arg_max() == 2 and math.isnan(s.nan_max())
ok = ok and s.rank().to_list() == [1, 3, 2] and (s > s.max()).to_list() == [False, True, False] and (s == s).all()
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
