"""The picture of [WSOM25] on labelled reviews: IMDB, Yelp, or any file that `load_reviews` reads.

After one gradient step and after training, each token's E_s.v and E_s.p are drawn against its posterior difference
Delta_s. The first orders the tokens; the second is U-shaped: attention goes to tokens that decide, of either sign.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import spearmanr

from attnembed._progress import Progress
from attnembed.attention.data import TokenDataset
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.one_step import one_step
from attnembed.attention.reviews import iter_reviews
from attnembed.attention.text import Tokenizer, count_reviews, drop_empty
from attnembed.attention.training import split_dataset, train
from attnembed.errors import DataFileError
from attnembed.experiments.registry import Outcome, Request, experiment, require_data
from attnembed.losses import logistic, logistic_derivative

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Vector = NDArray[np.float64]

# Tokens in fewer reviews than this are left out of the picture: their posterior difference is noise.
MIN_DOCUMENTS = 50


@dataclass(frozen=True, eq=False)
class Corpus:
    """Training and test reviews as counts over one vocabulary, and where the texts of the test reviews are."""

    train: TokenDataset
    test: TokenDataset
    test_source: tuple[Path, str | None]

    @property
    def shown(self) -> NDArray[np.intp]:
        """The tokens that occur in at least MIN_DOCUMENTS training reviews."""
        return np.flatnonzero(np.diff(self.train.counts_csc.indptr) >= MIN_DOCUMENTS)


def load_corpus(path: Path, known: tuple[tuple[str, ...], ...], *, vocabulary: int, cache: Path, seed: int) -> Corpus:
    """Count the reviews under ``path``: a file, a folder with one of the ``known`` files, or an aclImdb folder.

    Where there is no test part, a fifth of the reviews, drawn per class, is held out.
    """
    tokenizer = Tokenizer(max_vocabulary=vocabulary)
    parts = _parts(path, known)
    data = []
    with Progress("counting reviews", total=len(parts)) as progress:
        for k, (source, split) in enumerate(parts):
            progress.update(k, source.name)
            options: Any = {} if split is None else {"split": split}
            counted = count_reviews(source, tokenizer, cache=cache, **options)
            counts, labels, _ = drop_empty(counted.counts, counted.labels)
            data.append(TokenDataset.from_counts(counts, labels, vocab=counted.vocabulary))
    if len(data) == 1:
        data = list(split_dataset(data[0], 0.2, rng=seed))
    return Corpus(data[0], data[1], parts[-1])


def _parts(path: Path, known: tuple[tuple[str, ...], ...]) -> list[tuple[Path, str | None]]:
    """The files of the training and the test part, or the one file that holds all."""
    if path.is_file():
        return [(path, None)]
    for names in known:
        if all((path / name).is_file() for name in names):
            return [(path / name, None) for name in names]
    for folder in (path, path / "aclImdb"):
        if (folder / "train" / "pos").is_dir():
            return [(folder, "train"), (folder, "test")]
    if (path / "pos").is_dir():
        return [(path, None)]
    wanted = ", ".join(" + ".join(names) for names in known)
    raise DataFileError(path, f"holds none of: {wanted}, or folders train/pos, train/neg; or name a file of reviews")


def logistic_regression(train_part: TokenDataset, validation: TokenDataset) -> tuple[Vector, float, float]:
    """Bag of words: weights w (V,) and a constant b on log(1 + n_is), the penalty chosen on the validation part.

    Minimises mean_i l(y_i (x_i.w + b)) + (penalty/2) ||w||^2 with L-BFGS.
    """

    def features(data: TokenDataset) -> Any:
        x = data.counts.log1p()
        x.data /= np.sqrt(x.multiply(x).sum(axis=1))[data.segments.ids]
        return x

    x, y = features(train_part), train_part.labels
    held_out = features(validation)
    parameters, best = np.zeros(x.shape[1] + 1), (-1.0, np.zeros(0), 0.0, 0.0)
    for penalty in (1e-4, 3e-5, 1e-5):

        def objective(w: Vector, penalty: float = penalty) -> tuple[float, Vector]:
            margins = y * (x @ w[:-1] + w[-1])
            pull = y * logistic_derivative(margins) / y.size
            gradient = np.append(x.T @ pull + penalty * w[:-1], pull.sum())
            return float(logistic(margins).mean() + penalty / 2 * (w[:-1] @ w[:-1])), gradient

        parameters = minimize(objective, parameters, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x
        accuracy = float(np.mean(validation.labels * (held_out @ parameters[:-1] + parameters[-1]) > 0))
        if accuracy > best[0]:
            best = (accuracy, parameters[:-1], float(parameters[-1]), penalty)
    return best[1], best[2], best[3]
