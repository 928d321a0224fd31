"""Options that stand in a table: the caller sees one signature, and a name that is not in it is refused."""

from __future__ import annotations

import inspect
from typing import Any, TypedDict

import pytest

import attnembed as ae
from attnembed._options import with_options

LOOP = {"n_epochs", "batch_size", "patience", "checkpoint", "checkpoint_every", "resume", "rng"}


@pytest.mark.parametrize("train", [ae.train, ae.train_structured])
def test_both_trainings_show_the_options_of_the_loop(train: Any) -> None:
    parameters = inspect.signature(train).parameters
    assert set(parameters) >= LOOP
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in LOOP)
    assert not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def test_the_defaults_are_those_of_the_subject() -> None:
    found = [inspect.signature(train).parameters for train in (ae.train, ae.train_structured)]
    assert [parameters["n_epochs"].default for parameters in found] == [100, 30]
    assert [parameters["batch_size"].default for parameters in found] == [None, 20]


@pytest.mark.parametrize("function", [ae.train, ae.train_structured, ae.gradient_flow])
def test_an_unknown_name_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) got an unexpected keyword argument 'n_epoch'"):
        function(None, None, n_epoch=3)


class Table(TypedDict, total=False):
    power: int


def test_every_option_needs_a_default() -> None:
    for defaults in ({}, {"power": 2, "base": 3}):
        with pytest.raises(TypeError, match="must have one default for each of power"):
            with_options(Table, **defaults)(lambda **options: None)
