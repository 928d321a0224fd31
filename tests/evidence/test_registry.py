"""The open registry: any subject, whole declarations only, and nothing replaces another claim."""

from __future__ import annotations

import copy
import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnembed as ae
from attnembed.errors import InputError, InputTypeError
from attnembed.evidence import Evidence, by_construction, claim
from attnembed.evidence import registry as module

GOOD = Evidence(measured=0.5, bound=1.0, control=2.0)


def good(rng: np.random.Generator) -> Evidence:
    return GOOD


def returns_float(rng: np.random.Generator) -> float:
    return 0.5


def returns_nothing(rng: np.random.Generator) -> None: ...


def takes_two(rng: np.random.Generator, other: int) -> Evidence:
    return GOOD


@pytest.fixture(autouse=True)
def _registry_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    ae.claims()  # those of the package
    monkeypatch.setattr(module, "_registry", dict(module._registry))


def declare(id: Any = "mine/made-up", measure: Any = good, **options: Any) -> Any:
    return claim(id, **{"statement": "s", "control": "c", **options})(measure)


def test_a_subject_of_ones_own() -> None:
    before = ae.claims()
    assert declare() is good
    (entry,) = ae.claims("mine")
    assert (entry.id, entry.subject, entry.statement, entry.hypotheses, entry.reference) == (
        "mine/made-up", "mine", "s", (), "",
    )  # fmt: skip
    assert ae.claims() == (*before, entry)
    assert ae.verify("mine").passed
    assert ae.verify(ids="made-up").passed
    assert entry not in ae.claims("attention")


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("attention", "must be SUBJECT/NAME; got 'attention'"),
        ("mine", "must be SUBJECT/NAME"),
        ("mine/", "must be SUBJECT/NAME"),
        ("/made-up", "must be SUBJECT/NAME"),
        ("", "must be SUBJECT/NAME"),
        ("mine/made up", "must be SUBJECT/NAME"),
        ("--ids/x", "must be SUBJECT/NAME"),
        ("all/made-up", "must not have the subject 'all'"),
        ("attention/made-up", "must not use a subject of the package; got 'attention/made-up'; .*'mine/made-up'"),
        ("structured/made-up", "must not use a subject of the package"),
        ("attention/gradient-factors", "must not use a subject of the package"),
        (3, "must be text; got int"),
    ],
)
def test_ids_that_cannot_be_used_are_refused_at_once(id: Any, words: str) -> None:
    before = ae.claims()
    with pytest.raises(InputError, match=f"`id` {words}"):
        declare(id)
    assert ae.claims() == before


def test_a_function_of_the_same_name_replaces_no_claim_of_the_package() -> None:
    def gradient_factors(rng: np.random.Generator) -> Evidence:
        return GOOD

    gradient_factors.__qualname__ = "gradient_factors"
    with pytest.raises(InputError, match="`id`"):
        declare("attention/gradient-factors", gradient_factors)
    (entry,) = (entry for entry in ae.claims() if entry.id == "attention/gradient-factors")
    assert entry.measure.__module__ == "attnembed.evidence.attention.gradients"


def test_an_id_is_declared_once() -> None:
    def factory() -> Any:
        def measure(rng: np.random.Generator) -> Evidence:
            return GOOD

        return declare("mine/twice", measure)

    first = factory()
    for again in (factory, lambda: declare("mine/twice"), lambda: declare("mine/twice", lambda rng: GOOD)):
        with pytest.raises(InputError, match=r"must be unique.*'mine/twice', declared at test_registry\.py:\d+"):
            again()
    assert ae.claims("mine")[0].measure is first


def test_a_module_may_be_reloaded_and_a_notebook_cell_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "import attnembed as ae\n"
        "@ae.claim('mine/reloaded', statement='s', control='c')\n"
        "def reloaded(rng):\n    return ae.Evidence(measured=0.5, bound=1.0, control=2.0)\n"
    )
    (tmp_path / "my_lemmas.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    lemmas = importlib.import_module("my_lemmas")
    first = lemmas.reloaded
    importlib.reload(lemmas)
    assert lemmas.reloaded is not first
    assert ae.claims("mine")[0].measure is lemmas.reloaded

    notebook: dict[str, Any] = {"__name__": "__main__"}
    cell = source.replace("mine/reloaded", "mine/cell")
    exec(compile(cell, "<cell 1>", "exec"), notebook)
    exec(compile(cell.replace("0.5", "0.7"), "<cell 2>", "exec"), notebook)
    assert ae.verify(ids="mine/cell", instances=1).results[0].measured == 0.7
    # The same function written twice into one file is a slip, and the first stays.
    with pytest.raises(InputError, match="must be unique"):
        exec(compile(cell.replace("/cell", "/two") + cell.replace("/cell", "/two"), "<cell 3>", "exec"), notebook)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"measure": returns_float}, InputTypeError, "must return Evidence; got a function that returns float"),
        ({"measure": returns_nothing}, InputTypeError, "must return Evidence; got a function that returns None"),
        ({"measure": takes_two}, InputTypeError, "must take a generator or a problem; got takes_two"),
        ({"measure": lambda: GOOD}, InputTypeError, "must take a generator or a problem"),
        ({"measure": GOOD}, InputTypeError, "must be a function; got Evidence"),
        ({"statement": ""}, InputError, "`statement` must not be empty"),
        ({"control": "  "}, InputError, "`control` must not be empty"),
        ({"statement": 3}, InputTypeError, "`statement` must be text"),
        ({"tex": None}, InputTypeError, "`tex` must be text"),
        ({"hypotheses": "eta beta < 2"}, InputTypeError, "`hypotheses` must be a tuple of texts"),
        ({"hypotheses": (3,)}, InputTypeError, "`hypotheses` must be a tuple of texts"),
        ({"hypotheses": ("h", "")}, InputError, "must not hold an empty text"),
        ({"hypotheses": ("h", "h")}, InputError, "'h' twice"),
        (
            {"hypotheses": (by_construction("n is even", code="n = 2 * " + "m"),)},
            InputError,
            "`code` must be what makes",
        ),
    ],
)
def test_wrong_declarations_are_refused_at_once(options: dict[str, Any], error: type[InputError], words: str) -> None:
    before = ae.claims()
    with pytest.raises(error, match=words):
        declare(**options)
    assert ae.claims() == before


def test_what_holds_by_construction_quotes_its_code() -> None:
    even = by_construction("n is even", code="n = 2 * int(rng.integers(1, 6))")

    def measure(rng: np.random.Generator) -> Evidence:
        n = 2 * int(rng.integers(1, 6))
        return Evidence(measured=n % 2, tolerance=0.0, control=1.0)

    declare("mine/even", measure, hypotheses=(even,))
    where = module.place(measure, even.code)
    file, _, line = where.partition(":")
    assert file == "test_registry.py"
    assert Path(__file__).read_text().splitlines()[int(line) - 1].strip() == even.code
    assert ae.verify("mine").results[0].unmeasured == ()
    for copied in (copy.copy(even), copy.deepcopy(even), pickle.loads(pickle.dumps(even))):
        assert (copied, copied.code) == (even, even.code)
    with pytest.raises(InputTypeError, match="`code` must be text that is not empty"):
        by_construction("n is even", code="")


def test_a_function_without_source_is_taken_as_it_is() -> None:
    namespace: dict[str, Any] = {"GOOD": GOOD}
    exec("def measure(rng):\n    return GOOD", namespace)
    declare("mine/typed", namespace["measure"], hypotheses=(by_construction("a", code="b = 1 + 1"),))
    assert module.place(namespace["measure"]) == ""
    assert ae.verify(ids="mine/typed").passed
