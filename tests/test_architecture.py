"""The import direction, enforced: what a module may import says what it may depend on."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "attnembed"

# Each layer may import itself and the layers before it.
LAYERS = (
    ("errors", "_declared", "_deprecation", "_lazy", "_moved", "_typing", "_version"),
    ("_validation", "_frozen", "_notebook", "_sparse", "results"),
    ("_archives", "_cells", "_files", "_identity", "_progress", "_sources", "_store", "_workers", "threads"),
    ("formulas", "losses", "gibbs", "reference", "plotting"),
    (
        "enclosures",
        "margin_norms",
        "margin_pivoting",
        "margins",
        "optim",
        "schedules",
        "integration",
        "flow",
        "gradcheck",
    ),
    ("fit", "_checkpoint"),
    ("attention", "structured"),
    ("auditing", "compare", "testing", "evidence", "explore", "sweeping", "api_page"),
    ("experiments",),
    ("report", "_report_page"),
    ("__main__", "_arguments"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imported(path: Path) -> set[str]:
    """Dotted names of the package's modules that a file imports, anywhere in it, without the package's own name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("attnembed.") for name in found if name.startswith("attnembed.")}


def violations(module: str, names: set[str]) -> list[str]:
    """What is wrong with a module's imports; ``module`` is dotted, without the package's own name."""
    top = module.split(".")[0]
    wrong = []
    for name in sorted(names - {"__version__"}):
        target = name.split(".")[0]
        if target not in RANK:
            wrong.append(f"{module} imports {name}, which is in no layer")
        elif RANK[target] > RANK[top] or (
            RANK[target] == RANK[top] and target != top and top in ("attention", "structured")
        ):
            wrong.append(f"{module} imports {name}, which is above or beside it")
        if target == "reference" and top not in ("evidence", "reference"):
            wrong.append(f"{module} imports the oracles of reference")
        if ".theory" in module and name.split(".")[:2] in (
            [top, part] for part in ("model", "training", "flow", "passes", "one_step")
        ):
            wrong.append(f"{module} predicts with {name}, which it is compared with")
        if ".theory" in module and target in ("flow", "integration", "fit"):
            wrong.append(f"{module} predicts with {target}, which it is compared with")
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down(path: Path) -> None:
    module = ".".join(path.with_suffix("").parts)
    assert violations(module, imported(PACKAGE / path)) == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("gibbs", "attention.data"),
        ("attention.theory.basin", "attention.passes.token_sums"),
        ("attention.theory.basin", "attention.flow.gradient_flow"),
        ("attention.theory.basin", "integration.integrate"),
        ("structured.theory", "fit.fit"),
        ("attention.passes", "reference.attention_output"),
        ("attention.text", "structured.chain"),
        ("evidence.registry", "experiments.reproduce"),
        ("attention.model", "nowhere"),
    ],
)
def test_wrong_imports_are_found(module: str, name: str) -> None:
    assert violations(module, {name})


def shadowed(package: str) -> list[str]:
    """Public names of a package that are also those of its modules, other than modules that are public themselves."""
    module = importlib.import_module(package)
    folder = Path(str(module.__file__)).parent
    below = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    return sorted(n for n in below & set(getattr(module, "__all__", ())) if not inspect.ismodule(getattr(module, n)))


PACKAGES = [".".join(("attnembed", *path.relative_to(PACKAGE).parent.parts)) for path in PACKAGE.rglob("__init__.py")]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_has_the_name_of_a_public_function(package: str) -> None:
    assert shadowed(package) == []


def test_a_shadowed_function_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    theory = importlib.import_module("attnembed.attention.theory")
    monkeypatch.setattr(theory, "__all__", [*theory.__all__, "rates"])
    monkeypatch.setitem(theory.__dict__, "rates", len)
    assert shadowed("attnembed.attention.theory") == ["rates"]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_plotting_imports_matplotlib(path: Path) -> None:
    uses = "matplotlib" in (PACKAGE / path).read_text(encoding="utf-8").split("TYPE_CHECKING:")[0]
    imports = any(
        line.strip().startswith(("import matplotlib", "from matplotlib"))
        for line in (PACKAGE / path).read_text(encoding="utf-8").splitlines()
        if not line.startswith("    ")
    )
    assert not (uses and imports) or path.name == "plotting.py"
