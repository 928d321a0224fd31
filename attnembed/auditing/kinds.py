"""The facts about each kind of data set: chains of letters or of words, masks, reviews, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._typing import Ints
from attnembed.attention.data import TokenDataset, TokenKind
from attnembed.auditing.baselines import constant_mask, most_frequent_tags, near_pairs
from attnembed.auditing.ratings import states_rating
from attnembed.auditing.record import Fact
from attnembed.auditing.repeats import Repeats, numbered, repeat_facts
from attnembed.structured.corpora import Letters, Sentence
from attnembed.structured.data import ChainDataset, GridDataset
from attnembed.structured.metrics import chunk_f1, foreground_iou

__all__ = ["chain_facts", "count_facts", "grid_facts", "letter_facts", "review_facts", "sentence_facts"]

PARTS = ("training", "test")
_LEAST_DOCUMENTS = 50  # for a word to count as frequent, as in the figures of the reviews


def _length_facts(what: str, lengths: NDArray[Any]) -> list[Fact]:
    return [
        Fact("length", f"shortest {what}", int(np.min(lengths))),
        Fact("length", f"median {what}", float(np.median(lengths))),
        Fact("length", f"longest {what}", int(np.max(lengths))),
    ]


def _balance_facts(what: str, names: Sequence[str]) -> list[Fact]:
    counts = Counter(names)
    (most, n), (least, m) = counts.most_common(1)[0], min(counts.items(), key=lambda item: (item[1], item[0]))
    return [
        Fact("balance", f"different {what}", len(counts)),
        Fact("balance", f"most frequent of the {what}, {most}", n, len(names)),
        Fact("balance", f"rarest of the {what}, {least}", m, len(names)),
    ]


# --- chains -----------------------------------------------------------------------------------------------------------


def _sequence_facts(
    items: Sequence[Any], labels: Sequence[Sequence[Any]], part: Ints, parts: Sequence[str], words: str, letters: str
) -> list[Fact]:
    """Facts common to all chains: ``items`` are the inputs in comparable form, ``labels`` the labels."""
    lengths = np.array([len(label) for label in labels])
    types = numbered(tuple(label) for label in labels)
    shared = Repeats(types, part, types)
    flat = [str(label) for one in labels for label in one]
    in_all = [set(types[part == k]) for k in range(len(parts))]
    facts = [
        Fact("size", words, len(labels)),
        *(Fact("size", f"{words}, {name}", int((part == k).sum())) for k, name in enumerate(parts) if len(parts) == 2),
        Fact("size", letters, int(lengths.sum())),
        *repeat_facts(words, Repeats(numbered(items), part, types), parts, "sequence of labels"),
        Fact("shared", "different sequences of labels", int(types.max()) + 1, len(labels)),
    ]
    if len(parts) > 1:
        facts += [
            Fact("shared", "sequences of labels in every part", len(set.intersection(*in_all)), int(types.max()) + 1),
            Fact("shared", f"{words} whose labels another part has", int(shared.across.sum()), len(labels)),
        ]
    if len(parts) == 2:
        test = part == 1
        facts.append(
            Fact(
                "shared",
                f"{words} of the test whose labels training has",
                int((shared.across & test).sum()),
                int(test.sum()),
            )
        )
    facts += _balance_facts("labels", flat) + _length_facts("sequence", lengths)
    last = part == part.max()
    train = [str(label) for one, p in zip(labels, part) if p != part.max() or len(parts) == 1 for label in one]
    held = [str(label) for one, chosen in zip(labels, last) if chosen for label in one]
    most = Counter(train).most_common(1)[0][0]
    facts.append(
        Fact("baselines", "labels right, the most frequent one throughout", held.count(most) / len(held), None)
    )
    return facts


def letter_facts(letters: Letters) -> list[Fact]:
    """Facts on handwritten words, with the folds as parts."""
    folds, part = np.unique(letters.folds, return_inverse=True)
    parts = [f"fold {fold}" for fold in folds]
    names = ["".join(chr(ord("a") + int(label)) for label in word) for word in letters.labels]
    facts = _sequence_facts([word.tobytes() for word in letters.words], names, part, parts, "words", "letters")
    lengths = [len(name) for name in names]
    images = np.packbits(np.concatenate(letters.words), axis=1)
    labels, where = np.concatenate(letters.labels), np.repeat(part, lengths)
    items = Repeats(numbered(image.tobytes() for image in images), where, labels)
    return facts + repeat_facts("images of letters", items, parts, "letter")


def sentence_facts(train: Sequence[Sentence], test: Sequence[Sentence]) -> list[Fact]:
    """Facts on sentences with tags, in a training and a test part; an empty test part stands for none."""
    parts = PARTS if test else PARTS[:1]
    every, part = [*train, *test], np.repeat([0, 1], [len(train), len(test)])
    words = [sentence.words for sentence in every]
    facts = _sequence_facts(words, [sentence.chunks for sentence in every], part, parts, "sentences", "words")
    tokens = [{word for sentence in side for word in sentence.words} for side in (train, test)]
    held = test or train
    if test:
        count = [word for sentence in test for word in sentence.words]
        unseen = sum(word not in tokens[0] for word in count)
        facts.append(Fact("shared", "words of the test that training has not", unseen, len(count)))
    known = {tag for sentence in train for tag in sentence.chunks}
    facts.append(
        Fact(
            "balance",
            "words of the test whose tag training has not",
            sum(t not in known for s in test for t in s.chunks),
        )
    )
    for title, column in (("part of speech", 1), ("word", 0)):
        table = most_frequent_tags((one[column] for one in train), (one.chunks for one in train))
        most = Counter(tag for one in train for tag in one.chunks).most_common(1)[0][0]
        found = [[table.get(key, most) for key in one[column]] for one in held]
        right = [tag == other for tags, one in zip(found, held) for tag, other in zip(tags, one.chunks)]
        score = chunk_f1([list(one.chunks) for one in held], found).f1
        facts.append(Fact("baselines", f"chunk F1, most frequent tag of each {title}", score, None))
        facts.append(Fact("baselines", f"tags right, most frequent tag of each {title}", float(np.mean(right)), None))
    return facts


def chain_facts(train: ChainDataset, test: ChainDataset | None) -> list[Fact]:
    """Facts on any chains with labels."""
    sides = [train] if test is None else [train, test]
    part = np.repeat(np.arange(len(sides)), [len(side) for side in sides])
    inputs = [x for side in sides for x in side.split(side.inputs)]
    labels = [y.tolist() for side in sides for y in side.split(side.known_labels)]
    parts = PARTS[: len(sides)]
    facts = _sequence_facts([x.tobytes() for x in inputs], labels, part, parts, "sequences", "positions")
    where = np.repeat(part, [len(y) for y in labels])
    items = Repeats(
        numbered(row.tobytes() for x in inputs for row in x), where, np.array([k for y in labels for k in y])
    )
    return facts + repeat_facts("inputs of one position", items, parts)


# --- grids ------------------------------------------------------------------------------------------------------------


def grid_facts(train: GridDataset, test: GridDataset | None) -> list[Fact]:
    """Facts on images with a label per pixel; masks with two labels have additional baselines."""
    sides = [train] if test is None else [train, test]
    parts = PARTS[: len(sides)]
    images = np.concatenate([side.images for side in sides])
    masks = np.concatenate([side.known_labels for side in sides])
    part = np.repeat(np.arange(len(sides)), [len(side) for side in sides])
    items = Repeats(numbered(image.tobytes() for image in images), part, numbered(mask.tobytes() for mask in masks))
    facts = [Fact("size", "images", len(images))]
    facts += [
        Fact("size", f"images, {name}", int((part == k).sum())) for k, name in enumerate(parts) if test is not None
    ]
    facts += [Fact("size", "pixels of an image", int(masks[0].size)), *repeat_facts("images", items, parts, "mask")]
    near = near_pairs(images)
    if near and images.dtype == np.uint8:
        across = [part[a] != part[b] for a, b in near]
        facts.append(Fact("duplicates", "pairs of images that show one photograph", len(near)))
        facts.append(Fact("duplicates", "pairs of these across the parts", int(np.sum(across))))
    facts += _balance_facts("labels of pixels", [str(label) for label in masks.ravel().tolist()])
    if masks.max() > 1:
        return facts
    if near and images.dtype == np.uint8:
        overlaps = [_iou(masks[a], masks[b]) for a, b in near]
        facts.append(Fact("baselines", "IoU of two annotations of one photograph, least", min(overlaps), None))
        facts.append(Fact("baselines", "IoU of two annotations of one photograph, most", max(overlaps), None))
    held = sides[-1].known_labels
    mask = np.broadcast_to(constant_mask(train.known_labels), held.shape)
    facts.append(Fact("baselines", "foreground IoU, one mask for all", foreground_iou(held, mask).overall, None))
    facts.append(Fact("baselines", "pixels right, one mask for all", float(np.mean(held == mask)), None))
    facts.append(Fact("baselines", "pixels right, background throughout", float(np.mean(held == 0)), None))
    return facts


def _iou(mask: NDArray[Any], other: NDArray[Any]) -> float:
    union = int(((mask == 1) | (other == 1)).sum())
    return float(((mask == 1) & (other == 1)).sum() / union) if union else 1.0


# --- reviews and counts -----------------------------------------------------------------------------------------------


def review_facts(sides: Sequence[tuple[Sequence[str], NDArray[Any]]], counts: TokenDataset) -> list[Fact]:
    """Facts on texts with a label, in one part or two; ``counts`` are those of the training part."""
    parts = PARTS[: len(sides)]
    texts, labels = [text for side, _ in sides for text in side], np.concatenate([signs for _, signs in sides])
    part = np.repeat(np.arange(len(sides)), [len(side) for side, _ in sides])
    items = Repeats(numbered(texts), part, (labels > 0).astype(np.intp))
    facts = [Fact("size", "reviews", len(texts))]
    facts += [
        Fact("size", f"reviews, {name}", int((part == k).sum())) for k, name in enumerate(parts) if len(parts) > 1
    ]
    facts += repeat_facts("reviews", items, parts)
    for k, name in enumerate(parts):
        chosen = part == k
        facts.append(Fact("balance", f"positive reviews, {name}", int((labels[chosen] > 0).sum()), int(chosen.sum())))
        stated = sum(states_rating(text) for text, mine in zip(texts, chosen) if mine)
        facts.append(Fact("tokens", f"reviews that state their rating, {name}", stated, int(chosen.sum())))
    held = labels[part == part.max()]
    positive = bool(np.mean(labels[part == 0] > 0) >= 0.5)
    facts.append(
        Fact(
            "baselines", "labels right, the most frequent one throughout", float(np.mean((held > 0) == positive)), None
        )
    )
    return facts + _token_facts(counts, "words")


def count_facts(train: TokenDataset, test: TokenDataset | None) -> list[Fact]:
    """Facts on sequences as counts of tokens."""
    sides = [train] if test is None else [train, test]
    parts = PARTS[: len(sides)]
    rows = [counts[[i]] for side in sides for counts in (side.counts,) for i in range(side.n_samples)]
    keys = [(row.indices.tobytes(), row.data.tobytes()) for row in rows]
    labels, part = (
        np.concatenate([side.labels for side in sides]),
        np.repeat(np.arange(len(sides)), [len(s) for s in sides]),
    )
    items = Repeats(numbered(keys), part, (labels > 0).astype(np.intp))
    facts = [Fact("size", "sequences", len(keys)), *repeat_facts("sequences", items, parts)]
    facts.append(Fact("balance", "positive sequences", int((labels > 0).sum()), len(labels)))
    most = float(np.mean((sides[-1].labels > 0) == (np.mean(train.labels > 0) >= 0.5)))
    facts.append(Fact("baselines", "labels right, the most frequent one throughout", most, None))
    return facts + _token_facts(train, "tokens")


def _token_facts(data: TokenDataset, what: str) -> list[Fact]:
    """Facts on pure tokens, and on sequences with exactly one of them."""
    documents = np.diff(data.counts_csc.indptr)
    pure = np.isin(data.token_kinds, (TokenKind.POSITIVE, TokenKind.NEGATIVE))
    frequent = documents >= _LEAST_DOCUMENTS
    exactly_one = int(np.sum(data.check_assumption(limit=1).important >= 0))
    facts = [
        Fact("size", f"different {what}", int((documents > 0).sum())),
        Fact("tokens", f"pure {what}, which one class has", int(pure.sum()), int((documents > 0).sum())),
        Fact(
            "tokens",
            f"pure {what} among those in {_LEAST_DOCUMENTS} or more",
            int((pure & frequent).sum()),
            int(frequent.sum()),
        ),
        Fact("tokens", f"sequences with the most frequent pure {what[:-1]}", int(documents[pure].max(initial=0))),
        Fact("tokens", f"sequences with exactly one pure {what[:-1]}", exactly_one, data.n_samples),
    ]
    return facts + _length_facts("sequence", data.lengths)
