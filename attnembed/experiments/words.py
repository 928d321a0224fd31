"""The letters with word types held out: what chains and scaling gain on known words, and what on new ones.

All 55 word types occur in every fold of the letters, so that a chain tested on another fold is tested on the words
that it has learned. Here five groups of types take turns at being the test, and every arm is tested on two
populations: new words, and known ones in other folds. Epochs and step sizes are selected on new words of another group,
and, to show what that does, on known ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attnembed._typing import Floats
from attnembed._validation import check_integer
from attnembed.compare import standard_error
from attnembed.experiments.arms import ARMS, JOINT, SCALED, SCALED_ON_NEW, TASKS, Row, row_of
from attnembed.experiments.letters import TYPE_GROUPS
from attnembed.experiments.plan import MULTIPLIERS, Entry, Records, Repetition, ScaleSweep, Study, compute
from attnembed.experiments.registry import Outcome, Request, is_number, require_data
from attnembed.experiments.task_figures import draw_populations, draw_sweep_populations
from attnembed.experiments.verdicts import answer_of, best_arm, once_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["POPULATIONS", "held_out_words", "page", "verdict_page"]

POPULATIONS = ("known", "new")
_ARMS = (*JOINT, *SCALED_ON_NEW)
_NAME = "ocr-words"
_LABEL = "letters right (%)"


def _studies(request: Request) -> tuple[dict[str, Study], ScaleSweep]:
    n = TYPE_GROUPS if request.repetitions is None else check_integer("repetitions", request.repetitions, minimum=1)
    splits = tuple(Repetition(split, 0) for split in range(min(n, TYPE_GROUPS)))
    if request.quick:
        study = Study("ocr-words-small", splits[:2], (0.01,), 4, ("nll",), _ARMS, "new")
        return {"small training set": study}, ScaleSweep("ocr-words-small", 0.01, 4, ("nll",))
    objectives = TASKS["ocr-words-large"].objectives
    seeds = tuple(Repetition(pair.split, seed) for seed in range(3) for pair in splits)
    studies = {
        "large training set": Study("ocr-words-large", splits, (0.03, 0.04), 6, objectives, _ARMS, "new"),
        "large training set, MLP": Study("ocr-words-large-mlp", splits, (0.003, 0.01), 10, objectives, _ARMS, "new"),
        "small training set": Study("ocr-words-small", seeds, (0.01, 0.03), 12, objectives, _ARMS, "new"),
    }
    return studies, ScaleSweep("ocr-words-large-mlp", 0.003, 10, ("nll", "ssvm"))


def held_out_words(request: Request) -> Outcome:
    """The outcome of ``reproduce ocr --split words``."""
    studies, scale = _studies(request)
    path = str(require_data(request, "the data of 'ocr'").resolve())
    for study in studies.values():  # a split that cannot be made should not wait for the first run
        for split in sorted({pair.split for pair in study.repetitions}):
            TASKS[study.task].load(path, split)
        break
    by_selection = {s: {title: replace(study, selection=s) for title, study in studies.items()} for s in POPULATIONS}
    every = [study for found in by_selection.values() for study in found.values()]
    records = compute(request, _NAME, path, every, scale)
    numbers: dict[str, Any] = {
        title: {
            "splits": len({pair.split for pair in study.repetitions}),
            "repetitions": len(study.repetitions),
            "epochs": study.epochs,
            "step_sizes": list(study.step_sizes),
            **{f"selected on {s} words": _study_numbers(by_selection[s][title], path, records) for s in POPULATIONS},
            "verdicts": _verdicts(by_selection["new"][title], path, records, quick=request.quick),
        }
        for title, study in studies.items()
    }
    sweep = _sweep_numbers(scale, path, records)
    once = [f"{objective}.{arm}" for arm, objective in scale.trained_once(path)]
    numbers["sweep"] = {"task": scale.task, "multipliers": list(MULTIPLIERS), "trained_once": once, **sweep}
    first = next(iter(by_selection["new"].values()))
    entries = {population: first.entries(path, records, population) for population in POPULATIONS}
    figures: dict[str, Callable[[], Figure]] = {
        _NAME: draw_populations(first, entries, f"{_LABEL}, test"),
        f"{_NAME}-scale": draw_sweep_populations(sweep, f"{_LABEL}, test"),
    }
    parameters = {"studies": {title: vars(study) for title, study in studies.items()}, "sweep": vars(scale)}
    return Outcome(parameters, numbers, figures, text=page(numbers), name=_NAME)


# --- numbers ----------------------------------------------------------------------------------------------------------


def _summary(values: Floats) -> dict[str, Any]:
    """Mean and standard error over the splits, and the splits themselves; no error of a single one."""
    error = standard_error(values)
    return {"mean": float(values.mean()), "standard_error": error if is_number(error) else None, "of": values.tolist()}


def _study_numbers(study: Study, path: str, records: Records) -> dict[str, Any]:
    """By row of the table ("unary", or "OBJECTIVE.ARM"), the columns, each a mean with its standard error."""
    plain, rescaled = (
        {population: study.entries(path, records, population, rescaled=flag) for population in POPULATIONS}
        for flag in (False, True)
    )
    out: dict[str, Any] = {}
    for row in study.rows():
        columns: dict[str, Any] = {"step_size": plain["new"][row].step_size}
        for population in POPULATIONS:
            entry = plain[population][row]
            for score in entry.records[0]["test"]:
                columns[f"{population}, {score}"] = _summary(entry.scores(name=score))
            factors = [record["factor"] for record in entry.records if record.get("factor") is not None]
            if len(factors) == len(entry.records):
                columns[f"{population}, factor"] = _factor(entry, factors)
                columns[f"{population}, rescaled"] = _summary(rescaled[population][row].scores())
            for title, scores in entry.records[0]["found"].get("baselines", {}).get(population, {}).items():
                for score in scores:
                    found = [record["found"]["baselines"][population][title] for record in entry.records]
                    other = replace(entry, records=tuple({"test": one} for one in found))
                    key = f"{population}, {score}"
                    out.setdefault(f"baseline: {title}", {})[key] = _summary(other.scores(name=score))
        out["unary" if row.arm == "unary" else f"{row.objective}.{row.arm}"] = columns
    return out


def _factor(entry: Entry, factors: Sequence[float]) -> dict[str, Any]:
    """The geometric mean of the best factors of W, and its standard error as a share of it."""
    logs = replace(entry, records=tuple({"test": {"log": float(np.log(factor))}} for factor in factors)).scores()
    error = standard_error(logs)
    return {"mean": float(np.exp(logs.mean())), "relative_error": error if is_number(error) else None}


class _Question(NamedTuple):
    """What a verdict answers: whether the best of some arms, on validation data, falls behind another arm."""

    title: str
    arms: tuple[str, ...]
    against: str


_CHAINS = ("stage", *JOINT)
_QUESTIONS = (
    _Question("does scaling reach stages", SCALED, "stage"),
    _Question("does the best chain reach the network alone", _CHAINS, "unary"),
    _Question("does scaling fitted on new words reach the network alone", SCALED_ON_NEW, "unary"),
)


def _verdicts(study: Study, path: str, records: Records, *, quick: bool) -> list[dict[str, Any]]:
    """For each question, objective and population: the answer, and the difference in points with its error."""
    out = []
    for population in POPULATIONS:
        entries = study.entries(path, records, population)
        for question in _QUESTIONS:
            for objective in study.objectives:
                arm = best_arm(entries, question.arms, objective)
                against = entries[row_of(question.against, objective)].scores()
                difference = 100 * (entries[Row(arm, objective)].scores() - against)
                answer, reason = answer_of(difference, quick=quick)
                out.append(
                    {
                        "population": population,
                        "question": question.title,
                        "objective": objective,
                        "answer": answer,
                        "reason": reason,
                        "arm": arm,
                        **_summary(difference),
                    }
                )
    return out


def _sweep_numbers(scale: ScaleSweep, path: str, records: Records) -> dict[str, dict[str, list[float]]]:
    """By population and row, the test scores over `MULTIPLIERS`; the epoch is selected on new words."""

    def score(record: Mapping[str, Any], population: str) -> float:
        return float(next(iter(record["populations"]["new"]["test"][population].values())))

    return {
        population: {
            f"{row.objective}.{row.arm}": [score(records[run][row.objective], population) for run in runs]
            for row, runs in scale.runs(path).items()
        }
        for population in POPULATIONS
    }


# --- the page ---------------------------------------------------------------------------------------------------------


def page(numbers: Mapping[str, Any]) -> str:
    """The page of the experiment, from the ``numbers`` of its JSON file: verdicts first, then the tables."""
    blocks = [verdict_page(numbers)]
    for title in (title for title in numbers if title != "sweep"):
        blocks += _tables(title, numbers[title])
    return "\n".join([*blocks, *_sweep_tables(numbers["sweep"])]).rstrip() + "\n"


def verdict_page(numbers: Mapping[str, Any]) -> str:
    """The tables of verdicts alone."""
    return "\n".join(_verdict_tables({title: found for title, found in numbers.items() if title != "sweep"}))


def _verdict_tables(studies: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for question in _QUESTIONS:
        yield f"**{question.title[0].upper()}{question.title[1:]}?**"
        yield ""
        yield "| training set, words | " + " | ".join(_objectives(next(iter(studies.values())))) + " |"
        yield "|---" * (1 + len(_objectives(next(iter(studies.values()))))) + "|"
        for title, found in studies.items():
            for population in POPULATIONS:
                cells = [
                    f"{one['answer']}: {_signed(one)} ({ARMS[one['arm']].title.removeprefix('joint, ')})"
                    for one in found["verdicts"]
                    if (one["population"], one["question"]) == (population, question.title)
                ]
                yield f"| {title}, {population} | " + " | ".join(cells) + " |"
        yield ""


def _objectives(found: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(one["objective"] for one in found["verdicts"]))


_COLUMNS = (
    ("known words", "new", "known, letters"),
    ("new words", "new", "new, letters"),
    ("known words, selected on known", "known", "known, letters"),
    ("new words, selected on known", "known", "new, letters"),
    ("best factor of W, known", "new", "known, factor"),
    ("best factor of W, new", "new", "new, factor"),
    ("new words, W at that factor", "new", "new, rescaled"),
    ("whole words, known", "new", "known, words"),
    ("whole words, new", "new", "new, words"),
)


def _tables(title: str, found: Mapping[str, Any]) -> Iterator[str]:
    n, splits = found["repetitions"], found["splits"]
    repeated = f"{splits} splits" + (f", {n // splits} seeds each" if n > splits else "")
    sizes = ", ".join(f"{size:g}" for size in found["step_sizes"])
    for objective in _objectives(found):
        yield f"**{title}, {objective}**: {repeated}, {found['epochs']} epochs, step sizes {sizes}"
        yield ""
        yield "| arm | " + " | ".join(name for name, _, _ in _COLUMNS) + " |"
        yield "|---" * (1 + len(_COLUMNS)) + "|"
        rows = [key for key in found["selected on new words"] if key.startswith("baseline: ")]
        rows += ["unary", *(key for key in found["selected on new words"] if key.startswith(f"{objective}."))]
        for key in rows:
            arm = key.removeprefix(f"{objective}.")
            name = ARMS[arm].title if arm in ARMS else key.removeprefix("baseline: ")
            cells = [
                _cell(found[f"selected on {selection} words"][key].get(column)) for _, selection, column in _COLUMNS
            ]
            yield f"| {name} | " + " | ".join(cells) + " |"
        yield ""


def _sweep_tables(sweep: Mapping[str, Any]) -> Iterator[str]:
    yield f"**sweep over c, {sweep['task']}**: letters right in points against c, one split, selected on new words"
    yield ""
    multipliers = sweep["multipliers"]
    yield "| objective, arm, words | " + " | ".join(f"c = {c:g}" for c in multipliers) + " | spread |"
    yield "|---" * (len(multipliers) + 2) + "|"
    for key in sweep[POPULATIONS[0]]:
        objective, arm = key.split(".")
        for population in POPULATIONS:
            values = sweep[population][key]
            points = " | ".join(f"{100 * value:.2f}" for value in values)
            yield f"| {objective}, {ARMS[arm].title}, {population} | {points} | {100 * np.ptp(values):.2f} |"
    once = (key.split(".") for key in sweep.get("trained_once", ()))
    yield from once_markdown(Row(arm, objective) for objective, arm in once)
    yield ""


def _cell(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return ""
    if "relative_error" in summary:
        error = summary["relative_error"]
        return f"{summary['mean']:.2f}" + (f" x/ {1 + error:.2f}" if is_number(error) else "")
    error = summary["standard_error"]
    return f"{100 * summary['mean']:.2f}" + (f" +- {100 * error:.2f}" if is_number(error) else "")


def _signed(one: Mapping[str, Any]) -> str:
    error = one["standard_error"]
    return f"{one['mean']:+.2f}" + (f" +- {error:.2f}" if is_number(error) else "")
