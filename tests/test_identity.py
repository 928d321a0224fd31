"""Identity by content: the same in every process, different wherever something else would be computed."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import attnembed as ae
from attnembed._identity import fingerprint
from attnembed.errors import InputTypeError
from attnembed.optim import Adam, Cosine
from attnembed.structured import layers
from tests import identity_cases
from tests.identity_cases import Options, Power, cases, even, scaled, uses_globals


def module_of(source: str) -> Any:
    """A module of a user, as a later process would find it in its file."""
    module = types.ModuleType("of_a_user")
    exec(source, vars(module))
    return module


def test_it_is_the_same_in_every_process() -> None:
    here = {name: fingerprint(value) for name, value in cases().items()}
    assert len(set(here.values())) == len(here)
    done = subprocess.run(
        [sys.executable, "-m", "tests.identity_cases"],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == here


def test_copies_are_the_same_and_caches_do_not_count() -> None:
    data, power = ae.make_balanced_dataset(rng=0), Power(3)
    chains = ae.make_chain_dataset(rng=0)
    model = ae.ChainCRF(ae.mlp(4, [8], 3, rng=0), np.eye(3))
    things = [data, power, chains, model, Options(), np.random.default_rng(3), Adam(step_size=1), power.raised]
    before = [fingerprint(thing) for thing in things]
    assert all(cache.size for cache in (data.signed_frequency, power.table, chains.packing.rows))
    for again in (things, copy.deepcopy(things), pickle.loads(pickle.dumps(things))):
        assert [fingerprint(thing) for thing in again] == before


ARRAY = np.linspace(0, 1, 5000)  # its repr elides the middle


def changed(array: Any, index: Any, value: Any) -> Any:
    array = array.copy()
    array[index] = value
    return array


MIDDLE = changed(ARRAY, 2500, -1.0)
DATA = ae.make_balanced_dataset(rng=0)


def with_default(c: Any) -> Callable[..., Any]:
    return lambda x, factor=c: factor * x


def with_attribute(c: Any) -> Callable[..., Any]:
    def function(x: float) -> Any:
        return function.factor * x  # type: ignore[attr-defined]

    function.factor = c  # type: ignore[attr-defined]
    return function


def nested(c: Any) -> Callable[..., Any]:
    return lambda x: [c * y for y in x]


ONE, OTHER = (lambda x: x + 1), (lambda x: x - 1)

DIFFERENT: dict[str, tuple[Any, Any]] = {
    "closures": (scaled(1), scaled(100)),
    "closures over arrays": (scaled(ARRAY), scaled(MIDDLE)),
    "closures over functions": (scaled(scaled(1)), scaled(scaled(2))),
    "defaults": (with_default(1), with_default(2)),
    "attributes": (with_attribute(1), with_attribute(2)),
    "comprehensions": (nested(1), nested(2)),
    "lambdas of one line": (ONE, OTHER),
    "constants": (module_of("f = lambda x: 2 * x").f, module_of("f = lambda x: 3 * x").f),
    "attributes of the argument": (module_of("f = lambda x: x.real").f, module_of("f = lambda x: x.imag").f),
    "names of arguments": (module_of("f = lambda x: x").f, module_of("f = lambda y: y").f),
    "globals": (module_of("c = 1\nf = lambda x: c * x").f, module_of("c = 2\nf = lambda x: c * x").f),
    "globals of functions inside": (
        module_of("c = 1\ndef f(x): return [c * y for y in x]").f,
        module_of("c = 2\ndef f(x): return [c * y for y in x]").f,
    ),
    "functions that are called": (
        module_of("def g(x): return x\nf = lambda x: g(x)").f,
        module_of("def g(x): return -x\nf = lambda x: g(x)").f,
    ),
    "methods of classes": (
        module_of("class C:\n def m(self, x): return x\nf = lambda x: C().m(x)").f,
        module_of("class C:\n def m(self, x): return -x\nf = lambda x: C().m(x)").f,
    ),
    "partial arrays": (functools.partial(np.dot, ARRAY), functools.partial(np.dot, MIDDLE)),
    "partial keywords": (functools.partial(even, n=1), functools.partial(even, n=2)),
    "callable objects": (Power(ARRAY), Power(MIDDLE)),
    "bound methods": (Power(1).raised, Power(2).raised),
    "other methods": (Power(1).raised, Power(1).__call__),
    "data": (DATA, ae.make_balanced_dataset(rng=1)),
    "labels": (DATA, ae.TokenDataset(DATA.counts, -DATA.labels)),
    "models": (ae.AttentionModel.random(5, 4, rng=0), ae.AttentionModel.random(5, 4, rng=1)),
    "networks": (ae.mlp(4, [8], 3, rng=0), ae.mlp(4, [8], 3, rng=1)),
    "chains": (ae.make_chain_dataset(rng=0), ae.make_chain_dataset(rng=1)),
    "grids": (ae.make_grid_dataset(rng=0), ae.make_grid_dataset(rng=1)),
    "schedules": (Cosine(10), Cosine(20)),
    "generators": (np.random.default_rng(0), np.random.default_rng(1)),
    "optimisers": (Adam(step_size=1), Adam(step_size=2)),
    "bound draws": (np.random.default_rng(0).normal, np.random.default_rng(1).normal),
    "types of numbers": (1, 1.0),
    "truth": (1, True),
    "signs of zero": (0.0, -0.0),
    "dtypes": (np.zeros(2), np.zeros(2, dtype=np.float32)),
    "shapes": (np.zeros((2, 3)), np.zeros((3, 2))),
    "masks": (np.ma.masked_array([1, 2], [0, 1]), np.ma.masked_array([1, 2], [1, 0])),
    "text and bytes": ("a", b"a"),
    "containers": ([1], (1,)),
    "borders": (["ab", "c"], ["a", "bc"]),
    "nesting": ([[1], []], [[], [1]]),
    "sparse": (sp.csr_array(np.eye(3)), sp.csr_array(np.eye(3)[::-1])),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_computes_something_else_is_different(name: str) -> None:
    one, other = DIFFERENT[name]
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(one)


def test_generators_count_by_their_state() -> None:
    one, other = np.random.default_rng(0), np.random.default_rng(0)
    assert fingerprint(one) == fingerprint(other)
    one.random()
    assert fingerprint(one) != fingerprint(other)
    other.random()
    assert fingerprint(one) == fingerprint(other)


SAME: dict[str, tuple[Any, Any]] = {
    "closures": (scaled(ARRAY), scaled(ARRAY.copy())),
    "comments, docstrings and place": (
        module_of('def f(x):\n    """One."""\n    return 2 * x').f,
        module_of('\n\ndef f(x):\n    """Two."""\n    # twice\n    return 2 * x').f,
    ),
    "names of functions": (module_of("def f(x): return x").f, module_of("def g(x): return x").g),
    "globals that are not used": (module_of("c = 1\nf = lambda x: x").f, module_of("c = 2\nf = lambda x: x").f),
    "order of names": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "layout": (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    "byte order": (np.arange(3.0), np.arange(3.0).astype(">f8")),
    "equal text": ("".join(["a", "b"]), "ab"),
    "shared and not": ([ARRAY, ARRAY], [ARRAY, ARRAY.copy()]),
    "repeated entries": (
        sp.csr_array((np.array([1.0, 1.0]), np.array([0, 0]), np.array([0, 2])), shape=(1, 2)),
        sp.csr_array([[2.0, 0.0]]),
    ),
    "width of indices": (
        sp.csr_array(np.eye(3)),
        sp.csr_array((np.ones(3), np.arange(3, dtype=np.int64), np.arange(4, dtype=np.int64)), shape=(3, 3)),
    ),
    "caches of calls": (functools.lru_cache(even), functools.lru_cache(even)),
}


@pytest.mark.parametrize("name", SAME)
def test_what_computes_the_same_is_the_same(name: str) -> None:
    one, other = SAME[name]
    assert fingerprint(one) == fingerprint(other)


def test_libraries_count_by_name_and_their_closures_by_content() -> None:
    assert fingerprint(np.linalg.norm) != fingerprint(np.linalg.det)
    assert fingerprint(functools.cmp_to_key) != fingerprint(functools.reduce)
    one, other = (contextlib.contextmanager(function) for function in (scaled(1), scaled(2)))
    assert fingerprint(one) != fingerprint(other)


def test_globals_of_other_modules_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(uses_globals)
    monkeypatch.setattr(identity_cases, "FACTOR", 4.0)
    assert fingerprint(uses_globals) != before
    monkeypatch.undo()

    def through_the_module(x: float) -> float:
        return identity_cases.FACTOR * x

    here = identity_cases
    through_a_variable = lambda x: here.FACTOR * x  # noqa: E731
    functions = [through_the_module, through_a_variable]
    former = [fingerprint(function) for function in functions]
    monkeypatch.setattr(identity_cases, "odd", even)
    assert [fingerprint(function) for function in functions] == former
    monkeypatch.setattr(identity_cases, "FACTOR", 4.0)
    assert not {fingerprint(function) for function in functions} & set(former)


def test_what_contains_itself_ends() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    other: list[Any] = [2]
    other.append(other)
    assert fingerprint(ring) != fingerprint(other)
    assert fingerprint(even) != fingerprint(identity_cases.odd)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputTypeError, match="nests too deeply"):
        fingerprint(deep)


def test_what_has_no_content_is_named_with_its_place() -> None:
    lock = threading.Lock()
    for value, got in (
        (lock, "a lock object"),
        ({"a": [lock]}, "a lock object in function['a'][0]"),
        (scaled(lock), "a lock object in function -> <lambda>, variable c"),
        (functools.partial(even, (x for x in ())), "a generator object in function.args[0]"),
        (Power(lock), "a lock object in function -> Power.exponent"),
        (
            module_of("import _thread\nm = _thread.allocate_lock()\nf = lambda x: m").f,
            "a lock object in function -> <lambda>, global m",
        ),
        (sp.csr_array((np.ones(1), np.array([0]), np.array([0, 1])), shape=(1, 1)), None),
    ):
        if got is None:  # indices that lead out of the matrix are not followed
            value.indices[0] = 7
            got = "a sparse matrix whose indices do not fit it"
        with pytest.raises(InputTypeError) as caught:
            fingerprint(value, name="function", hint="pass key=")
        assert str(caught.value).startswith(f"`function` must be known by its content; got {got}"), str(caught.value)
        assert str(caught.value).endswith("; pass key=")


def test_two_processes_of_the_user_agree_about_the_script(tmp_path: Path) -> None:
    """A worker calls the script of its parent by another name."""
    script = tmp_path / "script.py"
    script.write_text(
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from attnembed._identity import fingerprint\n"
        "class C:\n    def __init__(self): self.x = 1\n    def __call__(self): return D(self)\n"
        "class D(C): pass\n"
        "def mine(_): return fingerprint([C(), mine])\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:\n"
        "        print(len({mine(0), *pool.map(mine, [1])}))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "1\n", done.stderr


def test_layers_that_have_moved_are_the_same() -> None:
    """A checkpoint from before they had a package of their own is still that of the run."""
    network = layers.Sequential((layers.Conv2D(1, 2, 3), layers.ReLU(), layers.Embedding(3, 2)))
    assert fingerprint(network) == "66452ed3f02923948d8f8d5202ac0e7981cc858be45c1123951623805d4c7b50"
