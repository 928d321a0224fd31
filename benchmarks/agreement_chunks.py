"""Scores of chunk tags, true and predicted: what counts as a chunk where tags are broken or of another scheme.

The right value follows the rule of conlleval, the program of the CoNLL-2000 shared task, counted by hand: a chunk
begins at every B, and at an I after O, after another type or at the start. Each answer is (precision, recall, F1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from attnembed.errors import InputError
from attnembed.structured.metrics import chunk_f1
from benchmarks.agreement import Problem, Reason, Reasons

Tags = list[list[str]]
REFUSED = "refused: tags of another scheme"


def shares(n_true: int, n_predicted: int, n_correct: int) -> np.ndarray:
    precision, recall = n_correct / n_predicted, n_correct / n_true
    return np.array([precision, recall, 2 * n_correct / (n_true + n_predicted)])


def own(true: Tags, predicted: Tags) -> Any:
    try:
        score = chunk_f1(true, predicted)
    except InputError:
        return REFUSED
    return np.array([score.precision, score.recall, score.f1])


def seqeval(true: Tags, predicted: Tags, **options: Any) -> Any:
    from seqeval import metrics, scheme

    if "scheme" in options:
        options["scheme"] = getattr(scheme, options["scheme"])
    names = (metrics.precision_score, metrics.recall_score, metrics.f1_score)
    return np.array([float(score(true, predicted, **options)) for score in names])


def conlleval(true: Tags, predicted: Tags) -> Any:
    import conlleval as package

    lines = []
    for a, b in zip(true, predicted):
        lines += [f"w {x} {y}" for x, y in zip(a, b)] + [""]
    overall = package.evaluate(lines)["overall"]["chunks"]["evals"]
    return np.array([float(overall[name]) for name in ("prec", "rec", "f1")])


def nervaluate(true: Tags, predicted: Tags) -> Any:
    from nervaluate.evaluator import Evaluator

    kinds = sorted({tag[2:] for tags in (*true, *predicted) for tag in tags if tag != "O"})
    strict = Evaluator(true, predicted, tags=kinds, loader="list").evaluate()["overall"]["strict"]
    return np.array([float(getattr(strict, name)) for name in ("precision", "recall", "f1")])


def crf_suite_metrics(true: Tags, predicted: Tags) -> Any:
    """Tag by tag, without O, as its users report it."""
    from sklearn_crfsuite import metrics

    kinds = sorted({tag for tags in true for tag in tags} - {"O"})
    options = {"average": "micro", "labels": kinds, "zero_division": 0}
    names = (metrics.flat_precision_score, metrics.flat_recall_score, metrics.flat_f1_score)
    return np.array([float(score(true, predicted, **options)) for score in names])


SCORERS: dict[str, Callable[[Tags, Tags], Any]] = {
    "attnembed": own,
    "conlleval": conlleval,
    "seqeval": seqeval,
    "seqeval, strict IOB2": lambda true, predicted: seqeval(true, predicted, mode="strict", scheme="IOB2"),
    "seqeval, strict without a scheme": lambda true, predicted: seqeval(true, predicted, mode="strict"),
    "nervaluate, strict": nervaluate,
    "sklearn-crfsuite, flat scores": crf_suite_metrics,
}


def asked(true: Tags, predicted: Tags) -> dict[str, Callable[[], Any]]:
    return {name: lambda score=score: score(true, predicted) for name, score in SCORERS.items()}


WHOLE = "correct tags, one chunk missed, one cut short"
AFTER_O = "an I after O is predicted"
TYPE = "an I of another type follows"
IOBES = "IOBES tags, all predicted right"

TRUE = [["B-NP", "I-NP", "O", "B-VP", "B-NP", "I-NP"], ["B-NP", "O"]]
PROBLEMS = [
    Problem(
        WHOLE,
        shares(4, 3, 2),
        "counted by conlleval's rule",
        asked(TRUE, [["B-NP", "I-NP", "O", "B-VP", "B-NP", "O"], ["O", "O"]]),
    ),
    Problem(
        AFTER_O,
        shares(1, 1, 1),
        "counted by conlleval's rule",
        asked([["O", "B-NP", "I-NP", "O"]], [["O", "I-NP", "I-NP", "O"]]),
    ),
    Problem(
        TYPE,
        shares(2, 2, 2),
        "counted by conlleval's rule",
        asked([["B-NP", "B-VP", "I-VP"]], [["B-NP", "I-VP", "I-VP"]]),
    ),
    Problem(
        IOBES,
        shares(2, 2, 2),
        "all are right",
        asked([["B-NP", "E-NP", "O", "S-VP"]], [["B-NP", "E-NP", "O", "S-VP"]]),
    ),
]

FLAT = Reason("flat_f1_score and its like score tags, not chunks", "score chunks; tags flatter where chunks are long")
STRICT = Reason(
    'in mode="strict" with a scheme an I without its B begins no chunk, so that what is broken is not counted',
    "leave the mode at its default, which is conlleval's rule; strict precision may be higher than the default's",
)
REASONS: Reasons = {
    (WHOLE, "sklearn-crfsuite, flat scores"): FLAT,
    (AFTER_O, "sklearn-crfsuite, flat scores"): FLAT,
    (TYPE, "sklearn-crfsuite, flat scores"): FLAT,
    (AFTER_O, "seqeval, strict IOB2"): STRICT,
    (TYPE, "seqeval, strict IOB2"): STRICT,
    (IOBES, "attnembed"): Reason(
        "by choice: an E or S that passed for another tag would change every score without a word",
        "write the tags as B, I and O: E as I, S as B",
    ),
    (IOBES, "seqeval, strict IOB2"): Reason(
        "an E is no tag of IOB2", "pass the scheme of the tags, or leave the mode at its default"
    ),
    (IOBES, "nervaluate, strict"): Reason(
        "its loader lets a chunk begin with B or I only, and refuses S", "write the tags as B, I and O"
    ),
}
