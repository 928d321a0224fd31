#!/usr/bin/env bash
# seqeval 1.2.2: where neither truth nor prediction holds an entity, f1_score is 0.0 with a warning, but
# classification_report raises ValueError "max() arg is an empty sequence": it looks for the longest type name.
# A report written after every epoch thus stops the training on a validation set without entities. With
# output_dict=True the same call goes through.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scikit-learn==1.9.1 seqeval==1.2.2 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2

tags = [["O", "O"], ["O"]]
print("f1_score:", f1_score(tags, tags))
seen = []
for options in ({}, {"output_dict": True}, {"mode": "strict", "scheme": IOB2}):
    try:
        classification_report(tags, tags, **options)
        seen.append("no error")
    except ValueError as error:
        seen.append(str(error))
    print(options, "->", seen[-1])
ok = f1_score(tags, tags) == 0 and "empty" in seen[0] and seen[1] == "no error" and "empty" in seen[2]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
