"""Tokenising and counting reviews, against scikit-learn's CountVectorizer with the same rule.

``run(quick, data)`` returns one row a candidate: ``benchmark``, ``case``, ``candidate``, ``status`` ("ok", "differs" or
"missing") and, if "ok", ``median``, ``min`` and ``max`` in seconds, ``peak_mib`` and ``ratio``, the median over that of
the best peer. Each candidate must first give the counts of a plain Python loop; only then is it timed, in rounds that
take every candidate once. (`runner.compare` checks arrays; here the columns are words and come in any order.)
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from attnembed.attention.reviews import load_reviews
from attnembed.attention.text import Tokenizer, count_reviews
from benchmarks.runner import Row, add_ratios

Counted = tuple[tuple[str, ...], Any]  # words in the order of the columns, sparse counts

FILES = ("imdb_train.tsv.gz", "imdb_test.tsv.gz")
WORD = r"[^\W_]+(?:'[^\W_]+)*"


def run(quick: bool, data: Path | None) -> list[Row]:
    """Count the 50,000 IMDB reviews in the folder ``data`` (2,000 if ``quick``), or generated ones without it."""
    if data is not None and all((data / name).is_file() for name in FILES):
        documents = [text for name in FILES for text in load_reviews(data / name).documents]
        documents = documents[:: len(documents) // 2000] if quick else documents
        case = f"{len(documents)} IMDB reviews"
    else:
        documents = made_up_reviews(2000 if quick else 10_000)
        case = f"{len(documents)} made-up reviews"
    candidates: dict[str, Callable[[list[str]], Counted] | None] = {
        "attnembed fit_transform": fit_transform,
        "attnembed fit, then transform": fit_then_transform,
        "plain Python loop": plain_loop,
        "CountVectorizer.fit_transform": count_vectorizer(passes=1),
        "CountVectorizer.fit, then transform": count_vectorizer(passes=2),
    }
    rows = compare(case, candidates, documents, rounds=3)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "reviews.tsv")
        lines = (f"{k % 2}\t{' '.join(text.split())}\n" for k, text in enumerate(documents))
        file.write_text("".join(lines), encoding="utf-8")
        from_file: dict[str, Callable[[list[str]], Counted] | None] = {
            "attnembed count_reviews": lambda _: counted_file(file, None),
            "attnembed count_reviews, from its cache": lambda _: counted_file(file, folder),
        }
        rows += compare(f"{case}, from a file", from_file, documents, rounds=3)
    return rows


def compare(
    case: str, candidates: dict[str, Callable[[list[str]], Counted] | None], documents: list[str], rounds: int
) -> list[Row]:
    """Check every candidate against the plain loop, then time those that agree, interleaved."""
    expected = alphabetical(*plain_loop(documents))
    rows, valid = [], {}
    for name, count in candidates.items():
        row: Row = {"benchmark": "text", "case": case, "candidate": name, "status": "missing"}
        rows.append(row)
        if count is None:
            row["note"] = "scikit-learn is not installed"
            continue
        words, counts = alphabetical(*count(documents))
        same = words == expected[0] and (counts != expected[1]).nnz == 0
        row["status"] = "ok" if same else "differs"
        if same:
            valid[name] = count
    seconds: dict[str, list[float]] = {name: [] for name in valid}
    for _ in range(rounds):
        for name, count in valid.items():
            start = time.perf_counter()
            count(documents)
            seconds[name].append(time.perf_counter() - start)
    for row in rows:
        if (name := row["candidate"]) in valid:
            taken = seconds[name]
            row.update(median=statistics.median(taken), min=min(taken), max=max(taken))
            row["peak_mib"] = peak(lambda count=valid[name]: count(documents))
    add_ratios(rows, own="attnembed")
    return rows


def peak(call: Callable[[], object]) -> float:
    """The peak memory of a call, in MiB, beyond that before it; tracing makes it slow."""
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20


def alphabetical(words: tuple[str, ...], counts: Any) -> tuple[list[str], sp.csr_array]:
    """The counts with the columns in alphabetical order, common to all candidates."""
    return sorted(words), sp.csr_array(counts)[:, np.argsort(np.array(words, dtype=object))]


def fit_transform(documents: list[str]) -> Counted:
    tokenizer = Tokenizer()
    counts = tokenizer.fit_transform(documents)
    return tokenizer.vocabulary, counts


def fit_then_transform(documents: list[str]) -> Counted:
    tokenizer = Tokenizer().fit(documents)
    return tokenizer.vocabulary, tokenizer.transform(documents)


def counted_file(file: Path, cache: str | None) -> Counted:
    result = count_reviews(file, Tokenizer(), cache=cache)
    return result.vocabulary, result.counts


def plain_text(text: str) -> str:
    """The preparation of a text by the rule; written independently of the package, as is WORD."""
    return unicodedata.normalize("NFC", re.sub("<br */?>", " ", text.lower())).replace("’", "'")


def plain_loop(documents: list[str]) -> Counted:
    """A dictionary and three lists."""
    index: dict[str, int] = {}
    data, columns, ends = [], [], [0]
    find = re.compile(WORD).findall
    for text in documents:
        for word, number in Counter(find(plain_text(text))).items():
            data.append(float(number))
            columns.append(index.setdefault(word, len(index)))
        ends.append(len(data))
    return tuple(index), sp.csr_array((data, columns, ends), shape=(len(documents), len(index)))


def count_vectorizer(passes: int) -> Callable[[list[str]], Counted] | None:
    """The counter of scikit-learn with the rule, or None if it is not installed."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError:
        return None

    def count(documents: list[str]) -> Counted:
        vectorizer = CountVectorizer(preprocessor=plain_text, token_pattern=WORD)
        counts = vectorizer.fit_transform(documents) if passes == 1 else vectorizer.fit(documents).transform(documents)
        return tuple(vectorizer.get_feature_names_out()), counts

    return count


def made_up_reviews(n: int) -> list[str]:
    """n texts of about 230 words with Zipf frequencies, the length and the growth of vocabulary of real reviews."""
    rng = np.random.default_rng(0)

    def texts() -> Iterator[str]:
        for length in rng.lognormal(5.2, 0.65, n).astype(int) + 10:
            ranks = rng.zipf(1.35, length) % 200_000
            yield " ".join(f"W{rank:x}{'.,!'[rank % 3] if rank % 7 == 0 else ''}" for rank in ranks)

    return [f'{text}<br /><br />It\'s "done".' for text in texts()]
