"""Chain and grid data sets: what they accept, what they refuse, and that they own what they hold."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import attnembed as ae
from attnembed.errors import InputError, InputTypeError
from attnembed.structured.data import ChainDataset, GridDataset, make_grid_dataset
from attnembed.structured.networks import conv_net, mlp
from attnembed.structured.packing import Packing
from attnembed.structured.scaling import scale_diagnosis

SENTENCES = [np.arange(6.0).reshape(3, 2), np.ones((1, 2))]
TAGS = [[0, 1, 0], [1]]
IMAGES = np.random.default_rng(0).normal(size=(3, 4, 5, 1))
MASKS = np.random.default_rng(1).integers(0, 2, size=(3, 4, 5))


# --- they own what they hold --------------------------------------------------------------------------------------


def test_images_are_not_those_of_the_caller():
    images, labels = IMAGES.copy(), MASKS.copy()
    data = GridDataset(images, labels)
    images[:], labels[:] = np.nan, 7
    assert_array_equal(data.images, IMAGES)
    assert_array_equal(data.labels, MASKS)
    assert images.flags.writeable
    assert not data.images.flags.writeable


def test_sequences_are_not_those_of_the_caller():
    x, y = np.ones((2, 1)), np.array([0, 1])
    data = ChainDataset([x], [y])
    x[:], y[:] = np.nan, 7
    assert_array_equal(data.inputs, np.ones((2, 1)))
    assert_array_equal(data.labels, [0, 1])
    assert x.flags.writeable
    assert y.flags.writeable


def test_layouts_are_frozen():
    lengths = np.array([2, 3])
    packing = Packing(lengths)
    lengths[:] = 9
    assert_array_equal(packing.lengths, [2, 3])
    with pytest.raises(ValueError, match="read-only"):
        packing.order[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        ChainDataset(SENTENCES, TAGS).packing.lengths[0] = 1


# --- what they accept ---------------------------------------------------------------------------------------------


def test_generators_and_lists_are_accepted():
    data = ChainDataset((x for x in SENTENCES), (y for y in TAGS))
    assert_array_equal(data.inputs, ChainDataset(SENTENCES, TAGS).inputs)
    assert_array_equal(data.labels, ChainDataset(SENTENCES, TAGS).labels)
    for images in (list(IMAGES), (x for x in IMAGES), IMAGES.tolist()):
        assert_array_equal(GridDataset(images, list(MASKS)).images, IMAGES)


def test_boolean_labels_are_zero_and_one():
    assert_array_equal(GridDataset(IMAGES, MASKS > 0).labels, MASKS)
    assert_array_equal(ChainDataset(SENTENCES, [np.array(y, dtype=bool) for y in TAGS]).labels, [0, 1, 1, 0])
    assert GridDataset(IMAGES, MASKS > 0).labels.dtype == np.intp


@pytest.mark.parametrize("name", ["chain", "grid"])
def test_size_and_subset(name):
    data = ChainDataset(SENTENCES, TAGS) if name == "chain" else GridDataset(IMAGES, MASKS)
    assert data.n_samples == len(data)
    part = data.subset([1, 0, 1])
    assert part.n_samples == 3
    assert not part.inputs.flags.writeable
    assert_array_equal(part.subset([1]).labels, data.subset([0]).labels)
    assert type(data)(IMAGES if name == "grid" else SENTENCES).subset([1]).labels is None


# --- without labels -----------------------------------------------------------------------------------------------

UNLABELLED = {
    "chain": (ae.ChainCRF(mlp(2, (), 2, rng=0), np.eye(2)), ChainDataset(SENTENCES), ChainDataset(SENTENCES, TAGS)),
    "grid": (
        ae.GridCRF(conv_net(1, (), 2, size=3, rng=0), np.eye(2), contrast=True),
        GridDataset(IMAGES),
        GridDataset(IMAGES, MASKS),
    ),
}


@pytest.mark.parametrize("name", UNLABELLED)
def test_labels_are_not_needed_to_predict(name):
    model, unlabelled, labelled = UNLABELLED[name]
    assert unlabelled.labels is None
    assert_array_equal(np.concatenate(model.predict(unlabelled)), np.concatenate(model.predict(labelled)))
    assert_array_equal(model.unary(unlabelled), model.unary(labelled))
    assert ae.ChainDataset(iter(SENTENCES), None).labels is None


@pytest.mark.parametrize("name", UNLABELLED)
def test_what_needs_labels_says_so(name):
    model, unlabelled, labelled = UNLABELLED[name]
    message = "must have labels; got a data set without; pass `labels` when it is created"
    for use in (
        model.loss,
        model.loss_and_grads,
        model.accuracy,
        getattr(model, "sequence_accuracy", model.accuracy),
        lambda data: scale_diagnosis(model, data),
        lambda data: ae.train_structured(model, data, n_epochs=1, rng=0),
    ):
        with pytest.raises(InputError, match=f"^`data` {message}$"):
            use(unlabelled)
    with pytest.raises(InputError, match=f"^`validation` {message}$"):
        ae.train_structured(model, labelled, validation=unlabelled, n_epochs=1, rng=0)


# --- what they refuse ---------------------------------------------------------------------------------------------

SMALL = np.zeros((1, 2, 2, 1))
REFUSED = {
    "ragged sequence": (
        lambda: ChainDataset([[[1.0, 2.0], [3.0]]], [[0, 1]]),
        "`inputs` must have rows of one length; got ragged rows in entry 0",
    ),
    "ragged labels": (lambda: ChainDataset([np.zeros((2, 1))], [[0, [1]]]), "`labels` must have rows of one length"),
    "one number": (lambda: ChainDataset(3, [[0]]), "`inputs` must be a sequence of arrays; got int"),
    "text": (lambda: ChainDataset("abc"), "`inputs` must be a sequence of arrays; got str"),
    "labels of text": (lambda: ChainDataset(SENTENCES, "ab"), "`labels` must be a sequence of arrays; got str"),
    "positions without inputs": (lambda: ChainDataset([1.0]), "`inputs` must have at least one position"),
    "unequal images": (
        lambda: GridDataset([np.zeros((4, 5, 3)), np.zeros((4, 5, 3)), np.zeros((3, 5, 3))]),
        "`images` must all have one shape; got (4, 5, 3) and, in entry 2, (3, 5, 3); "
        "crop or resize them, or make one data set per size",
    ),
    "unequal masks": (
        lambda: GridDataset(IMAGES, [np.zeros((4, 5), int), np.zeros((4, 5), int), np.zeros((5, 4), int)]),
        "`labels` must all have one shape; got (4, 5) and, in entry 2, (5, 4)",
    ),
    "ragged image": (lambda: GridDataset([[[[1.0], [2.0]], [[3.0]]]]), "`images` must have rows of one length"),
    "no image": (lambda: GridDataset([]), "`images` must be a real array (n, H, W, C)"),
    "grey images": (
        lambda: GridDataset(np.zeros((2, 4, 5))),
        "`images` must be a real array (n, H, W, C); got float64 (2, 4, 5); "
        "give grey images an axis of one channel, `images[..., None]`",
    ),
    "not images": (lambda: GridDataset(None), "`images` must be a sequence of arrays; got NoneType"),
    "mask of 255": (
        lambda: GridDataset(IMAGES, (255 * MASKS).astype(np.uint8)),
        "`labels` must number the labels from 0; got values {0, 255}; for a mask, use `labels > 0`",
    ),
    "all foreground": (lambda: GridDataset(SMALL, np.full((1, 2, 2), 255)), "for a mask, use `labels > 0`"),
    "void label": (
        lambda: GridDataset(SMALL, np.array([[[0, 1], [2, 255]]])),
        "`labels` must number the labels from 0; got values {0, 1, 2, 255}; 255 marks pixels without a label",
    ),
    "negative": (lambda: GridDataset(SMALL, np.array([[[0, 1], [2, -1]]])), "`labels` must be >= 0; got -1"),
    "fractions": (lambda: GridDataset(SMALL, np.zeros((1, 2, 2))), "`labels` must be integers; got dtype float64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_gets_one_sentence(name):
    make, message = REFUSED[name]
    with pytest.raises(InputError, match="^" + re.escape(message) if message[0] == "`" else re.escape(message)) as info:
        make()
    assert "\n" not in str(info.value)


def test_wrong_types_are_type_errors():
    with pytest.raises(InputTypeError):
        GridDataset(5)


def test_labels_of_another_numbering_are_not_counted_as_mistakes():
    """Accuracy over masks beyond K would call every such pixel a mistake of the model."""
    model, _, _ = UNLABELLED["grid"]
    for score in (model.accuracy, model.loss):
        with pytest.raises(InputError, match=r"^`labels` must be in 0..1; got 2$"):
            score(GridDataset(IMAGES, MASKS + 1))


def test_a_tag_that_the_model_does_not_have_is_a_mistake():
    model, _, _ = UNLABELLED["chain"]
    data = ChainDataset([SENTENCES[1]], [[2]])
    assert model.accuracy(data) == model.sequence_accuracy(data) == 0
    with pytest.raises(InputError, match=r"^`labels` must be in 0..1; got 2$"):
        model.loss(data)


# --- generators ---------------------------------------------------------------------------------------------------


def test_any_transition_gives_an_image():
    """The logistic function of the neighbours neither overflows nor changes the draws of moderate strengths."""
    labels = make_grid_dataset(2, 6, 6, transition=300.0, rng=0).labels
    assert set(np.unique(labels)) <= {0, 1}
    assert np.mean(labels[:, :, 1:] == labels[:, :, :-1]) > 0.6
    make_grid_dataset(1, 4, 4, transition=1e300, rng=0)
