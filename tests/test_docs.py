"""The documentation runs: README and docs code blocks, docstrings, links, and the generated page of claims."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import attnembed
from attnembed.api_page import api_page
from attnembed.verify import claims_page

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MODULES = sorted(module.name for module in pkgutil.walk_packages(attnembed.__path__, "attnembed."))


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.parametrize("name", sorted(set(attnembed.__all__) - {"theory"}))
def test_public_names_have_an_example(name: str) -> None:
    thing = getattr(attnembed, name)
    documented = [thing, *(vars(thing).values() if isinstance(thing, type) else ())]
    texts = [getattr(item, "__doc__", None) or "" for item in documented]
    assert texts[0], f"{name} has no docstring"
    if not (isinstance(thing, type) and issubclass(thing, Exception)):
        assert any(">>>" in text for text in texts), f"{name} has no example"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_in_the_docs_exist(page: Path) -> None:
    for dotted in set(re.findall(r"`(attnembed(?:\.\w+)+)`", page.read_text(encoding="utf-8"))):
        assert _resolve(dotted), f"{page.name} speaks of {dotted}"


def _resolve(dotted: str) -> bool:
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


def test_the_page_of_claims_is_up_to_date() -> None:
    assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == claims_page(), (
        "docs/claims.md is stale: attnembed list --markdown > docs/claims.md"
    )


def test_the_page_of_public_names_is_up_to_date() -> None:
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == api_page(), (
        "docs/api.md is stale: attnembed list --api > docs/api.md"
    )


def test_the_page_of_public_names_is_whole() -> None:
    page = api_page()
    heads = re.findall(r"^### (.+)$", page, flags=re.MULTILINE)
    expected = {*attnembed.__all__, *(f"theory.{name}" for name in attnembed.theory.__all__)} - {"theory"}
    assert expected <= set(heads)
    assert len(heads) == len(set(heads))
    for path in re.findall(r"^Source: \[.*\]\((.*)\)$", page, flags=re.MULTILINE):
        assert (ROOT / "docs" / path).is_file()
    for name in ("until : final value of the clock", "Parameters\n---"):
        assert name not in page, "a section of a docstring is not rendered"


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    slugs: list[str] = []
    for title in re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    ):
        slug = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        slugs.append(f"{slug}-{slugs.count(slug)}" if slug in slugs else slug)
    return set(slugs)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text):
        linked = page.parent / target if target else page
        assert anchor in anchors(linked.read_text(encoding="utf-8")), f"{page.name} links to {target}#{anchor}"
