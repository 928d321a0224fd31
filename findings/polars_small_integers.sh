#!/usr/bin/env bash
# polars 2.1.0: a sum down a UInt8 column is widened (200 + 200 = 400), cum_sum too, a sum across columns is not:
# sum_horizontal of 200 and 200 is 144, and so is the column plus itself. Int8 100 plus the number 100 is -56, while
# Int8 100 times 2.5 is 250.0.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    polars==2.1.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import polars as pl

frame = pl.DataFrame({"a": [200, 200], "b": [200, 100]}, schema={"a": pl.UInt8, "b": pl.UInt8})
down = frame["a"].sum()
running = frame["a"].cum_sum().to_list()
across = frame.select(pl.sum_horizontal("a", "b")).to_series().to_list()
plus = (frame["a"] + frame["b"]).to_list()
literal = (pl.Series([100], dtype=pl.Int8) + 100).to_list()
print("sum", down, " cum_sum", running, " sum_horizontal", across, " a + b", plus, " Int8 100 + 100", literal)
ok = down == 400 and running == [200, 400] and across == plus == [144, 44] and literal == [-56]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
