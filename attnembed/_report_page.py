"""The page of `report`, from HTML parts filled in and escaped by `_fill`."""

from __future__ import annotations

import base64
import html
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from attnembed._files import versions
from attnembed.evidence import Claim, ClaimResult, Report, by_construction
from attnembed.evidence.files import claims_file as file_of
from attnembed.evidence.page import capitalised
from attnembed.evidence.registry import place
from attnembed.evidence.run import LOOSE, VERDICTS, hypothesis_name
from attnembed.evidence.verdict import cells
from attnembed.experiments.registry import number_rows, spread_note
from attnembed.formulas import formula_svg

__all__ = ["ExperimentRun", "report_page"]

_SOURCES = {"WSOM25": "https://arxiv.org/abs/2505.17282", "SO19": "https://arxiv.org/abs/1902.11088"}


@dataclass(frozen=True)
class ExperimentRun:
    """The outcome of one experiment: its JSON record and figures, or the reason for having none.

    ``state`` is "done", "not run" (its data were not named, or are missing from the folder that was) or "failed".
    """

    name: str
    summary: str
    state: str
    error: str = ""
    record: Mapping[str, Any] | None = None
    figures: tuple[Path, ...] = ()


class _Html(str):
    """Text that is HTML already."""


def _fill(template: str, **values: object) -> _Html:
    """``template`` with its $names replaced; values other than `_Html` are escaped."""
    safe = {name: x if isinstance(x, _Html) else html.escape(str(x)) for name, x in values.items()}
    return _Html(Template(template).substitute(safe))


def _join(parts: Iterable[_Html]) -> _Html:
    return _Html("\n".join(parts))


def report_page(
    report: Report,
    entries: Iterable[Claim],
    runs: Iterable[ExperimentRun],
    options: list[str],
    command: str,
    seconds: float,
) -> str:
    """The whole page, as HTML."""
    results, runs = {result.id: result for result in report.results}, list(runs)
    pairs = [(entry, results[entry.id]) for entry in entries]
    shared = shlex.join(options)
    filters, rules = _filters(pairs)
    known = {**versions(), "matplotlib": metadata.version("matplotlib")}
    return _fill(
        _PAGE,
        style=_Html(_STYLE + "\n".join(rules)),
        verdict="passed" if report.n_passed == len(pairs) else "failed",
        good=report.n_passed,
        count=len(pairs),
        experiments=_counted(runs),
        meanings=_join(
            _fill("<li>$mark $verdict: $meaning</li>", mark=mark, verdict=verdict, meaning=VERDICTS[verdict])
            for verdict, mark in _MARKS.items()
        ),
        date=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        seconds=f"{seconds:.0f}",
        seed=report.seed,
        versions=", ".join(f"{name} {version}" for name, version in known.items()),
        command=f"{command} {shared}",
        filters=filters,
        claims=_join(_claim(entry, result) for entry, result in pairs),
        runs=_join(_experiment(run, shared) for run in runs),
    )


def _filters(pairs: list[tuple[Claim, ClaimResult]]) -> tuple[_Html, list[_Html]]:
    """Radio buttons that select the claims of one subject or verdict, and the style that hides the rest."""
    groups = {
        "subject": dict.fromkeys(entry.subject for entry, _ in pairs),
        "verdict": dict.fromkeys(result.verdict for _, result in pairs),
    }
    parts, rules = [], []
    for group, values in groups.items():
        if len(values) > 1:
            buttons = [_fill(_RADIO, group=group, value="all", checked=_Html(" checked"))]
            buttons += [_fill(_RADIO, group=group, value=_anchor(value), checked=_Html("")) for value in values]
            rules += [_fill(_RULE, group=group, value=_anchor(value)) for value in values]
            parts.append(_fill(_FILTER, legend=group.capitalize(), buttons=_join(buttons)))
    return _join(parts), rules


_MARKS = {"passed": "✓", "failed": "✗", "blind": "!", "vacuous": "?"}


def _counted(runs: list[ExperimentRun]) -> str:
    """A sentence with the numbers of experiments that were run, failed and left out."""
    states = [run.state for run in runs]
    parts = [f"{states.count('done')} of {len(runs)} experiments were run"]
    parts += [f"{n} {text}" for n, text in ((states.count("failed"), "failed"),) if n]
    parts += [f"{n} {'was' if n == 1 else 'were'} not run for want of data" for n in (states.count("not run"),) if n]
    return ", ".join(parts)


def _texts(result: ClaimResult) -> dict[str, str]:
    return {
        "id": result.id,
        "anchor": _anchor(result.id),
        "verdict": result.verdict,
        "kind": result.kind.capitalize(),
        **cells(result),
    }


def _hypotheses(entry: Claim, result: ClaimResult) -> Iterable[_Html]:
    """Each hypothesis with its state: measured, true by construction, or neither."""
    declared = {str(text) for text in entry.hypotheses}
    measured = {*result.hypotheses, *map(hypothesis_name, result.hypotheses)}
    for text in entry.hypotheses:
        if isinstance(text, by_construction) and not result.error:
            where = place(entry.measure, text.code)
            at = f", {where}" if where else ""
            yield _fill("<li>• $text (by construction: <code>$code</code>$at)</li>", text=text, code=text.code, at=at)
        elif text not in measured:
            yield _fill('<li class="quiet">? $text (not measured)</li>', text=text)
    for name, holds in result.hypotheses.items():
        extra = "" if hypothesis_name(name) in declared or name in declared else " (also measured)"
        mark, kind = (_MARKS["passed"], "passed") if holds else (_MARKS["failed"], "failed")
        yield _fill(
            '<li><span class="$kind">$mark</span> $text$extra</li>', kind=kind, mark=mark, text=name, extra=extra
        )


def _claim(entry: Claim, result: ClaimResult) -> _Html:
    hypotheses = _join(_hypotheses(entry, result))
    if result.error:
        caught = "not measured"
    elif result.control_failed:
        caught = f"exceeds {result.control_bound:.3g}, as it must"
    else:
        caught = f"does not exceed {result.control_bound:.3g}: the measurement is blind"
    notes = [result.note] if result.note else []
    if result.loose:
        notes.append(f"The bound is loose: the measured value is below {LOOSE:g} times the bound")
    source = [_cited(entry.reference)] if entry.reference else []
    source += [_fill("<code>docs/$page</code>", page=entry.derivation)] if entry.derivation else []
    return _fill(
        _CLAIM,
        mark=_MARKS[result.verdict],
        statement=capitalised(entry.statement),
        formula=_fill("<p>$svg</p>", svg=_Html(formula_svg(entry.tex))) if entry.tex else _Html(""),
        subject=_anchor(entry.subject),
        hypotheses=_fill("<ul>$items</ul>", items=hypotheses) if hypotheses else "none",
        controlled=entry.control,
        caught=caught,
        source=_fill("<dt>Source</dt><dd>$source</dd>", source=_Html("; ".join(source))) if source else _Html(""),
        notes=_join(
            [_fill('<p class="reason">$text</p>', text=_sentence(text)) for text in (result.reason,) if text]
            + [_fill('<p class="quiet">$text</p>', text=_sentence(text)) for text in notes]
        ),
        counts=capitalised(result.counts),
        command=_again(entry, result),
        seconds=f"{result.seconds:.2f}",
        **_texts(result),
    )


def _again(entry: Claim, result: ClaimResult) -> str:
    """The command that repeats the measurement shown."""
    file = file_of(entry)
    about = f"{shlex.quote(file)} " if file is not None else ""
    return f"attnembed verify {about}--ids {result.id} --instance {result.instance}"


def _sentence(text: str) -> str:
    return capitalised(text) if text.endswith((".", "!", "?")) else f"{capitalised(text)}."


def _experiment(run: ExperimentRun, shared: str) -> _Html:
    quick = bool(run.record is not None and run.record["quick"])
    if quick and "--quick" not in shared.split():
        shared += " --quick"  # a long experiment is run this way in any case
    body = _fill('<p class="$kind">$state: $error</p>', kind=run.state, state=run.state.capitalize(), error=run.error)
    if run.record is not None:
        images = [
            _fill(
                _FIGURE,
                name=path.stem,
                data=base64.b64encode(path.read_bytes()).decode("ascii"),
                alt=f"Figure {path.stem} of the experiment {run.name}: {run.summary}. Its numbers are in the table.",
            )
            for path in run.figures
        ]
        count = len(images) - 1
        more = _fill(_MORE, count=f"{count} more figure{'s' * (count > 1)}", figures=_join(images[1:]))
        numbers = (_fill(_NUMBER, name=name, value=value) for name, value in number_rows(run.record["numbers"]))
        body = _fill(
            _OUTCOME,
            figures=_join(images[:1]),
            more=more if count > 0 else _Html(""),
            numbers=_join(numbers),
            note=spread_note(run.record["numbers"]) or "One number each",
            parameters=", ".join(f"{name} = {value}" for name, value in run.record["parameters"].items()),
            seed=run.record["seed"],
            size="quick version" if quick else "full size",
            seconds=f"{run.record['seconds']:.1f}",
        )
    return _fill(
        _EXPERIMENT,
        name=run.name,
        anchor=_anchor(run.name),
        summary=capitalised(run.summary),
        body=body,
        command=f"attnembed reproduce {run.name} {shared}",
    )


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _cited(text: str) -> _Html:
    """The text with [WSOM25] and [SO19] as links to the papers."""
    parts = re.split(r"\[(\w+)\]", text)
    for k, key in enumerate(parts):
        cited = k % 2 == 1
        if cited and key in _SOURCES:
            parts[k] = _fill('<a href="$url">[$key]</a>', url=_SOURCES[key], key=key)
        else:
            parts[k] = html.escape(f"[{key}]" if cited else key)
    return _Html("".join(parts))


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>attnembed: $good of $count claims hold</title>
<style>$style</style>
</head>
<body>
<header>
<h1>attnembed: theorems about learning, measured</h1>
<p class="lead $verdict">$good of $count claims hold, with their negative controls caught. $experiments.</p>
<p>A claim is measured on random instances, and the numbers are those of the worst. Smaller is better: the
measured value must stay within its limit on all instances, and the negative control, the same measurement where
the statement does not apply, must exceed it on at least one. An instance on which a hypothesis does not hold is
skipped. The limit is a bound, which is part of the statement and has a ratio, or a tolerance (~), which allows
for rounding or finite time.</p>
<ul class="meanings">
$meanings
</ul>
<dl class="facts">
<dt>Made</dt><dd>$date, in $seconds s</dd>
<dt>Seed</dt><dd>$seed</dd>
<dt>Versions</dt><dd>$versions</dd>
<dt>To repeat</dt><dd><code>$command</code></dd>
</dl>
<nav aria-label="Sections"><a href="#claims">Claims</a> <a href="#experiments">Experiments</a></nav>
</header>
<main>
<section id="claims" aria-labelledby="claims-title">
<h2 id="claims-title">Claims</h2>
<p>A row shows the measured value and its limit. Open it for the formula, hypotheses and control. The ratio is
measured / bound; a tolerance (~) has none.</p>
$filters
$claims
</section>
<section id="experiments" aria-labelledby="experiments-title">
<h2 id="experiments-title">Experiments</h2>
<div class="runs">
$runs
</div>
</section>
</main>
</body>
</html>
"""

_CLAIM = """<details id="$anchor" class="card subject-$subject verdict-$verdict">
<summary><h3>$id</h3> <span class="$verdict verdict">$mark $verdict</span>
<span class="brief">$measured, limit $bound</span> <span class="statement">$statement.</span></summary>
$formula
<dl class="numbers">
<div><dt>Measured</dt><dd>$measured</dd></div>
<div><dt>$kind</dt><dd>$bound</dd></div>
<div><dt>Ratio</dt><dd>$ratio</dd></div>
<div><dt>Control</dt><dd>$control</dd></div>
<div><dt>Held</dt><dd>$held</dd></div>
</dl>
$notes
<dl class="facts">
<dt>Instances</dt><dd>$counts</dd>
<dt>Hypotheses</dt><dd>$hypotheses</dd>
<dt>Negative control</dt><dd>$controlled; $caught</dd>
$source
<dt>To repeat</dt><dd><code>$command</code> ($seconds s)</dd>
</dl>
</details>"""

_FILTER = """<fieldset><legend>$legend</legend>
$buttons
</fieldset>"""

_RADIO = """<input type="radio" name="$group" id="$group-$value"$checked><label for="$group-$value">$value</label>"""

_RULE = "section:has(#$group-$value:checked) .card:not(.$group-$value) { display: none; }"

_EXPERIMENT = """<article id="$anchor" class="card">
<h3>$name</h3>
<p>$summary.</p>
$body
<dl class="facts"><dt>To repeat</dt><dd><code>$command</code></dd></dl>
</article>"""

_FIGURE = """<figure tabindex="0"><img src="data:image/png;base64,$data" alt="$alt">
<figcaption>$name.png</figcaption></figure>"""

_MORE = """<details><summary>$count</summary>
<div class="figures">
$figures
</div>
</details>"""

_OUTCOME = """$figures
$more
<details><summary>Numbers</summary>
<table>
<caption>$note</caption>
<thead><tr><th scope="col">Quantity</th><th scope="col">Value</th></tr></thead>
<tbody>
$numbers
</tbody>
</table>
</details>
<dl class="facts">
<dt>Parameters</dt><dd>$parameters</dd>
<dt>Run</dt><dd>$size, seed $seed, $seconds s</dd>
</dl>"""

_NUMBER = """<tr><th scope="row">$name</th><td>$value</td></tr>"""

_STYLE = """
:root { --ink: #1b1b1b; --soft: #555; --page: #fff; --card: #f6f7f9; --line: #d5d9de; --link: #0b5cad;
  --good: #0b6b3a; --bad: #a51d1d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --soft: #b0b0b0; --page: #16181b; --card: #202429;
  --line: #3a4048; --link: #7db8f0; --good: #6fd39b; --bad: #ff9a94; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 74rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--page); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.3rem; margin-top: 2.5rem; }
h3 { font-size: 1.05rem; margin: 0 0 .3rem; }
a { color: var(--link); } nav a { display: inline-block; padding: .4rem .8rem .4rem 0; }
code { font: .9em ui-monospace, monospace; }
.lead { font-size: 1.15rem; font-weight: 600; }
.passed { color: var(--good); } .failed, .blind, .vacuous, .reason { color: var(--bad); } .quiet { color: var(--soft); }
.meanings { padding-left: 0; list-style: none; color: var(--soft); } h3 span { white-space: nowrap; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: 1rem; margin: 1rem 0; }
.card p { margin: .3rem 0; }
dl { margin: .6rem 0; } dd { margin: 0; } dt { color: var(--soft); }
dd > ul { margin: 0; padding: 0; list-style: none; }
.facts { display: grid; grid-template-columns: minmax(6rem, auto) 1fr; gap: .2rem 1rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: .4rem; }
.numbers dd { font-variant-numeric: tabular-nums; font-weight: 600; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
th, td { overflow-wrap: break-word; } th { font-weight: 500; }
summary h3 { display: inline; } summary .verdict { font-weight: 600; white-space: nowrap; }
.brief { font-variant-numeric: tabular-nums; } header p, section > p { max-width: 60rem; }
details.card { padding: .35rem .8rem; margin: .3rem 0; } details.card[open] { padding-bottom: 1rem; }
details.card .statement { display: block; }
@media screen and (min-width: 64rem) { details.card > summary { display: grid; list-style: none; column-gap: .8rem;
  grid-template-columns: 17rem 4.6rem 12rem 1fr; font-size: .92rem; line-height: 1.35; }
  details.card > summary h3 { font-size: 1em; margin: 0; } details.card { padding: .25rem .8rem; margin: .2rem 0; }
  details.card > summary h3::before { content: "▸ "; } details.card[open] > summary h3::before { content: "▾ "; } }
.runs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); gap: 0 1rem; }
.runs > .card { min-width: 0; }
fieldset { display: inline-block; border: 1px solid var(--line); border-radius: .4rem; margin: 0 .6rem .6rem 0; }
label { padding: .2rem .8rem .2rem .2rem; } svg { max-width: 100%; overflow: visible; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0 1rem; }
figure { margin: .8rem 0; } figcaption { color: var(--soft); }
img { max-width: 100%; max-height: 20rem; height: auto; background: #fff; border-radius: .3rem; padding: .3rem; }
summary { cursor: pointer; color: var(--soft); }
@media (max-width: 40rem) { figure { overflow-x: auto; } img { max-width: none; max-height: none; width: 36rem; }
  th { overflow-wrap: anywhere; } .wide { display: none; } .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: .5rem; } }
@media print { :root { --ink: #000; --soft: #333; --page: #fff; --card: #fff; --line: #999; --link: #000; --good: #000;
  --bad: #000; } body { max-width: none; font-size: 10pt; } .card, figure, tr { break-inside: avoid; }
  nav, fieldset { display: none; } .runs { display: block; } details::details-content { content-visibility: visible; } }
"""
