"""Experiments: each returns its numbers and its figures; `reproduce` writes them whole, with all that made them."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnembed._files import PathLike, replacing, versions, write_json
from attnembed._validation import check_choice, check_integer
from attnembed.attention.reviews import ReaderOptions
from attnembed.errors import DataFileError, InputError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from matplotlib.figure import Figure

__all__ = ["Experiment", "Outcome", "Request", "Written", "experiment", "experiments", "reproduce"]

_MODULES = tuple(f"attnembed.experiments.{name}" for name in ("synthetic", "reviews", "structured"))
DATA_VARIABLE = "ATTNEMBED_DATA"


@dataclass(frozen=True)
class Request:
    """What an experiment is asked for: a data path (or None), a quick version, a seed, a folder for partial work.

    ``repetitions`` (folds or seeds; None: the experiment's own number) and ``executor`` are read by those that consist
    of many runs, ``reader`` (the options of `load_reviews`) by those that read reviews.
    """

    data: Path | None
    quick: bool
    seed: int
    out: Path
    repetitions: int | None = None
    executor: Executor | None = None
    reader: ReaderOptions = field(default_factory=ReaderOptions)


@dataclass(frozen=True)
class Outcome:
    """What an experiment found: its parameters, its numbers, and how to draw each figure (name -> function).

    ``text`` is a page in Markdown that says the same for people; without one the numbers are listed.
    """

    parameters: Mapping[str, Any]
    numbers: Mapping[str, Any]
    figures: Mapping[str, Callable[[], Figure]]
    text: str = ""


@dataclass(frozen=True)
class Experiment:
    """A registered experiment; one that is ``long`` takes more than minutes at full size.

    ``reads_reviews`` says that it takes the options of `load_reviews`.
    """

    name: str
    summary: str
    run: Callable[[Request], Outcome] = field(repr=False)
    long: bool = False
    reads_reviews: bool = False


@dataclass(frozen=True)
class Written:
    """An experiment's numbers and the files that hold them."""

    name: str
    numbers: Mapping[str, Any]
    files: tuple[Path, ...]
    seconds: float
    text: str = ""

    def __str__(self) -> str:
        rows = list(number_rows(self.numbers))
        width = max((len(name) for name, _ in rows), default=0)
        lines = [self.text] if self.text else [f"{name:<{width}}  {value}" for name, value in rows]
        lines += [f"written: {path}" for path in self.files]
        return "\n".join([*lines, f"{self.name}: {self.seconds:.1f} s"])


_registry: dict[str, Experiment] = {}


def experiment(
    name: str, summary: str, *, long: bool = False, reads_reviews: bool = False
) -> Callable[[Callable[[Request], Outcome]], Callable[[Request], Outcome]]:
    """Register a function as the experiment ``name``."""

    def register(run: Callable[[Request], Outcome]) -> Callable[[Request], Outcome]:
        _registry[name] = Experiment(name, summary, run, long, reads_reviews)
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
) -> Written:
    """Run an experiment and write OUT/NAME.png (or NAME-*.png) and OUT/NAME.json, and OUT/NAME.md where it has tables.

    The JSON holds the numbers, the parameters, the seed and the versions. ``data`` defaults to the folder named by
    the variable ATTNEMBED_DATA. The structured tasks take ``repetitions`` and any `concurrent.futures.Executor`, keep
    their runs in OUT/NAME-runs.jsonl and go on from there when started again. The reviews take the options of
    `load_reviews` as ``reader``, such as ``{"where": {"source": "imdb"}}``.
    """
    check_choice("name", name, [entry.name for entry in experiments()])
    seed = check_integer("rng", rng, minimum=0)
    if data is None and os.environ.get(DATA_VARIABLE):
        data = os.environ[DATA_VARIABLE]
    if reader and not _registry[name].reads_reviews:
        takers = ", ".join(entry.name for entry in experiments() if entry.reads_reviews)
        raise InputError(next(iter(reader)), f"belongs to {takers}", got=f"experiment {name}")
    folder = output_folder(out)
    start = time.perf_counter()
    request = Request(
        None if data is None else Path(data), bool(quick), seed, folder, repetitions, executor, reader or {}
    )
    outcome = _registry[name].run(request)
    files = []
    if outcome.text:
        files.append(folder / f"{name}.md")
        with replacing(files[-1]) as temporary:
            temporary.write_text(outcome.text, encoding="utf-8")
    for figure_name, draw in outcome.figures.items():
        files.append(folder / f"{figure_name}.png")
        write_figure(draw, files[-1])
    seconds = time.perf_counter() - start
    path = folder / f"{name}.json"
    write_json(
        path,
        {
            "experiment": name,
            "quick": bool(quick),
            "seed": seed,
            "parameters": dict(outcome.parameters),
            "numbers": dict(outcome.numbers),
            "versions": versions(),
            "seconds": round(seconds, 2),
        },
    )
    return Written(name, outcome.numbers, (*files, path), seconds, outcome.text)


def require_data(request: Request, what: str) -> Path:
    """The data path of a request, or an error that says how to give it."""
    if request.data is None:
        raise InputError("data", f"must name {what}", got="none", hint=f"pass --data PATH or set {DATA_VARIABLE}")
    if not request.data.exists():
        raise DataFileError(request.data, "does not exist")
    return request.data


def output_folder(path: PathLike) -> Path:
    """The folder, made before the work rather than after it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise DataFileError(folder, f"cannot be made: {getattr(error, 'strerror', None) or error}") from error
    return folder


def write_figure(draw: Callable[[], Figure], path: Path) -> None:
    from attnembed.plotting import style

    with style(), replacing(path) as temporary:
        draw().savefig(temporary, format="png", dpi=150)


def number_rows(numbers: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """One line per number: means with their spread, lists of words joined, lists of numbers left out."""
    for name, value in numbers.items():
        if isinstance(value, Mapping) and set(value) in ({"mean", "std"}, {"mean", "standard_error"}):
            mean, spread = value.values()
            yield f"{prefix}{name}", f"{mean:.5g} +- {spread:.2g}"
        elif isinstance(value, Mapping):
            yield from number_rows(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"{prefix}{name}", f"{value:.6g}"
        elif isinstance(value, (list, tuple)):
            if all(isinstance(item, str) for item in value):
                yield f"{prefix}{name}", ", ".join(value)
        else:
            yield f"{prefix}{name}", str(value)
