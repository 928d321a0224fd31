"""The search for a counterexample: what it understands, and what it says of a statement that says nothing."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from hypothesis import strategies as st

from attnembed import testing as t
from attnembed.errors import InputError
from attnembed.evidence import Evidence


def test_evidence_and_annotations_are_understood() -> None:
    def short(problem: Annotated[Any, t.potentials(length=(1, 3))]) -> Evidence:
        return Evidence(measured=float(problem[0].max()), bound=1.0, control=2.0, hypotheses={"h": len(problem[0]) > 1})

    found = t.falsify(short)
    assert found is not None
    assert found.ratio > 1
    assert len(found.problem[0]) in (2, 3)


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        (lambda problem: "no", "must return True, False, a ratio, Evidence or None; got 'no'; compare"),
        (lambda problem: float("nan"), "got nan"),
        (lambda problem: 1 / 0, "got ZeroDivisionError: division by zero; return None where"),
        (lambda problem: None, "got None for all"),
    ],
)
def test_predicates_that_say_nothing_are_one_line(predicate: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        t.falsify(predicate, max_examples=30)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_strategy_that_draws_nothing_is_named() -> None:
    with pytest.raises(InputError, match="a strategy that drew none within its hypotheses; let `problems` draw"):
        t.falsify(lambda problem: True, st.integers().filter(lambda x: False), max_examples=30)
