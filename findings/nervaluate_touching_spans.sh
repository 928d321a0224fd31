#!/usr/bin/env bash
# nervaluate 1.2.1 takes both ends of a span as inside it. Character offsets with an exclusive end, as Prodigy and
# spaCy write them, make neighbours overlap: the predicted entity [2, 4) right behind the true entity [0, 2) shares no
# character with it and counts as a partial match and as a correct one in the mode ent_type (F1 = 1).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    nervaluate==1.2.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from nervaluate import Evaluator

truth = [[{"label": "PER", "start": 0, "end": 2}]]


def f1(start, end):
    prediction = [[{"label": "PER", "start": start, "end": end}]]
    overall = Evaluator(truth, prediction, tags=["PER"]).evaluate()["overall"]
    return {mode: round(overall[mode].f1, 3) for mode in ("strict", "exact", "partial", "ent_type")}


touching, apart = f1(2, 4), f1(3, 5)
print("[0, 2) and [2, 4):", touching)
print("[0, 2) and [3, 5):", apart)
ok = touching == {"strict": 0, "exact": 0, "partial": 0.5, "ent_type": 1} and set(apart.values()) == {0}
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
