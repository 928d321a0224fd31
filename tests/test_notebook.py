"""What a notebook shows of an object, and the figure that it plots."""

from __future__ import annotations

import html.parser
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

import attnembed as ae
from attnembed._notebook import Curve, card, table
from attnembed.plotting import new_figure
from attnembed.results import Result, Shown, Status

DATA = ae.make_balanced_dataset(n_samples=8, length=3, n_irrelevant=4, rng=0)
MODEL = ae.AttentionModel.random(DATA.vocab_size, 8, rng=0)
CHAINS = ae.make_chain_dataset(6, 4, 3, 2, rng=0)
CRF = ae.ChainCRF(ae.mlp(2, (3,), 3, rng=0), np.eye(3))

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
}
TABLES = {
    **MAKERS,
    "data": lambda: DATA,
    "model": lambda: MODEL,
    "chains": lambda: CHAINS,
    "crf": lambda: CRF,
    "diagnosis": lambda: ae.diagnose(MODEL, DATA),
    "selection": lambda: ae.select(MODEL, DATA),
    "evidence": lambda: ae.verify(ids=["length-one"], instances=2),
}


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
    text = TABLES[name]()._repr_html_()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    assert "<table" in text
    assert len(text) < 20_000


@pytest.mark.parametrize("name", MAKERS)
def test_every_result_has_a_figure(name: str) -> None:
    result = MAKERS[name]()
    own = new_figure()[1][0, 0]
    assert result.plot(own) is own
    ax = result.plot()
    assert isinstance(ax, Axes)
    assert ax.get_xlabel()
    assert ax.get_ylabel() or ax.get_legend()
    assert ax.lines or ax.collections
    ax.figure.canvas.draw()


def test_tables_do_without_matplotlib() -> None:
    code = (
        "import sys, attnembed as ae; data = ae.make_balanced_dataset(n_samples=4, length=3, rng=0); "
        "model = ae.AttentionModel.random(data.vocab_size, 4, rng=0); "
        "ae.normalised_descent(model, data, 0.1, 3)._repr_html_(); print('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


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
