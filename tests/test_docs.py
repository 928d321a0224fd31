"""The documentation runs: README and docs code blocks, docstrings, links, and the generated page of claims."""

from __future__ import annotations

import doctest
import importlib
import inspect
import linecache
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnembed
from attnembed import integration, theory
from attnembed.api_page import api_page
from attnembed.attention import passes, selection
from attnembed.evidence import claims, claims_page, registry
from attnembed.evidence.attention import extremal

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MODULES = sorted(module.name for module in pkgutil.walk_packages(attnembed.__path__, "attnembed."))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.usefixtures("plain_layout")
def test_docstrings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # doctest prepares a debugger for every docstring, which looks for changes of every file that was ever traced.
    monkeypatch.setattr(linecache, "checkcache", lambda filename=None: None)
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_public_names_have_an_example() -> None:
    problems = []
    for name in sorted(set(attnembed.__all__) - {"theory"}):
        thing = getattr(attnembed, name)
        documented = [thing, *(vars(thing).values() if isinstance(thing, type) else ())]
        texts = [getattr(item, "__doc__", None) or "" for item in documented]
        if not texts[0]:
            problems.append(f"{name} has no docstring")
        elif not (isinstance(thing, type) and issubclass(thing, Exception)) and ">>>" not in "".join(texts):
            problems.append(f"{name} has no example")
    assert problems == []


def test_the_gallery_has_every_figure_and_commands_that_exist() -> None:
    rows = re.findall(
        r"^\| (.*`) \| .* \| (.*) \| .* \|$", (ROOT / "docs" / "gallery.md").read_text("utf-8"), re.MULTILINE
    )
    named = [re.findall(r"`([\w-]+\.(?:png|gif))`", figures) for figures, _ in rows]
    assert {path.name for path in (ROOT / "docs" / "figures").iterdir()} <= {name for names in named for name in names}
    for figures, (_, command) in zip(named, rows):
        assert figures
        for script in re.findall(r"python (examples/\w+\.py)", command):
            assert (ROOT / script).is_file()
        assert re.search(r"`(python (examples/|-m benchmarks)|attnembed (reproduce|sweep) )", command)


NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[-+]?\d+)?(?!\w)")


# Pages that measure claims of their own, or train several models.
HEAVY = {ROOT / "docs" / "your-own-lemma.md", ROOT / "docs" / "tutorial.md"}


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page in HEAVY)) for page in PAGES],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_python_blocks_run_and_print_what_they_say(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims()  # those of the package; what a page declares goes with the test
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    for block in blocks:
        printed = run(block, page, namespace)
        for number, line in enumerate(block.splitlines(), start=1):
            comment = re.search(r"print\(.*\)  # (.*)$", line)
            if comment and NUMBER.search(comment[1]):
                problem = difference(comment[1], printed.get(number, ""))
                assert not problem, f"{page.name}: {line.strip()}: {problem}"


def run(block: str, page: Path, namespace: dict[str, Any]) -> dict[int, str]:
    """Execute a block; what each of its lines printed, by line number."""
    printed: dict[int, str] = {}

    def record(*values: object) -> None:
        frame = inspect.currentframe()
        assert frame is not None
        assert frame.f_back is not None
        line = frame.f_back.f_lineno
        printed[line] = f"{printed.get(line, '')} {' '.join(map(str, values))}"

    namespace["print"] = record
    exec(compile(block, str(page), "exec"), namespace)
    return printed


def difference(comment: str, output: str) -> str:
    """Why the numbers of a comment are not those of the output, in its order, to their last digit; "" if they are."""
    found = iter(NUMBER.findall(output))
    for stated in NUMBER.findall(comment):
        mantissa, _, exponent = stated.partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        if not any(abs(float(x) - float(stated)) <= 1.01 * unit * (0.5 if "." in mantissa else 0.51) for x in found):
            return f"{stated} is not among what is printed,{output}"
    return ""


def test_a_stale_comment_is_found() -> None:
    assert difference("50 and 49.8", " 50.0 49.8012") == ""
    assert difference("56, 4.6 and 2.4 degrees", " t = 1e+02: 56.0 degrees t = 1e+12: 4.6 degrees t = 1e+26: 2.4") == ""
    assert difference("50 and 49.7", " 50.0 49.8012") == "49.7 is not among what is printed, 50.0 49.8012"
    assert difference("0.43", " 0.4172")
    assert difference("1 and 2", " 2 1")


# Figures in prose: each is computed here, and the sentence that states it must be in the page.


def selecting_tutorial() -> tuple[attnembed.AttentionModel, attnembed.TokenDataset]:
    """The model after one step and the data of the tutorial."""
    data = attnembed.make_balanced_dataset(n_samples=60, length=6, n_positive=2, n_negative=2, n_irrelevant=16, rng=0)
    start = attnembed.AttentionModel.random(data.vocab_size, 64, cls_scale=0.0, rng=0)
    return attnembed.one_step(start, data, step_size=100.0).model, data


def window() -> Iterator[tuple[str, str]]:
    """Where selection starts to fail on Family(20, 30), what the sufficient conditions promise, and the table."""

    def family(step_size: float) -> theory.Family:
        return theory.Family(20, 30, step_size=step_size)

    low, high = 600.0, 630.0
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if family(middle).limit().attention_shared > 0.5 else (low, middle)
    small = theory.small_step_condition(attnembed.AttentionModel(*family(1.0).parameters()), family(1.0).dataset())
    large = theory.large_step_size(attnembed.AttentionModel(*family(0.0).parameters()), family(0.0).dataset())
    promised, (digits, power) = small.right / small.left, f"{large.step_size:.1e}".split("e+")
    yield "docs/faq.md", f"promised below {promised:.0f}, and selection fails only from about {low:.0f} on"
    yield (
        "docs/derivations/failure-window.md",
        f"F5 promises selection for $\\eta<{promised:.0f}$, F4 for $\\eta>{digits}\\cdot10^{int(power)}$",
    )
    for step_size in (758, 1263, 1895, 2526, 3158):
        state = family(step_size).limit(70.0)
        assert state.attention_shared < 1e-30
        row = f"| {step_size} | $<10^{{-30}}$ | {state.loss:.4f} | {state.loss - state.loss_gap:.4f} |"
        yield "docs/derivations/failure-window.md", row


def angles() -> Iterator[tuple[str, str]]:
    """The angle to the max-margin direction along the tutorial's flow."""
    model, data = selecting_tutorial()
    flow = attnembed.gradient_flow(model, data, until=60.0)
    direction = attnembed.max_margin(attnembed.margin_constraints(model, data, flow.selection).differences).direction
    shown = []
    for log_time in (np.log(1e2), np.log(1e12), 60.0):
        p = flow.path[np.searchsorted(flow.log_time, log_time - 1e-9)]
        along = p @ direction
        shown.append(np.degrees(np.arctan2(np.linalg.norm(p - along * direction), along)))
    first, second, third = (f"{x:.2g}" for x in shown)
    yield "docs/faq.md", f"it is {first} degrees at $t = 10^2$, {second} at $10^{{12}}$ and {third} at $e^{{60}}$"
    yield "docs/numerics.md", f"the direction is {first} degrees off at $t = 10^2$ and {second} at"


def cost() -> Iterator[tuple[str, str]]:
    """What the long run in log time costs."""
    model, data = selecting_tutorial()
    early, late = (attnembed.gradient_flow(model, data, until=until).nfev for until in (np.log(1e4), 400.0))
    assert 100 < late - early < 1000
    yield "docs/how-to-choose.md", "From $t = 10^4$ to $e^{400}$ costs a few hundred evaluations"


def constants() -> Iterator[tuple[str, str]]:
    """Limits that the pages quote from the modules."""
    yield "docs/numerics.md", f"scores and values span at most {passes._LINEAR_SPAN:.0f}"
    assert (passes._SMALLEST_SHARE, passes._SMALLEST_ANCHOR, passes._NEAR) == (1e-3, 1e-3, 1e-2)
    yield "docs/numerics.md", "$\\sum_s |B_s|$ above $10^{-3}$ of the same product"
    yield "docs/numerics.md", "as it keeps a thousandth of"
    yield "docs/numerics.md", "one per cent of the range of the values"
    assert (integration._SHORT, selection.ROUNDING) == (1e-30, 1e-12)
    yield "docs/numerics.md", "An end below $10^{-30}$ is integrated in units of itself"
    yield "docs/numerics.md", "by no more than $10^{-12}$ of $\\sum_j|E_{sj}v_j|$"
    yield "docs/derivations/basin.md", "by no more than $10^{-12}$ of"


def small_margins() -> Iterator[tuple[str, str]]:
    """Where double precision ends: random rows, and nearly opposite pairs, of small margins beside their length."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        flat = rng.standard_normal((40, 6))
        for rows in (flat, np.repeat(flat[:6], 2, axis=0) * np.resize([[1.0], [-1.0]], (12, 1))):
            assert solved(rows, 1e-7)
            assert not solved(rows, 1e-11)
    yield "docs/faq.md", "from $10^{-7}$ of it down to $10^{-10}$ it depends on the rows"


def solved(rows: np.ndarray, margin: float) -> bool:
    """Whether the program of these rows, each ``margin`` long in one more dimension, has a certified solution."""
    try:
        return attnembed.max_margin(np.hstack([rows, np.full((len(rows), 1), margin)])).success
    except attnembed.NotSeparableError:
        return False


def near_equality() -> Iterator[tuple[str, str]]:
    """How near to equality the bounds come, and the examples of the derivations."""
    curved = extremal.curved(1000.0)
    norm = np.linalg.norm(curved.model.hessian_p(curved.data), 2) / curved.model.smoothness_p(curved.data)
    yield "docs/derivations/smoothness.md", f"{norm:.3f} of $\\beta$ for $G=1000$"
    consistent = 2 * np.sqrt((1 + 2 / 30) / 15) / (2 / np.sqrt(16))
    yield "docs/derivations/small-step.md", f"With $M_+=15$, $k=30$ that is {consistent:.2f} of the condition's"
    E = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, 0], [0, 0, 0, 1]]
    model = attnembed.AttentionModel(np.array(E, dtype=float), [3.0, 2.0, -6.0, 0.0], [1.0, 1.0, -1.0, 0.0])
    data = attnembed.TokenDataset.from_tokens([[0, 1, 2], [2, 3], [4]], [1, 1, -1])
    path = attnembed.gradient_flow(model, data, until=60.0)
    first, second = path.model.attention(data).toarray()[0, :2]
    ell = np.log1p(np.exp([1.0, -1.0, 0.5]))  # l(gamma^(2)) = l(-1), l(gamma*) = l(1) and l(-1/2)
    step = min(ell[0] - ell[1], ell[0] - ell[2])
    yield "docs/derivations/ties.md", f"They keep ${first:.3f}$ and ${second:.3f}$ for ever"
    yield "docs/derivations/ties.md", f"n(L_0-L^*)={3 * path.loss_gap[0]:.3f}$ is below"
    yield "docs/derivations/ties.md", f"={step:.3f}$, so together"


@pytest.mark.parametrize(
    "figures", [window, angles, cost, constants, small_margins, near_equality], ids=lambda figures: figures.__name__
)
def test_figures_in_prose_are_those_of_the_code(figures: Callable[[], Iterator[tuple[str, str]]]) -> None:
    for page, sentence in figures():
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert " ".join(sentence.split()) in text, f"{page} does not say: {sentence}"


def _spaced_formulas(text: str) -> list[str]:
    """Inline formulas that GitHub leaves as they are, since a space or a line's end is next to one of their dollars."""
    prose = re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\\\$", "", text, flags=re.DOTALL)
    found = []
    for paragraph in re.split(r"\n\s*\n", prose):
        inline = paragraph.split("$")[1::2]
        found += [formula for formula in inline if formula != formula.strip()]
    return found


def test_inline_formulas_are_shown_as_formulas() -> None:
    broken = {page.name: found for page in PAGES if (found := _spaced_formulas(page.read_text(encoding="utf-8")))}
    assert not broken
    assert _spaced_formulas(r"as $a$ and `$ b$`, $\varepsilon = $ the largest") == [r"\varepsilon = "]


def test_links_lead_somewhere() -> None:
    lost = []
    for page in PAGES:
        text = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not target.startswith(("http:", "https:", "mailto:")) and not (page.parent / target).exists():
                lost.append(f"{page.name} links to {target}")
    assert lost == []


def test_names_in_the_docs_exist() -> None:
    lost = []
    for page in PAGES:
        for dotted in set(re.findall(r"`(attnembed(?:\.\w+)+)`", page.read_text(encoding="utf-8"))):
            if not _resolve(dotted):
                lost.append(f"{page.name} speaks of {dotted}")
    assert lost == []


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
    """But for the verdicts, which are those of the run that it was made from; all passed, if it has them."""
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[.+?\]\(#(.+?)\) \|.* \| (\w+: .*?) \|$", page, flags=re.MULTILINE)
    ids = {re.sub(r"\W", "", entry.id.replace("-", "_")): entry.id for entry in claims()}
    verdicts = {ids.get(anchor.replace("-", "_"), anchor): text for anchor, text in rows}
    assert page == claims_page(verdicts or None), (
        "docs/claims.md is stale: attnembed verify --json claims.json; "
        "attnembed list --markdown --verdicts claims.json > docs/claims.md"
    )
    assert all(text.startswith("passed: ") for text in verdicts.values())


@pytest.fixture(scope="module")
def public_names() -> str:
    return api_page()


def test_the_page_of_public_names_is_up_to_date(public_names: str) -> None:
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == public_names, (
        "docs/api.md is stale: attnembed list --api > docs/api.md"
    )


def test_the_page_of_public_names_is_whole(public_names: str) -> None:
    page = public_names
    heads = re.findall(r"^### (.+)$", page, flags=re.MULTILINE)
    expected = {*attnembed.__all__, *(f"theory.{name}" for name in attnembed.theory.__all__)}
    expected = (expected | {"losses.Loss", "losses.softplus", "losses.smoothed_squared_hinge"}) - {"theory", "losses"}
    assert expected <= set(heads)
    assert len(heads) == len(set(heads))
    for path in re.findall(r"^Source: \[.*\]\((.*)\)$", page, flags=re.MULTILINE):
        assert (ROOT / "docs" / path).is_file()
    for name in ("until : final value of the clock", "Parameters\n---"):
        assert name not in page, "a section of a docstring is not rendered"


@cache
def anchors(page: str) -> frozenset[str]:
    """The anchors that GitHub gives to the headings of a page."""
    slugs: list[str] = []
    for title in re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    ):
        slug = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        slugs.append(f"{slug}-{slugs.count(slug)}" if slug in slugs else slug)
    return frozenset(slugs)


def test_anchors_exist() -> None:
    lost = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text):
            linked = page.parent / target if target else page
            if anchor not in anchors(linked.read_text(encoding="utf-8")):
                lost.append(f"{page.name} links to {target}#{anchor}")
    assert lost == []
