"""The page of scaling: the pairwise part in joint training, epoch by epoch, and the cost of its scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from attnembed._progress import Progress
from attnembed._typing import Doubles
from attnembed._validation import RNGLike, as_rng
from attnembed.explore.document import Panel, document, rounded
from attnembed.optim import Adam
from attnembed.structured.data import ChainDataset, make_chain_dataset
from attnembed.structured.metrics import letter_accuracy
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import mlp
from attnembed.structured.scaling import OnlineScaling
from attnembed.structured.training import StructuredState, train_structured

__all__ = ["scaling_page"]

_LABELS, _FEATURES, _START = 6, 8, 100.0


def scaling_page(quick: bool = False, rng: RNGLike = 0) -> str:
    """Build the page of scaling: held-out accuracy of F = U + c W, with sliders over c and the epoch, for two arms.

    Plain joint training and online scaling begin with the same network and the same W, a hundred times too large.
    """
    generator = as_rng(rng)
    data = make_chain_dataset(700, 8, _LABELS, _FEATURES, emission=0.7, transition=2.0, rng=generator)
    train, test = data.subset(np.arange(300)), data.subset(np.arange(300, 400 if quick else 700))
    network = mlp(_FEATURES, (32,), _LABELS, rng=generator)
    pairwise = generator.normal(size=(_LABELS, _LABELS))
    seed = int(generator.integers(2**31))
    factors = 2.0 ** np.linspace(-8, 4, 7 if quick else 25)
    n_epochs = 3 if quick else 16
    model = ChainCRF(network, pairwise, pairwise_scale=_START)
    with Progress("scaling", total=2 * n_epochs) as progress:
        arms = [
            {"name": name, **_course(_train(model, train, n_epochs, scaling, seed, progress, done), test, factors)}
            for name, scaling, done in (("joint", None, 0), ("online scaling", OnlineScaling(), n_epochs))
        ]
    best = max(max(max(row) for row in arm["score"]) for arm in arms)
    ratios = [v for arm in arms for v in arm["log2_ratio"] if v is not None]
    span = np.log2(factors[[0, -1]])
    payload = {
        "factors": rounded(factors),
        "start": int(np.argmin(np.abs(np.log2(factors)))),
        "epochs": n_epochs,
        "arms": arms,
        "range": [0, min(100, 10 * (int(best) // 10 + 1))],
        "ratio_range": [min(ratios) - span[1], max(ratios) - span[0]],
    }
    return document(
        "What does the scale of the pairwise part cost?",
        [
            "A chain CRF over a small network scores labelings by F = U + W. Joint training of both depends on the "
            "initial size of W, although every multiplier describes the same functions. Here W starts a hundred times "
            "too large; online scaling corrects it after each epoch, plain joint training does not.",
            f"Synthetic sequences of 8 positions and {_LABELS} labels: {train.n_samples} to train on, {test.n_samples} "
            "held out, one run. After training to an epoch, W is multiplied by c and nothing else is changed."
            + (" A quick version: few epochs and multipliers." if quick else ""),
        ],
        [
            Panel(
                "scores",
                "Against the multiplier, at the chosen epoch: joint (solid, orange) and with online scaling (dashed, "
                "blue).",
            ),
            Panel("course", "Over the epochs, at the chosen multiplier."),
            Panel("ratios", "Ratio of U to c W over the epochs (norms of the centred potentials)."),
        ],
        payload,
        "scaling",
    )


def _train(
    model: ChainCRF,
    data: ChainDataset,
    n_epochs: int,
    scaling: OnlineScaling | None,
    seed: int,
    progress: Progress,
    done: int,
) -> list[StructuredState]:
    """The states after each epoch."""
    states: list[StructuredState] = []

    def keep(state: StructuredState) -> None:
        states.append(state)
        progress.update(done + len(states))

    train_structured(
        model,
        data,
        n_epochs=n_epochs,
        batch_size=10,
        optimizer=Adam(step_size=0.01),
        scaling=scaling,
        callback=keep,
        rng=seed,
    )
    return states


def _course(states: list[StructuredState], test: ChainDataset, factors: Doubles) -> dict[str, Any]:
    """Percentages (epochs, multipliers) of correct labels, and log2 of the ratio of the norms per epoch."""
    scores, labels = [], test.split(test.known_labels)
    for state in states:
        scaled = [replace(state.model, pairwise_scale=c * state.model.pairwise_scale) for c in factors]
        scores.append(rounded([100 * letter_accuracy(labels, one.predict(test)) for one in scaled]))
    return {"score": scores, "log2_ratio": rounded([np.log2(state.ratio) for state in states])}
