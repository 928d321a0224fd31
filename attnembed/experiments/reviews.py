"""The figure of [WSOM25] for labelled reviews: IMDB, Yelp, or any file readable by `load_reviews`.

After one gradient step and after training, E_s.v and E_s.p of each token are drawn against its posterior difference
Delta_s. The first orders the tokens; the second is U-shaped: attention goes to decisive tokens of either sign.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from attnembed._progress import Progress
from attnembed.attention.data import TokenDataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.splitting import split_dataset
from attnembed.experiments.bag_of_words import BagOfWords, balanced_accuracy
from attnembed.experiments.registry import Outcome, Request, experiment, holds, require_data
from attnembed.experiments.review_corpus import (
    Corpus,
    balanced,
    example_reviews,
    has_ratings,
    load_corpus,
    no_ratings,
    without_ratings,
)
from attnembed.experiments.review_pictures import Picture, choose_min_documents, review_figures, spearman
from attnembed.experiments.review_training import Pieces, ReviewOptions, Training, step_size

__all__ = ["ReviewOptions", "balanced", "imdb", "reviews", "spread", "study", "yelp"]


@dataclass(frozen=True, eq=False)
class Run:
    """One repetition: training and test reviews, the model after one step, the trained model, and accuracies."""

    data: TokenDataset
    test: TokenDataset
    stepped: AttentionModel
    trained: AttentionModel
    min_documents: int
    numbers: dict[str, float]

    @classmethod
    def draw(cls, corpus: Corpus, options: ReviewOptions, rng: np.random.Generator) -> Run:
        """Take one step on E from a random start, then train E and p with Adam.

        The number of epochs is chosen on a validation part of the training reviews; then all reviews are used.
        """
        dim, share = options.dim, options.validation_share
        reviews, test = corpus.split(rng)
        part, validation = (balanced(piece, rng) for piece in split_dataset(reviews, share, rng=rng))
        data = balanced(reviews, rng)
        least = choose_min_documents(data, corpus.source[0])
        scale = options.embedding_scale / np.sqrt(dim)
        start = AttentionModel.random(data.vocab_size, dim, embedding_scale=scale, rng=rng)

        pieces = Pieces(part, validation, data)
        training = Training.after_one_step(start, pieces, options)
        stepped, attention = training.starts[1], training.run(attends=True)
        numbers = {f"one_step.{name}": value for name, value in Picture.of(stepped, data, least).numbers.items()}
        trained = attention.model
        numbers |= {f"trained.{name}": value for name, value in Picture.of(trained, data, least).numbers.items()}
        regressions = BagOfWords.path(part)
        for name, model in (
            ("attention", trained),
            ("uniform_pooling", training.run(attends=False).model),
            ("bag_of_words", BagOfWords.best(regressions, validation)),
        ):
            output = model.output(test)
            numbers[f"test_accuracy.{name}"] = float(np.mean(test.labels * output > 0))
            numbers[f"test_balanced_accuracy.{name}"] = balanced_accuracy(test, output)
        numbers["best_epoch"] = float(attention.best_epoch)
        if options.also_without_ratings and has_ratings(data):
            near = [model.on(no_ratings(data)) for model in regressions]
            reduced, held_out = Pieces(*map(without_ratings, pieces)), without_ratings(test)
            other = AttentionModel.random(reduced.whole.vocab_size, dim, embedding_scale=scale, rng=rng)
            for name, model in (
                ("attention", Training.after_one_step(other, reduced, options).run(attends=True).model),
                ("bag_of_words", BagOfWords.best(BagOfWords.path(reduced.part, near), reduced.validation)),
            ):
                accuracy = balanced_accuracy(held_out, model.output(held_out))
                numbers[f"test_balanced_accuracy.{name}_without_ratings"] = accuracy
        return cls(data, test, stepped, trained, least, numbers)


def flow_on_p(data: TokenDataset, words: int, relative_step: float, arclength: float) -> AttentionModel:
    """Gradient flow on p alone from the embeddings after one step, for the most frequent words.

    E^0 is orthonormal and orthogonal to v, the limit of large width, because p has only as many degrees of freedom as
    E has columns. The step makes it E = [I, a], a = eta A, in words + 1 dimensions, with p in the span of its rows: the
    flow is that of the Cholesky factor of E E^T = I + a a^T, whose rows have the same products in one dimension less.
    """
    kept = np.flatnonzero(data.counts[:, :words].sum(axis=1))
    frequent = TokenDataset.from_counts(data.counts[kept][:, :words], data.labels[kept])
    # A depends on scores and values alone, which are 0.
    start = AttentionModel(np.zeros((words, 1)), [0.0], [1.0])
    moved = one_step(start, frequent, step_size(frequent, relative_step)).model.E[:, 0]
    E = np.linalg.cholesky(np.eye(words) + np.outer(moved, moved))
    stepped = AttentionModel(E, np.zeros(words), solve_triangular(E, moved, lower=True))
    flow = gradient_flow(stepped, frequent, clock="arclength", until=arclength, rtol=1e-3, atol=1e-4)
    return flow.model


def flow_numbers(data: TokenDataset, options: ReviewOptions) -> dict[str, float]:
    """Rank correlations of the scores after `flow_on_p` with |Delta_s| and |alpha_s Delta_s|, over words that occur."""
    words = min(options.flow_words, data.vocab_size)
    flowed = flow_on_p(data, words, options.flow_relative_step, options.flow_arclength)
    occurs = np.flatnonzero(data.frequency[:words] > 0)
    scores, alpha, delta = flowed.token_scores[occurs], data.signed_frequency[occurs], data.posterior_difference[occurs]
    return {
        "flow_on_p.spearman_scores_absolute_difference": spearman(scores, np.abs(delta)),
        "flow_on_p.spearman_scores_decisiveness": spearman(scores, np.abs(alpha * delta)),
    }


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation over repetitions; no deviation for a single one."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def study(
    request: Request, name: str, known: tuple[tuple[str, ...], ...], options: ReviewOptions | None = None
) -> Outcome:
    """The protocol, repeated over seeds; the figures and the examples are from the first repetition.

    ``name`` is the name of the data if they are ``known``; others are named by the request, or "reviews".
    """
    repetitions = request.repetitions or (1 if request.quick else ReviewOptions.repetitions)
    options = replace(
        options or ReviewOptions(),
        repetitions=repetitions,
        also_without_ratings=bool(known) and not request.quick,
    )
    path = require_data(request, f"the {name} reviews" if known else "a file or folder of reviews")
    named = request.data_name or (name if holds(path, known) else "reviews")
    vocabulary, cache = options.vocabulary, request.out / "cache"
    corpus = load_corpus(path, known, vocabulary=vocabulary, cache=cache, reader=request.reader)
    runs = []
    with Progress("repetitions", total=options.repetitions) as progress:
        for k in range(options.repetitions):
            runs.append(Run.draw(corpus, options, np.random.default_rng([request.seed, k])))
            progress.update(k + 1)
    first = runs[0]
    stepped, trained = (Picture.of(model, first.data, first.min_documents) for model in (first.stepped, first.trained))
    numbers: dict[str, Any] = {
        "training_reviews": first.data.n_samples,
        "test_reviews": first.test.n_samples,
        "tokens_shown": int(trained.delta.size),
        "min_documents": first.min_documents,  # needed for a token to be shown
    }
    for key in first.numbers:
        numbers[key] = spread([run.numbers[key] for run in runs if key in run.numbers])
    if not request.quick:
        numbers |= flow_numbers(first.data, options)
    numbers["most_attended_positive"] = trained.most_attended(+1)
    numbers["most_attended_negative"] = trained.most_attended(-1)
    examples = example_reviews(first.trained, corpus)
    figures = review_figures(request, named, stepped, trained, examples)
    return Outcome(asdict(options), numbers, figures, name=named)


_IMDB = (
    ("imdb_train.tsv.gz", "imdb_test.tsv.gz"),
    ("train/pos", "train/neg"),
    ("aclImdb/train/pos", "aclImdb/train/neg"),
)
_YELP = (
    ("yelp_polarity.tsv.gz",),
    ("train.csv", "test.csv"),
    ("yelp_academic_dataset_review.json",),
    ("yelp.csv",),
)


@experiment(
    "reviews",
    "E_s.v and E_s.p against the posterior difference on any labelled text (--data, --name)",
    files=(("pos", "neg"),),
    reads_reviews=True,
    any_file=True,
)
def reviews(request: Request) -> Outcome:
    """A file or folder of texts with two labels, of any size with both."""
    return study(request, "reviews", ())


@experiment(
    "imdb",
    "E_s.v and E_s.p against the posterior difference on the reviews of IMDB (--data)",
    files=_IMDB,
    reads_reviews=True,
)
def imdb(request: Request) -> Outcome:
    """The 25,000 + 25,000 movie reviews of Maas et al. (ACL 2011)."""
    return study(request, "imdb", _IMDB)


@experiment(
    "yelp",
    "E_s.v and E_s.p against the posterior difference on the reviews of Yelp (--data)",
    files=_YELP,
    reads_reviews=True,
)
def yelp(request: Request) -> Outcome:
    """Yelp reviews with one or two stars against those with four or five."""
    return study(request, "yelp", _YELP, ReviewOptions(attention_weight_decay=1.0, multiplier_p=0.5))
