"""The import direction, enforced: what a module may import says what it may depend on."""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "attnembed"

# Each layer may import itself and the layers before it.
LAYERS = (
    ("errors", "_declared", "_deprecation", "_lazy", "_moved", "_options", "_typing", "_version"),
    ("_validation", "_frozen", "_notebook", "_sparse", "results", "gradients"),
    ("_archives", "_cells", "_files", "_identity", "_progress", "_sources", "_store", "_workers", "threads"),
    ("formulas", "losses", "gibbs", "reference", "plotting", "figures"),
    (
        "enclosures",
        "infeasibility",
        "margin_norms",
        "margin_pivoting",
        "margin_rows",
        "margins",
        "optim",
        "pending",
        "schedules",
        "clocks",
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


# What is no statement and holds statements.
CLAUSES = (ast.ExceptHandler, ast.match_case)


@cache  # every module is read by two tests
def parsed(source: str) -> tuple[list[ast.Import | ast.ImportFrom], list[ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The imports and the functions of a module, anywhere in it."""
    imports: list[ast.Import | ast.ImportFrom] = []
    functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.append(node)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions.append(node)
        waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.stmt, *CLAUSES))]
    return imports, functions[::-1]


def imported(path: Path) -> set[str]:
    """Dotted names of the package's modules that a file imports, anywhere in it, without the package's own name."""
    found: set[str] = set()
    for node in parsed(path.read_text(encoding="utf-8"))[0]:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
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
        if ".theory" in module and target in ("flow", "clocks", "integration", "fit"):
            wrong.append(f"{module} predicts with {target}, which it is compared with")
    return wrong


def test_imports_point_down() -> None:
    found = {path: violations(".".join(path.with_suffix("").parts), imported(PACKAGE / path)) for path in MODULES}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


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


def test_only_plotting_imports_matplotlib() -> None:
    importing = set()
    for path in MODULES:
        lines = (PACKAGE / path).read_text(encoding="utf-8").splitlines()
        importing |= {path.name for line in lines if line.startswith(("import matplotlib", "from matplotlib"))}
    assert importing == {"plotting.py"}


# --- sizes --------------------------------------------------------------------------------------------------------

FILE_LINES, FUNCTION_LINES, PARAMETERS = 450, 60, 12


def code_lines(lines: list[str], function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring, blank lines and comments."""
    first = function.body[0]
    described = ast.get_docstring(function, clean=False) is not None
    text = set(range(first.lineno, (first.end_lineno or 0) + 1)) if described else set()
    rest = [lines[i - 1].strip() for i in range(function.lineno, (function.end_lineno or 0) + 1) if i not in text]
    return sum(bool(line) and not line.startswith("#") for line in rest)


def too_large(source: str) -> list[str]:
    """What of a module goes beyond the limits."""
    lines = source.splitlines()
    found = [f"{len(lines)} lines"] if len(lines) > FILE_LINES else []
    for node in parsed(source)[1]:
        arguments = node.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        count += (arguments.vararg is not None) + (arguments.kwarg is not None)
        found += [f"{node.name} has {count} parameters"] if count > PARAMETERS else []
        length = code_lines(lines, node)
        found += [f"{node.name} has {length} lines of code"] if length > FUNCTION_LINES else []
    return found


def test_files_functions_and_signatures_are_short() -> None:
    found = {path: too_large((PACKAGE / path).read_text(encoding="utf-8")) for path in MODULES}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


def test_what_is_too_large_is_found() -> None:
    many = ", ".join(f"x{i}" for i in range(PARAMETERS))
    body = "    # a comment\n\n" + "    x0 = 1\n" * (FUNCTION_LINES - 2)
    text = '    """A docstring\n\n    of several lines.\n    """\n'
    for source, found in (
        (f"def f({many}): ...", []),
        (f"def f({many}, *rest): ...", [f"f has {PARAMETERS + 1} parameters"]),
        (f"class A:\n    def f(self, *, {many}): ...", [f"f has {PARAMETERS + 1} parameters"]),
        (f"def f(x0):\n{text}{body}    return x0\n", []),
        (f"def f(x0):\n{text}{body}    x0 = 2\n    return x0\n", [f"f has {FUNCTION_LINES + 1} lines of code"]),
        ("\n" * FILE_LINES, []),
        ("\n" * (FILE_LINES + 1), [f"{FILE_LINES + 1} lines"]),
    ):
        assert too_large(source) == found
