"""Declarations read from the sources: claims, experiments, sweeps and pages can be listed without importing them.

Importing the modules takes a second, nearly all of it for SciPy; reading them a twentieth. Modules are visited in
import order, which is the order of the registries.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["CLAIM_MODULES", "EXPERIMENT_MODULES", "EXPLORE_MODULE", "SWEEP_MODULE", "declared"]

CLAIM_MODULES = {"attention": "attnembed.evidence.attention", "structured": "attnembed.evidence.structured"}
EXPERIMENT_MODULES = tuple(
    f"attnembed.experiments.{name}" for name in ("synthetic", "random_step", "reviews", "structured")
)
SWEEP_MODULE = "attnembed.experiments.sweeps"
EXPLORE_MODULE = "attnembed.explore.pages"

_ROOT = Path(__file__).parents[1]


def declared(modules: Iterable[str], function: str, text: str | int) -> list[tuple[str, str]] | None:
    """The first argument of every call of ``function`` in the modules, and its argument ``text`` (a name or place).

    Only calls at the top level of a module count, including decorators. None if a source is missing or an argument is
    not a literal; the caller then has to import.

    >>> declared([EXPERIMENT_MODULES[0]], "experiment", 1)[0][0]
    'alignment'
    """
    found: list[tuple[str, str]] = []
    try:
        for module in _with_imports(modules):
            for statement in module.body:
                inner = statement.decorator_list if isinstance(statement, ast.FunctionDef) else [statement]
                for node in (node for part in inner for node in ast.walk(part)):
                    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function:
                        arguments = dict(enumerate(node.args)) | {word.arg: word.value for word in node.keywords}
                        found.append((_literal(arguments[0]), _literal(arguments[text])))
    except (OSError, SyntaxError, ValueError, KeyError):
        return None
    return found


def _literal(node: ast.expr) -> str:
    value = ast.literal_eval(node)
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _with_imports(modules: Iterable[str]) -> Iterator[ast.Module]:
    """Each module once, after the modules that it imports from its own folder."""
    seen: set[str] = set()

    def visit(name: str) -> Iterator[ast.Module]:
        source = _source(name)
        if name in seen or source is None:
            return
        seen.add(name)
        tree = ast.parse(source.read_bytes())
        home = name if source.name == "__init__.py" else name.rpartition(".")[0]
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith(f"{home}."):
                for wanted in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    yield from visit(wanted)
        yield tree

    for name in modules:
        if _source(name) is None:
            raise FileNotFoundError(name)
        yield from visit(name)


def _source(name: str) -> Path | None:
    """The file of a module or package, or None."""
    path = _ROOT.joinpath(*name.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()), None)
