"""Exceptions arrive whole: their class, text and fields survive copies and the way from another process."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnembed as ae
from attnembed import errors
from attnembed.errors import (
    AttnembedError,
    DataFileError,
    DataNotGivenError,
    InputError,
    InputTypeError,
    NotSeparableError,
    RunFailedError,
)

EXAMPLES: list[tuple[AttnembedError, str, dict[str, Any]]] = [
    (
        InputError("labels", "must be -1 or +1", got=7, hint="map them"),
        "`labels` must be -1 or +1; got 7; map them",
        {"name": "labels", "expected": "must be -1 or +1", "got": 7, "hint": "map them"},
    ),
    (InputTypeError("x", "must be a number", got="str"), "`x` must be a number; got str", {"name": "x", "got": "str"}),
    (DataNotGivenError("data", "must name a file"), "`data` must name a file", {"name": "data", "got": None}),
    (DataFileError("a.tsv", "is bad", line=3), "a.tsv, line 3: is bad", {"path": Path("a.tsv"), "line": 3}),
    (RunFailedError("fold 3", "ValueError: x", hint="see y"), "fold 3 failed: ValueError: x; see y", {"run": "fold 3"}),
    (NotSeparableError("no p", np.array([0.25, 0.75])), "no p", {}),
    (AttnembedError("plain"), "plain", {}),
]
COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {k}": lambda x, k=k: pickle.loads(pickle.dumps(x, k)) for k in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize(("error", "text", "fields"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_errors_can_be_copied(error: AttnembedError, text: str, fields: dict[str, Any], way: str) -> None:
    arrived = COPIES[way](error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error) == text
    assert arrived.args == error.args
    assert vars(arrived).keys() == vars(error).keys()
    assert {name: getattr(arrived, name) for name in fields} == fields
    if isinstance(error, NotSeparableError):
        assert arrived.certificate.tolist() == [0.25, 0.75]


def test_every_class_of_errors_is_tried() -> None:
    assert {type(error).__name__ for error, _, _ in EXAMPLES} == set(errors.__all__)


class OwnError(InputError):
    """A user's subclass with another signature."""

    def __init__(self) -> None:
        super().__init__("own", "must be good")


def test_subclasses_notes_and_fields_that_cannot_be_sent() -> None:
    error = OwnError()
    error.add_note("seen in epoch 3")
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), arrived.__notes__) == (OwnError, "`own` must be good", ["seen in epoch 3"])
    arrived = pickle.loads(pickle.dumps(InputError("x", "must be free", got=threading.Lock())))
    assert arrived.got.startswith("<unlocked _thread.lock")


def test_the_certificate_stays_read_only() -> None:
    with pytest.raises(NotSeparableError) as caught:
        ae.max_margin([[1.0, 0.0], [-1.0, 0.0]])
    for way in COPIES.values():
        certificate = way(caught.value).certificate
        assert certificate == pytest.approx([0.5, 0.5])
        with pytest.raises(ValueError, match="read-only"):
            certificate[0] = 1


def test_errors_arrive_from_a_worker_of_any_pool() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        bad = [
            pool.submit(ae.set_threads, 0),
            pool.submit(ae.TokenDataset.from_tokens, [[0]], ["a"]),
            pool.submit(ae.Tokenizer.load, "nowhere.json"),
            pool.submit(ae.max_margin, [[1.0], [-1.0]]),
        ]
        arrived = [future.exception(timeout=120) for future in bad]
        assert pool.submit(int, "3").result(timeout=120) == 3, "the pool is still there"
    assert [type(error) for error in arrived] == [InputError, InputTypeError, DataFileError, NotSeparableError]
    assert arrived[0].name == "n"  # type: ignore[union-attr]
    assert arrived[2].path == Path("nowhere.json")  # type: ignore[union-attr]


def test_nothing_is_shown_as_nothing() -> None:
    assert str(InputError("over", "must give numbers", got="")) == "`over` must give numbers; got ''"
    assert str(DataFileError("", "does not exist")) == "'': does not exist"
