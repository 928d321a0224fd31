"""Experiments on synthetic data as single cells, for grids over step size, width, data and scale.

Every cell draws its own data and model. The parameters are those of docs/notation.md: ``eta`` the step size, ``d`` the
width, ``n`` sequences of ``T`` tokens over a vocabulary of ``V``; ``scale`` the norm that a random embedding has on
average, that is, E and p have standard deviation scale/sqrt(d) per coordinate. ``repeat`` only labels repetitions.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attnembed._deprecation import renamed
from attnembed._files import PathLike, versions, writable_folder, write_json
from attnembed._validation import check_choice, check_integer
from attnembed.attention.data import TokenDataset, TokenKind, make_balanced_dataset, make_iid_dataset
from attnembed.attention.first_step import OneStepResult, one_step
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.errors import DataFileError, InputError, NotSeparableError
from attnembed.experiments.registry import QUICK_ENDING, QUICK_TITLE, write_figure
from attnembed.margins import max_margin
from attnembed.sweeping import SweepResult, sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GRID_EXPERIMENTS",
    "GridExperiment",
    "Sweep",
    "margin_cell",
    "one_step_cell",
    "parse_values",
    "run_sweep",
    "selection_cell",
    "sweep_grid",
]

_IMPORTANT = 2  # completely positive tokens, and as many completely negative ones
_MOST_VALUES = 10_000
_LARGEST = 20_000_000  # tokens of a data set, and entries of E: beyond that a cell would only fill the memory


@dataclass(frozen=True)
class Parameter:
    """A parameter of the cells: its label in figures, its type ``kind`` and its range."""

    label: str
    kind: type[int] | type[float]
    low: float
    high: float


PARAMETERS: Mapping[str, Parameter] = {
    "eta": Parameter(r"step size $\eta$", float, 1e-12, 1e12),
    "d": Parameter("width d", int, 1, 10**6),
    "n": Parameter("sequences n", int, 2, 10**6),
    "T": Parameter("length T", int, 2, 10**5),
    "V": Parameter("vocabulary V", int, 2 * _IMPORTANT + 1, 10**7),
    "scale": Parameter("scale of E and p", float, 1e-12, 1e6),
}


def one_step_cell(
    *, eta: float, d: int, n: int, T: int, V: int, scale: float, rng: np.random.Generator, repeat: int = 0
) -> dict[str, float]:
    """One gradient step on E, on tokens with Zipf frequencies tilted towards one class: Lemma 4.1 of [WSOM25].

    ``error`` and ``bound``: largest distance from the prediction and its bound, relative to eta phi_s; ``alignment``:
    correlation of E_s.v with the signed frequency; ``slope``: measured over predicted slope of the change of E_s.v.

    >>> sorted(one_step_cell(eta=1.0, d=8, n=20, T=4, V=6, scale=0.0, rng=np.random.default_rng(0)))
    ['alignment', 'bound', 'error', 'slope']
    """
    tilt = rng.standard_normal(V)
    probs = np.exp([tilt, -tilt]) / np.arange(1, V + 1)
    positive, negative = probs / probs.sum(axis=1, keepdims=True)
    data = make_iid_dataset(n_samples=n, length=T, positive_probs=positive, negative_probs=negative, rng=rng)
    step = _step(data, eta, d, scale, rng)
    occurs = data.frequency > 0
    unit = eta * data.frequency[occurs]
    return {
        "error": float((step.error[occurs] / unit).max()),
        "bound": float((step.bound[occurs] / unit).max()),
        "alignment": float(np.corrcoef(step.model.token_values[occurs], data.signed_frequency[occurs])[0, 1]),
        "slope": step.measured_slope / step.slope,
    }


def selection_cell(
    *, eta: float, d: int, n: int, T: int, V: int, scale: float, rng: np.random.Generator, repeat: int = 0
) -> dict[str, Any]:
    """One step on E, then gradient flow on p until log t = 40, on data for which Assumption 1 holds.

    ``selected``: share of the sequences whose largest score belongs to the top token, that of largest y_i E_s.v;
    ``predictive``: share in which it belongs to a completely positive or negative token; ``attention``: the smallest
    attention on a top token; ``status``: how the flow ended.

    >>> cell = selection_cell(eta=60.0, d=64, n=20, T=4, V=8, scale=1.0, rng=np.random.default_rng(0))
    >>> cell["selected"], cell["predictive"]
    (1.0, 1.0)
    """
    data = _balanced(n, T, V, rng)
    flow = gradient_flow(_step(data, eta, d, scale, rng).model, data, until=40.0, max_nfev=5000)
    chosen = select(flow.model, data)
    return {
        "selected": float(np.mean(chosen.tokens == chosen.top)),
        "predictive": float(np.mean(data.token_kinds[chosen.tokens] != TokenKind.IRRELEVANT)),
        "attention": float(flow.top_attention[-1]),
        "status": flow.status.value,
    }


def margin_cell(
    *, eta: float, d: int, n: int, T: int, V: int, scale: float, rng: np.random.Generator, repeat: int = 0
) -> dict[str, float]:
    """The max-margin program that selects the predictive token of each sequence, after one step on E.

    ``separable``: 1 where the program has a solution, else 0; ``margin``: gamma / scale, 0 where there is none.

    >>> margin_cell(eta=1.0, d=64, n=20, T=4, V=8, scale=1.0, rng=np.random.default_rng(0))["separable"]
    1.0
    """
    data = _balanced(n, T, V, rng)
    model = _step(data, eta, d, scale, rng).model
    try:
        margin = max_margin(margin_constraints(model, data, data.check_assumption().important).differences).margin
    except NotSeparableError:
        margin = 0.0
    return {"separable": float(margin > 0), "margin": margin / scale}


def _balanced(n: int, T: int, V: int, rng: np.random.Generator) -> TokenDataset:
    return make_balanced_dataset(
        n_samples=n,
        length=T,
        n_positive=_IMPORTANT,
        n_negative=_IMPORTANT,
        n_irrelevant=V - 2 * _IMPORTANT,
        rng=rng,
    )


def _step(data: TokenDataset, eta: float, d: int, scale: float, rng: np.random.Generator) -> OneStepResult:
    sigma = scale / math.sqrt(d)
    model = AttentionModel.random(data.vocab_size, d, embedding_scale=sigma, cls_scale=sigma, rng=rng)
    return one_step(model, data, eta)


@dataclass(frozen=True)
class GridExperiment:
    """A cell, the defaults of its parameters, and the labels of the values to draw, by key."""

    name: str
    summary: str
    cell: Callable[..., Mapping[str, Any]] = field(repr=False)
    defaults: Mapping[str, float]
    quick: Mapping[str, float]
    shown: Mapping[str, str]


GRID_EXPERIMENTS: Mapping[str, GridExperiment] = {
    entry.name: entry
    for entry in (
        GridExperiment(
            "margin",
            "separability and margin of the program of the predictive tokens",
            margin_cell,
            {"eta": 60.0, "d": 64, "n": 100, "T": 8, "V": 44, "scale": 1.0},
            {"n": 40, "V": 24},
            {"separable": "separable share", "margin": "margin / scale"},
        ),
        GridExperiment(
            "one-step",
            "alignment of E with the signed frequency after one gradient step (Lemma 4.1)",
            one_step_cell,
            {"eta": 200.0, "d": 512, "n": 400, "T": 16, "V": 64, "scale": 1.0},
            {"d": 128, "n": 200},
            {
                "alignment": r"correlation of $E_s\cdot v$ and $\alpha_s$",
                "error": r"largest error / $(\eta\,\phi_s)$",
            },
        ),
        GridExperiment(
            "selection",
            "share of sequences in which gradient flow selects the top token, and a predictive one",
            selection_cell,
            {"eta": 60.0, "d": 64, "n": 60, "T": 8, "V": 24, "scale": 1.0},
            {"n": 40, "T": 4, "V": 12},
            {
                "selected": "sequences that select\ntheir top token",
                "predictive": "sequences that select\na predictive token",
            },
        ),
    )
}


@dataclass(frozen=True)
class Sweep:
    """A finished sweep, its means over the repetitions, and its files."""

    name: str
    swept: tuple[str, ...]
    result: SweepResult
    files: tuple[Path, ...]
    seconds: float

    def __str__(self) -> str:
        shown = tuple(GRID_EXPERIMENTS[self.name].shown)
        rows = [(*self.swept, *shown)]
        for point, values in _points(self.result, self.swept, shown):
            rows.append((*(f"{x:.4g}" for x in point), *(_cell_text(values[key]) for key in shown)))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths)) for row in rows]
        lines += (
            ["+-: standard deviation over the repetitions"] if any("+-" in text for row in rows for text in row) else []
        )
        lines += [f"written: {path}" for path in self.files]
        return "\n".join([*lines, f"{self.name}: {self.result.message}, {self.seconds:.1f} s"])


def parse_values(text: str) -> tuple[str, list[float] | list[int]]:
    """Parse NAME=VALUES: comma-separated numbers; LOW:HIGH:COUNT stands for COUNT numbers in geometric progression.

    For integer parameters the numbers of a progression are rounded; each value is kept once.

    >>> parse_values("eta=1,10:1000:3")
    ('eta', [1.0, 10.0, 100.0, 1000.0])
    >>> parse_values("d=2:16:4")
    ('d', [2, 4, 8, 16])
    """
    name, _, values = text.partition("=")
    check_choice("over", name, PARAMETERS)
    parameter = PARAMETERS[name]
    numbers: list[float] = []
    for item in values.split(","):
        try:
            low, high, count = item.split(":") if ":" in item else (item, item, "1")
            ends, size = (float(low), float(high)), int(count)
        except ValueError as error:
            hint = f"write {name}=VALUES, with values such as 1,10 or 1:100:3"
            raise InputError("over", "must give numbers", got=repr(text), hint=hint) from error
        if not all(parameter.low <= end <= parameter.high for end in ends):
            raise InputError("over", f"must give {name} from {parameter.low:g} to {parameter.high:g}", got=item)
        if not 1 <= size <= _MOST_VALUES:
            raise InputError("over", f"must ask for 1 to {_MOST_VALUES} values", got=item)
        if parameter.kind is int and not (ends[0].is_integer() and ends[1].is_integer()):
            raise InputError("over", f"must give whole numbers for {name}", got=item)
        # Digits beyond the twelfth are rounding: a value in two progressions is then the same cell.
        numbers += [float(f"{x:.12g}") for x in np.geomspace(*ends, size)]
    if parameter.kind is int:
        return name, list(dict.fromkeys(round(x) for x in numbers))
    return name, list(dict.fromkeys(numbers))


@renamed(repeats="repetitions")
def run_sweep(
    name: str,
    over: Sequence[str],
    *,
    store: PathLike | None = None,
    out: PathLike = "results",
    workers: int | None = None,
    repetitions: int = 1,
    quick: bool = False,
    rng: int = 0,
) -> Sweep:
    """Sweep an experiment and write OUT/sweep-NAME.json and, for the first two parameters, OUT/sweep-NAME.png.

    ``over`` holds texts for `parse_values`. Every cell names all its parameters, so that a larger grid, or another
    parameter at its default, finds its cells in the store. An interrupted sweep is returned without files. The files of
    a quick one are called sweep-NAME-quick, and its figure says so.
    """
    seed = check_integer("rng", rng, minimum=0)
    swept, grid = sweep_grid(name, over, repetitions=repetitions, quick=quick)
    entry = GRID_EXPERIMENTS[name]

    folder, start = writable_folder(out), time.perf_counter()
    result = sweep(entry.cell, grid, store=store, workers=workers, rng=seed)
    if store is not None:
        _check_values(store, result, tuple(entry.shown))
    files: tuple[Path, ...] = ()
    if len(result.cells) == math.prod(map(len, grid.values())):
        base = f"sweep-{name}{QUICK_ENDING if quick else ''}"
        files = folder / f"{base}.png", folder / f"{base}.json"
        write_figure(lambda: _draw(entry, result, swept), files[0], remark=QUICK_TITLE if quick else "")
        content = {
            "experiment": name,
            "quick": bool(quick),
            "seed": seed,
            "parameters": {key: list(values) for key, values in grid.items()},
            "cells": result.table(),
            "errors": [{"cell": error.cell, "error": error.error} for error in result.errors],
            "versions": versions(),
            "seconds": round(time.perf_counter() - start, 2),
        }
        write_json(files[1], content)
    return Sweep(name, swept, result, files, time.perf_counter() - start)


@renamed(repeats="repetitions")
def sweep_grid(
    name: str, over: Sequence[str], *, repetitions: int = 1, quick: bool = False
) -> tuple[tuple[str, ...], dict[str, Sequence[Any]]]:
    """The swept parameters and the grid: their values, one for every other parameter, and the repetitions.

    >>> sweep_grid("margin", ["d=8,16"], quick=True)[1]["d"]
    [8, 16]
    """
    check_choice("experiment", name, GRID_EXPERIMENTS)
    entry = GRID_EXPERIMENTS[name]
    parsed = [parse_values(text) for text in over]
    axes = dict(parsed)
    if not parsed or len(axes) < len(parsed):
        raise InputError("over", "must name each parameter once, at least one", got=" ".join(over) or "none")
    fixed = {**entry.defaults, **(entry.quick if quick else {})}
    grid: dict[str, Sequence[Any]] = {**axes, **{key: [value] for key, value in fixed.items() if key not in axes}}
    for one, other in (("n", "T"), ("V", "d")):
        if max(grid[one]) * max(grid[other]) > _LARGEST:
            got = f"{max(grid[one])} x {max(grid[other])}"
            raise InputError("over", f"must keep {one} x {other} at most {_LARGEST}", got=got)
    grid["repeat"] = range(check_integer("repetitions", repetitions, minimum=1))
    return tuple(axes), grid


def _check_values(store: PathLike, result: SweepResult, keys: Sequence[str]) -> None:
    """Raise if the stored values come from another version of the experiment."""
    failed = {id(error.cell) for error in result.errors}
    for cell, value in zip(result.cells, result.values):
        whole = isinstance(value, Mapping) and all(
            isinstance(value.get(key), (int, float)) and not isinstance(value[key], bool) for key in keys
        )
        if not whole and id(cell) not in failed:
            raise DataFileError(store, f"must hold numbers named {', '.join(keys)} for the cell {cell}")


def _points(
    result: SweepResult, names: Sequence[str], keys: Sequence[str]
) -> list[tuple[tuple[float, ...], dict[str, list[float]]]]:
    """The values at each point of the named parameters, over all repetitions and other parameters."""
    points: dict[tuple[float, ...], dict[str, list[float]]] = {}
    for cell, value in zip(result.cells, result.values):
        values = points.setdefault(tuple(cell[name] for name in names), {key: [] for key in keys})
        for key in keys if value is not None else ():
            values[key].append(value[key])
    return list(points.items())


def _cell_text(values: list[float]) -> str:
    if not values:
        return "failed"
    return f"{np.mean(values):.4g}" + (f" +- {np.std(values):.2g}" if len(values) > 1 else "")


def _draw(entry: GridExperiment, result: SweepResult, swept: Sequence[str]) -> Figure:
    from attnembed.plotting import new_figure, plot_heatmap, plot_line

    drawn = [name for name in swept if len({cell[name] for cell in result.cells}) > 1][:2] or list(swept[:1])
    means = {
        point: {key: np.mean(value) if value else np.nan for key, value in values.items()}
        for point, values in _points(result, drawn, tuple(entry.shown))
    }
    axes = [sorted(set(values)) for values in zip(*means)]
    figure, panels = new_figure(1, len(entry.shown), panel=(5.2, 4.2))
    for index, (ax, (key, label)) in enumerate(zip(panels[0], entry.shown.items())):
        values = np.array([means[point][key] for point in itertools.product(*axes)])
        ax.set_xlabel(PARAMETERS[drawn[0]].label)
        if len(drawn) == 1:
            plot_line(ax, axes[0], values, index=index, marker="o")
            ax.set(xscale="log", ylabel=label)
        else:
            plot_heatmap(ax, axes[0], axes[1], values.reshape(len(axes[0]), -1).T, label=label)
            ax.set_ylabel(PARAMETERS[drawn[1]].label)
    figure.suptitle(_caption(entry, result, drawn), fontsize=12)
    return figure


def _caption(entry: GridExperiment, result: SweepResult, drawn: Sequence[str]) -> str:
    """The parameters not on the axes of the figure: the fixed ones, and those over which the mean is taken."""
    values = {name: dict.fromkeys(cell[name] for cell in result.cells) for name in (*entry.defaults, "repeat")}
    fixed = [f"{name} = {next(iter(values[name])):g}" for name in entry.defaults if len(values[name]) == 1]
    averaged = [f"{name} ({len(values[name])})" for name in values if len(values[name]) > 1 and name not in drawn]
    return ", ".join(fixed) + (f"; mean over {', '.join(averaged)}" if averaged else "")
