"""Chunking on CoNLL-2000 with the same features as CRFsuite: the F1 of each model, and the time to reach it.

Everybody trains on all 8,936 sentences and is scored on the 2,012 test sentences. Steps and batches are those of
`attnembed reproduce chunking`, the epochs are fixed, and CRFsuite's options are its defaults: nothing is chosen on the
test data. The features are the 28 ids per token of `structured.features.WindowFeatures` (minimal count 3) and a
constant one. Times are processor seconds of training on one thread, without the features and without the scoring along
the way.

"CRFsuite's objective" is minimised by SciPy's L-BFGS over the pairs of feature and label, and of labels, that occur,
with the penalty that CRFsuite adds by default. It is convex: both must come to the same value and the same F1.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

import attnembed as ae
from attnembed.optim import Adam, Cosine
from attnembed.structured.corpora import Sentence, load_conll2000
from attnembed.structured.features import WindowFeatures
from attnembed.structured.layers import Dense, EmbeddingSum, Layer, Tanh
from attnembed.structured.metrics import chunk_f1
from attnembed.structured.networks import Network
from benchmarks.runner import Row, one_thread, progress

PAGE = Path(__file__).parents[1] / "docs" / "peers.md"
MIN_COUNT, BATCH, STEP_SIZE = 3, 40, 0.003
EPOCHS = {"linear": 15, "32 hidden units": 6}
Tags = Sequence[Sequence[str]]


class Task:
    """The ids (L, 28), labels and tags of the training and the test sentences."""

    def __init__(self, train: Sequence[Sentence], test: Sequence[Sentence]) -> None:
        features = WindowFeatures(min_count=MIN_COUNT).fit(train)
        self.n_features = features.n_features
        self.train, self.test = features.transform(train), features.transform(test)
        self.train_tags, self.test_tags = ([sentence.chunks for sentence in part] for part in (train, test))
        self.names = sorted({tag for tags in self.train_tags for tag in tags})

    def labels(self) -> list[list[int]]:
        """Numbers of the training tags."""
        number = {name: k for k, name in enumerate(self.names)}
        return [[number[tag] for tag in tags] for tags in self.train_tags]


def run(quick: bool, data: Path | None) -> list[Row]:
    """One row per model; a tenth of the sentences if ``quick``."""
    if data is None:
        return [{"candidate": "all", "status": "not run", "note": "needs --data with conll2000"}]
    return one_thread(_run, quick, data)


def _run(quick: bool, data: Path) -> list[Row]:
    train, test = load_conll2000(data)
    task = Task(train[:: 10 if quick else 1], test)
    rows = [crfsuite(task)]
    progress(f"chunking: {rows[-1]}")
    rows.append(same_objective(task, rows[0].get("f1", 1.0)))
    progress(f"chunking: {rows[-1]}")
    for kind, epochs in EPOCHS.items():
        rows.append(attnembed(task, kind, epochs, rows[0].get("f1", 1.0)))
        progress(f"chunking: {rows[-1]}")
    return rows


class Clock:
    """Scores on the test sentences, and the processor seconds of training up to each of them."""

    def __init__(self, task: Task) -> None:
        self.task, self.test = task, ae.ChainDataset(task.test)
        self.scores: list[float] = []
        self.seconds: list[float] = []
        self.begin = time.process_time()

    def score(self, model: ae.ChainCRF) -> None:
        taken = time.process_time() - self.begin
        self.seconds.append(taken + (self.seconds[-1] if self.seconds else 0.0))
        predicted = [[self.task.names[i] for i in labels] for labels in model.predict(self.test)]
        self.scores.append(chunk_f1(self.task.test_tags, predicted).f1)
        progress(f"chunking: F1 {self.scores[-1]:.4f}, {self.seconds[-1]:.0f} s")
        self.begin = time.process_time()

    def row(self, candidate: str, target: float) -> Row:
        """``target``: the F1 whose time is taken."""
        reached = [at for at, f1 in zip(self.seconds, self.scores) if f1 >= target]
        row = {"candidate": candidate, "f1": self.scores[-1], "seconds": self.seconds[-1]}
        return row | {"reached": reached[0] if reached else None}


def attnembed(task: Task, kind: str, epochs: int, target: float) -> Row:
    """Joint training of network and chain on the likelihood, without a penalty."""
    k = len(task.names)
    layers: list[Layer] = [EmbeddingSum(task.n_features, k)]
    if kind != "linear":
        layers = [EmbeddingSum(task.n_features, 32), Tanh(), Dense(32, k)]
    model = ae.ChainCRF(Network.create(layers, dtype=np.float32, rng=0), np.zeros((k, k), np.float32))
    train = ae.ChainDataset(task.train, task.labels())
    steps = epochs * -(-len(train) // BATCH)
    clock = Clock(task)
    ae.train_structured(
        model,
        train,
        n_epochs=epochs,
        batch_size=BATCH,
        optimizer=Adam(step_size=STEP_SIZE),
        schedule=Cosine(steps, warmup=steps // 10),
        callback=lambda state: clock.score(state.model),
        rng=0,
    )
    return clock.row(f"attnembed, {kind}, Adam, {epochs} epochs", target)


def same_objective(task: Task, target: float) -> Row:
    """The objective of CRFsuite, sum_i -log P(Y_i) + ||w||^2 over the pairs that occur, by L-BFGS."""
    k, labels = len(task.names), task.labels()
    train = ae.ChainDataset(task.train, labels)
    model = ae.ChainCRF(Network.create([EmbeddingSum(task.n_features, k)], rng=0), np.zeros((k, k)))
    seen = {"E": np.zeros((task.n_features, k), bool), "b": np.ones(k, bool), "W": np.zeros((k, k), bool)}
    for ids, y in zip(task.train, labels):
        seen["E"][ids, np.array(y)[:, None]] = True
        seen["W"][y[:-1], y[1:]] = True
    cuts = np.cumsum([mask.sum() for mask in seen.values()])
    clock = Clock(task)

    def at(w: np.ndarray) -> ae.ChainCRF:
        full = {name: np.zeros(mask.shape) for name, mask in seen.items()}
        for (name, mask), part in zip(seen.items(), np.split(w, cuts[:-1])):
            full[name][mask] = part
        return replace(
            model, network=model.network.with_params({"0.E": full["E"], "0.b": full["b"]}), pairwise=full["W"]
        )

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        loss, grads = at(w).loss_and_grads(train, "nll")
        parts = {"E": grads.network["0.E"], "b": grads.network["0.b"], "W": grads.pairwise}
        gradient = np.concatenate([parts[name][mask] for name, mask in seen.items()])
        return len(train) * loss + w @ w, len(train) * gradient + 2 * w

    done = count(1)

    def callback(w: np.ndarray) -> None:
        if next(done) % 10 == 0:
            clock.score(at(w))

    # CRFsuite stops where ten iterations improve the value by 1e-5 of itself.
    found = minimize(
        objective, np.zeros(cuts[-1]), jac=True, method="L-BFGS-B", callback=callback, options={"ftol": 1e-6}
    )
    clock.score(at(found.x))
    row = clock.row(f"attnembed, CRFsuite's objective, SciPy's L-BFGS, {found.nit} iterations", target)
    return row | {"objective": float(found.fun)}


def crfsuite(task: Task) -> Row:
    """CRFsuite with its defaults (L-BFGS, c2 = 1, only pairs that occur), until it stops."""
    try:
        import pycrfsuite
    except ImportError:
        return {"candidate": "CRFsuite", "status": "not installed"}
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    for ids, tags in zip(task.train, task.train_tags):
        trainer.append(_items(ids), list(tags))
    tagger = pycrfsuite.Tagger()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "model.crfsuite"))
        begin = time.process_time()
        trainer.train(file)
        seconds = time.process_time() - begin
        tagger.open(file)
        predicted: Tags = [tagger.tag(_items(ids)) for ids in task.test]
    iterations = trainer.logparser.last_iteration["num"]
    return {
        "candidate": f"CRFsuite (python-crfsuite {metadata.version('python-crfsuite')}), {iterations} iterations",
        "f1": chunk_f1(task.test_tags, predicted).f1,
        "seconds": seconds,
        "reached": seconds,
        "objective": float(trainer.logparser.last_iteration["loss"]),
    }


def _items(ids: np.ndarray) -> Any:
    """Attributes with the number of their occurrences as value: as a repeated row of a table counts."""
    import pycrfsuite

    return pycrfsuite.ItemSequence(
        [{"1": 1.0, **{f"f{i}": float(n) for i, n in Counter(row).items()}} for row in ids.tolist()]
    )


def markdown(rows: Sequence[Row]) -> str:
    """The table of the page."""
    lines = [
        "| model | objective | chunk F1 | seconds of training | seconds to CRFsuite's F1 |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if "f1" not in row:
            lines.append(f"| {row['candidate']} | {row['status']} | | | |")
            continue
        reached = "not reached" if row["reached"] is None else f"{row['reached']:.0f}"
        value = f"{row['objective']:.1f}" if "objective" in row else ""
        lines.append(f"| {row['candidate']} | {value} | {100 * row['f1']:.2f} | {row['seconds']:.0f} | {reached} |")
    return "\n".join(lines) + "\n"
