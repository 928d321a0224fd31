#!/usr/bin/env bash
# spacy 3.8.18 blank("en"): text of web pages such as reviews, where <br /> stands between sentences without spaces,
# is not cut at the tag. "miss it!<br />A classic" has the tokens "it!<br" and "/>A": the last word of a sentence with
# its punctuation, and the first word of the next, are words of their own. Spaces around the tag, or taking tags out
# first, give it, ! and A.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    spacy==3.8.18 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

import spacy

cut = spacy.blank("en")
seen = [[token.text for token in cut(text)] for text in ("miss it!<br />A classic", "miss it! <br /> A classic")]
for tokens in seen:
    print(tokens)
ok = seen[0] == ["miss", "it!<br", "/>A", "classic"] and seen[1][1:3] == ["it", "!"] and seen[1][-2:] == ["A", "classic"]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
