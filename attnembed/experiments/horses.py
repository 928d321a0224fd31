"""Masks of horses: a small convolutional network with two scales and a 4-connected grid (Weizmann database)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed.auditing.baselines import constant_mask, near_pairs
from attnembed.experiments.tasks import FLOAT, Split, Task
from attnembed.structured.corpora import load_horses
from attnembed.structured.data import GridDataset
from attnembed.structured.metrics import foreground_iou
from attnembed.structured.model import GridCRF
from attnembed.structured.networks import two_scale_net

__all__ = ["HORSES"]

# Neighbours that differ by this much, in standard deviations of the colours, are tied by e^{-1/2} of the weight.
_HELD_OUT_IMAGES, _CONTRAST_WIDTH = 50, 0.3


def _horses(path: str, split: int) -> Split:
    """The data, with 50 training images, drawn by ``split``, set aside for selection; the others are also mirrored."""
    known, test = load_horses(path)
    pairs = near_pairs(np.concatenate([known.images, test.images]))
    seen = tuple(second - len(known) for first, second in pairs if first < len(known) <= second)
    order = np.random.default_rng(split).permutation(len(known))
    held_out = min(_HELD_OUT_IMAGES, len(known) // 5)
    known, test = (_centred(part, known.images) for part in (known, test))
    return Split(_and_mirrored(known.subset(order[held_out:])), known.subset(order[:held_out]), test, seen=seen)


def _and_mirrored(data: GridDataset) -> GridDataset:
    """The images, followed by their mirror images."""
    images, labels = (np.concatenate([array, array[:, :, ::-1]]) for array in (data.images, data.known_labels))
    return GridDataset(images, labels)


def _centred(data: GridDataset, reference: NDArray[Any]) -> GridDataset:
    mean, deviation = reference.mean(axis=(0, 1, 2)), reference.std(axis=(0, 1, 2))
    return GridDataset(((data.images - mean) / deviation).astype(FLOAT), data.labels)


def _mask_scores(model: GridCRF, data: GridDataset, split: Split) -> dict[str, float]:
    scores = _scores_of(predicted := model.predict(data), data)
    if data is split.test and split.seen:
        new = np.setdiff1d(np.arange(len(data)), split.seen)
        scores["IoU of new photographs"] = foreground_iou(data.known_labels[new], predicted[new]).overall
    return scores


def _scores_of(predicted: NDArray[Any], data: GridDataset) -> dict[str, float]:
    return {
        "foreground IoU": foreground_iou(data.known_labels, predicted).overall,
        "pixels": float(np.mean(predicted == data.known_labels)),
    }


def _one_mask(model: GridCRF, data: GridDataset, split: Split, path: str) -> dict[str, float]:
    """The best constant mask of the training images, for every test image."""
    return _scores_of(np.broadcast_to(constant_mask(load_horses(path)[0].known_labels), data.known_labels.shape), data)


def _annotations(model: GridCRF, data: GridDataset, split: Split, path: str) -> dict[str, float]:
    """The agreement of two annotations of one photograph: the second of each pair scored against the first."""
    parts = load_horses(path)
    images, masks = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    pairs = near_pairs(images)
    if not pairs:
        return {}
    first, second = (masks[list(side)] for side in zip(*pairs))
    return _scores_of(second, GridDataset(np.zeros((*first.shape, 1)), first))


_BASELINES = {"one mask for all images": _one_mask, "two annotations of one photograph": _annotations}


def _mask_model(split: Split, rng: np.random.Generator) -> GridCRF:
    # Neighbours that attract each other, so that the best labeling is found exactly from the start.
    pairwise = 0.5 * np.eye(2) + 0.1 * rng.normal(size=(2, 2))
    network = two_scale_net(split.train.images.shape[3], dtype=FLOAT, rng=rng)
    margin = float(split.train.labels[0].size)  # 1 for every wrong pixel
    return GridCRF(network, pairwise.astype(FLOAT), contrast=True, contrast_width=_CONTRAST_WIDTH, margin=margin)


HORSES = (
    # The ratio is the better of 1.5 and 2.5 on validation data (splits 0 and 1). Stages 1 and 2 are shorter than on
    # chains, because most of the gain on masks comes from training everything.
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
        baselines=_BASELINES,
    ),
)
