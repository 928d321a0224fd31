"""Words of texts and their counts: apostrophes, markup, minimal frequencies, and ties at the end of a vocabulary.

There is no right way to cut a text; the right value is the rule of `attnembed.Tokenizer`, worked out by hand. What is
compared is who follows it, so that counts of one package are not taken for those of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


CUT, ALL, TWO = "words of a text", "all words", "words in 2 documents or more"
COMMONEST = "the 2 commonest words, of which the second ties"

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
}
