# %% [markdown]
# # Your own reviews
#
# Any file of labelled texts works: `python examples/08_your_own_reviews.py reviews.csv`, with a column of texts and one
# of labels (0/1, neg/pos, stars, ...). Without a file the script writes a few hundred reviews. Words are counted, E
# takes one step, then E and p are trained: E_s . v orders the words by sentiment, and p . E_s is high for decisive
# words of either sign: a U over the posterior difference Delta_s.  docs/reviews.md

# %%
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.stats import spearmanr

import attnembed as ae
from attnembed.attention.text import drop_empty
from attnembed.attention.training import split_dataset
from attnembed.experiments.reviews import balanced
from attnembed.plotting import new_figure, save_figure, style

PRAISE = ["superb", "delightful", "moving", "witty", "charming", "good", "pleasant", "fine"]  # the clearest first
BLAME = ["dreadful", "dull", "clumsy", "boring", "noisy", "weak", "long", "slow"]
NOUNS = ["film", "plot", "cast", "music", "camera", "story", "ending", "script"]


# %% Generated reviews: "the plot was witty, the script was dull, ..."; even a good film may be long
def write_reviews(path: Path, n_reviews: int, rng: np.random.Generator) -> None:
    clarity = np.linspace(0.95, 0.1, len(PRAISE))
    lean = np.concatenate([clarity, -clarity])
    rows = ["label\ttext"]
    for sign, label in [(1, "pos"), (-1, "neg")] * (n_reviews // 2):
        adjectives = rng.choice(PRAISE + BLAME, size=6, p=(1 + sign * lean) / lean.size)
        clauses = [f"the {noun} was {word}" for noun, word in zip(rng.permutation(NOUNS), adjectives)]
        rows.append(f"{label}\t{', '.join(clauses)}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


# %% From a file to counts; rare words are left out
def read(path: Path) -> ae.TokenDataset:
    reviews = ae.load_reviews(path)
    tokenizer = ae.Tokenizer(min_documents=10, max_vocabulary=5000)
    counts, labels, _ = drop_empty(tokenizer.fit_transform(reviews.documents), reviews.labels)
    return ae.TokenDataset.from_counts(counts, labels, vocab=tokenizer.vocabulary)


# %% A small start, so that one step decides the values; then Adam
def fit(data: ae.TokenDataset, rng: np.random.Generator) -> ae.AttentionModel:
    start = ae.AttentionModel.random(data.vocab_size, 64, embedding_scale=1e-4, rng=rng)
    step = ae.one_step(start, data, step_size=0.5 / np.abs(data.signed_frequency).max())
    return ae.train(step.model, data, optimizer=ae.Adam(step_size=0.03), n_epochs=20).model


# %% The figure: one point per word; along Delta_s the most frequent word of each interval is labelled
def draw(data: ae.TokenDataset, model: ae.AttentionModel) -> Figure:
    delta, scores = data.posterior_difference, model.token_scores
    figure, [[ax]] = new_figure(panel=(8.0, 4.4))
    points = ax.scatter(delta, scores, c=model.token_values, s=14, cmap="cividis")
    figure.colorbar(points, ax=ax, label=r"$E_s \cdot v$", pad=0.01)
    _, named = np.unique(np.round(delta * 7), return_index=True)  # words are ordered by frequency
    for s in named:  # in the space inside the U
        side = {"rotation": -35, "ha": "right"} if delta[s] > 0 else {"rotation": 35, "ha": "left"}
        text = ax.annotate(data.vocab[s], (delta[s], scores[s]), (0, 3), textcoords="offset points", **side)
        text.set(rotation_mode="anchor", path_effects=[withStroke(linewidth=3, foreground="white")])
    ax.set(xlabel=r"posterior difference $\Delta_s$", ylabel=r"$p \cdot E_s$", xlim=(-1.1, 1.1), ymargin=0.15)
    return figure


# %% Three numbers: the accuracy on a held-out fifth of the reviews, and how well theory orders the words
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0, path: str = "") -> dict[str, float]:
    """Read the reviews at ``path``, or write some first; train on four fifths of them."""
    generator = np.random.default_rng(rng)
    source = Path(path or Path(out_dir) / "08_reviews.tsv")
    if not path:
        source.parent.mkdir(parents=True, exist_ok=True)
        write_reviews(source, 300 if quick else 800, generator)
    rest, held_out = split_dataset(read(source), 0.2, rng=generator)
    data = balanced(rest, generator)  # otherwise Delta_s would reflect the class sizes
    model = fit(data, generator)

    with style():
        save_figure(draw(data, model), Path(out_dir) / "08_your_own_reviews.png", show=True)
    absolute = np.abs(data.posterior_difference)
    return {
        "accuracy on held-out reviews": model.accuracy(held_out),
        "Spearman(E_s . v, alpha_s)": float(spearmanr(model.token_values, data.signed_frequency).statistic),
        "Spearman(p . E_s, |Delta_s|)": float(spearmanr(model.token_scores, absolute).statistic),
    }


# %%
if __name__ == "__main__":
    file = "" if "ipykernel" in sys.modules else "".join(sys.argv[1:2])  # a kernel has arguments of its own
    for name, value in main(path=file).items():
        print(f"{name}: {value:.4g}")
