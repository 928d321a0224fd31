"""Words of texts and their counts: apostrophes, markup, minimal frequencies, and ties at the end of a vocabulary.

There is no right way to cut a text; the right value is the rule of `attnembed.Tokenizer`, worked out by hand. What is
compared is who follows it, so that counts of one package are not taken for those of another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import attnembed as ae
from benchmarks.agreement import Problem, Reason, Reasons

TEXT = "Don't miss it!<br />A CLASSIC, isn\u2019t it?"
DOCUMENTS = ["good good good", "good film", "bad film", "a bad bore"]  # good occurs 4 times, in 2 documents


# --- words


def sklearn_words(text: str) -> Any:
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer().build_analyzer()(text)


def gensim_words(text: str) -> Any:
    from gensim.utils import simple_preprocess

    return simple_preprocess(text)


def nltk_words(text: str) -> Any:
    from nltk.tokenize import TreebankWordTokenizer

    return TreebankWordTokenizer().tokenize(text)


def nltk_tweet_words(text: str) -> Any:
    from nltk.tokenize import TweetTokenizer

    return TweetTokenizer(preserve_case=False).tokenize(text)


WORDS: dict[str, Callable[[str], Any]] = {
    "attnembed": lambda text: ae.Tokenizer().tokenize(text),
    "scikit-learn, CountVectorizer": sklearn_words,
    "gensim, simple_preprocess": gensim_words,
    "nltk, TreebankWordTokenizer": nltk_words,
    "nltk, TweetTokenizer": nltk_tweet_words,
}

# --- vocabularies


def sklearn_vocabulary(**options: Any) -> Any:
    from sklearn.feature_extraction.text import CountVectorizer

    return sorted(CountVectorizer(**options).fit(DOCUMENTS).vocabulary_)


def gensim_vocabulary(least: int = 1, most: int | None = None) -> Any:
    from gensim.corpora import Dictionary

    dictionary = Dictionary([text.split() for text in DOCUMENTS])
    dictionary.filter_extremes(no_below=least, no_above=1.0, keep_n=most)
    return sorted(dictionary.token2id)


def nltk_vocabulary(least: int = 1, most: int | None = None) -> Any:
    from nltk.lm import Vocabulary
    from nltk.probability import FreqDist

    words = [word for text in DOCUMENTS for word in text.split()]
    if most is not None:
        return sorted(word for word, _ in FreqDist(words).most_common(most))
    return sorted(set(Vocabulary(words, unk_cutoff=least)) - {"<UNK>"})


def own_vocabulary(**options: Any) -> Any:
    return sorted(ae.Tokenizer(**options).fit(DOCUMENTS).vocabulary)


# --- a file of counts in the SVMlight format, with ids from 0, of which 0 does not occur

LINES = "9 1:2 2:1\n3 2:4\n"


def from_file(read: Callable[[str], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "labeledBow.feat")
        path.write_text(LINES, encoding="utf-8")
        return read(str(path))


def sklearn_file(path: str, **options: Any) -> Any:
    from sklearn.datasets import load_svmlight_file

    return load_svmlight_file(path, **options)[0].toarray()


def gensim_file(path: str) -> Any:
    from gensim.corpora import SvmLightCorpus
    from gensim.matutils import corpus2dense

    return corpus2dense(SvmLightCorpus(path), num_terms=3).T


READERS: dict[str, Callable[[str], Any]] = {
    "attnembed": lambda path: ae.load_counts(path).counts.toarray(),
    "scikit-learn, load_svmlight_file": sklearn_file,
    "scikit-learn, load_svmlight_file(zero_based=True)": lambda path: sklearn_file(path, zero_based=True),
    "gensim, SvmLightCorpus": gensim_file,
}

CUT, ALL, TWO = "words of a text", "all words", "words in 2 documents or more"
COMMONEST = "the 2 commonest words, of which the second ties"
COUNTS = "counts from an SVMlight file with ids from 0, of which 0 does not occur"

PROBLEMS = [
    Problem(
        CUT,
        ["don't", "miss", "it", "a", "classic", "isn't", "it"],
        "the rule of Tokenizer, by hand",
        {name: lambda cut=cut: cut(TEXT) for name, cut in WORDS.items()},
    ),
    Problem(
        ALL,
        ["a", "bad", "bore", "film", "good"],
        "the texts",
        {
            "attnembed": own_vocabulary,
            "scikit-learn, CountVectorizer": sklearn_vocabulary,
            "gensim, Dictionary": gensim_vocabulary,
            "nltk, Vocabulary": nltk_vocabulary,
        },
    ),
    Problem(
        TWO,
        ["bad", "film", "good"],
        "counted by hand",
        {
            "attnembed": lambda: own_vocabulary(min_documents=2),
            "scikit-learn, min_df": lambda: sklearn_vocabulary(min_df=2),
            "gensim, no_below": lambda: gensim_vocabulary(least=2),
            "nltk, unk_cutoff": lambda: nltk_vocabulary(least=2),
        },
    ),
    Problem(
        COMMONEST,
        ["bad", "good"],
        "good 4 times, bad and film twice; alphabetically",
        {
            "attnembed": lambda: own_vocabulary(max_vocabulary=2),
            "scikit-learn, max_features": lambda: sklearn_vocabulary(max_features=2),
            "gensim, keep_n": lambda: gensim_vocabulary(most=2),
            "nltk, most_common": lambda: nltk_vocabulary(most=2),
        },
    ),
    Problem(
        COUNTS,
        np.array([[0.0, 2.0, 1.0], [0.0, 0.0, 4.0]]),
        "the lines of the file",
        {name: lambda read=read: from_file(read) for name, read in READERS.items()},
    ),
]

MARKUP = "markup is text to it (br is a word)"
LETTERS = "strip the markup first, and give all packages the same words: `Tokenizer().tokenize` as analyzer"
FIRST = Reason(
    "of equally frequent words it keeps those that come first in the texts, so that the order of the texts matters",
    "choose the words yourself, or keep all that tie",
)
REASONS: Reasons = {
    (CUT, "scikit-learn, CountVectorizer"): Reason(
        f"the default token_pattern takes runs of two letters or more: apostrophes separate, t and a go; {MARKUP}",
        LETTERS,
    ),
    (CUT, "gensim, simple_preprocess"): Reason(
        f"apostrophes separate, and words of one letter or above 15 are dropped (min_len, max_len); {MARKUP}", LETTERS
    ),
    (CUT, "nltk, TreebankWordTokenizer"): Reason(
        "it expects one sentence without markup, keeps capitals and punctuation, and cuts n't off; the typographic "
        "apostrophe is a letter to it",
        LETTERS,
    ),
    (CUT, "nltk, TweetTokenizer"): Reason(
        "punctuation and markup are words; the typographic apostrophe separates, the straight one does not", LETTERS
    ),
    (ALL, "scikit-learn, CountVectorizer"): Reason(
        "words of one letter are lost to the default token_pattern", 'token_pattern=r"(?u)\\b\\w+\\b"'
    ),
    (COMMONEST, "gensim, keep_n"): Reason(
        "frequent means in many documents here, where all three tie at 2; " + FIRST.why, FIRST.advice
    ),
    (COMMONEST, "nltk, most_common"): FIRST,
    (COUNTS, "scikit-learn, load_svmlight_file"): Reason(
        "zero_based is guessed from the smallest id, 1 here, so that all move one column to the left; the files of the "
        "Large Movie Review Dataset begin at 0",
        "pass zero_based=True, and n_features",
    ),
    (COUNTS, "gensim, SvmLightCorpus"): Reason(
        "ids in a file begin at 1 for it: it takes one off each", "add 1 to the ids of a file that begins at 0"
    ),
}
