#!/usr/bin/env bash
# sacremoses 0.2.0 MosesPunctNormalizer rewrites plain ASCII English: a comma or a full stop after a closing quotation
# mark is moved before it, a space is set before an opening bracket (the call f(x) becomes f (x)), and the two
# characters '' become a double quotation mark with spaces on both sides. Character offsets into the text no longer hold, and
# the tokens of a review and of its normalized form differ.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    sacremoses==0.2.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from sacremoses import MosesPunctNormalizer

normalize = MosesPunctNormalizer().normalize
pairs = {
    'He said "hi", ok.': 'He said "hi," ok.',
    'Rated "poor".': 'Rated "poor."',
    "f(x)": "f (x)",
    "an ''odd'' film": 'an " odd " film',
}
seen = {text: normalize(text) for text in pairs}
for text, out in seen.items():
    print(repr(text), "->", repr(out))
ok = seen == pairs
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
