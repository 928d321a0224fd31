"""Handwritten words: LeNet and chain in PyTorch and here, from the same numbers, in the same batches and steps.

The protocol is that of `attnembed reproduce ocr`, large training set, first repetition: eight folds for training, one
that chooses the epoch by letters right, one for the test, the mean -log P(Y|X) of 40 words, Adam with warm-up and half
a cosine, single precision. The PyTorch model is `nn.Conv2d` and `nn.Linear` with the CRF of pytorch-crf, whose start
and end scores are held at zero; its network sees no padding. Both begin once with the numbers that this package draws,
and once with those that PyTorch and pytorch-crf draw.

The weights that PyTorch ended with are copied to `attnembed`, both in double precision, and every word of the test has
its log-likelihood and its labeling from either. Times are processor seconds of training on one thread, without the
scoring between epochs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import attnembed as ae
from attnembed.experiments.arms import TASKS, task_data
from attnembed.optim import Adam, Cosine
from benchmarks.runner import Row, one_thread, progress

PAGE = Path(__file__).parents[1] / "docs" / "peers.md"
TASK, SPLIT, SEED, EPOCHS, STEP_SIZE = "ocr-large", 0, 0, 6, 0.03
CHANNELS, HIDDEN, LABELS, SIDES = (12, 32), 140, 26, (16, 8)
OURS, THEIRS = "attnembed's initial numbers", "PyTorch's initial numbers"


def run(quick: bool, data: Path | None) -> list[Row]:
    """One row per training, and one for the weights that were carried over; an epoch on a tenth if ``quick``."""
    if data is None:
        return [{"candidate": "all", "status": "not run", "note": "needs --data with ocr_letters.npz"}]
    return one_thread(_run, quick, str(data))


def _run(quick: bool, data: str) -> list[Row]:
    words = task_data(TASK, data, SPLIT)
    if quick:
        words = replace(words, train=words.train.subset(np.arange(0, len(words.train), 10)))
    setting = Setting(words, 1 if quick else EPOCHS)
    rows = [attnembed(setting, setting.start, OURS)]
    progress(f"letters: {rows[-1]}")
    try:
        for kind in (OURS, THEIRS):
            model = Torch(setting, kind)
            if kind == THEIRS:
                rows.append(attnembed(setting, model.as_attnembed(np.float32), kind))
                progress(f"letters: {rows[-1]}")
            rows.append(model.fit())
            progress(f"letters: {rows[-1]}")
            rows[-1] |= carried_over(model, words.test)
    except ImportError as error:
        rows.append({"candidate": "PyTorch", "status": f"{error.name} is not installed"})
    return rows


@dataclass(frozen=True)
class Setting:
    """What both sides share: the words, the initial model, the order of the batches, the schedule."""

    words: Any
    epochs: int

    @property
    def start(self) -> ae.ChainCRF:
        return TASKS[TASK].make_model(self.words, np.random.default_rng([SEED, SPLIT, 0]))

    @property
    def rng(self) -> np.random.Generator:
        """For the order of the words, a permutation per epoch, after one draw that `train_structured` makes first."""
        return np.random.default_rng([SEED, SPLIT, 1])

    @property
    def batch_size(self) -> int:
        return TASKS[TASK].batch_size

    @property
    def schedule(self) -> Cosine:
        steps = self.epochs * -(-len(self.words.train) // self.batch_size)
        return Cosine(steps, warmup=steps // 10)


class Clock:
    """Letters right on the words for selection after each epoch, test scores of the best epoch, seconds of training."""

    def __init__(self, words: Any) -> None:
        self.words, self.seconds, self.best, self.epoch = words, 0.0, (-1.0, 0, 0.0, 0.0), 0
        self.begin = time.process_time()

    def stop(self, predict: Any) -> None:
        """After an epoch; ``predict(data)`` gives the labels of each word."""
        self.seconds += time.process_time() - self.begin
        self.epoch += 1
        chosen = right(predict(self.words.validation), self.words.validation)[0]
        progress(f"letters: epoch {self.epoch}, {100 * chosen:.2f}, {self.seconds:.0f} s")
        if chosen > self.best[0]:
            self.best = (chosen, self.epoch, *right(predict(self.words.test), self.words.test))
        self.begin = time.process_time()

    def row(self, candidate: str) -> Row:
        chosen, epoch, letters, whole = self.best
        row = {"candidate": candidate, "validation": chosen, "epoch": epoch, "letters": letters, "words": whole}
        return row | {"seconds": self.seconds}


def right(predicted: Sequence[Any], data: ae.ChainDataset) -> tuple[float, float]:
    """Shares of letters and of whole words."""
    same = [np.asarray(one) == true for one, true in zip(predicted, data.split(data.known_labels), strict=True)]
    return float(np.concatenate(same).mean()), float(np.mean([word.all() for word in same]))


def attnembed(setting: Setting, start: ae.ChainCRF, kind: str) -> Row:
    clock = Clock(setting.words)
    ae.train_structured(
        start,
        setting.words.train,
        n_epochs=setting.epochs,
        batch_size=setting.batch_size,
        optimizer=Adam(step_size=STEP_SIZE),
        schedule=setting.schedule,
        callback=lambda state: clock.stop(state.model.predict),
        rng=setting.rng,
    )
    return clock.row(f"attnembed {ae.__version__}, {kind}")


class Torch:
    """The same model in PyTorch: layers, chain, training, and its weights as arrays of this package."""

    def __init__(self, setting: Setting, kind: str) -> None:
        import torch
        from torch import nn
        from torchcrf import CRF

        torch.set_num_threads(1)
        torch.manual_seed(SEED)
        self.torch, self.setting, self.kind = torch, setting, kind
        rows, columns = (side // 4 for side in SIDES)
        self.network = nn.Sequential(
            nn.Unflatten(1, (1, *SIDES)),
            nn.Conv2d(1, CHANNELS[0], 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(CHANNELS[0], CHANNELS[1], 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(rows * columns * CHANNELS[1], HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, LABELS),
        )
        self.chain = CRF(LABELS, batch_first=True)
        with torch.no_grad():
            for ends in (self.chain.start_transitions, self.chain.end_transitions):
                ends.zero_().requires_grad_(False)
            if kind == OURS:
                for parameter, array in zip(self._parameters(), self._arrays(setting.start), strict=True):
                    parameter.copy_(torch.from_numpy(array.copy()))

    def _parameters(self) -> list[Any]:
        return [*self.network.parameters(), self.chain.transitions]

    @staticmethod
    def _arrays(model: ae.ChainCRF) -> list[np.ndarray]:
        """The parameters of a model here, in PyTorch's order and layout: its images have the channel first."""
        here = model.network.params
        first, second, hidden, last = ("1", "4", "8", "10")
        rows, columns = (side // 4 for side in SIDES)
        dense = here[f"{hidden}.W"].reshape(rows, columns, CHANNELS[1], HIDDEN).transpose(3, 2, 0, 1)
        return [
            here[f"{first}.W"].transpose(3, 0, 1, 2),
            here[f"{first}.b"],
            here[f"{second}.W"].transpose(3, 0, 1, 2),
            here[f"{second}.b"],
            dense.reshape(HIDDEN, -1),
            here[f"{hidden}.b"],
            here[f"{last}.W"].T,
            here[f"{last}.b"],
            model.pairwise,
        ]

    def as_attnembed(self, dtype: Any) -> ae.ChainCRF:
        """The weights as they are now in a model of this package."""
        arrays = [parameter.detach().numpy().astype(dtype) for parameter in self._parameters()]
        a, b, c, d, e, f, g, h, pairwise = arrays
        rows, columns = (side // 4 for side in SIDES)
        params = {
            "1.W": a.transpose(1, 2, 3, 0),
            "1.b": b,
            "4.W": c.transpose(1, 2, 3, 0),
            "4.b": d,
            "8.W": e.reshape(HIDDEN, CHANNELS[1], rows, columns).transpose(2, 3, 1, 0).reshape(-1, HIDDEN),
            "8.b": f,
            "10.W": g.T,
            "10.b": h,
        }
        network = ae.structured.networks.lenet(channels=CHANNELS, hidden=HIDDEN, dtype=dtype).with_params(params)
        return ae.ChainCRF(network, pairwise)

    def batch(self, words: Sequence[np.ndarray], labels: Sequence[np.ndarray], dtype: Any) -> tuple[Any, Any, Any]:
        """Emissions (B, L, K), labels (B, L) and mask; only true letters pass through the network."""
        torch = self.torch
        mask = torch.zeros(len(words), max(map(len, words)), dtype=torch.bool)
        for row, word in zip(mask, words):
            row[: len(word)] = True
        letters = self.network(torch.from_numpy(np.concatenate(words)).to(dtype))
        emissions = torch.zeros(*mask.shape, LABELS, dtype=dtype)
        emissions[mask] = letters
        padded = torch.zeros(mask.shape, dtype=torch.long)
        padded[mask] = torch.from_numpy(np.concatenate(labels).astype(np.int64))
        return emissions, padded, mask

    def fit(self) -> Row:
        torch, setting = self.torch, self.setting
        train = setting.words.train
        words, labels = train.split(train.inputs), train.split(train.known_labels)
        optimizer = torch.optim.Adam([p for p in self._parameters() if p.requires_grad], lr=STEP_SIZE)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, setting.schedule)
        rng = setting.rng
        rng.integers(2**62)
        clock = Clock(setting.words)
        for _ in range(setting.epochs):
            order = rng.permutation(len(train))
            for first in range(0, len(order), setting.batch_size):
                chosen = order[first : first + setting.batch_size]
                picked = self.batch([words[i] for i in chosen], [labels[i] for i in chosen], torch.float32)
                loss = -self.chain(*picked, reduction="mean")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            clock.stop(self.predict)
        versions = f"PyTorch {metadata.version('torch')}, pytorch-crf {metadata.version('pytorch-crf')}"
        return clock.row(f"{versions}, {self.kind}")

    def predict(self, data: ae.ChainDataset, dtype: Any = None) -> list[Any]:
        with self.torch.no_grad():
            emissions, _, mask = self.batch(
                data.split(data.inputs), data.split(data.known_labels), dtype or self.torch.float32
            )
            return self.chain.decode(emissions, mask)

    def double(self) -> None:
        self.network.double()
        self.chain.double()

    def log_likelihoods(self, data: ae.ChainDataset) -> np.ndarray:
        with self.torch.no_grad():
            picked = self.batch(data.split(data.inputs), data.split(data.known_labels), self.torch.float64)
            return self.chain(*picked, reduction="none").numpy()


def carried_over(trained: Torch, test: ae.ChainDataset) -> Row:
    """The weights of PyTorch in this package: largest relative difference, and how many words are read otherwise."""
    model = trained.as_attnembed(np.float64)
    trained.double()
    theirs = trained.log_likelihoods(test)
    ours = np.array([-model.loss(test.subset([i])) for i in range(len(test))])
    gaps = np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))
    read = zip(model.predict(test), trained.predict(test, trained.torch.float64), strict=True)
    other = sum(not np.array_equal(one, two) for one, two in read)
    return {"gap": float(gaps.max()), "other_labelings": other, "n": len(test)}


def markdown(rows: Sequence[Row]) -> str:
    """The table of the page."""
    lines = [
        "| model | epoch chosen | letters right | whole words right | seconds of training | log P(Y given X) of a test "
        "word, these weights in both: largest difference | words read otherwise |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "letters" not in row:
            lines.append(f"| {row['candidate']} | {row['status']} | | | | | |")
            continue
        scores = f"{row['epoch']} | {100 * row['letters']:.2f} | {100 * row['words']:.2f} | {row['seconds']:.0f}"
        both = f"{row['gap']:.0e} | {row['other_labelings']} of {row['n']}" if "gap" in row else " | "
        lines.append(f"| {row['candidate']} | {scores} | {both} |")
    return "\n".join(lines) + "\n"
