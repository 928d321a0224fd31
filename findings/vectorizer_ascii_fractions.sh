#!/usr/bin/env bash
# scikit-learn 1.9.1 CountVectorizer(strip_accents="ascii") turns one half into twelve: the sign is decomposed into
# 1, fraction slash, 2, and the slash is dropped as not ASCII, so that "3½ stars" has the token 312. Typographic
# apostrophes and dashes vanish and join what they stood between (dont, wellmade); with strip_accents="unicode" they
# stay and split it. A typed apostrophe splits the word in either case.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from sklearn.feature_extraction.text import CountVectorizer

text = "3\u00bd stars, don\u2019t miss, well\u2014made"
seen = {kind: CountVectorizer(strip_accents=kind).build_analyzer()(text) for kind in ("ascii", "unicode")}
for kind, tokens in seen.items():
    print(kind, tokens)
ok = seen["ascii"] == ["312", "stars", "dont", "miss", "wellmade"]
ok = ok and seen["unicode"] == ["31", "stars", "don", "miss", "well", "made"]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
