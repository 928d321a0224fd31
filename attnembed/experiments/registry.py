"""Experiments: each returns its numbers and figures; `reproduce` writes them atomically, with all their inputs."""

from __future__ import annotations

import importlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnembed._declared import EXPERIMENT_MODULES
from attnembed._files import PathLike, versions, writable_folder, write_json, write_text
from attnembed._validation import check_choice, check_flag, check_integer, check_mapping
from attnembed._workers import check_executor
from attnembed.attention.reviews import ReaderOptions
from attnembed.errors import DataFileError, DataNotGivenError, InputError, InputTypeError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from matplotlib.figure import Figure

__all__ = ["Experiment", "Outcome", "Request", "Written", "experiment", "experiments", "reproduce"]

_MODULES = EXPERIMENT_MODULES
DATA_VARIABLE = "ATTNEMBED_DATA"

# For a quick run: the ending of its file names, and the text above its figures and its tables.
QUICK_ENDING = "-quick"
QUICK_TITLE = "quick run, for a first look"
QUICK_REMARK = "**Quick run**: smaller data or fewer epochs and repetitions, for a first look; not conclusive."


@dataclass(frozen=True)
class Request:
    """The options of a run: a data path (or None), a quick version, a seed, and a folder for partial work.

    ``repetitions`` (folds or seeds; None: the experiment's own number), ``executor`` and ``workers`` are read by those
    that consist of many runs; ``split`` (how the data are split; empty: the experiment's own way) by those that know
    several; ``data_name`` (what to call the data; empty: the experiment's own name) and ``reader`` (the options of
    `load_reviews`) by those that read reviews.
    """

    data: Path | None
    quick: bool
    seed: int
    out: Path
    repetitions: int | None = None
    executor: Executor | None = None
    data_name: str = ""
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    workers: int | None = None
    split: str = ""


@dataclass(frozen=True)
class Outcome:
    """The outcome of an experiment: its parameters, its numbers, and a function to draw each figure, by name.

    ``text`` is a readable summary in Markdown; without one the numbers are listed. ``name`` is the name of the files
    (default: that of the experiment).
    """

    parameters: Mapping[str, Any]
    numbers: Mapping[str, Any]
    figures: Mapping[str, Callable[[], Figure]]
    text: str = ""
    name: str = ""


def holds(path: Path, groups: tuple[tuple[str, ...], ...]) -> bool:
    """Whether a folder holds all files of one group, or a file's name forms a whole group."""
    if path.is_dir():
        return any(all((path / name).exists() for name in group) for group in groups)
    return (path.name,) in groups


@dataclass(frozen=True)
class Experiment:
    """A registered experiment.

    Attributes
    ----------
    long : it takes more than minutes at full size
    files : groups of names; a folder that holds all of one group has the data of the experiment. Empty: it needs none
    ignores : what it does not read of its `Request`: "data", "repetitions"
    reads_reviews : it takes any reviews, a name for them, and the options of `load_reviews`
    any_file : a report runs it on a file whose name no experiment knows
    splits : the ways to split its data that can be asked for
    """

    name: str
    summary: str
    run: Callable[[Request], Outcome] = field(repr=False)
    long: bool = False
    ignores: tuple[str, ...] = ()
    files: tuple[tuple[str, ...], ...] = ()
    reads_reviews: bool = False
    any_file: bool = False
    splits: tuple[str, ...] = ()

    def knows(self, path: Path) -> bool:
        """Whether a folder holds the data of the experiment, or a file's name is the only one needed."""
        return holds(path, self.files)


@dataclass(frozen=True)
class Written:
    """The numbers of an experiment and the files that hold them."""

    name: str
    numbers: Mapping[str, Any]
    files: tuple[Path, ...]
    seconds: float
    text: str = ""
    quick: bool = False

    def __str__(self) -> str:
        rows = list(number_rows(self.numbers))
        width = max((len(name) for name, _ in rows), default=0)
        lines = [self.text] if self.text else [f"{name:<{width}}  {value}" for name, value in rows]
        lines += [note] if (note := spread_note(self.numbers)) and not self.text else []
        lines += [f"written: {path}" for path in self.files]
        return "\n".join([*lines, f"{self.name}{', quick run' if self.quick else ''}: {self.seconds:.1f} s"])


_registry: dict[str, Experiment] = {}


def experiment(
    name: str,
    summary: str,
    *,
    long: bool = False,
    ignores: tuple[str, ...] = (),
    files: tuple[tuple[str, ...], ...] = (),
    reads_reviews: bool = False,
    any_file: bool = False,
    splits: tuple[str, ...] = (),
) -> Callable[[Callable[[Request], Outcome]], Callable[[Request], Outcome]]:
    """Register a function as the experiment ``name``; `Experiment` describes the options."""

    def register(run: Callable[[Request], Outcome]) -> Callable[[Request], Outcome]:
        _registry[name] = Experiment(name, summary, run, long, ignores, files, reads_reviews, any_file, splits)
        return run

    return register


def experiments() -> tuple[Experiment, ...]:
    """The registered experiments, by name."""
    for module in _MODULES:
        importlib.import_module(module)
    return tuple(_registry[name] for name in sorted(_registry))


def reproduce(
    name: str,
    *,
    data: PathLike | None = None,
    out: PathLike = "results",
    quick: bool = False,
    repetitions: int | None = None,
    executor: Executor | None = None,
    reader: ReaderOptions | None = None,
    rng: int = 0,
    data_name: str = "",
    workers: int | None = None,
    split: str = "",
) -> Written:
    """Run an experiment and write OUT/NAME.png (or NAME-*.png) and OUT/NAME.json, and OUT/NAME.md if it has tables.

    The JSON holds the numbers, the parameters, the seed and the versions.

    Parameters
    ----------
    name : one of `attnembed list`, such as "selection" or "ocr"
    data : file or folder of the real data (default: that named by the variable ATTNEMBED_DATA); synthetic experiments
        need none
    out : folder to write to, created if missing
    quick : a smaller version, for a first look, marked as such in its figures and tables; its files are called
        NAME-quick and never replace the results of a full run
    repetitions : of the structured tasks (folds, or splits with a seed each) and of the reviews; None: the experiment's
        own number. The structured tasks keep their runs in OUT/NAME-runs.jsonl and continue from there when restarted
    executor : any `concurrent.futures.Executor` for the runs of the structured tasks
    reader : options of `load_reviews` for the experiments on reviews, such as ``{"where": {"source": "imdb"}}``
    rng : the seed, an int
    data_name : what to call the reviews in titles and file names
    workers : number of processes in which the structured tasks make their runs, where no executor is given (default:
        one per core)
    split : of "ocr", "folds" (the default) or "words", which holds out a part of the word types; its files are called
        ocr-words

    Returns
    -------
    Written
        ``numbers``, the ``files`` that were written, ``seconds``, and ``text``, the tables in Markdown

    Raises
    ------
    InputError
        for a name that is not registered, or an option that cannot be used.
    DataNotGivenError
        if the experiment needs data and none are named.
    DataFileError
        for data that cannot be read, and a folder that cannot be written.
    RunFailedError
        if one of many runs has failed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     written = reproduce("alignment", out=folder, quick=True)
    >>> [path.name for path in written.files]
    ['alignment-quick.png', 'alignment-quick.json']
    >>> 0.9 < written.numbers["measured_slope"] / written.numbers["predicted_slope"] < 1.1
    True
    """
    check_choice("name", name, [entry.name for entry in experiments()])
    seed = check_integer("rng", rng, minimum=0)
    check_flag("quick", quick)
    if repetitions is not None:
        check_integer("repetitions", repetitions, minimum=1)
    if executor is not None:
        check_executor(executor)
    entry = _registry[name]
    _check_runs(entry, executor, workers, split)
    _check_data_name(entry, data_name)
    _check_reader(entry, reader)
    folder = writable_folder(out)
    start = time.perf_counter()
    path, reader = _data_path(data), reader or {}
    request = Request(path, bool(quick), seed, folder, repetitions, executor, data_name, reader, workers, split)
    outcome = entry.run(request)
    ending = QUICK_ENDING if quick else ""
    base, text = outcome.name or name, outcome.text
    files = []
    if text:
        text = f"{QUICK_REMARK}\n\n{text}" if quick else text
        files.append(folder / f"{base}{ending}.md")
        write_text(files[-1], text)
    for figure_name, draw in outcome.figures.items():
        files.append(folder / f"{figure_name}{ending}.png")
        write_figure(draw, files[-1], remark=QUICK_TITLE if quick else "")
    seconds = time.perf_counter() - start
    path = folder / f"{base}{ending}.json"
    write_json(
        path,
        {
            "experiment": name,
            "data_name": base,
            "quick": bool(quick),
            "seed": seed,
            "parameters": dict(outcome.parameters),
            "numbers": dict(outcome.numbers),
            "versions": versions(),
            "seconds": round(seconds, 2),
        },
    )
    return Written(name, outcome.numbers, (*files, path), seconds, text, bool(quick))


def _check_runs(entry: Experiment, executor: Any, workers: Any, split: Any) -> None:
    """The conduct of the runs, and the split of the data."""
    if workers is not None:
        check_integer("workers", workers, minimum=1)
        if executor is not None:
            raise InputError("workers", "and `executor` exclude each other", hint="give one of them")
        if not entry.long:
            takers = ", ".join(other.name for other in experiments() if other.long)
            raise InputError("workers", f"belongs to {takers}", got=f"{workers} for {entry.name}")
    if not isinstance(split, str):
        raise InputTypeError("split", "must be text", got=type(split).__name__)
    if split and not entry.splits:
        takers = ", ".join(other.name for other in experiments() if other.splits)
        raise InputError("split", f"belongs to {takers}", got=f"{split!r} for {entry.name}")
    if split:
        check_choice("split", split, entry.splits)


_DATA_NAME = re.compile(r"\w[\w.+-]*")


def _check_data_name(entry: Experiment, data_name: Any) -> None:
    if not isinstance(data_name, str):
        raise InputTypeError("data_name", "must be text", got=type(data_name).__name__)
    if data_name and not entry.reads_reviews:
        takers = ", ".join(other.name for other in experiments() if other.reads_reviews)
        raise InputError("data_name", f"belongs to {takers}", got=f"{data_name!r} for {entry.name}")
    if data_name and not _DATA_NAME.fullmatch(data_name):
        hint = "use letters, digits, dots and hyphens, because files get this name"
        raise InputError("data_name", "must be a word", got=repr(data_name), hint=hint)


def _check_reader(entry: Experiment, reader: Any) -> None:
    if reader is not None and check_mapping("reader", reader, "options of load_reviews") and not entry.reads_reviews:
        takers = ", ".join(other.name for other in experiments() if other.reads_reviews)
        raise InputError(next(iter(reader)), f"belongs to {takers}", got=f"experiment {entry.name}")


def _data_path(data: PathLike | None) -> Path | None:
    if data is None:
        data = os.environ.get(DATA_VARIABLE) or None
    try:
        return None if data is None else Path(data)
    except TypeError as error:
        raise InputTypeError("data", "must be a path", got=type(data).__name__) from error


def requested_data(data: PathLike | None) -> Path | None:
    """The path of the data, by default from the environment variable; DataFileError if it does not exist."""
    path = _data_path(data)
    if path is not None and not _exists(path):
        raise DataFileError(path, "does not exist")
    return path


def require_data(request: Request, what: str) -> Path:
    """The data path of a request, or an error that tells how to give it."""
    if request.data is None:
        hint = f"pass --data PATH or set {DATA_VARIABLE}"
        raise DataNotGivenError("data", f"must name {what}", got="none", hint=hint)
    path = requested_data(request.data)
    assert path is not None
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return False


def unavailable(entry: Experiment, data: Path | None) -> str:
    """The reason why the data of an experiment are missing, in a sentence; empty if they are not, or none are needed.

    Looks only at names: files that exist but cannot be read are no reason to leave an experiment out.
    """
    if not entry.files or data is None or entry.knows(data):
        return ""  # if no data are named, the experiment itself tells how to name them
    if data.is_dir():
        return f"{data}: holds none of {', '.join(' + '.join(group) for group in entry.files)}"
    if entry.any_file and not any(other.knows(data) for other in experiments()):
        return ""
    return f"{data}: is not one of the files of this experiment"


def write_figure(draw: Callable[[], Figure], path: Path, *, remark: str = "") -> None:
    """Draw a figure and write it as PNG, with a remark above it."""
    from attnembed.plotting import add_remark, save_figure, style

    with style():
        figure = draw()
        if remark:
            add_remark(figure, remark)
        save_figure(figure, path)


_SPREADS = {"std": "standard deviation over the repetitions", "standard_error": "standard error of the mean"}


def spread_note(numbers: Mapping[str, Any]) -> str:
    """What +- stands for in the `number_rows`; empty if there is none.

    >>> spread_note({"accuracy": {"mean": 0.9, "std": 0.1}, "n": 5})
    '+-: standard deviation over the repetitions'
    """
    kinds = dict.fromkeys(_spreads(numbers))
    return f"+-: {' or '.join(_SPREADS[kind] for kind in kinds)}" if kinds else ""


def _spreads(numbers: Mapping[str, Any]) -> Iterator[str]:
    for value in numbers.values():
        if isinstance(value, Mapping):
            found = [kind for kind in _SPREADS if set(value) == {"mean", kind}]
            yield from (kind for kind in found if is_number(value[kind]))
            yield from _spreads(value) if not found else ()


def number_rows(numbers: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """One row per number: means with their spread, lists of words joined, lists of numbers left out."""
    for name, value in numbers.items():
        if isinstance(value, Mapping) and set(value) in [{"mean", kind} for kind in _SPREADS]:
            mean, spread = value.values()
            yield f"{prefix}{name}", f"{mean:.5g}" + (f" +- {spread:.2g}" if is_number(spread) else "")
        elif isinstance(value, Mapping):
            yield from number_rows(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"{prefix}{name}", f"{value:.6g}"
        elif isinstance(value, (list, tuple)):
            if all(isinstance(item, str) for item in value):
                yield f"{prefix}{name}", ", ".join(value)
        else:
            yield f"{prefix}{name}", str(value)


def is_number(value: Any) -> bool:
    """Whether a spread is known: for a single run it is None or NaN, and NaN is written to JSON as text."""
    return isinstance(value, (int, float)) and math.isfinite(value)
