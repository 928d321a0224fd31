"""Pictures of a model of reviews: E_s.v and E_s.p of its tokens against the posterior difference, and examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from attnembed._files import PathLike, read_npz, write_npz
from attnembed._typing import Floats
from attnembed.attention.data import TokenDataset
from attnembed.attention.model import AttentionModel
from attnembed.errors import DataFileError
from attnembed.experiments.registry import QUICK_ENDING, Request
from attnembed.experiments.review_corpus import ExampleReview
from attnembed.results import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "choose_min_documents", "review_figures", "spearman"]

# Tokens in fewer reviews than this are left out of the picture: their posterior difference is noise.
MIN_DOCUMENTS = 50
# Of few reviews, tokens in fewer: the largest number that leaves this many tokens, or the smallest that is allowed. The
# picture needs as many tokens as make a parabola with a standard error.
_WANTED_TOKENS, _FEWEST_DOCUMENTS, _FEWEST_TOKENS = 100, 2, 5


@dataclass(frozen=True, eq=False, repr=False)
class Picture(Record):
    """E_s.v and E_s.p of the shown tokens against Delta_s, and what can be said of them in numbers."""

    delta: Floats
    frequency: Floats
    values: Floats
    scores: Floats
    words: tuple[str, ...]
    numbers: dict[str, float]

    @classmethod
    def of(cls, model: AttentionModel, data: TokenDataset, min_documents: int = MIN_DOCUMENTS) -> Picture:
        """Spearman's correlations, and how far the square of Delta_s enters E_s.p in a fit by least squares.

        The fit says that the cloud is U-shaped, not that it is a parabola, and is not drawn: both sides are steep near
        0 and flat at the ends. E_s.v has no fit either: it bends away from any line.

        Tokens in fewer than ``min_documents`` reviews are left out.
        """
        shown = _shown(data, min_documents)
        delta, values, scores = data.posterior_difference[shown], model.token_values[shown], model.token_scores[shown]
        numbers = {
            "spearman_values_signed_frequency": spearman(values, data.signed_frequency[shown]),
            "spearman_scores_absolute_difference": spearman(scores, np.abs(delta)),
        }
        # Standard errors of ordinary least squares; a constant score (p = 0) has no shape to speak of.
        if np.ptp(scores) > 0:
            parabola, covariance = np.polyfit(delta, scores, 2, cov=True)
            numbers["quadratic_coefficient"] = float(parabola[0])
            numbers["quadratic_standard_error"] = float(np.sqrt(covariance[0, 0]))
            numbers["quadratic_in_standard_errors"] = float(parabola[0] / np.sqrt(covariance[0, 0]))
        words = tuple(data.vocab[s] for s in shown) if data.vocab else ()
        return cls(delta, data.frequency[shown], values, scores, words, numbers)

    def most_attended(self, sign: int, count: int = 10) -> list[str]:
        """The words with the largest E_s.p among those with Delta_s of one sign."""
        order = np.argsort(-self.scores)
        return [self.words[k] for k in order if sign * self.delta[k] > 0][:count]

    def extremes(self, count: int = 2) -> list[int]:
        """Indices of the words to label: of either sign, the largest scores that lie apart along Delta_s."""
        order = np.argsort(-self.scores)
        chosen: list[int] = []
        for sign in (-1, 1):
            side: list[int] = []
            for k in order[np.sign(self.delta[order]) == sign]:
                if all(abs(self.delta[k] - self.delta[other]) > 0.15 for other in side):
                    side.append(int(k))
                if len(side) == count:
                    break
            chosen += side
        return chosen


def _shown(data: TokenDataset, min_documents: int) -> NDArray[np.intp]:
    return np.flatnonzero(np.diff(data.counts_csc.indptr) >= min_documents)


def choose_min_documents(data: TokenDataset, source: PathLike) -> int:
    """In how many reviews a token must be to be shown: `MIN_DOCUMENTS`, or fewer where that leaves few tokens.

    Raises DataFileError where too few tokens are left for the picture, or they do not tell the classes apart.
    """
    documents = np.diff(data.counts_csc.indptr)
    wanted = np.sort(documents)[-min(_WANTED_TOKENS, documents.size)]
    least = int(np.clip(wanted, _FEWEST_DOCUMENTS, MIN_DOCUMENTS))
    n = np.unique(data.posterior_difference[_shown(data, least)].round(9)).size
    if n < _FEWEST_TOKENS:
        have = f"the words that {least} reviews or more share take {n} different posterior differences"
        raise DataFileError(source, f"holds too little text: {have}; at least {_FEWEST_TOKENS} are needed")
    return least


def spearman(x: Floats, y: Floats) -> float:
    """The correlation of the ranks, the same for equal numbers; 0 if all of the first are equal.

    >>> round(spearman(np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.1, 0.4, 0.3, 0.5])), 6)
    0.948683
    """
    return float(spearmanr(x, y).statistic) if np.ptp(x) > 0 else 0.0


def review_figures(
    request: Request, name: str, stepped: Picture, trained: Picture, examples: list[ExampleReview]
) -> dict[str, Callable[[], Figure]]:
    """The figures of one data set, those of examples and of both IMDB and Yelp where there are such."""

    def draw() -> Figure:
        from attnembed.plotting import new_figure

        figure, axes = new_figure(1, 3, panel=(3.7, 3.6))
        _draw_panels(axes[0], stepped, trained, name)
        return figure

    def draw_examples() -> Figure:
        from attnembed.plotting import new_figure, plot_attention_text

        figure, axes = new_figure(len(examples), 1, panel=(9.0, 1.3))
        for ax, review in zip(axes[:, 0], examples):
            sign = "positive" if review.label > 0 else "negative"
            plot_attention_text(ax, review.words, review.attention, title=f"{sign} review, f = {review.output:+.2f}")
        return figure

    figures = {name: draw}
    if examples:
        figures[f"{name}-attention"] = draw_examples
    return figures | _side_by_side(request, name, stepped, trained)


_PICTURE = ("delta", "frequency", "values", "scores", "words")
_PAIR = {"imdb": "IMDB", "yelp": "Yelp"}


def _side_by_side(request: Request, name: str, stepped: Picture, trained: Picture) -> dict[str, Callable[[], Figure]]:
    """Keep the pictures of IMDB and Yelp in OUT/cache; where those of the other lie there too, a figure of both."""
    if name not in _PAIR:
        return {}
    ending = QUICK_ENDING if request.quick else ""

    def kept(key: str) -> list[Path]:
        return [request.out / "cache" / f"{key}-{stage}{ending}.npz" for stage in ("step", "trained")]

    for path, picture in zip(kept(name), (stepped, trained)):
        write_npz(path, **{field: np.asarray(getattr(picture, field)) for field in _PICTURE})
    files = {key: kept(key) for key in _PAIR}
    if not all(path.is_file() for paths in files.values() for path in paths):
        return {}

    def load(path: Path) -> Picture:
        fields: dict[str, Any] = read_npz(path, _PICTURE)
        return Picture(**{**fields, "words": tuple(fields["words"].tolist())}, numbers={})

    def draw() -> Figure:
        from attnembed.plotting import new_figure

        figure, axes = new_figure(2, 3, panel=(3.7, 3.6))
        for row, key in zip(axes, _PAIR):
            step, trained_picture = map(load, files[key])
            _draw_panels(row, step, trained_picture, key)
        return figure

    return {"-and-".join(_PAIR): draw}


def _draw_panels(axes: Any, stepped: Picture, trained: Picture, name: str) -> None:
    """E_s.v after one step (on a scale that is linear near 0), E_s.v and E_s.p after training."""
    from attnembed.plotting import plot_tokens

    panels = (
        (stepped, stepped.values, r"$E_s \cdot v$", "after one step"),
        (trained, trained.values, r"$E_s \cdot v$", "after training"),
        (trained, trained.scores, r"$E_s \cdot p$", "after training"),
    )
    for ax, (picture, values, ylabel, title) in zip(axes, panels):
        plot_tokens(
            ax,
            picture.delta,
            values,
            picture.frequency,
            ylabel=ylabel,
            colorbar=ax is axes[-1],
            words=picture.words,
            labelled=picture.extremes() if values is trained.scores else (),
        )
        ax.set_title(f"{_PAIR.get(name, name)}, {title}" + (f", n = {picture.delta.size:,}" if ax is axes[0] else ""))
    linear = float(np.quantile(np.abs(stepped.values), 0.75))
    if linear > 0:
        axes[0].set_yscale("symlog", linthresh=linear)
