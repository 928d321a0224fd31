"""The experiments of [SO19] on real data: letters, chunks and horses, each with every arm of `arms`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnembed._validation import check_integer
from attnembed.experiments.arms import TASKS
from attnembed.experiments.plan import MULTIPLIERS, Repetition, ScaleSweep, Study, compute
from attnembed.experiments.registry import Outcome, Request, experiment, require_data
from attnembed.experiments.task_figures import draw_arms, draw_masks, draw_sweep, draw_tags, draw_training, draw_words
from attnembed.experiments.verdicts import Entries, markdown, numbers_of, sweep_markdown
from attnembed.experiments.words import held_out_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure


def _repetitions(request: Request, most: int, default: int) -> int:
    n = default if request.repetitions is None else request.repetitions
    n = check_integer("repetitions", n, minimum=1)
    return min(n, most)


@dataclass(frozen=True)
class _Comparison:
    """The parts of an experiment: its tables, the first of which has the figures, and the sweep over c."""

    name: str
    label: str  # of the score that selects
    studies: Mapping[str, Study]  # by the title of the table
    scale: ScaleSweep
    draw_examples: Callable[[Study, Entries, str], Callable[[], Figure]]


def _outcome(request: Request, comparison: _Comparison) -> Outcome:
    name, studies, scale = comparison.name, comparison.studies, comparison.scale
    path = str(require_data(request, f"the data of {name!r}").resolve())
    TASKS[scale.task].load(path, 0)  # an unreadable file should not wait for the first run
    records = compute(request, name, path, studies.values(), scale)
    tables, numbers, found = [], {}, {}
    for title, study in studies.items():
        entries = found[title] = study.entries(path, records)
        tables.append(markdown(title, study, entries, quick=request.quick))
        numbers[title] = numbers_of(study, entries, quick=request.quick)
    scores = scale.scores(path, records)
    tables.append(sweep_markdown(scores, f"sweep over c, {scale.task}", scale.trained_once(path), quick=request.quick))
    numbers["sweep"] = {
        "multipliers": list(MULTIPLIERS),
        "trained_once": [f"{objective}.{arm}" for arm, objective in scale.trained_once(path)],
        **{f"{objective}.{arm}": values for (arm, objective), values in scores.items()},
    }
    first = next(iter(studies))
    study, entries = studies[first], found[first]
    label = f"{comparison.label}, test"
    return Outcome(
        {"studies": {title: vars(study) for title, study in studies.items()}, "sweep": vars(scale)},
        numbers,
        {
            name: draw_arms(study, entries, label),
            f"{name}-training": draw_training(study, entries, comparison.label),
            f"{name}-scale": draw_sweep(scores, label),
            f"{name}-examples": comparison.draw_examples(study, entries, path),
        },
        text="\n".join(tables),
    )


_OCR = (("ocr_letters.npz",), ("letter.data",), ("letter.data.gz",), ("letters.pickle",))
_CONLL = tuple(
    (f"{folder}train.txt{one}", f"{folder}test.txt{other}")
    for folder in ("", "conll2000/")
    for one in ("", ".gz")
    for other in ("", ".gz")
)
_HORSES = (("weizmann32.npz",), ("horse", "mask"), ("rgb", "figure_ground"))


@experiment(
    "ocr",
    "stage, joint and scaled training of chains on handwritten words (--data, --split words)",
    long=True,
    files=_OCR,
    splits=("folds", "words"),
)
def ocr(request: Request) -> Outcome:
    """Taskar's letters: the large split with a convolutional network over folds, the small one with an MLP.

    With ``split="words"`` a part of the word types is held out, see `attnembed.experiments.words`.
    """
    if request.split == "words":
        return held_out_words(request)
    n = _repetitions(request, 10, 2 if request.quick else 10)
    folds = tuple(Repetition(split, 0) for split in range(n))
    if request.quick:
        studies = {"small training set": Study("ocr-small", folds, (0.003,), 4, ("nll", "ssvm"))}
        scale = ScaleSweep("ocr-small", 0.003, 4, ("nll",))
    else:
        objectives = TASKS["ocr-large"].objectives
        seeds = tuple(Repetition(split, seed) for seed in range(3) for split in range(n))
        studies = {
            "large training set": Study("ocr-large", folds, (0.03, 0.04), 6, objectives),
            "small training set": Study("ocr-small", seeds, (0.01, 0.03), 12, objectives),
        }
        scale = ScaleSweep("ocr-large-mlp", 0.003, 10, ("nll", "ssvm"))
    return _outcome(request, _Comparison("ocr", "letters right (%)", studies, scale, draw_words))


@experiment("chunking", "stage, joint and scaled training of chains on CoNLL-2000 (--data)", long=True, files=_CONLL)
def chunking(request: Request) -> Outcome:
    """Features of a window of words, embedded and summed, one hidden layer, a chain."""
    n = _repetitions(request, 100, 1 if request.quick else 3)
    objectives = ("nll",) if request.quick else TASKS["chunking"].objectives
    epochs = 2 if request.quick else 6
    seeds = tuple(Repetition(k, k) for k in range(n))
    study = Study("chunking", seeds, (0.003,) if request.quick else (0.003, 0.01), epochs, objectives)
    scale = ScaleSweep("chunking", 0.003, epochs, objectives[:2])
    return _outcome(request, _Comparison("chunking", "chunk F1 (%)", {"CoNLL-2000": study}, scale, draw_tags))


@experiment("segmentation", "stage, joint and scaled training of grids on horses (--data)", long=True, files=_HORSES)
def segmentation(request: Request) -> Outcome:
    """A small convolutional network with two scales and a 4-connected grid."""
    n = _repetitions(request, 100, 1 if request.quick else 5)
    objectives = ("pseudolikelihood",) if request.quick else TASKS["segmentation"].objectives
    epochs = 2 if request.quick else 12
    seeds = tuple(Repetition(k, k) for k in range(n))
    study = Study("segmentation", seeds, (0.01,) if request.quick else (0.005, 0.01), epochs, objectives)
    scale = ScaleSweep("segmentation", 0.01, epochs, objectives[:1] if request.quick else ("mean_field", "ssvm"))
    return _outcome(request, _Comparison("segmentation", "foreground IoU (%)", {"horses": study}, scale, draw_masks))
