"""Small changes of meaning, made in the syntax tree of a function: each is a mutant that some check should notice.

The rules exchange signs, products and quotients, minima and maxima, the sense and the strictness of inequalities, axes
and branches; they drop a term, a factor, a transposition, an absolute value or a root, and change a constant by a
tenth. Messages, annotations, docstrings and the conditions under which an input is refused are left alone: they are no
results. A mutant is named after its module, its function and the text of its line, not the number of the line, so that
it keeps its name when the file changes elsewhere.
"""

from __future__ import annotations

import ast
import itertools
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Mutant", "checksum", "chosen", "mutants_of"]

# The holder of a node, the field and the index at which it holds it, and the node.
_Site = tuple[ast.AST, str, int | None, Any]

_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_STRICT: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_SENSE: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_EXCHANGED = {"min": "max", "minimum": "maximum", "argmin": "argmax", "log1p": "log", "expm1": "exp", "any": "all"}
_EXCHANGED |= {new: old for old, new in _EXCHANGED.items() if old not in ("log1p", "expm1")}
_DROPPED = ("abs", "sqrt", "exp", "log")
# Not values: what is said, asked or declared.
_SILENT = (ast.Raise, ast.Assert, ast.JoinedStr, ast.arguments, ast.Lambda)


@dataclass(frozen=True)
class Mutant:
    """One change, the ``number``-th that the rules make in the function of the ``original`` module."""

    module: str
    function: str
    line: str
    rule: str
    before: str
    after: str
    occurrence: int
    number: int
    original: str = field(repr=False)

    @property
    def source(self) -> str:
        """The whole module with the change."""
        tree = ast.parse(self.original)
        changes = _changes(dict(_functions(tree))[self.function])
        (holder, place, index, _), _, replacement = next(itertools.islice(changes, self.number, None))
        _put(holder, place, index, replacement)
        return ast.unparse(ast.fix_missing_locations(tree)) + "\n"

    @property
    def name(self) -> str:
        """MODULE:FUNCTION: LINE [RULE: BEFORE -> AFTER], the same as long as these stand in the file."""
        again = f" ({self.occurrence})" if self.occurrence > 1 else ""
        return f"{self.module}:{self.function}: {self.line} [{self.rule}: {self.before} -> {self.after}]{again}"


def mutants_of(source: str, module: str, functions: tuple[str, ...] | None = None) -> list[Mutant]:
    """All mutants of the named functions ("f", "Class.method"; by default of all), in the order of the file.

    >>> [m.after for m in mutants_of("def area(a, b):\\n    return a * b\\n", "toy.py", ("area",))]
    ['a / b', 'a']
    """
    tree, lines, found = ast.parse(source), source.splitlines(), []
    wanted = dict(_functions(tree))
    missing = set(functions or ()) - set(wanted)
    if missing:
        raise ValueError(f"{module} has no function {sorted(missing)[0]!r}")
    seen: Counter[tuple[str, ...]] = Counter()
    for name, function in wanted.items():
        if functions is not None and name not in functions:
            continue
        for number, ((*_, node), rule, replacement) in enumerate(_changes(function)):
            line, before, after = lines[node.lineno - 1].strip(), ast.unparse(node), ast.unparse(replacement)
            key = (name, line, rule, before, after)
            seen[key] += 1
            found.append(Mutant(module, name, line, rule, before, after, seen[key], number, source))
    return found


def chosen(mutants: list[Mutant], count: int) -> list[Mutant]:
    """``count`` mutants of each function: of different rules first, and of one rule those of smallest checksum.

    A checksum of the name is as good as chance and always the same: an edit elsewhere changes no choice.
    """
    picked = []
    for function in dict.fromkeys(mutant.function for mutant in mutants):
        own = sorted((m for m in mutants if m.function == function), key=checksum)
        rank: Counter[str] = Counter()
        order = []
        for mutant in own:
            order.append((rank[mutant.rule], checksum(mutant)))
            rank[mutant.rule] += 1
        best = sorted(range(len(own)), key=order.__getitem__)[:count]
        picked += [own[k] for k in best]
    names = {mutant.name for mutant in picked}
    return [mutant for mutant in mutants if mutant.name in names]


def checksum(mutant: Mutant) -> int:
    """Of the name: a number as good as chance, and always the same."""
    return zlib.crc32(mutant.name.encode())


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield f"{node.name}.{part.name}", part


def _changes(function: ast.FunctionDef) -> Iterator[tuple[_Site, str, ast.AST]]:
    """Every replacement that a rule makes in the body of a function: where, the name of the rule, and by what."""
    for site in _sites(function):
        for rule, replacement in _rules(site[-1]):
            yield site, rule, replacement


def _sites(function: ast.FunctionDef) -> Iterator[_Site]:
    """(holder, field, index, node) for every node of the body that may be replaced, in the order of the text."""
    stack: list[_Site] = []

    def push(holder: ast.AST, fields: tuple[str, ...]) -> None:
        entries: list[_Site] = []
        for field in fields:
            value = getattr(holder, field, None)
            if isinstance(value, ast.AST):
                entries.append((holder, field, None, value))
            elif isinstance(value, list):
                entries += [(holder, field, k, part) for k, part in enumerate(value) if isinstance(part, ast.AST)]
        stack.extend(reversed(entries))

    push(function, ("body",))
    while stack:
        holder, field, index, node = stack.pop()
        if isinstance(node, _SILENT):
            continue
        yield holder, field, index, node
        quiet = {ast.AnnAssign: ("value",), ast.FunctionDef: ("body",)}
        refuses = isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise)
        push(node, ("orelse",) if refuses else quiet.get(type(node), node._fields))


def _put(holder: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(holder, field, node)
    else:
        getattr(holder, field)[index] = node


def _rules(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The replacements of one node, each with the name of its rule."""
    if isinstance(node, ast.BinOp):
        yield from _of_operation(node)
    elif isinstance(node, ast.AugAssign) and type(node.op) in (ast.Add, ast.Sub, ast.Mult, ast.Div):
        yield (
            "sign" if isinstance(node.op, (ast.Add, ast.Sub)) else "factor",
            _with(node, op=_OPERATORS[type(node.op)]()),
        )
        yield "drop", ast.Pass()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "sign", node.operand
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        kind = type(node.ops[0])
        if kind in _STRICT:
            yield "strict", _with(node, ops=[_STRICT[kind]()])
            yield "sense", _with(node, ops=[_SENSE[kind]()])
    elif isinstance(node, ast.BoolOp):
        yield "logic", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.IfExp):
        yield "branch", _with(node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Attribute) and node.attr == "T" and isinstance(node.ctx, ast.Load):
        yield "axis", node.value
    elif isinstance(node, ast.keyword) and node.arg == "axis" and isinstance(node.value, ast.Constant):
        yield "axis", _with(node, value=ast.Constant(1 if node.value.value == 0 else 0))


def _of_operation(node: ast.BinOp) -> Iterator[tuple[str, ast.AST]]:
    kind = type(node.op)
    if kind in (ast.Add, ast.Sub):
        yield "sign", _with(node, op=_OPERATORS[kind]())
        yield "drop", node.left
    elif kind in (ast.Mult, ast.Div):
        yield "factor", _with(node, op=_OPERATORS[kind]())
        yield "drop", node.left
        for side in ("left", "right"):
            value = getattr(node, side)
            if isinstance(value, ast.Constant) and isinstance(value.value, (int, float)) and value.value:
                yield "constant", _with(node, **{side: ast.Constant(1.1 * value.value)})
    elif kind is ast.Pow and isinstance(node.right, ast.Constant):
        yield "power", node.left


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    function = node.func
    name = (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
    if name == "max" and isinstance(function, ast.Attribute) and ast.unparse(function.value).endswith("segments"):
        return  # segments have no minimum: the mutant would only crash
    if name in _EXCHANGED:
        other = _EXCHANGED[name]
        renamed = _with(function, attr=other) if isinstance(function, ast.Attribute) else _with(function, id=other)
        yield "extreme", _with(node, func=renamed)
    elif name in _DROPPED and len(node.args) == 1 and not node.keywords:
        yield "function", node.args[0]


def _with(node: ast.AST, **changes: object) -> ast.AST:
    """A copy of a node with other fields."""
    fields = {field: getattr(node, field, None) for field in node._fields}
    return ast.copy_location(type(node)(**{**fields, **changes}), node)
