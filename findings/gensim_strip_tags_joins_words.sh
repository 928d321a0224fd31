#!/usr/bin/env bash
# gensim 4.4.0 strip_tags, the second filter of preprocess_string, puts nothing in the place of a tag: film reviews with
# <br /><br /> between paragraphs get words such as "movieThe" (stemmed: "movieth"). It also takes all between two comparison signs
# for a tag: "a < b and c > d" becomes "a  d".
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    gensim==4.4.0 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from gensim.parsing.preprocessing import preprocess_string, strip_tags

seen = [strip_tags("a great movie<br /><br />The cast"), strip_tags("a < b and c > d")]
words = preprocess_string("great movie<br /><br />the cast")
print(seen, words)
ok = seen == ["a great movieThe cast", "a  d"] and words == ["great", "movieth", "cast"]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
