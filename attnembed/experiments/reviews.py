"""The figure of [WSOM25] for labelled reviews: IMDB, Yelp, or any file readable by `load_reviews`.

After one gradient step and after training, E_s.v and E_s.p of each token are drawn against its posterior difference
Delta_s. The first orders the tokens; the second is U-shaped: attention goes to decisive tokens of either sign.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from attnembed._progress import Progress
from attnembed.attention.data import TokenDataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.training import TrainResult, split_dataset, train
from attnembed.experiments.bag_of_words import BagOfWords, balanced_accuracy
from attnembed.experiments.registry import Outcome, Request, experiment, holds, require_data
from attnembed.experiments.review_corpus import (
    Corpus,
    balanced,
    example_reviews,
    has_ratings,
    load_corpus,
    without_ratings,
)
from attnembed.experiments.review_pictures import Picture, choose_min_documents, review_figures, spearman
from attnembed.optim import Adam, Cosine
from attnembed.results import uninterrupted

__all__ = ["ReviewOptions", "balanced", "imdb", "reviews", "spread", "study", "yelp"]


Pieces = tuple[TokenDataset, TokenDataset, TokenDataset]  # training without validation, validation, all training


@dataclass(frozen=True)
class ReviewOptions:
    """The protocol: the model, its training, and the flow on p for the most frequent words.

    Step sizes and weight decays of Adam are tuned for each arm; p = 0 throughout is uniform pooling.
    """

    vocabulary: int = 20_000
    dim: int = 64
    embedding_scale: float = 1e-3  # times 1/sqrt(dim): the step then dominates the token values
    relative_step: float = 0.5  # eta = relative_step / max |alpha_s|
    attention_step_size: float = 0.03
    attention_weight_decay: float = 0.5
    pooling_step_size: float = 1.0
    pooling_weight_decay: float = 0.05
    multiplier_p: float = 1.0
    # Adam's epsilon, times the number of words in the training reviews: tokens with fewer than about ten occurrences
    # move in proportion to their gradient, not to its sign.
    relative_epsilon: float = 0.75
    epochs: int = 30
    validation_share: float = 0.1
    repetitions: int = 5
    flow_words: int = 2000
    flow_relative_step: float = 2.0
    flow_arclength: float = 5.0
    also_without_ratings: bool = True  # train once more without the words 0 to 10, in which reviews state their rating


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
        dim, epochs, share = options.dim, options.epochs, options.validation_share
        reviews, test = corpus.split(rng)
        part, validation = (balanced(piece, rng) for piece in split_dataset(reviews, share, rng=rng))
        data = balanced(reviews, rng)
        least = choose_min_documents(data, corpus.source[0])
        scale = options.embedding_scale / np.sqrt(dim)
        start = AttentionModel.random(data.vocab_size, dim, embedding_scale=scale, rng=rng)

        def fit(
            piece: TokenDataset, model: AttentionModel, epochs: int, attends: bool, held_out: TokenDataset | None = None
        ) -> TrainResult:
            optimizer = Adam(
                step_size=options.attention_step_size if attends else options.pooling_step_size,
                multipliers={"p": options.multiplier_p},
                epsilon=options.relative_epsilon / piece.lengths.sum(),
                weight_decay=options.attention_weight_decay if attends else options.pooling_weight_decay,
            )
            result = train(
                model if attends else model.replace(p=np.zeros(dim)),
                piece,
                params=("E", "p") if attends else ("E",),
                optimizer=optimizer,
                n_epochs=epochs,
                schedule=Cosine(options.epochs),
                validation=held_out,
            )
            return uninterrupted(result)

        def best(pieces: Pieces, start: AttentionModel, attends: bool) -> tuple[AttentionModel, int]:
            """The model of all training reviews, for the number of epochs that is best on the validation part."""
            part, validation, data = pieces

            def step(piece: TokenDataset) -> AttentionModel:
                return one_step(start, piece, step_size(piece, options.relative_step)).model

            chosen = max(fit(part, step(part), epochs, attends, validation).best_epoch, 1)
            return fit(data, step(data), chosen, attends).model, chosen

        pieces = part, validation, data
        stepped = one_step(start, data, step_size(data, options.relative_step)).model
        trained, best_epoch = best(pieces, start, attends=True)
        pooling, _ = best(pieces, start, attends=False)
        numbers = {f"one_step.{name}": value for name, value in Picture.of(stepped, data, least).numbers.items()}
        numbers |= {f"trained.{name}": value for name, value in Picture.of(trained, data, least).numbers.items()}
        for name, model in (("attention", trained), ("uniform_pooling", pooling)):
            output = model.output(test)
            numbers[f"test_accuracy.{name}"] = float(np.mean(test.labels * output > 0))
            numbers[f"test_balanced_accuracy.{name}"] = balanced_accuracy(test, output)
        baseline = BagOfWords.fit(part, validation).output(test)
        numbers["test_accuracy.bag_of_words"] = float(np.mean(test.labels * baseline > 0))
        numbers["test_balanced_accuracy.bag_of_words"] = balanced_accuracy(test, baseline)
        numbers["best_epoch"] = float(best_epoch)
        if options.also_without_ratings and has_ratings(data):
            reduced = without_ratings(part), without_ratings(validation), without_ratings(data)
            held_out = without_ratings(test)
            other = AttentionModel.random(reduced[2].vocab_size, dim, embedding_scale=scale, rng=rng)
            model, _ = best(reduced, other, attends=True)
            for name, output in (
                ("attention", model.output(held_out)),
                ("bag_of_words", BagOfWords.fit(*reduced[:2]).output(held_out)),
            ):
                numbers[f"test_balanced_accuracy.{name}_without_ratings"] = balanced_accuracy(held_out, output)
        return cls(data, test, stepped, trained, least, numbers)


def step_size(data: TokenDataset, relative: float) -> float:
    """eta = relative / max |alpha_s|; arbitrary if every alpha_s is 0, because no step then moves E along v."""
    return relative / (float(np.abs(data.signed_frequency).max()) or 1.0)


def flow_on_p(data: TokenDataset, words: int, relative_step: float, arclength: float) -> AttentionModel:
    """Gradient flow on p alone from the embeddings after one step, for the most frequent words.

    E^0 is orthonormal and orthogonal to v, the limit of large width, because p has only as many degrees of freedom as
    E has columns.
    """
    kept = np.flatnonzero(data.counts[:, :words].sum(axis=1))
    frequent = TokenDataset.from_counts(data.counts[kept][:, :words], data.labels[kept])
    start = AttentionModel(np.eye(words, words + 1), np.zeros(words + 1), np.eye(words + 1)[-1])
    stepped = one_step(start, frequent, step_size(frequent, relative_step)).model
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
