"""The search for a counterexample: Hypothesis draws, climbs measured/bound and shrinks; the result is a script."""

from __future__ import annotations

import ast
import inspect
import random
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, find, settings, target
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample, Unsatisfiable, UnsatisfiedAssumption

from attnembed._progress import Progress
from attnembed._validation import RNGLike, as_rng, check_integer
from attnembed.errors import InputError, InputTypeError
from attnembed.evidence.instances import problem_parameter
from attnembed.evidence.measurement import Evidence
from attnembed.testing.attention import problems as attention_problems
from attnembed.testing.problem import Problem, as_code
from attnembed.testing.simplify import simplified

__all__ = ["Counterexample", "falsify"]

Predicate = Callable[[Any], Any]

_ALIASES = {"np": "import numpy as np", "ae": "import attnembed as ae"}
_NETWORK = (
    "from attnembed.structured.layers import Conv2D, Dense, ReLU, Tanh",
    "from attnembed.structured.networks import Network",
)


@dataclass(frozen=True, eq=False)
class Counterexample:
    """An instance that violates a statement; its ``str`` is a script that shows it.

    Attributes
    ----------
    problem : the instance
    ratio : the value of the predicate there, above 1; NaN if it returned False
    examples : number of instances tried
    predicate : the statement
    """

    problem: Any
    ratio: float
    examples: int
    predicate: Predicate

    def __str__(self) -> str:
        return script(self.predicate, self.problem)

    def __repr__(self) -> str:
        return f"Counterexample(ratio={self.ratio:.4g}, examples={self.examples}); print it for a script"


def falsify(
    predicate: Predicate,
    problems: st.SearchStrategy[Any] | None = None,
    *,
    max_examples: int = 1000,
    rng: RNGLike = 0,
    timeout: float | None = None,
) -> Counterexample | None:
    """Search for an instance on which a statement is false, and simplify it.

    Parameters
    ----------
    predicate : ``predicate(problem)`` returns True or False, a ratio measured/bound (above 1 is a violation, and the
        search climbs it), None where a hypothesis of the statement does not hold, or `Evidence`, as a claim does
    problems : a Hypothesis strategy; by default that of the predicate's annotation ``Annotated[Problem, strategy]``,
        else `problems()` of the attention model
    max_examples : largest number of instances, before shrinking
    rng : seed of the search
    timeout : seconds after which no further instance is tried (the best violation so far is returned)

    Returns
    -------
    Counterexample, or None if none was found

    Raises
    ------
    InputError
        for a predicate that raises or returns anything else, or whose hypotheses hold on none of the instances.

    >>> from attnembed.testing import potentials
    >>> found = falsify(lambda chain: float(chain[0].max()), potentials(), rng=0)  # no potential is above 1
    >>> found.ratio > 1, falsify(lambda chain: chain[0].max() < 100, potentials(), max_examples=50)
    (True, None)
    """
    if not callable(predicate):
        raise InputTypeError("predicate", "must be a function of one problem", got=type(predicate).__name__)
    if problems is None:
        problems = problem_parameter(predicate)[1]
    strategy = attention_problems() if problems is None else problems
    if not isinstance(strategy, st.SearchStrategy):
        raise InputTypeError("problems", "must be a Hypothesis strategy", got=type(problems).__name__)
    check_integer("max_examples", max_examples, minimum=1)
    seed = int(as_rng(rng).integers(2**32))
    run = _Search(predicate, timeout)
    options = settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.target, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    with Progress("searching", total=max_examples) as progress:
        run.report = progress.update
        try:
            smallest = find(strategy, run.violates, settings=options, random=random.Random(seed))
        except (NoSuchExample, Unsatisfiable, _StopSearch):
            smallest = run.last
    if run.error is not None:
        raise run.error
    if smallest is None:
        if run.measured == 0:
            raise InputError(
                "predicate",
                "must apply to some of the instances",
                got=f"None for all {run.tried}" if run.tried else "a strategy that drew none within its hypotheses",
                hint="let `problems` draw instances inside the hypotheses",
            )
        return None
    small = simplified(smallest, lambda problem: run.quiet(problem) is True)
    return Counterexample(small, run.ratio(small), run.tried, predicate)


class _StopSearch(KeyboardInterrupt):
    """Ends the search from within Hypothesis, which treats any other exception as a failing example."""


class _Search:
    """The predicate as called by Hypothesis, with counting, checks and climbing."""

    def __init__(self, predicate: Predicate, timeout: float | None) -> None:
        self.predicate = predicate
        self.end = None if timeout is None else time.monotonic() + timeout
        self.tried = self.measured = 0
        self.last: Any = None
        self.error: Exception | None = None
        self.report: Callable[[float], None] = lambda done: None

    def violates(self, problem: Any) -> bool:
        if self.end is not None and time.monotonic() > self.end:
            raise _StopSearch
        self.tried += 1
        self.report(self.tried)
        try:
            value = _plain(self.predicate(problem))
            verdict = _judge(value)
        except UnsatisfiedAssumption:
            raise
        except Exception as error:
            self.error = _refusal(error)
            self.error.add_note(f"on problem = {as_code(problem)}")
            self.error.__cause__ = error
            raise _StopSearch from error
        if verdict is None:
            return False
        self.measured += 1
        if not isinstance(value, (bool, np.bool_)) and np.isfinite(value):
            target(float(value))
        if verdict:
            self.last = problem
        return verdict

    def quiet(self, problem: Any) -> bool | None:
        """Whether a problem violates the statement; None if it does not apply or raises."""
        try:
            return _judge(_plain(self.predicate(problem)))
        except Exception:
            return None

    def ratio(self, problem: Any) -> float:
        value = _plain(self.predicate(problem))
        return float("nan") if isinstance(value, (bool, np.bool_)) else float(value)


class _AnswerError(Exception):
    """A predicate returned a value that means neither yes nor no."""


def _refusal(error: Exception) -> InputError:
    """The error, in one line, for a predicate that raises or returns an invalid value."""
    if isinstance(error, _AnswerError):
        got, hint = str(error), "compare, as in `return measured <= bound`"
    else:
        text = " ".join(str(error).split())
        got = f"{type(error).__name__}: {text}" if text else type(error).__name__
        hint = "return None where the statement does not apply"
    return InputError("predicate", "must return True, False, a ratio, Evidence or None", got=got, hint=hint)


def _plain(value: Any) -> Any:
    """The answer of Evidence: None outside the hypotheses, the ratio if there is one, else whether it is within."""
    if not isinstance(value, Evidence):
        return value
    if not all(value.held.values()):
        return None
    if not np.isfinite(value.measured) or value.limit <= 0:
        return bool(np.isfinite(value.measured) and value.measured <= value.limit)
    return value.measured / value.limit


def _judge(value: Any) -> bool | None:
    """Whether a predicate's answer is a violation; None for an instance outside the hypotheses."""
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)):
        return not value
    if isinstance(value, (int, float, np.integer, np.floating)) and not np.isnan(value):
        return bool(value > 1)
    raise _AnswerError(repr(value))


# --- the script -------------------------------------------------------------------------------------------------


def script(predicate: Predicate, problem: Any) -> str:
    """A program that builds the problem, calls the predicate and prints the answer."""
    source, needed, name = _source(predicate)
    imports = {
        *(_ALIASES[alias] for alias in ("np", "ae")),
        *(["from attnembed.testing import Problem"] if _contains(problem, Problem) else []),
        *(_NETWORK if "Network." in as_code(problem) else ()),
        *needed,
    }
    ordered = sorted(imports, key=lambda line: (not line.startswith("import"), not line.startswith("from"), line))
    instance = as_code(problem)
    return "\n".join(
        [*ordered, "", *([source, ""] if source else []), f"problem = {instance}", f"print({name}(problem))"]
    )


def _contains(value: Any, kind: type) -> bool:
    return isinstance(value, kind) or (isinstance(value, tuple) and any(_contains(part, kind) for part in value))


def _source(predicate: Predicate) -> tuple[str, list[str], str]:
    """The source of a function without decorators, the imports it needs, and its name."""
    name = getattr(predicate, "__name__", "predicate")
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(predicate)))
    except (OSError, TypeError, SyntaxError):
        return "", [], name
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef):
        return (
            _lambda(tree),
            _imports(predicate, {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}),
            "predicate",
        )
    node.decorator_list, node.returns = [], None
    for argument in node.args.args:
        argument.annotation = None
    if ast.get_docstring(node) is not None:
        node.body = node.body[1:] or [ast.Pass()]
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return ast.unparse(node), _imports(predicate, names - {node.name}), name


def _lambda(tree: ast.Module) -> str:
    found = next((n for n in ast.walk(tree) if isinstance(n, ast.Lambda)), None)
    return "" if found is None else f"predicate = {ast.unparse(found)}"


def _imports(predicate: Predicate, names: set[str]) -> list[str]:
    """Import statements, and the text of helper functions and constants, for the globals that the function reads."""
    out, space, written = [], getattr(predicate, "__globals__", {}), _import_lines(predicate)
    for name in sorted(names & set(space)):
        value = space[name]
        if name in written:
            out.append(written[name])
        elif isinstance(value, ModuleType):
            out.append(f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}"))
        elif inspect.isfunction(value) and value.__module__ == getattr(predicate, "__module__", None):
            out.append("\n" + textwrap.dedent(inspect.getsource(value)).rstrip())
        elif isinstance(value, (int, float, str, bool)):
            out.append(f"{name} = {value!r}")
        elif (module := getattr(value, "__module__", None)) not in (None, "builtins"):
            own = getattr(value, "__name__", name)
            out.append(f"from {module} import {own}" + ("" if own == name else f" as {name}"))
    return out


def _import_lines(predicate: Predicate) -> dict[str, str]:
    """The imports of the file of the function: the statement for each name."""
    try:
        file = inspect.getsourcefile(predicate)
        tree = ast.parse(Path(file).read_text(encoding="utf-8")) if file else ast.Module([], [])
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    lines = {}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0):
            for alias in node.names:
                one = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], 0)
                lines[alias.asname or alias.name.split(".")[0]] = ast.unparse(one)
    return lines
