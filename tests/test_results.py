"""Statuses, results and their conversion to plain values."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from attnembed.results import Result, Status, describe, to_plain

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.complex_numbers()
PLAIN = st.recursive(
    SCALARS | arrays(np.float64, st.integers(0, 3)) | st.floats(width=32).map(np.float32) | st.sampled_from(Status),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Found(Result):
    x: Any
    gap: float
    inner: Any = None


def test_only_three_statuses_are_a_success() -> None:
    good = {Status.CONVERGED, Status.REACHED_END, Status.STOPPED}
    for status in Status:
        assert Result(status=status, message="").success == (status in good)


def test_a_result_says_what_it_holds_and_cannot_be_changed() -> None:
    result = Found(
        status=Status.NOT_FINITE,
        message="no",
        x=np.zeros((3, 2)),
        gap=1 / 3,
        inner=Result(status=Status.FAILED, message=""),
    )
    assert repr(result) == "Found(status=not_finite, message='no', x=array(3, 2), gap=0.333333, inner=Result)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.status = Status.CONVERGED  # type: ignore[misc]
    assert result != Found(status=Status.NOT_FINITE, message="no", x=result.x, gap=1 / 3)


def test_to_dict_is_ready_for_json() -> None:
    inner = Found(status=Status.CONVERGED, message="", x=1, gap=0.0)
    result = Found(status=Status.STOPPED, message="so", x=np.array([1.5, -np.inf]), gap=math.nan, inner=inner)
    plain = result.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["success"] is True
    assert plain["x"] == [1.5, "-inf"]
    assert plain["gap"] == "nan"
    assert plain["inner"] == {"status": "converged", "message": "", "x": 1, "gap": 0.0, "inner": None}


@given(PLAIN)
def test_anything_becomes_json(value: Any) -> None:
    plain = to_plain(value)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert to_plain(plain) == plain


def test_numbers_keep_their_kind_and_value() -> None:
    values = to_plain({1: np.int64(3), "b": np.bool_(True), "c": np.float32(0.5), "d": (1, [2.0]), "e": np.arange(2)})
    assert values == {"1": 3, "b": True, "c": 0.5, "d": [1, [2.0]], "e": [0, 1]}
    assert [type(value) for value in values.values()] == [int, bool, float, list, list]
    assert to_plain({"s"}) == "{'s'}"
    assert describe(Result(status=Status.FAILED, message="m")) == "Result(status=failed, message='m')"
