#!/usr/bin/env bash
# nltk 3.10.4 TweetTokenizer:
# two numbers of three or four digits side by side become one token, since they look like a telephone number
# ("between 1999 2004" -> "1999 2004"); reduce_len=True, meant for "sooooo", cuts digits as well, so that 10000 becomes
# 1000; "10/10" is one token and "7.5/10" three; "<br/>" is one token and "<br />" four.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    nltk==3.10.4 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from nltk.tokenize import TweetTokenizer

plain, short = TweetTokenizer().tokenize, TweetTokenizer(reduce_len=True).tokenize
seen = {
    "between 1999 2004": plain("between 1999 2004"),
    "it cost 10000 dollars (reduce_len)": short("it cost 10000 dollars"),
    "10/10 or 7.5/10": plain("10/10 or 7.5/10"),
    "bad<br/>good": plain("bad<br/>good"),
    "bad<br />good": plain("bad<br />good"),
}
for text, tokens in seen.items():
    print(f"{text:36s}", tokens)
ok = list(seen.values()) == [
    ["between", "1999 2004"],
    ["it", "cost", "1000", "dollars"],
    ["10/10", "or", "7.5", "/", "10"],
    ["bad", "<br/>", "good"],
    ["bad", "<", "br", "/", ">", "good"],
]
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
