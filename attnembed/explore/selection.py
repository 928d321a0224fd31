"""The page of selection: one gradient step of any size on E, then the flow on p to any time."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnembed._progress import Progress
from attnembed._typing import Doubles, Ints
from attnembed._validation import RNGLike, as_rng
from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.selection import margin_constraints, select
from attnembed.errors import NotSeparableError
from attnembed.explore.document import Panel, document, rounded
from attnembed.margins import max_margin

__all__ = ["selection_page"]

_UNTIL = 40.0
_SHOWN = 6  # sequences


def selection_page(quick: bool = False, rng: RNGLike = 0) -> str:
    """Build the page of selection, with sliders over the step size and log t.

    After too small a step the noise of the initial embeddings prevails, and p selects the tokens that it favours.
    """
    generator = as_rng(rng)
    data = make_balanced_dataset(n_samples=20, length=5, n_irrelevant=8, rng=generator)
    model = AttentionModel.random(data.vocab_size, 32, rng=generator)
    step_sizes = np.geomspace(0.1, 1000.0, 5 if quick else 17)
    times = np.linspace(-2.0, _UNTIL, 22 if quick else 64)
    shown = _spread_out(data)
    with Progress("selection", total=len(step_sizes)) as progress:
        runs = []
        for k, size in enumerate(step_sizes):
            runs.append(_run(model, data, float(size), times, shown))
            progress.update(k + 1)
    top = select(one_step(model, data, 100.0).model, data).top
    payload = {
        "step_sizes": rounded(step_sizes, 3),
        "start": len(step_sizes) * 3 // 4,
        "log_time": rounded(times),
        "frequency": rounded(data.signed_frequency),
        "kind": _kinds(data).tolist(),
        "sequences": [
            {"label": int(data.labels[i]), "tokens": _tokens(data, i).tolist(), "top": int(top[i])} for i in shown
        ],
        "runs": runs,
    }
    size = (
        f"{data.n_samples} sequences of {int(data.lengths[0])} tokens, {data.vocab_size} token types, dimension "
        f"{model.E.shape[1]}"
    )
    return document(
        "Which tokens does attention select?",
        [
            "One gradient step on the embeddings E aligns them with v, in proportion to signed token frequency. "
            "Gradient flow on the <cls> embedding p then moves all attention to single tokens: the predictive ones, if "
            "the step is large enough to outweigh the random start.",
            f"Synthetic data: {size}, from random embeddings."
            + (" A quick version: few step sizes and times." if quick else ""),
        ],
        [
            Panel(
                "bars",
                "Attention within six sequences; full colour marks the top token (blue: positive, orange: negative, "
                "grey: irrelevant tokens).",
            ),
            Panel(
                "curves",
                "Over log t: the least attention on a top token (solid, blue) and the cosine of p to the max-margin "
                "direction of its selection (dashed, orange).",
            ),
            Panel(
                "align",
                "After the step: E.v of each token against its signed frequency, with the predicted line (dashed).",
            ),
        ],
        payload,
        "selection",
    )


def _kinds(data: TokenDataset) -> Ints:
    """0 for a positive, 1 for a negative and 2 for an irrelevant token."""
    important = np.setdiff1d(data.check_assumption().important, [-1])
    kinds = np.full(data.vocab_size, 2)
    kinds[important] = np.where(data.signed_frequency[important] > 0, 0, 1)
    return kinds


def _spread_out(data: TokenDataset) -> list[int]:
    """Evenly spaced sequences of both labels."""
    return sorted({int(i) for i in np.linspace(0, data.n_samples - 1, _SHOWN).round()})


def _tokens(data: TokenDataset, i: int) -> Ints:
    """The token types of a sequence, in the order of their ids."""
    tokens: Ints = data.counts.indices[data.counts.indptr[i] : data.counts.indptr[i + 1]]
    return tokens


def _run(model: AttentionModel, data: TokenDataset, size: float, times: Doubles, shown: list[int]) -> dict[str, Any]:
    step = one_step(model, data, size)
    flow = gradient_flow(step.model, data, until=_UNTIL)
    finite = np.isfinite(flow.log_time)
    # The path between the solver's points, coordinate by coordinate; before the first of them p stands still.
    path = np.stack([np.interp(times, flow.log_time[finite], x) for x in flow.path[finite].T], axis=1)
    chosen = select(flow.model, data)
    margin = None
    cosine = np.full(times.size, np.nan)
    norm = np.linalg.norm(path, axis=1)
    try:
        found = max_margin(margin_constraints(flow.model, data, chosen).differences)
    except NotSeparableError:
        pass
    else:
        margin = found.margin
        cosine = path @ found.direction / np.maximum(norm, 1e-300)
    attention, least = [], []
    rows = np.arange(data.n_samples)
    for p in path:
        weights = flow.model.replace(p=p).attention(data)
        least.append(float(np.min(np.asarray(weights[rows, chosen.top]))))
        attention.append([rounded(weights[i].toarray().ravel()[_tokens(data, i)], 3) for i in shown])
    return {
        "slope": rounded(step.slope),
        "value": rounded(step.model.E @ step.model.v),
        "attention": attention,
        "top_attention": rounded(least, 3),
        "cosine": rounded(cosine, 3),
        "norm": rounded(norm, 3),
        "margin": margin and rounded(margin),
        "selected": int(np.sum(chosen.tokens == chosen.top)),
        "n": data.n_samples,
    }
