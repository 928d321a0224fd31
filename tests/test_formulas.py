"""Formulas become SVG, all of the package's claims among them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

import attnembed as ae
from attnembed.formulas import formula_svg


@pytest.mark.parametrize("entry", ae.claims(), ids=lambda entry: entry.id)
def test_every_formula_of_a_claim_is_set(entry: ae.evidence.Claim) -> None:
    svg = formula_svg(entry.tex)
    root = ET.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("aria-label") == entry.tex
    (path,) = root
    assert len(path.get("d", "")) > 200
    assert 10 < float(root.get("width", "nan")) < 1000


def test_words_that_mathtext_lacks_look_like_those_it_has() -> None:
    def drawn(tex: str) -> str:
        return re.sub(r'aria-label="[^"]*"', "", formula_svg(tex))

    assert drawn(r"a \le b") == drawn(r"a \leq b")
    assert drawn(r"\left. a \right.") != drawn(r"b")
    assert drawn(r"\tfrac12") == drawn(r"\frac{1}{2}") == drawn(r"\frac12")
    assert drawn(r"\bigl( x \bigr)") == drawn(r"( x )")
    assert drawn("Y'") == drawn(r"Y^\prime")


def test_a_formula_is_upright_and_follows_the_colour_of_the_text() -> None:
    svg = formula_svg("x_1")
    assert 'fill="currentColor"' in svg
    box = [float(x) for x in re.findall(r'viewBox="([^"]*)"', svg)[0].split()]
    assert box[1] < 0 < box[1] + box[3]  # above and, for the index, below the line
    assert "vertical-align: -" in svg


def test_what_cannot_be_set_is_shown_as_its_source() -> None:
    assert formula_svg(r"\begin{cases} a < b") == r"<code>\begin{cases} a &lt; b</code>"
