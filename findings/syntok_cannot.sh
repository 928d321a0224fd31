#!/usr/bin/env bash
# syntok 1.4.4 Tokenizer(): "can't" becomes "ca" and "not", a word that the text does not have, since n't is replaced
# by not and the rest is kept; "won't" becomes "wo" and "not". With replace_not_contraction=False the second token is
# n't. A tag without a space before it stays glued to the word: "it!<br" is one token.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    syntok==1.4.4 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from syntok.tokenizer import Tokenizer


def words(text, **options):
    return [token.value for token in Tokenizer(**options).tokenize(text)]


seen = [words("I can't and I won't."), words("can't", replace_not_contraction=False), words("miss it!<br />A")]
for tokens in seen:
    print(tokens)
ok = seen[0] == ["I", "ca", "not", "and", "I", "wo", "not", "."] and seen[1] == ["ca", "n't"] and seen[2][1] == "it!<br"
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
