"""What a notebook shows of an object, and the figure that it plots; every result has both."""

from __future__ import annotations

import dataclasses
import functools
import html.parser
import importlib
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

import attnembed as ae
from attnembed._notebook import Curve, card, table
from attnembed.attention import FlowResult
from attnembed.errors import InputError
from attnembed.evidence import Report
from attnembed.gradcheck import check_gradient_complex_step
from attnembed.plotting import new_figure, save_figure, show_image
from attnembed.results import Result, Shown, Status
from attnembed.structured.grid import grid_mean_field
from attnembed.structured.theory import fit_scales

DATA = ae.make_balanced_dataset(n_samples=8, length=3, n_irrelevant=4, rng=0)
MODEL = ae.AttentionModel.random(DATA.vocab_size, 8, rng=0)
CHAINS = ae.make_chain_dataset(6, 4, 3, 2, rng=0)
CRF = ae.ChainCRF(ae.mlp(2, (3,), 3, rng=0), np.eye(3))

EMBEDDED = ae.one_step(MODEL, DATA, 50.0).model


def draw_a_number(width: int, repeat: int, rng: np.random.Generator) -> float:
    return width + rng.standard_normal()


def made_sweep() -> Any:
    with ThreadPoolExecutor(1) as executor:
        return ae.sweep(draw_a_number, {"width": [2, 4, 8], "repeat": range(3)}, executor=executor, rng=0)


def made_comparison() -> Any:
    arms: dict[str, dict[str, Any]] = {"joint": {}, "stage": {"strategy": "stage"}}
    return ae.compare_arms(arms, lambda rng: CRF, CHAINS, CHAINS, CHAINS, n_epochs=1, repetitions=2)


MAKERS: dict[str, Callable[[], Any]] = {
    "flow": lambda: ae.gradient_flow(ae.one_step(MODEL, DATA, 50.0).model, DATA, until=5.0),
    "path": lambda: ae.integrate(lambda p: -p, [1.0, 2.0], clock="time", until=2.0),
    "descent": lambda: ae.normalised_descent(MODEL, DATA, 0.1, 5),
    "training": lambda: ae.train(MODEL, DATA, n_epochs=3, validation=DATA, rng=0),
    "structured training": lambda: ae.train_structured(CRF, CHAINS, n_epochs=2, rng=0),
    "step": lambda: ae.one_step(MODEL, DATA, 1.0),
    "margin": lambda: ae.max_margin([[1.0, 0.0], [1.0, 1.0], [3.0, 0.0]]),
    "radii": lambda: ae.theory.regularisation_path(ae.one_step(MODEL, DATA, 50.0).model, DATA, [5.0, 10.0]),
    "marginals": lambda: ae.chain_marginals(np.zeros((3, 2)), np.eye(2)),
    "gradient": lambda: ae.check_gradient(lambda x: np.sin(x).sum(), np.cos, [0.3, -0.7], rng=0),
    "scales": lambda: fit_scales(np.array([[[1.0, 0.0]]] * 3), np.zeros((2, 2)), [[0], [0], [1]]),
    "sweep": made_sweep,
    "comparison": made_comparison,
    "evidence": lambda: ae.verify(ids=["length-one"], instances=2),
    "claim": lambda: ae.verify(ids=["length-one"], instances=2).results[0],
    "diagnosis": lambda: ae.diagnose(MODEL, DATA),
    "audit": lambda: ae.audit(DATA),
    "basin": lambda: ae.theory.basin_bound(EMBEDDED, DATA, [1.0, 10.0, 100.0]),
    "steepest": lambda: ae.theory.steepest_bound(EMBEDDED, DATA, [1.0, 2.0, 3.0]),
    "step bound": lambda: ae.theory.one_step_bound(MODEL, DATA, 1.0),
    "random step bound": lambda: ae.theory.gaussian_one_step_bound(
        DATA, MODEL.v, 1.0, embedding_scale=0.1, cls_scale=0.1
    ),
    "mean field": lambda: grid_mean_field(np.zeros((1, 3, 4, 2)), np.eye(2)),
}
TABLES = {
    **MAKERS,
    "data": lambda: DATA,
    "model": lambda: MODEL,
    "chains": lambda: CHAINS,
    "crf": lambda: CRF,
    "selection": lambda: ae.select(MODEL, DATA),
}
# Records shown as tables only: there is no curve to draw, or it is that of the object which holds them.
TABLES_ONLY = {
    "data": "TokenDataset ChainDataset GridDataset Letters AssumptionReport Segments Packing Batch Repeats Fact",
    "models and gradients": "AttentionModel TwoLayerModel StructuredModel ChainCRF GridCRF Gradients "
    "AttentionGradients TwoLayerGradients StructuredGrads",
    "a state in a callback": "FlowPoint FlowState DescentState EpochState TrainState StructuredState",
    "a few numbers": "Prediction OneStepPrediction OrthogonalMargin OrthogonalEmbeddings BasinCondition "
    "LargeStepCondition LargeStepSize SmallStepCondition Asymptotics Divergence SmoothnessBound TieInvariant "
    "RandomStepWindow ScaleObjective ScaleSearch ScaleDiagnosis InfeasibilityProof TokenSums",
    "tokens and labels": "Selection MarginConstraints TokenValues GridMap ChainBest",
    "part of another": "Arm Fitted Trajectory Posterior Picture WrittenAudit",
    "bases": "Record Result",
}


@functools.cache
def made(name: str) -> Any:
    """One object per name, for all tests."""
    return TABLES[name]()


def shown_classes() -> Iterator[type]:
    """Every public class that a notebook shows as a table."""
    for module in pkgutil.walk_packages(ae.__path__, "attnembed."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, open_classes = {Report}, [Shown]
    while open_classes:
        below = open_classes.pop().__subclasses__()
        found |= set(below)
        open_classes += below
    return (c for c in found if c.__module__.startswith("attnembed.") and not c.__name__.startswith("_"))


def undrawn(classes: Iterator[type] | list[type], drawn: set[str]) -> list[str]:
    """Classes without a figure, or whose figure is not among the ``drawn``, that are not tables only."""
    tables = {name for names in TABLES_ONLY.values() for name in names.split()}
    wrong = []
    for one in classes:
        is_table = one.__name__ in tables and not (issubclass(one, Result) and one is not Result)
        if is_table == hasattr(one, "plot") or not (is_table or one.__name__ in drawn):
            wrong.append(one.__name__)
    return sorted(wrong)


class Balanced(html.parser.HTMLParser):
    """Raises where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", TABLES)
def test_everything_is_a_table_in_a_notebook(name: str) -> None:
    shown = made(name)
    text = shown._repr_html_()
    start = time.process_time()
    shown._repr_html_()
    assert time.process_time() - start < 0.05
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "<table" in text
    assert len(text) < 20_000


def test_every_result_has_a_figure() -> None:
    assert undrawn(shown_classes(), {type(made(name)).__name__ for name in MAKERS}) == []


def test_a_result_without_a_figure_is_found() -> None:
    @dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
    class Undrawn(Result):
        pass

    class Selection(Result):  # no result is a table only, whatever its name
        pass

    assert undrawn([Undrawn, Selection, FlowResult], {"FlowResult"}) == ["Selection", "Undrawn"]
    assert undrawn([FlowResult], set()) == ["FlowResult"]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.usefixtures("plain_layout")
def test_a_result_draws_on_given_axes_or_its_own(name: str) -> None:
    check_drawn(made(name))


@pytest.mark.slow
def test_results_are_drawn_fitted_to_their_labels() -> None:
    for name in MAKERS:
        check_drawn(made(name))


def check_drawn(result: Any) -> None:
    own = new_figure()[1][0, 0]
    assert result.plot(own) is own
    ax = result.plot()
    assert isinstance(ax, Axes)
    assert ax.get_xlabel()
    assert ax.get_ylabel() or ax.get_legend() or ax.get_yticklabels()
    assert ax.lines or ax.collections or ax.patches
    ax.figure.canvas.draw()


def test_tables_do_without_matplotlib() -> None:
    code = (
        "import sys, attnembed as ae; data = ae.make_balanced_dataset(n_samples=4, length=3, rng=0); "
        "model = ae.AttentionModel.random(data.vocab_size, 4, rng=0); "
        "ae.normalised_descent(model, data, 0.1, 3)._repr_html_(); print('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_sweeps_and_gradients_draw_what_they_hold() -> None:
    swept = made("sweep")
    ax = swept.plot()
    assert ax.get_xlabel() == "width"
    assert ax.lines[0].get_xdata().tolist() == [2.0, 4.0, 8.0]
    means = np.reshape(swept.values, (3, 3)).mean(axis=1)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), means)
    assert "means of 3, bars: one standard error" in ax.get_title()
    assert swept.plot(value="seconds").get_ylabel() == "seconds"
    with pytest.raises(InputError, match="`value` must be one of 'value', 'seconds'"):
        swept.plot(value="width")
    x = np.array([0.3, -0.7])
    taylor = made("gradient")
    falls = np.diff(np.log(taylor.remainder[:4])) / np.diff(np.log(taylor.steps[:4]))
    assert falls.min() > 1.9
    assert taylor.coordinate_error.size == 0
    wrong = check_gradient_complex_step(lambda x: np.sin(x).sum(), np.cos(x) + np.array([0.0, 0.1]), x)
    np.testing.assert_allclose(wrong.coordinate_error, [0.0, 0.1 / np.linalg.norm(np.cos(x))], atol=1e-15)
    assert wrong.plot().get_xlabel() == "coordinate"
    path = made("scales").path
    assert path[0].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(path[-1, 0], np.log(2))


def test_a_comparison_says_what_its_errors_are_and_has_none_of_single_runs() -> None:
    assert str(made("comparison")).endswith("runs per arm; +-: standard error over repetitions")
    single = dataclasses.replace(
        made("comparison"),
        seeds=(0,),
        arms=tuple(dataclasses.replace(arm, test_scores=arm.test_scores[:1]) for arm in made("comparison").arms),
    )
    assert "nan" not in str(single)
    assert "standard error" not in str(single)
    assert single.plot().get_title() == "single runs"


def test_text_is_escaped_and_the_end_is_told_in_colour() -> None:
    good = Result(status=Status.CONVERGED, message="a < b & c")
    assert "a &lt; b &amp; c" in card(good)
    assert "#009E73" in card(good)
    assert "#D55E00" in card(Result(status=Status.FAILED, message=""))
    assert "&lt;i&gt;" in table(["<i>"], [["x"]], "")


def test_a_curve_needs_two_finite_points() -> None:
    class Drawn(Shown):
        def __init__(self, y: list[float]) -> None:
            self.y = y

        def _shown(self) -> list[tuple[str, Any]]:
            return []

        def _curves(self) -> list[Curve]:
            return [Curve(range(len(self.y)), self.y, "x", "y")]

    assert "polyline" in Drawn([1.0, 2.0, np.nan])._repr_html_()
    assert "y: 1 to 2; x: 0 to 1" in Drawn([1.0, 2.0, np.nan])._repr_html_()
    assert "polyline" not in Drawn([1.0, np.inf])._repr_html_()
    assert "nan" not in Drawn([1.0, 1.0])._repr_html_()


@pytest.mark.parametrize("kernel", [True, False])
def test_a_saved_figure_is_shown_in_a_notebook_only(
    kernel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    shell = SimpleNamespace(kernel=None) if kernel else SimpleNamespace()
    display = SimpleNamespace(Image=lambda filename: filename, display=shown.append)
    ipython = SimpleNamespace(get_ipython=lambda: shell, display=display, version_info=(9, 0))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    figure, _ = new_figure()
    path = save_figure(figure, tmp_path / "new" / "figure.png", show=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert shown == ([str(path)] if kernel else [])
    save_figure(figure, path)
    assert len(shown) == kernel
    monkeypatch.delitem(sys.modules, "IPython")
    show_image(path)
