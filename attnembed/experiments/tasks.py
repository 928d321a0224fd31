"""The three structured tasks on real data, the arms that are compared on them, and one run of one arm.

`run` is a function of plain values that returns plain values: `attnembed.sweep` calls it in any process and keeps
what it returned. All arms of one task, split and seed begin with the same model and see the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed.optim import Adam, Cosine
from attnembed.results import uninterrupted
from attnembed.structured.corpora import Sentence, load_conll2000, load_horses, load_ocr
from attnembed.structured.data import ChainDataset, GridDataset
from attnembed.structured.features import WindowFeatures
from attnembed.structured.layers import Dense, EmbeddingSum, Layer, Tanh
from attnembed.structured.metrics import chunk_f1, foreground_iou
from attnembed.structured.model import ChainCRF, GridCRF
from attnembed.structured.networks import Network, lenet, mlp, two_scale_net
from attnembed.structured.scaling import OfflineScaling, OnlineScaling
from attnembed.structured.training import StructuredResult, train_structured

__all__ = ["ARMS", "TASKS", "Arm", "Split", "Task", "example_rows", "run", "selecting", "task_data", "test_words"]

FLOAT = np.float32


@dataclass(frozen=True)
class Split:
    """Data for training, for selection and for the reported score, and what a figure needs to show examples."""

    train: Any
    validation: Any
    test: Any
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A data set, a model for it and its scores.

    Attributes
    ----------
    load : ``load(path, split)``; a split is a fold for letters, and otherwise the seed that draws the validation part
    make_model : ``make_model(split, rng)``, from random numbers alone
    measure : ``measure(model, data, split)`` -> scores by name, the first of which selects
    """

    name: str
    load: Callable[[str, int], Split]
    make_model: Callable[[Split, np.random.Generator], Any]
    measure: Callable[[Any, Any, Split], dict[str, float]]
    objectives: tuple[str, ...]
    batch_size: int
    subset: int = 500  # sequences or images that online scaling looks at
    ratio: float = 2.5  # n_U / n_W that offline scaling keeps
    shares: tuple[float, float] = (0.7, 0.15)  # of all epochs, for stages 1 and 2
    # Of W's step to the network's, in stages: a matrix of K^2 numbers takes larger steps than a network does.
    stage_rate: float = 20.0

    def score(self, model: Any, data: Any, split: Split) -> float:
        """The score that selects epochs, step sizes and arms."""
        return selecting(self.measure(model, data, split))


def selecting(scores: Mapping[str, float]) -> float:
    """Of a task's scores, the one that selects: the first."""
    return next(iter(scores.values()))


# --- the arms ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One way to train jointly: options of `train_structured`."""

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)


# "unary" and "stage" are trained at the end of `run`, the others jointly from the first step.
ARMS: Mapping[str, Arm] = {
    "unary": Arm("unary only"),
    "stage": Arm("stages"),
    "joint": Arm("joint"),
    "offline": Arm("joint, offline scaling", {"scaling": OfflineScaling()}),
    "online": Arm("joint, online scaling", {"scaling": OnlineScaling()}),
    "learned": Arm("joint, learned scale", {"learned_scales": ("pairwise_scale",)}),
    "rates": Arm("joint, pairwise rate x 10", {"rates": {"pairwise": 10.0}}),
}

# Of all steps, the share over which the step size grows from zero; without it the hinge loss on a random W can throw a
# network so far that its units stay at zero.
_WARMUP_SHARE = 0.1

# Unary potentials from cross-entropy dwarf the margin of the hinge loss: they get this norm before stage 2.
_HINGE_NORM = 1.0


def run(
    *,
    task: str,
    path: str,
    split: int,
    seed: int,
    arm: str,
    objective: str,
    step_size: float,
    multiplier: float,
    epochs: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Train one arm and score it.

    ``arm`` "stage" takes several objectives, separated by spaces: it trains the network once for all of them, and for
    "unary" the network alone.

    The cell's own ``rng`` is left alone: what is random depends on split and seed, so that arms can be compared.

    Returns
    -------
    by objective ("unary" for the network alone): scores on validation and test data, the history, and the predicted
    labels of a few test examples
    """
    plan, data = TASKS[task], task_data(task, path, split)
    start = plan.make_model(data, np.random.default_rng([seed, split, 0]))
    start = replace(start, pairwise_scale=multiplier)

    def train(model: Any, n_epochs: int, objective: str, **options: Any) -> StructuredResult[Any]:
        steps = n_epochs * -(-len(data.train) // plan.batch_size)
        result = train_structured(
            model,
            data.train,
            objective=objective,
            n_epochs=n_epochs,
            batch_size=plan.batch_size,
            optimizer=Adam(step_size=step_size),
            schedule=Cosine(steps, warmup=int(_WARMUP_SHARE * steps)),
            validation=data.validation,
            metric=lambda model, held_out: plan.score(model, held_out, data),
            rng=np.random.default_rng([seed, split, 1]),
            **options,
        )
        return uninterrupted(result)

    def report(result: StructuredResult[Any]) -> dict[str, Any]:
        history = result.to_dict()["history"]
        return {
            "status": result.status.value,
            "test": plan.measure(result.model, data.test, data),
            "validation": plan.measure(result.model, data.validation, data),
            "best_epoch": result.best_epoch,
            "history": {name: history[name] for name in ("loss", "validation_score", "ratio", "pairwise_scale")},
            "examples": _examples(result.model, data.test) if split == 0 and seed == 0 else None,
        }

    if arm != "stage":
        options = dict(ARMS[arm].options)
        if isinstance(scaling := options.get("scaling"), OnlineScaling):
            options["scaling"] = replace(scaling, subset=plan.subset)
        elif isinstance(scaling, OfflineScaling):
            options["scaling"] = replace(scaling, ratio=plan.ratio)
        return {objective: report(train(start, epochs, objective, **options))}
    names = objective.split()
    alone = replace(start, pairwise=np.zeros_like(start.pairwise))
    out = {"unary": report(train(alone, epochs, "unary"))} if "unary" in names else {}
    if names == ["unary"]:
        return out
    first, second = (max(1, round(share * epochs)) for share in plan.shares)
    network = train(alone, first, "unary").last_model.network
    for name in names:
        if name == "unary":
            continue
        options = {"stage_unary_norm": _HINGE_NORM} if name == "ssvm" else {}
        staged = train(
            replace(start, network=network),
            epochs - first,
            name,
            strategy="stage",
            stage_epochs=(0, second, epochs - first - second),
            rates={"pairwise": plan.stage_rate},
            **options,
        )
        out[name] = report(staged)
    return out


def example_rows(data: Any, count: int = 5) -> NDArray[np.intp]:
    """The test examples whose predictions are kept: evenly spread, as neighbours may be the same word."""
    return np.linspace(0, len(data) - 1, min(count, len(data))).astype(np.intp)


def _examples(model: Any, data: Any) -> list[Any]:
    return [np.asarray(labels).tolist() for labels in model.predict(data.subset(example_rows(data)))]


@lru_cache(maxsize=2)
def task_data(task: str, path: str, split: int) -> Split:
    """The data of a task, kept for the next run of the same process."""
    return TASKS[task].load(path, split)


# --- letters ----------------------------------------------------------------------------------------------------

FOLDS = 10


def _letters(path: str, split: int, *, large: bool) -> Split:
    """Folds 8 and 9, moved on by ``split``, are for selection and test; or 0 and 1 for training and selection."""
    letters = load_ocr(path)
    data = ChainDataset([word.astype(FLOAT) for word in letters.words], letters.labels)
    place = (letters.folds - split) % FOLDS
    parts = (place < 8, place == 8, place == 9) if large else (place == 0, place == 1, place > 1)
    train, validation, test = (data.subset(np.flatnonzero(part)) for part in parts)
    return Split(train, validation, test)


def _large(path: str, split: int) -> Split:
    return _letters(path, split, large=True)


def _small(path: str, split: int) -> Split:
    return _letters(path, split, large=False)


def _letter_scores(model: ChainCRF, data: ChainDataset, split: Split) -> dict[str, float]:
    wrong = model.predict_rows(data) != data.labels
    return {"letters": float(1 - wrong.mean()), "words": float(np.mean(data.packing.sum(wrong) == 0))}


def _letter_model(network: Callable[..., Network]) -> Callable[[Split, np.random.Generator], ChainCRF]:
    def make(split: Split, rng: np.random.Generator) -> ChainCRF:
        return ChainCRF(network(dtype=FLOAT, rng=rng), rng.normal(size=(26, 26)).astype(FLOAT))

    return make


def _letter_lenet(**options: Any) -> Network:
    return lenet(channels=(12, 32), **options)


def _letter_mlp(**options: Any) -> Network:
    return mlp(128, (200,), 26, **options)


# --- chunks -----------------------------------------------------------------------------------------------------

_HELD_OUT_SENTENCES, _MIN_COUNT = 1000, 3


def _chunks(path: str, split: int) -> Split:
    """1,000 training sentences, drawn by ``split``, are for selection."""
    known, test = load_conll2000(path)
    order = np.random.default_rng(split).permutation(len(known))
    held_out = min(_HELD_OUT_SENTENCES, len(known) // 5)
    validation, train = ([known[i] for i in part] for part in (order[:held_out], order[held_out:]))
    features = WindowFeatures(min_count=_MIN_COUNT).fit(train)
    tags = sorted({tag for sentence in train for tag in sentence.chunks})
    # A tag that training never shows cannot be predicted; its number, beyond those of the model, counts as an error.
    tags += sorted({tag for sentence in (*validation, *test) for tag in sentence.chunks} - set(tags))
    number = {tag: i for i, tag in enumerate(tags)}

    def dataset(sentences: list[Sentence]) -> ChainDataset:
        labels = [np.array([number[tag] for tag in sentence.chunks]) for sentence in sentences]
        return ChainDataset(features.transform(sentences), labels)

    return Split(dataset(train), dataset(validation), dataset(list(test)), tuple(tags))


@lru_cache(maxsize=1)
def test_words(path: str) -> tuple[tuple[str, ...], ...]:
    """The words of the test sentences."""
    return tuple(sentence.words for sentence in load_conll2000(path)[1])


def _chunk_scores(model: ChainCRF, data: ChainDataset, split: Split) -> dict[str, float]:
    parts = data.split(data.known_labels), model.predict(data)
    true, predicted = ([[split.names[i] for i in part] for part in labels] for labels in parts)
    return {"chunk F1": chunk_f1(true, predicted).f1, "tags": model.accuracy(data)}


def _chunk_model(split: Split, rng: np.random.Generator) -> ChainCRF:
    k, width = int(split.train.labels.max()) + 1, 32
    layers: list[Layer] = [EmbeddingSum(int(split.train.inputs.max()) + 1, width), Tanh(), Dense(width, k)]
    return ChainCRF(Network.create(layers, dtype=FLOAT, rng=rng), rng.normal(size=(k, k)).astype(FLOAT))


# --- horses -----------------------------------------------------------------------------------------------------

# Neighbours that differ by this much, in standard deviations of the colours, are tied by e^{-1/2} of the weight.
_HELD_OUT_IMAGES, _CONTRAST_WIDTH = 50, 0.3


def _horses(path: str, split: int) -> Split:
    """50 training images, drawn by ``split``, are for selection; the others are shown as they are and mirrored."""
    known, test = load_horses(path)
    order = np.random.default_rng(split).permutation(len(known))
    held_out = min(_HELD_OUT_IMAGES, len(known) // 5)
    known, test = (_centred(part, known.images) for part in (known, test))
    return Split(_and_mirrored(known.subset(order[held_out:])), known.subset(order[:held_out]), test)


def _and_mirrored(data: GridDataset) -> GridDataset:
    """The images, and after them their mirror images, left and right exchanged."""
    images, labels = (np.concatenate([array, array[:, :, ::-1]]) for array in (data.images, data.known_labels))
    return GridDataset(images, labels)


def _centred(data: GridDataset, reference: NDArray[Any]) -> GridDataset:
    mean, deviation = reference.mean(axis=(0, 1, 2)), reference.std(axis=(0, 1, 2))
    return GridDataset(((data.images - mean) / deviation).astype(FLOAT), data.labels)


def _mask_scores(model: GridCRF, data: GridDataset, split: Split) -> dict[str, float]:
    predicted = model.predict(data)
    return {
        "foreground IoU": foreground_iou(data.known_labels, predicted).overall,
        "pixels": float(np.mean(predicted == data.known_labels)),
    }


def _mask_model(split: Split, rng: np.random.Generator) -> GridCRF:
    # Neighbours that attract each other, so that the best labeling can be found exactly from the start.
    pairwise = 0.5 * np.eye(2) + 0.1 * rng.normal(size=(2, 2))
    network = two_scale_net(split.train.images.shape[3], dtype=FLOAT, rng=rng)
    margin = float(split.train.labels[0].size)  # 1 for every wrong pixel
    return GridCRF(network, pairwise.astype(FLOAT), contrast=True, contrast_width=_CONTRAST_WIDTH, margin=margin)


CHAIN_OBJECTIVES = ("nll", "ssvm", "pseudolikelihood", "marginal")

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        # A third stage gains nothing on validation data: without it the network alone is trained for longer.
        Task(
            "ocr-large",
            _large,
            _letter_model(_letter_lenet),
            _letter_scores,
            CHAIN_OBJECTIVES,
            40,
            shares=(0.8, 0.2),
        ),
        Task("ocr-large-mlp", _large, _letter_model(_letter_mlp), _letter_scores, CHAIN_OBJECTIVES, 20),
        Task("ocr-small", _small, _letter_model(_letter_mlp), _letter_scores, CHAIN_OBJECTIVES, 20),
        Task("chunking", _chunks, _chunk_model, _chunk_scores, CHAIN_OBJECTIVES, 40, stage_rate=10.0),
        # The ratio is the best of 1.5 and 2.5 on validation data (splits 0 and 1). Stages 1 and 2 are shorter than
        # on chains: what a mask gains from training everything is most of all.
        Task(
            "segmentation",
            _horses,
            _mask_model,
            _mask_scores,
            ("mean_field", "ssvm", "pseudolikelihood"),
            10,
            subset=25,
            ratio=1.5,
            shares=(0.4, 0.1),
            stage_rate=1.0,
        ),
    )
}
