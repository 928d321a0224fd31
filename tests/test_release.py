"""What a release promises: one version, bounds that are stated where they are tested, and nothing that runs a file."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import attnembed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted((ROOT / "attnembed").rglob("*.py"))
RISKY = {"pickle", "marshal", "shelve", "dill", "joblib", "subprocess", "socket", "urllib", "http", "ctypes", "code"}


def test_there_is_one_version() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "attnembed/_version.py"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, flags=re.MULTILINE) == [attnembed.__version__]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, flags=re.MULTILINE)[0] == attnembed.__version__


def test_bounds_are_stated_and_can_be_pinned() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for requirement in PROJECT["project"]["dependencies"]:
        name, bound = requirement.split(">=")
        assert f"{name} {bound}" in readme, f"README.md does not say {name} {bound}"
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"Python {lowest} or later" in readme
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    assert f"Programming Language :: Python :: {lowest}" in PROJECT["project"]["classifiers"]
    for requirement in PROJECT["project"]["optional-dependencies"]["test"]:
        assert re.fullmatch(r"\w+>=[\d.]+", requirement), "the script of the lower bounds puts == for >="


def test_the_source_distribution_holds_what_the_tests_read() -> None:
    include = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [path for path in include if not (ROOT / path[1:]).exists()] == []
    assert {f"/{path.name}" for path in ROOT.glob("*.md")} <= set(include)
    assert {"/.ci", "/attnembed", "/docs", "/examples", "/tests"} <= set(include)


# None of the risks can be written without one of these.
WORDS = re.compile("|".join([*RISKY, "eval", "exec", "system", "popen", "load", "allow_pickle"]))


def risks(source: str) -> list[str]:
    """What in a module could run the content of a file, or reach beyond the process."""
    found: list[str] = []
    if not WORDS.search(source):
        return found
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in RISKY]
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in RISKY:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""
            keywords = {one.arg: ast.unparse(one.value) for one in node.keywords if one.arg == "allow_pickle"}
            if name in ("eval", "exec", "os.system", "os.popen"):
                found.append(name)
            if name == "np.load" and keywords.get("allow_pickle") != "False":
                found.append("np.load without allow_pickle=False")
            if keywords.get("allow_pickle", "False") != "False":
                found.append("allow_pickle")
    return found


def test_nothing_runs_the_content_of_a_file() -> None:
    found = {str(path.relative_to(ROOT)): risks(path.read_text(encoding="utf-8")) for path in MODULES}
    admitted = {str(Path("attnembed/structured/letters.py")): ["pickle"]}  # refuses every name but those of arrays
    assert {name: risky for name, risky in found.items() if risky} == admitted


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from subprocess import run",
        "import urllib.request",
        "eval(text)",
        "os.system(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "read(path, allow_pickle=flag)",
    ],
)
def test_risks_are_found(line: str) -> None:
    assert risks(line)
    assert not risks("np.load(path, allow_pickle=False)")
