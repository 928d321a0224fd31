"""The picture of [WSOM25] on labelled reviews: IMDB, Yelp, or any file that `load_reviews` reads.

After one gradient step and after training, each token's E_s.v and E_s.p are drawn against its posterior difference
Delta_s. The first orders the tokens; the second is U-shaped: attention goes to tokens that decide, of either sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import spearmanr

from attnembed._files import PathLike, read_npz, write_npz
from attnembed._progress import Progress
from attnembed._sources import as_source
from attnembed._typing import Floats
from attnembed.attention.data import TokenDataset
from attnembed.attention.first_step import one_step
from attnembed.attention.flow import gradient_flow
from attnembed.attention.folders import archive_parts
from attnembed.attention.model import AttentionModel
from attnembed.attention.reviews import ReaderOptions, iter_reviews
from attnembed.attention.text import Tokenizer, count_reviews, drop_empty
from attnembed.attention.training import TrainResult, split_dataset, train
from attnembed.errors import DataFileError
from attnembed.experiments.registry import QUICK_ENDING, Outcome, Request, experiment, require_data
from attnembed.losses import logistic, logistic_derivative
from attnembed.optim import Adam, Cosine
from attnembed.results import uninterrupted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Tokens in fewer reviews than this are left out of the picture: their posterior difference is noise.
MIN_DOCUMENTS = 50
# Of few reviews, tokens in fewer: the largest number that leaves this many tokens, or the smallest that is allowed. The
# picture needs as many tokens as make a parabola with a standard error.
_WANTED_TOKENS, _FEWEST_DOCUMENTS, _FEWEST_TOKENS = 100, 2, 5
# Of either class, so that each has reviews for training, for validation and for the test.
_FEWEST_REVIEWS = {True: 2, False: 3}  # with a test part of its own, and without


@dataclass(frozen=True, eq=False)
class Corpus:
    """Reviews as counts over one vocabulary; ``test`` is None where they come in one part.

    ``source`` says where the texts of the last part are, and how to read them.
    """

    train: TokenDataset
    test: TokenDataset | None
    source: tuple[PathLike, ReaderOptions]

    def split(self, rng: np.random.Generator) -> tuple[TokenDataset, TokenDataset]:
        """Training and test reviews; where there is no test part, a fifth of each class is drawn and held out."""
        return (self.train, self.test) if self.test is not None else split_dataset(self.train, 0.2, rng=rng)


def load_corpus(
    path: Path,
    known: tuple[tuple[str, ...], ...],
    *,
    vocabulary: int,
    cache: Path,
    reader: ReaderOptions | None = None,
) -> Corpus:
    """Count the reviews under ``path``: a file, a folder with one of the ``known`` files, or an aclImdb folder.

    ``reader`` holds options of `load_reviews`. Raises DataFileError for reviews too few to train, choose and test on.
    """
    tokenizer = Tokenizer(max_vocabulary=vocabulary)
    reader = reader or {}
    parts = _parts(path, known, reader)
    data = []
    with Progress("counting reviews", total=len(parts)) as progress:
        for k, (source, split) in enumerate(parts):
            progress.update(k, Path(source).name)
            options: ReaderOptions = {**reader, **({} if split is None else {"split": split})}
            counted = count_reviews(source, tokenizer, cache=cache, **options)
            counts, labels, _ = drop_empty(counted.counts, counted.labels)
            _check_reviews(source, labels, fewest=_FEWEST_REVIEWS[len(parts) == 2])
            data.append(TokenDataset.from_counts(counts, labels, vocab=counted.vocabulary))
    return Corpus(data[0], data[1] if len(data) == 2 else None, (source, options))


def _check_reviews(source: PathLike, labels: Floats, *, fewest: int) -> None:
    n = {sign: int(np.sum(labels == sign)) for sign in (1, -1)}
    if min(n.values()) < fewest:
        problem = f"holds too few reviews: {n[1]} positive and {n[-1]} negative; at least {fewest} of each are needed"
        raise DataFileError(source, problem)


def _parts(path: Path, known: tuple[tuple[str, ...], ...], reader: ReaderOptions) -> list[tuple[PathLike, str | None]]:
    """The files of the training and the test part, or the one file that holds all."""
    if not path.is_dir():
        source = as_source(path)
        parts = () if "member" in reader else archive_parts(source)
        return [(source, part) for part in parts or (None,)]
    for names in known:
        if all((path / name).is_file() for name in names):
            return [(path / name, None) for name in names]  # a training and a test part, or a single one
    for folder in (path, path / "aclImdb"):
        if (folder / "train" / "pos").is_dir():
            return [(folder, "train"), (folder, "test")]
    if (path / "pos").is_dir():
        return [(path, None)]
    wanted = ", ".join(" + ".join(names) for names in (*known, ("pos", "neg")))
    raise DataFileError(path, f"holds none of: {wanted}; or name a file of reviews")


@dataclass(frozen=True, eq=False)
class BagOfWords:
    """Logistic regression on word counts, the baseline without attention: sign(x.weights + constant).

    x_is = log(1 + n_is), each review scaled to unit norm.
    """

    weights: Floats
    constant: float
    penalty: float

    @classmethod
    def fit(cls, data: TokenDataset, validation: TokenDataset) -> BagOfWords:
        """Minimise mean_i l(y_i (x_i.w + b)) + (penalty/2) ||w||^2 by L-BFGS; penalty chosen on ``validation``."""
        x, y = cls.features(data), data.labels

        def solve(start: Floats, penalty: float) -> Floats:
            def objective(w: Floats) -> tuple[float, Floats]:
                margins = y * (x @ w[:-1] + w[-1])
                pull = y * logistic_derivative(margins) / y.size
                value = float(logistic(margins).mean() + penalty / 2 * (w[:-1] @ w[:-1]))
                return value, np.append(x.T @ pull + penalty * w[:-1], pull.sum())

            found: Floats = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x
            return found

        candidates, w = [], np.zeros(x.shape[1] + 1)
        for penalty in (1e-4, 3e-5, 1e-5):  # each solution starts the next, less penalised problem
            w = solve(w, penalty)
            candidates.append(cls(w[:-1], float(w[-1]), penalty))
        return max(candidates, key=lambda model: balanced_accuracy(validation, model.output(validation)))

    @staticmethod
    def features(data: TokenDataset) -> Any:
        """x (n, V), rows of unit norm."""
        x = data.counts.log1p()
        x.data /= data.segments.spread(np.sqrt(data.segments.sum(x.data**2)))
        return x

    def output(self, data: TokenDataset) -> Floats:
        """x_i.w + b, (n,)."""
        return np.asarray(self.features(data) @ self.weights + self.constant)


def balanced_accuracy(data: TokenDataset, output: Floats) -> float:
    """Mean over the two classes of the share of right signs; the plain accuracy where the classes are equal."""
    right = data.labels * output > 0
    return float(np.mean([right[data.labels == sign].mean() for sign in (-1, 1)]))


@dataclass(frozen=True, eq=False)
class Picture:
    """E_s.v and E_s.p of the shown tokens against Delta_s, and what can be said of them in numbers."""

    delta: Floats
    frequency: Floats
    values: Floats
    scores: Floats
    words: tuple[str, ...]
    numbers: dict[str, float]
    line: Floats
    parabola: Floats

    @classmethod
    def of(cls, model: AttentionModel, data: TokenDataset, min_documents: int = MIN_DOCUMENTS) -> Picture:
        """Fit a line to E_s.v and a parabola to E_s.p by least squares; correlations are Spearman's.

        Tokens in fewer than ``min_documents`` reviews are left out.
        """
        shown = _shown(data, min_documents)
        delta, values, scores = data.posterior_difference[shown], model.token_values[shown], model.token_scores[shown]
        line = np.polyfit(delta, values, 1)
        numbers = {
            "spearman_values_signed_frequency": _spearman(values, data.signed_frequency[shown]),
            "spearman_scores_absolute_difference": _spearman(scores, np.abs(delta)),
        }
        # Standard errors of ordinary least squares; a constant score (p = 0) has no shape to speak of.
        parabola = np.zeros(3)
        if np.ptp(scores) > 0:
            parabola, covariance = np.polyfit(delta, scores, 2, cov=True)
            numbers["quadratic_coefficient"] = float(parabola[0])
            numbers["quadratic_standard_error"] = float(np.sqrt(covariance[0, 0]))
            numbers["quadratic_in_standard_errors"] = float(parabola[0] / np.sqrt(covariance[0, 0]))
        words = tuple(data.vocab[s] for s in shown) if data.vocab else ()
        return cls(delta, data.frequency[shown], values, scores, words, numbers, line, parabola)

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


def _spearman(x: Floats, y: Floats) -> float:
    return float(spearmanr(x, y).statistic) if np.ptp(x) > 0 else 0.0


@dataclass(frozen=True, eq=False)
class ExampleReview:
    """A review as words, with the attention on each of them; words outside the vocabulary have none."""

    words: list[str]
    attention: Floats
    label: float
    output: float


def example_reviews(
    model: AttentionModel, corpus: Corpus, *, per_class: int = 2, length: int = 45
) -> list[ExampleReview]:
    """The first reviews of either label that the model gets right and that have at most ``length`` words."""
    index = {word: s for s, word in enumerate(corpus.train.vocab or ())}
    tokenizer = Tokenizer()
    found: dict[float, list[ExampleReview]] = {1.0: [], -1.0: []}
    source, options = corpus.source
    u, g = model.token_scores, model.token_values
    for text, label in iter_reviews(source, **options):
        if len(text) > 8 * length or len(found[label]) >= per_class:
            continue
        words = tokenizer.tokenize(text)
        ids = np.array([index.get(word, -1) for word in words])
        known = ids >= 0
        if not length / 2 <= len(words) <= length or not known.any():
            continue
        weight = np.zeros(len(words))
        weight[known] = np.exp(u[ids[known]] - u[ids[known]].max())
        weight /= weight.sum()
        output = float(weight[known] @ g[ids[known]])
        if label * output > 0:
            found[label].append(ExampleReview(words, weight, label, output))
        if all(len(reviews) >= per_class for reviews in found.values()):
            break
    return found[1.0] + found[-1.0]


def balanced(data: TokenDataset, rng: np.random.Generator) -> TokenDataset:
    """Repeat reviews of the smaller class until both are equally many, so that alpha_s ignores the classes' sizes."""
    classes = sorted((np.flatnonzero(data.labels == sign) for sign in (-1, 1)), key=len)
    rows = np.sort(np.concatenate([np.resize(rng.permutation(classes[0]), classes[1].size), classes[1]]))
    return TokenDataset.from_counts(data.counts[rows], data.labels[rows], vocab=data.vocab)


@dataclass(frozen=True, eq=False)
class Run:
    """One repetition: its training and test reviews, the model after one step and the trained one, and accuracies."""

    data: TokenDataset
    test: TokenDataset
    stepped: AttentionModel
    trained: AttentionModel
    min_documents: int
    numbers: dict[str, float]

    @classmethod
    def draw(cls, corpus: Corpus, parameters: dict[str, Any], rng: np.random.Generator) -> Run:
        """One step on E from a random start, then Adam on E and p.

        The number of epochs is chosen on a validation part of the training reviews; then all of them are used.
        """
        dim, epochs, share = parameters["dim"], parameters["epochs"], parameters["validation_share"]
        reviews, test = corpus.split(rng)
        part, validation = (balanced(piece, rng) for piece in split_dataset(reviews, share, rng=rng))
        data = balanced(reviews, rng)
        least = choose_min_documents(data, corpus.source[0])
        scale = parameters["embedding_scale"] / np.sqrt(dim)
        start = AttentionModel.random(data.vocab_size, dim, embedding_scale=scale, rng=rng)

        def step(piece: TokenDataset) -> AttentionModel:
            return one_step(start, piece, step_size(piece, parameters["relative_step"])).model

        def fit(
            piece: TokenDataset, model: AttentionModel, epochs: int, attends: bool, held_out: TokenDataset | None = None
        ) -> TrainResult:
            arm = "attention" if attends else "pooling"
            optimizer = Adam(
                step_size=parameters[f"{arm}_step_size"],
                multipliers={"p": parameters["multiplier_p"]},
                epsilon=parameters["relative_epsilon"] / piece.lengths.sum(),
                weight_decay=parameters[f"{arm}_weight_decay"],
            )
            result = train(
                model if attends else model.replace(p=np.zeros(dim)),
                piece,
                params=("E", "p") if attends else ("E",),
                optimizer=optimizer,
                n_epochs=epochs,
                schedule=Cosine(parameters["epochs"]),
                validation=held_out,
            )
            return uninterrupted(result)

        def best(attends: bool) -> tuple[AttentionModel, int]:
            """The model of all training reviews, after the number of epochs that is best on the validation part."""
            chosen = max(fit(part, step(part), epochs, attends, validation).best_epoch, 1)
            return fit(data, step(data), chosen, attends).model, chosen

        stepped = step(data)
        trained, best_epoch = best(attends=True)
        pooling, _ = best(attends=False)
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
        return cls(data, test, stepped, trained, least, numbers)


def step_size(data: TokenDataset, relative: float) -> float:
    """eta = relative / max |alpha_s|; any step will do where every alpha_s is 0, as none moves E along v."""
    return relative / (float(np.abs(data.signed_frequency).max()) or 1.0)


def flow_on_p(data: TokenDataset, words: int, relative_step: float, arclength: float) -> AttentionModel:
    """Gradient flow on p alone from the embeddings after one step, for the most frequent words.

    E^0 is orthonormal and orthogonal to v, the limit of large width, because p has no more freedom than E has columns.
    """
    kept = np.flatnonzero(data.counts[:, :words].sum(axis=1))
    frequent = TokenDataset.from_counts(data.counts[kept][:, :words], data.labels[kept])
    start = AttentionModel(np.eye(words, words + 1), np.zeros(words + 1), np.eye(words + 1)[-1])
    stepped = one_step(start, frequent, step_size(frequent, relative_step)).model
    flow = gradient_flow(stepped, frequent, clock="arclength", until=arclength, rtol=1e-3, atol=1e-4)
    return flow.model


def flow_numbers(data: TokenDataset, parameters: dict[str, Any]) -> dict[str, float]:
    """Whether the scores after `flow_on_p` follow |Delta_s| or |alpha_s Delta_s|, over the words that occur."""
    words = min(parameters["flow_words"], data.vocab_size)
    flowed = flow_on_p(data, words, parameters["flow_relative_step"], parameters["flow_arclength"])
    occurs = np.flatnonzero(data.frequency[:words] > 0)
    scores, alpha, delta = flowed.token_scores[occurs], data.signed_frequency[occurs], data.posterior_difference[occurs]
    return {
        "flow_on_p.spearman_scores_absolute_difference": _spearman(scores, np.abs(delta)),
        "flow_on_p.spearman_scores_decisiveness": _spearman(scores, np.abs(alpha * delta)),
    }


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation of repetitions; of a single one there is no deviation."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def study(request: Request, name: str, known: tuple[tuple[str, ...], ...], **overrides: float) -> Outcome:
    """The protocol, repeated over seeds; the pictures and the examples are those of the first repetition.

    ``name`` is what the data are called where they are ``known``; others are named by the request, or "reviews".
    """
    parameters: dict[str, Any] = {
        "vocabulary": 20_000,
        "dim": 64,
        "embedding_scale": 1e-3,  # times 1/sqrt(dim): the token values after one step are then those of the step
        "relative_step": 0.5,  # eta = relative_step / max |alpha_s|
        # Adam's step sizes and weight decays, tuned for either arm; p = 0 throughout is uniform pooling.
        "attention_step_size": 0.03,
        "attention_weight_decay": 0.5,
        "pooling_step_size": 1.0,
        "pooling_weight_decay": 0.05,
        "multiplier_p": 1.0,
        # Adam's epsilon, times the number of words in the training reviews: tokens with fewer occurrences than about
        # ten move in proportion to their gradient and not to its sign.
        "relative_epsilon": 0.75,
        "epochs": 30,
        "validation_share": 0.1,
        "repetitions": 1 if request.quick else 5,
        "flow_words": 2000,
        "flow_relative_step": 2.0,
        "flow_arclength": 5.0,
        **overrides,
    }
    path = require_data(request, f"the {name} reviews" if known else "a file or folder of reviews")
    named = request.data_name or (name if _is_known(path, known) else "reviews")
    vocabulary, cache = parameters["vocabulary"], request.out / "cache"
    corpus = load_corpus(path, known, vocabulary=vocabulary, cache=cache, reader=request.reader)
    runs = []
    with Progress("repetitions", total=parameters["repetitions"]) as progress:
        for k in range(parameters["repetitions"]):
            runs.append(Run.draw(corpus, parameters, np.random.default_rng([request.seed, k])))
            progress.update(k + 1)
    first = runs[0]
    stepped, trained = (Picture.of(model, first.data, first.min_documents) for model in (first.stepped, first.trained))
    numbers: dict[str, Any] = {
        "training_reviews": first.data.n_samples,
        "test_reviews": first.test.n_samples,
        "tokens_shown": int(trained.delta.size),
        "min_documents": first.min_documents,  # in which a token must be to be shown
    }
    for key in first.numbers:
        numbers[key] = spread([run.numbers[key] for run in runs if key in run.numbers])
    if not request.quick:
        numbers |= flow_numbers(first.data, parameters)
    numbers["most_attended_positive"] = trained.most_attended(+1)
    numbers["most_attended_negative"] = trained.most_attended(-1)
    examples = example_reviews(first.trained, corpus)

    def draw() -> Figure:
        from attnembed.plotting import new_figure

        figure, axes = new_figure(1, 3, panel=(3.7, 3.6))
        _draw_panels(axes[0], stepped, trained, named)
        return figure

    def draw_examples() -> Figure:
        from attnembed.plotting import new_figure, plot_attention_text

        figure, axes = new_figure(len(examples), 1, panel=(9.0, 1.3))
        for ax, review in zip(axes[:, 0], examples):
            sign = "positive" if review.label > 0 else "negative"
            plot_attention_text(ax, review.words, review.attention, title=f"{sign} review, f = {review.output:+.2f}")
        return figure

    figures = {named: draw}
    if examples:
        figures[f"{named}-attention"] = draw_examples
    figures |= _side_by_side(request, named, stepped, trained)
    return Outcome(parameters, numbers, figures, name=named)


def _is_known(path: Path, known: tuple[tuple[str, ...], ...]) -> bool:
    """Whether the data are those that an experiment is named after, by the names of their files."""
    if path.is_file():
        return (path.name,) in known
    return any(all((path / name).exists() for name in names) for names in known)


_PICTURE = ("delta", "frequency", "values", "scores", "line", "parabola", "words")
_PAIR = ("imdb", "yelp")


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
        (stepped, stepped.values, None, r"$E_s \cdot v$", "after one step"),
        (trained, trained.values, trained.line, r"$E_s \cdot v$", "after training"),
        (trained, trained.scores, trained.parabola, r"$E_s \cdot p$", "after training"),
    )
    for ax, (picture, values, curve, ylabel, title) in zip(axes, panels):
        plot_tokens(
            ax,
            picture.delta,
            values,
            picture.frequency,
            ylabel=ylabel,
            colorbar=ax is axes[-1],
            curve=curve,
            words=picture.words,
            labelled=picture.extremes() if values is trained.scores else (),
        )
        ax.set_title(f"{name}, {title}")
    linear = float(np.quantile(np.abs(stepped.values), 0.75))
    if linear > 0:
        axes[0].set_yscale("symlog", linthresh=linear)


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
    ignores=("repetitions",),
    files=(("pos", "neg"),),
    reads_reviews=True,
    any_file=True,
)
def reviews(request: Request) -> Outcome:
    """A file or folder of texts with two labels, of any size that has both."""
    return study(request, "reviews", ())


@experiment(
    "imdb",
    "E_s.v and E_s.p against the posterior difference on the reviews of IMDB (--data)",
    ignores=("repetitions",),
    files=_IMDB,
    reads_reviews=True,
)
def imdb(request: Request) -> Outcome:
    """The 25,000 + 25,000 movie reviews of Maas et al. (ACL 2011)."""
    return study(request, "imdb", _IMDB)


@experiment(
    "yelp",
    "E_s.v and E_s.p against the posterior difference on the reviews of Yelp (--data)",
    ignores=("repetitions",),
    files=_YELP,
    reads_reviews=True,
)
def yelp(request: Request) -> Outcome:
    """Yelp reviews with one or two stars against those with four or five."""
    return study(request, "yelp", _YELP, attention_weight_decay=1.0, multiplier_p=0.5)
