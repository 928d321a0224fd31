#!/usr/bin/env bash
# nervaluate 1.2.1 loader "conll" reads the second column of a line, not the last. Of a file with word, chunk tag and
# entity tag (CoNLL-2003 has the entity tag last) it scores the chunks: a prediction with every entity missing
# is perfect, and the types reported are those of the chunks. With tags=["PER"] all counts are 0.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    nervaluate==1.2.1 || exit 2
"$dir/venv/bin/python" -W ignore - <<'PY'
import sys

from nervaluate import Evaluator

truth = "EU\tB-NP\tB-PER\nrejects\tB-VP\tO\n\nPeter\tB-NP\tB-PER\n"
missing = truth.replace("B-PER", "O")


def score(prediction, tags):
    result = Evaluator(truth, prediction, tags=tags, loader="conll").evaluate()
    strict = result["overall"]["strict"]
    return (strict.correct, strict.missed, strict.f1), sorted(result["entities"])


every, types = score(missing, ["PER", "NP", "VP"])
only, _ = score(missing, ["PER"])
print("no entity found: (correct, missed, F1) =", every, "types", types, " with tags=['PER']:", only)
ok = every == (3, 0, 1.0) and types == ["NP", "VP"] and only[:2] == (0, 0)
print("as described" if ok else "changed")
sys.exit(0 if ok else 1)
PY
