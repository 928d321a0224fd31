"""The page docs/api.md: public names with signature, docstring and source, by subject, generated from docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import attnembed
from attnembed.attention.theory import Prediction
from attnembed.results import Result

__all__ = ["api_page"]

_HEAD = """# Public names

Everything in `attnembed`, `attnembed.theory` and `attnembed.losses`, with the types they return. This page is
generated from the docstrings by `attnembed list --api > docs/api.md`. Shapes are in parentheses, as in
[notation](notation.md); `rng` is an int, a `numpy.random.Generator` or None. Invalid input raises `InputError`, a
damaged file `DataFileError`; both are ValueErrors. Results of solvers have `status`, `message`, `success` and
`to_dict()`; predictions of the theory have `holds`, `failures` and `to_dict()`.
"""
_FOOT = """[WSOM25]: https://arxiv.org/abs/2505.17282
[SO19]: https://arxiv.org/abs/1902.11088
[SHNGS18]: https://arxiv.org/abs/1710.10345
"""

# A name belongs to the first subject whose prefix matches its module.
_SUBJECTS = {
    "Theory of attention": "attnembed.attention.theory",
    "Attention": "attnembed.attention",
    "Structured prediction": "attnembed.structured",
    "Common to both": "attnembed",
}
_ORDER = ("Attention", "Theory of attention", "Structured prediction", "Common to both")
_WIDTH = 110


@dataclass(frozen=True)
class _Entry:
    name: str
    thing: Any
    anchor: str

    @property
    def module(self) -> str:
        return str(self.thing.__module__)

    @property
    def subject(self) -> str:
        return next(title for title, prefix in _SUBJECTS.items() if self.module.startswith(prefix))


def api_page() -> str:
    """The public names as one Markdown page: a table for each subject, then a section for each name."""
    entries = _entries()
    links = {entry.name: entry.anchor for entry in entries}
    parts = [_HEAD]
    for subject in _ORDER:
        chosen = [entry for entry in entries if entry.subject == subject]
        parts += [f"## {subject}\n", "| name | description |", "|---|---|"]
        parts += [f"| [`{e.name}`](#{e.anchor}) | {_table_cell(_first_line(e.thing), links)} |" for e in chosen]
        parts.append("")
        for entry in chosen:
            source = f"{entry.module.replace('.', '/')}.py"
            parts += [f"### {entry.name}\n", f"Source: [{source}](../{source})\n", *_section(entry, links)]
    return "\n".join([*parts, _FOOT])


def _entries() -> list[_Entry]:
    """The public names and the types of the package that they return, in the order of the sources."""
    found = _public()
    for thing in list(found.values()):
        for function in (thing, *(getattr(member, "fget", member) for _, member in _members(thing))):
            found |= {kind.__name__: kind for kind in _returned(function) if kind not in found.values()}
    rows = sorted(found.items(), key=lambda row: (row[1].__module__, inspect.getsourcelines(row[1])[1]))
    entries, slugs = [], list[str]()
    for subject in _ORDER:
        for name, thing in rows:
            slug = re.sub(r"[^\w-]", "", name.lower())  # as on GitHub; repeated ones are numbered
            entry = _Entry(name, thing, f"{slug}-{slugs.count(slug)}" if slug in slugs else slug)
            if entry.subject == subject:
                slugs.append(slug)
                entries.append(entry)
    return entries


def _public() -> dict[str, Any]:
    found = {name: getattr(attnembed, name) for name in attnembed.__all__ if name not in ("theory", "losses")}
    found |= {
        f"losses.{name}": getattr(attnembed.losses, name) for name in ("Loss", "smoothed_squared_hinge", "softplus")
    }
    return found | {f"theory.{name}": getattr(attnembed.theory, name) for name in attnembed.theory.__all__}


def _returned(function: Any) -> Iterator[type]:
    """The classes of the package named in a function's return annotation."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    annotation = getattr(function, "__annotations__", {}).get("return", "") if inspect.isfunction(function) else ""
    for name in re.findall(r"\w+", str(annotation)):
        kind = function.__globals__.get(name)
        if isinstance(kind, type) and kind.__module__.startswith("attnembed.") and not name.startswith("_"):
            yield kind


def _members(thing: Any) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class and its bases; those common to all results are in the page's head."""
    if not isinstance(thing, type) or issubclass(thing, Exception):
        return
    seen: set[str] = set()
    for base in thing.__mro__:
        if not base.__module__.startswith("attnembed") or (base in (Result, Prediction) and base is not thing):
            continue
        for name, member in vars(base).items():
            wanted = inspect.isfunction(member) or isinstance(member, (property, classmethod, cached_property))
            if wanted and not name.startswith("_") and name not in seen and _doc(member):
                seen.add(name)
                yield name, member


def _section(entry: _Entry, links: dict[str, str]) -> list[str]:
    lines = []
    if _is_called(entry):
        lines += [
            "```py",
            _signature(entry.name.removeprefix("theory.").removeprefix("losses."), entry.thing),
            "```",
            "",
        ]
    lines += _render(_doc(entry.thing), links)
    short, long = list[str](), list[str]()
    for name, member in _members(entry.thing):
        function = getattr(member, "__func__", member)
        title = _signature(name, function, typed=False) if inspect.isfunction(function) else name
        if "\n\n" in _doc(member):
            long += [f"**`.{title}`**\n", *_render(_doc(member), links)]
        else:
            short.append(f"- `.{title}`: {_inline(_first_line(member), links)}")
    return lines + ([*short, ""] if short else []) + long


def _is_called(entry: _Entry) -> bool:
    """Whether users call it: not an exception, nor a type that functions return or that attributes describe."""
    doc, thing = _doc(entry.thing), entry.thing
    if thing not in _public().values() or (isinstance(thing, type) and issubclass(thing, Exception)):
        return False
    return "\nParameters\n---" in doc or "\nAttributes\n---" not in doc


def _doc(thing: Any) -> str:
    return inspect.getdoc(thing) or ""


def _first_line(thing: Any) -> str:
    return _doc(thing).split("\n\n")[0].replace("\n", " ")


def _table_cell(text: str, links: dict[str, str]) -> str:
    return _inline(text, links).replace("|", "\\|")


def _signature(name: str, function: Callable[..., Any], *, typed: bool = True) -> str:
    """``name(arguments) -> type``, with one argument per line if it is long; without types, on one line."""
    signature = inspect.signature(function)
    arguments: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(text.startswith("*") for text in arguments):
            arguments.append("*")
        stars = "*" * (parameter.kind is parameter.VAR_POSITIONAL) + "**" * (parameter.kind is parameter.VAR_KEYWORD)
        text = stars + parameter.name
        typed_here = typed and parameter.annotation is not parameter.empty
        text += f": {_annotation(parameter.annotation)}" if typed_here else ""
        if parameter.default is not parameter.empty:
            text += (" = " if typed_here else "=") + getattr(parameter.default, "__name__", repr(parameter.default))
        arguments.append(text)
    returned = signature.return_annotation if typed else "None"
    end = "" if returned in (signature.empty, "None", None) else f" -> {_annotation(returned)}"
    line = f"{name}({', '.join(arguments)}){end}"
    return line if len(line) <= _WIDTH or not typed else f"{name}(\n    " + ",\n    ".join(arguments) + f",\n){end}"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


# --- docstrings to Markdown -----------------------------------------------------------------------------------------


def _render(doc: str, links: dict[str, str]) -> list[str]:
    """A docstring as lines of Markdown: paragraphs, indented formulas, numpydoc sections and doctests."""
    out: list[str] = []
    for text in doc.split("\n\n"):
        block = text.splitlines()
        if block[0].startswith(">>>"):
            out += ["```pycon", *block, "```", ""]
        elif len(block) > 1 and re.fullmatch("-{3,}", block[1]):
            out += [f"*{block[0]}*\n", *_items(block[2:], links), ""]
        else:
            out += [*_paragraph(block, links), ""]
    return out


def _items(lines: list[str], links: dict[str, str]) -> Iterator[str]:
    """The entries of a numpydoc section, one bullet each."""
    entries: list[str] = []
    for line in lines:
        if line.startswith(" "):
            entries[-1] += (" " if " : " in entries[-1] else " : ") * (not entries[-1].endswith(" ")) + line.strip()
        else:
            entries.append(line)
    for entry in entries:
        name, _, text = entry.partition(" : ")
        yield f"- `{name}`: {_inline(text, links)}" if text else f"- `{name}`"


def _paragraph(lines: list[str], links: dict[str, str]) -> Iterator[str]:
    """Text unchanged; indented lines after flush ones become a separate block."""
    listing = any(line.startswith("- ") for line in lines)
    inside = False
    for line in lines:
        indented = line.startswith("    ") and not listing
        if indented != inside:
            yield "\n```text" if indented else "```\n"
            inside = indented
        yield line[4:] if indented else _inline(line, links)
    if inside:
        yield "```"


def _inline(text: str, links: dict[str, str]) -> str:
    """Keep code spans, link names on this page and pages under docs/, and escape the rest."""
    pieces = re.split(r"(``.+?``|`.+?`)", text)
    for k, piece in enumerate(pieces):
        if piece.startswith("``"):
            pieces[k] = piece[1:-1]
        elif piece.startswith("`"):
            name = piece.strip("`").removeprefix("attnembed.")
            target = links.get(name) or links.get(f"theory.{name}")
            pieces[k] = f"[{piece}](#{target})" if target else piece
        else:
            piece = re.sub(r"[*<$]|(?<!\w)_|_(?!\w)", lambda match: "\\" + match[0], piece)
            pieces[k] = re.sub(r"docs/([\w/-]+\.md)", r"[\1](\1)", piece)
    return "".join(pieces)
