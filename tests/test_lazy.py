"""Public names are found on first use, in whatever order modules are imported, and nothing heavy is imported before."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import types
from itertools import permutations
from pathlib import Path

import pytest

import attnembed as ae
import attnembed.attention.theory
from attnembed._declared import EXPERIMENT_MODULES, declared

PACKAGES = ("attnembed", "attnembed.attention", "attnembed.attention.theory", "attnembed.structured")
HEAVY = ("numpy", "scipy", "matplotlib", "attnembed.evidence", "attnembed.attention", "attnembed.structured")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def seen_by_type_checkers(package: str) -> dict[str, str]:
    """Name -> module of the imports under TYPE_CHECKING."""
    tree = ast.parse(Path(importlib.import_module(package).__file__ or "").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom)
            for alias in node.names}  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_the_imports_and_all_name_the_same(package: str) -> None:
    module = importlib.import_module(package)
    assert module._homes == seen_by_type_checkers(package)
    assert sorted(module.__all__) == sorted(module._homes)
    assert set(module.__all__) <= set(dir(module))
    for name, home in module._homes.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, attnembed; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(code) == "[]\n"


def test_models_and_data_do_without_optimisers() -> None:
    code = (
        "import sys, attnembed as ae; ae.TokenDataset, ae.AttentionModel, ae.select, ae.chain_viterbi; "
        "print([name for name in ('scipy.optimize', 'scipy.integrate', 'scipy.stats', 'matplotlib') "
        "if name in sys.modules])"
    )
    assert run(code) == "[]\n"


def test_listing_reads_the_sources_and_imports_none_of_them() -> None:
    code = (
        "import sys; from attnembed.__main__ import main; main(['list']); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    lines = run(code).splitlines()
    assert lines.pop() == "[]"
    importlib.import_module("attnembed.experiments")
    from attnembed.experiments import experiments
    from attnembed.experiments.sweeps import GRID_EXPERIMENTS
    from attnembed.explore import PAGES

    listed = [tuple(line.split(maxsplit=1)) for line in lines]
    own = [(c.id, c.statement) for subject in ("attention", "structured") for c in ae.claims(subject)]
    assert listed[: len(own)] == own
    others = [f"reproduce {e.name}  {e.summary}" for e in experiments()]
    others += [f"sweep {e.name}  {e.summary}" for e in GRID_EXPERIMENTS.values()]
    others += [f"explore {page.name}  {page.summary}" for page in PAGES.values()]
    assert [" ".join(line.split()) for line in lines[len(own) :]] == [" ".join(text.split()) for text in others]


def test_what_cannot_be_read_is_left_to_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnembed._declared._ROOT", tmp_path)
    assert declared(EXPERIMENT_MODULES, "experiment", 1) is None
    for text, found in (("'b'", [("a", "b")]), ("name", None), ("3", None), ("", None)):
        (tmp_path / "some.py").write_text(f"@claim('a', statement={text})\ndef f(): ...", encoding="utf-8")
        assert declared(["some"], "claim", "statement") == found


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose public names `verify` and `sweep` are functions in submodules of the same names."""
    root = tmp_path / "toy"
    (root / "verify").mkdir(parents=True)
    (root / "__init__.py").write_text(
        "from attnembed._lazy import attach\n"
        "attach(__name__, {'toy.verify': ['verify', 'claims'], 'toy.sweep': ['sweep']})\n"
    )
    (root / "verify" / "__init__.py").write_text("from toy.verify.run import verify\nclaims = tuple\n")
    (root / "verify" / "run.py").write_text("def verify(): ...\n")
    (root / "sweep.py").write_text("from toy.verify import claims\ndef sweep(): ...\n")
    (root / "broken.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "toy"


def test_a_function_is_not_lost_to_its_module(toy: str) -> None:
    statements = (
        "import toy.verify", "import toy.sweep", "import toy.verify.run", "from toy import verify, sweep",
        "toy.sweep, toy.claims, toy.verify",
    )  # fmt: skip
    for order in permutations(statements):
        for name in [name for name in sys.modules if name.split(".")[0] == toy]:
            del sys.modules[name]
        package = importlib.import_module(toy)
        for k, statement in enumerate(order):
            exec(statement, {"toy": package})
            where = order[: k + 1]
            for name in ("verify", "sweep"):
                assert isinstance(getattr(package, name), types.FunctionType), (name, where)


def test_a_module_that_cannot_be_imported_is_not_taken_for_a_missing_name(toy: str) -> None:
    package = importlib.import_module(toy)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _ = package.broken
    assert not hasattr(package, "nothing")
    with pytest.raises(ImportError, match="nothing"):
        exec("from toy import nothing", {})


def test_functions_of_the_real_package_survive_their_modules() -> None:
    assert (
        run(
            "import attnembed.evidence.registry, attnembed.sweeping, attnembed.attention.theory.rates; "
            "import attnembed as ae; "
            "from attnembed import verify; import attnembed.sweeping; theory = ae.theory; "
            "print(*(type(x).__name__ for x in (ae.verify, ae.sweep, verify, theory.asymptotics)))"
        ).split()
        == ["function"] * 4
    )


def test_old_modules_are_the_new_ones_with_a_warning() -> None:
    """Each is imported first, into a process that has none of the package's modules."""
    moved = (
        ("attnembed.verify", "attnembed.evidence", "verify"),
        ("attnembed.verify.registry", "attnembed.evidence.registry", "Claim"),
        ("attnembed.sweep", "attnembed.sweeping", "CellResult"),
    )
    code = "import sys, warnings\n" + "".join(
        "for module in [module for module in sys.modules if module.partition('.')[0] == 'attnembed']:\n"
        "    del sys.modules[module]\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        f"    warnings.simplefilter('always')\n    from {old} import {name} as found\n"
        f"import {new}, attnembed as ae\n"
        f"print(found is {new}.{name}, type(ae.verify).__name__, type(ae.sweep).__name__)\n"
        "print(seen[-1].category.__name__, seen[-1].filename, seen[-1].message)\n"
        for old, new, name in moved
    )
    lines = run(code).splitlines()
    assert lines[::2] == ["True function function"] * len(moved)
    assert lines[1::2] == [
        f"DeprecationWarning <string> {old} is deprecated and will be removed; use {new}" for old, new, _ in moved
    ]


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("attnembed.structured.networks", "attnembed.structured.layers", "Conv2D"),
        ("attnembed.structured.networks", "attnembed.structured.layers", "EmbeddingSum"),
        ("attnembed.structured.model", "attnembed.structured.base", "StructuredGrads"),
        ("attnembed.losses", "attnembed.gibbs", "cross_entropy"),
        ("attnembed.integration", "attnembed.clocks", "direction"),
        ("attnembed.flow", "attnembed.clocks", "log_time_of"),
        ("attnembed.flow", "attnembed.integration", "Trajectory"),
    ],
)
def test_names_that_have_moved_give_a_warning(old: str, new: str, name: str) -> None:
    message = rf"{re.escape(old)}\.{name} is deprecated and will be removed; use {re.escape(new)}\.{name}$"
    with pytest.warns(DeprecationWarning, match=message) as seen:
        found = getattr(importlib.import_module(old), name)
    assert found is getattr(importlib.import_module(new), name)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = importlib.import_module(old).no_such_name


def test_what_was_never_there_is_not_found_under_an_old_name() -> None:
    with pytest.warns(DeprecationWarning, match=r"use attnembed\.evidence"), pytest.raises(ModuleNotFoundError):
        importlib.import_module("attnembed.verify.nothing")


def test_submodules_are_attributes() -> None:
    assert ae.margins.max_margin is ae.max_margin
    assert ae.attention.theory is ae.theory is attnembed.attention.theory
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = ae.no_such_name
