"""The protocol of the experiments on reviews: options, and training for a number of epochs chosen on held-out ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from attnembed.attention.data import TokenDataset
from attnembed.attention.first_step import one_step
from attnembed.attention.model import AttentionModel
from attnembed.attention.training import TrainResult, train
from attnembed.optim import Adam, Cosine
from attnembed.results import uninterrupted

__all__ = ["Pieces", "ReviewOptions", "Training", "pooled", "single", "step_size"]


class Pieces(NamedTuple):
    """The training reviews: a part of them, the rest for validation, and the whole."""

    part: TokenDataset
    validation: TokenDataset
    whole: TokenDataset


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
class Training:
    """Training from the models after one step, ``starts``, on the part and on the whole of the training reviews."""

    pieces: Pieces
    starts: tuple[AttentionModel, AttentionModel]
    options: ReviewOptions

    @classmethod
    def after_one_step(cls, start: AttentionModel, pieces: Pieces, options: ReviewOptions) -> Training:
        """Take the step on either piece, from the same model."""
        part, whole = (
            one_step(start, piece, step_size(piece, options.relative_step)).model
            for piece in (pieces.part, pieces.whole)
        )
        return cls(pieces, (part, whole), options)

    def run(self, *, attends: bool) -> TrainResult:
        """Train E and p, or E alone with uniform pooling, on the whole.

        The number of epochs is the best on the validation part for the model trained on the other part.
        """
        part, validation, whole = self.pieces
        chosen = max(self._fit(part, self.starts[0], self.options.epochs, attends, validation).best_epoch, 1)
        return self._fit(whole, self.starts[1], chosen, attends)

    def _fit(
        self,
        data: TokenDataset,
        model: AttentionModel,
        epochs: int,
        attends: bool,
        held_out: TokenDataset | None = None,
    ) -> TrainResult:
        options = self.options
        epsilon = options.relative_epsilon / data.lengths.sum()
        optimizer = Adam(
            step_size=options.attention_step_size if attends else options.pooling_step_size,
            multipliers={"p": options.multiplier_p},
            epsilon=epsilon if attends else epsilon * model.dim,  # see `pooled`
            weight_decay=options.attention_weight_decay if attends else options.pooling_weight_decay,
        )
        result = train(
            single(model) if attends else pooled(model),
            data,
            params=("E", "p") if attends else ("E",),
            optimizer=optimizer,
            n_epochs=epochs,
            schedule=Cosine(options.epochs),
            validation=held_out,
        )
        return uninterrupted(result)


def single(model: AttentionModel) -> AttentionModel:
    """The model in single precision, in which Adam takes half the time.

    The losses, and the sums over the counts, are computed in double precision in either case.
    """
    E, p, v = (array.astype(np.float32) for array in (model.E, model.p, model.v))
    return AttentionModel(E, p, v)


def pooled(model: AttentionModel) -> AttentionModel:
    """Uniform pooling with the token values of the model, in one dimension.

    With p = 0 the gradient in E is -A v^T. For |v_k| = 1/sqrt(d) Adam moves each row of E along v, by the same step as
    a row of one dimension, E'_s = g_s / sqrt(d), with v' = sqrt(d), if epsilon is multiplied by d, as the gradients
    are: the outputs are those of training in d dimensions, for a part 1/d of the work.
    """
    root = np.sqrt(model.dim)
    return AttentionModel(model.token_values[:, None] / root, [0.0], [root])


def step_size(data: TokenDataset, relative: float) -> float:
    """eta = relative / max |alpha_s|; arbitrary if every alpha_s is 0, because no step then moves E along v."""
    return relative / (float(np.abs(data.signed_frequency).max()) or 1.0)
