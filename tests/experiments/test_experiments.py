"""Experiments write whole files with all that made them; their numbers say what the theory predicts."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnembed as ae
from attnembed import plotting
from attnembed.errors import DataFileError, DataNotGivenError, InputError
from attnembed.experiments import experiments, registry, reproduce
from attnembed.experiments.bag_of_words import BagOfWords, balanced_accuracy
from attnembed.experiments.registry import Experiment, Outcome, Request, Written, _registry, number_rows
from attnembed.experiments.review_corpus import balanced, load_corpus
from attnembed.experiments.review_pictures import Picture, choose_min_documents
from attnembed.experiments.reviews import ReviewOptions, Run, spread

pytestmark = pytest.mark.usefixtures("plain_layout")


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, Path]:
    """A run with seed 1, and its folder."""
    folder = tmp_path_factory.mktemp("selection")
    return reproduce("selection", out=folder, quick=True, rng=1), folder


def test_selection_agrees_with_its_predictions(selection: tuple[Written, Path]) -> None:
    written, folder = selection
    content = json.loads((folder / "selection-quick.json").read_text())
    assert {"parameters", "seed", "versions", "numbers"} <= set(content)
    assert content["seed"] == 1
    numbers = content["numbers"]
    assert numbers["hypotheses_hold"] is True
    assert numbers["sequences_selecting_their_top_token"] == 1
    assert abs(numbers["scaled_loss_gap"] - 1) < 1e-6
    assert numbers["distance_to_asymptote"] < 1e-3 < numbers["norm_of_p"]
    assert "selection, quick run: " in str(written)
    assert (folder / "selection-quick.png").read_bytes().startswith(b"\x89PNG")


def test_alignment_has_the_predicted_slope_and_exponent(tmp_path: Path) -> None:
    numbers = reproduce("alignment", out=tmp_path, quick=True).numbers
    assert abs(numbers["measured_slope"] / numbers["predicted_slope"] - 1) < 0.1
    assert abs(numbers["error_exponent_in_dim"] + 0.5) < 0.15
    assert 0.05 < numbers["largest_error_over_bound"] <= 1


@pytest.mark.slow
def test_phase_diagram_has_its_window(tmp_path: Path) -> None:
    numbers = reproduce("phase-diagram", out=tmp_path, quick=True).numbers
    assert numbers["small_step_sufficient_below"] < 505 < numbers["failing_from"] < 800
    assert 2500 < numbers["failing_to"] < 3790 < numbers["large_step_sufficient_above"]
    assert numbers["largest_attention_inside"] < 1e-6
    assert numbers["smallest_attention_outside"] > 1 - 1e-6


def test_the_same_seed_gives_the_same_numbers(
    selection: tuple[Written, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path, **options: Path(path).touch())
    first = dict(selection[0].numbers)
    second, third = (
        dict(reproduce("selection", out=tmp_path / str(seed), quick=True, rng=seed).numbers) for seed in (1, 4)
    )
    assert first == second
    assert first["norm_of_p"] != third["norm_of_p"]


def test_a_failing_figure_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    target = tmp_path / "selection.png"
    target.write_bytes(b"old")

    def broken(self: Figure, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(DataFileError, match="No space left"):
        reproduce("selection", out=tmp_path, quick=True)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["selection.png"]


def test_unknown_names_and_missing_data_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTNEMBED_DATA", raising=False)
    with pytest.raises(InputError, match="`name` must be one of 'alignment'"):
        reproduce("dance", out=tmp_path)
    with pytest.raises(DataNotGivenError, match="pass --data PATH"):
        reproduce("imdb", out=tmp_path)
    with pytest.raises(DataFileError, match="imdb_train"):
        reproduce("imdb", data=tmp_path, out=tmp_path)
    assert {entry.name for entry in experiments()} >= {
        "alignment",
        "selection",
        "phase-diagram",
        "reviews",
        "imdb",
        "yelp",
    }


WORDS = {1: ["great", "fine", "warm"], -1: ["dull", "poor", "cold"]}


def write_reviews(path: Path, n: int = 400, seed: int = 0) -> None:
    """Reviews of twelve words, one of which decides."""
    rng = np.random.default_rng(seed)
    filler = [f"word{k}" for k in range(20)]
    with path.open("w", encoding="utf-8") as stream:
        for k in range(n):
            label = 1 if k % 2 else -1
            words = [*rng.choice(filler, 11), rng.choice(WORDS[label])]
            stream.write(f"{max(label, 0)}\t{' '.join(rng.permutation(words))}\n")


def test_reviews_from_a_file_give_the_picture(tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.tsv")
    written = reproduce("yelp", data=tmp_path / "reviews.tsv", out=tmp_path / "out", quick=True)
    numbers = written.numbers
    assert numbers["test_accuracy.attention"]["mean"] > 0.97
    assert numbers["one_step.spearman_values_signed_frequency"]["mean"] > 0.95
    assert numbers["trained.quadratic_in_standard_errors"]["mean"] > 10
    for key, words in (("most_attended_positive", WORDS[1]), ("most_attended_negative", WORDS[-1])):
        assert set(numbers[key][:2]) <= set(words)
    # These reviews are shorter than those that the figure of examples shows.
    # They are not the reviews of Yelp, and are not called so.
    assert {path.name for path in written.files} == {"reviews-quick.png", "reviews-quick.json"}


QUICK = "quick run, for a first look"


def write_sentences(path: Path, n: int, seed: int = 0) -> None:
    """Sentences of 4 to 19 words by Zipf's law over 3,000, and one word of 30 that tells the class."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, 3001)
    with path.open("w", encoding="utf-8") as stream:
        for k in range(n):
            words = [f"w{s}" for s in rng.choice(3000, size=rng.integers(4, 20), p=shares / shares.sum())]
            words.append(f"{('bad', 'good')[k % 2]}{rng.integers(30)}")
            stream.write(f"{k % 2}\t{' '.join(rng.permutation(words))}\n")


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("reviews", 24),
        pytest.param("imdb", 24, marks=pytest.mark.slow),
        pytest.param("reviews", 200, marks=pytest.mark.slow),
        pytest.param("imdb", 1000, marks=pytest.mark.slow),
    ],
)
def test_labelled_text_of_any_size_gives_the_picture(tmp_path: Path, name: str, n: int) -> None:
    file = tmp_path / "sentences.tsv"
    write_sentences(file, n)
    types = {word for line in file.read_text().splitlines() for word in line.split("\t")[1].split()}
    written = reproduce(name, data=file, out=tmp_path, data_name="mine")  # a full run, with the flow
    assert {path.name for path in written.files} == {"mine.png", "mine.json"}
    content = json.loads((tmp_path / "mine.json").read_text())
    assert (content["experiment"], content["data_name"], content["quick"]) == (name, "mine", False)
    numbers = content["numbers"]
    assert len(types) < 2000 or n == 1000
    assert numbers["tokens_shown"] >= 5
    assert 2 <= numbers["min_documents"] <= 50
    for key, value in numbers.items():
        if isinstance(value, dict):
            assert np.isfinite([value["mean"], value["std"]]).all(), key
        elif isinstance(value, (int, float, str)):
            assert np.isfinite(value), key


def test_how_many_documents_a_shown_word_needs() -> None:
    def least(documents: list[int]) -> int:
        rng = np.random.default_rng(0)
        rows = [(s, i) for s, n in enumerate(documents) for i in range(n)]
        counts = np.zeros((max(documents) + 1, len(documents) + 1))
        counts[:, -1] = 1
        for s, i in rows:
            counts[i, s] = rng.integers(1, 9)
        labels = np.where(np.arange(len(counts)) % 2 == 0, 1, -1)
        return choose_min_documents(ae.TokenDataset.from_counts(counts, labels), Path("x"))

    assert least([200] * 300) == 50
    assert least([50] * 99 + [49] * 300) == 50  # and the word that is in every document
    assert least([50] * 50 + [30] * 300) == 30
    assert least([1] * 500 + [2] * 20) == 2


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["1\tgood"] * 2 + ["0\tbad"] * 9, "holds too few reviews: 2 positive and 9 negative; at least 3 of each"),
        (["1\t!!"] * 9 + ["1\tgood"] * 3 + ["0\tbad"], "holds too few reviews: 3 positive and 1 negative"),
        (
            ["1\tgood film", "0\tbad film"] * 9,
            r"holds too little text: the words that \d+ reviews or more share take 3",
        ),
        (["1\tthe film", "0\tthe film"] * 9, "holds too little text"),
        (["1\tnever the same", "0\talways something else"], "holds too few reviews: 1 positive and 1 negative"),
    ],
)
def test_what_is_too_little_is_said_in_a_sentence(tmp_path: Path, lines: list[str], words: str) -> None:
    (tmp_path / "few.tsv").write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DataFileError, match=f"few.tsv: {words}"):
        reproduce("reviews", data=tmp_path / "few.tsv", out=tmp_path / "out")


def test_words_that_tell_nothing_are_too_little() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, size=(20, 12))
    data = ae.TokenDataset.from_counts(np.concatenate([counts, counts]), np.repeat([1, -1], 20))
    with pytest.raises(DataFileError, match="holds too little text"):
        choose_min_documents(data, Path("x"))


def test_names_for_data_are_words_and_belong_to_the_reviews(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`data_name` belongs to imdb, reviews, yelp; got 'mine' for selection"):
        reproduce("selection", out=tmp_path, data_name="mine")
    for wrong in ("../mine", "a b", ".hidden", "/etc"):
        with pytest.raises(InputError, match="`data_name` must be a word"):
            reproduce("reviews", data=tmp_path, out=tmp_path, data_name=wrong)
    with pytest.raises(InputError, match="`data_name` must be text"):
        reproduce("reviews", data=tmp_path, out=tmp_path, data_name=3)  # type: ignore[arg-type]


def test_a_quick_run_is_marked_everywhere_and_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def run(request: Request) -> Outcome:
        def draw() -> Any:
            figure = plotting.new_figure()[0]
            if not drawn:
                figure.suptitle("title")
            drawn.append("")
            figure.savefig = lambda path, **options: (  # type: ignore[method-assign]
                Path(path).write_bytes(b"png"),
                drawn.append(figure.get_suptitle()),
            )
            return figure

        return Outcome({}, {"x": 1.0}, {"made-up": draw, "made-up-more": draw}, text="a table\n")

    monkeypatch.setitem(_registry, "made-up", Experiment("made-up", "made up", run))
    monkeypatch.setattr(registry, "experiments", lambda: tuple(_registry.values()))
    whole = reproduce("made-up", out=tmp_path)
    before = {path: path.read_bytes() for path in whole.files}
    assert [path.name for path in whole.files] == ["made-up.md", "made-up.png", "made-up-more.png", "made-up.json"]
    assert "quick run" not in str(whole)
    drawn.clear()
    quick = reproduce("made-up", out=tmp_path, quick=True)
    assert [path.name for path in quick.files] == [
        "made-up-quick.md",
        "made-up-quick.png",
        "made-up-more-quick.png",
        "made-up-quick.json",
    ]
    assert [text for text in drawn if text] == [f"{QUICK}\ntitle", QUICK]
    assert "made-up, quick run: " in str(quick)
    assert (tmp_path / "made-up-quick.md").read_text().startswith("**Quick run**")
    assert json.loads((tmp_path / "made-up-quick.json").read_text())["quick"] is True
    assert {path: path.read_bytes() for path in whole.files} == before


def test_a_single_run_shows_no_spread() -> None:
    once = {"mean": 0.5, "std": None}
    rows = dict(number_rows({"a": once, "b": {"mean": 0.5, "std": 0.1}, "c": {"mean": 0.5, "standard_error": np.nan}}))
    assert rows == {"a": "0.5", "b": "0.5 +- 0.1", "c": "0.5"}
    assert spread([0.5]) == once
    assert spread([1.0, 2.0, 3.0]) == {"mean": 2.0, "std": 1.0}


def test_shuffled_labels_give_no_picture(tmp_path: Path) -> None:
    """The negative control: where words say nothing of the label, nothing is learned."""
    write_reviews(tmp_path / "reviews.tsv")
    lines = (tmp_path / "reviews.tsv").read_text().splitlines()
    labels = np.random.default_rng(0).permutation([line[0] for line in lines])
    (tmp_path / "reviews.tsv").write_text("".join(f"{y}{line[1:]}\n" for y, line in zip(labels, lines)))
    numbers = reproduce("yelp", data=tmp_path / "reviews.tsv", out=tmp_path / "out", quick=True).numbers
    assert abs(numbers["test_accuracy.attention"]["mean"] - 0.5) < 0.2


@pytest.mark.parametrize(
    "layout", ["archive", pytest.param("folder", marks=pytest.mark.slow), pytest.param("pair", marks=pytest.mark.slow)]
)
def test_reviews_in_training_and_test_parts(tmp_path: Path, layout: str) -> None:
    for k, part in enumerate(("train", "test")):
        write_reviews(tmp_path / f"imdb_{part}.tsv", n=300, seed=k)
        rows = [line.split("\t") for line in (tmp_path / f"imdb_{part}.tsv").read_text().splitlines()]
        if layout != "pair":
            for j, (label, text) in enumerate(rows):
                file = tmp_path / "aclImdb" / part / ("pos" if label == "1" else "neg") / f"{j}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        else:
            import gzip

            with gzip.open(tmp_path / f"imdb_{part}.tsv.gz", "wt") as stream:
                stream.writelines("\t".join(row) + "\n" for row in rows)
    data = tmp_path
    if layout == "archive":
        data = tmp_path / "aclImdb_v1.tar.gz"
        with tarfile.open(data, "w:gz") as archive:
            archive.add(tmp_path / "aclImdb", "aclImdb")
    numbers = reproduce("imdb", data=data, out=tmp_path / "out", quick=True).numbers
    assert numbers["test_reviews"] == 300
    assert numbers["test_accuracy.attention"]["mean"] > 0.97


def test_balancing_repeats_the_smaller_class() -> None:
    data = ae.TokenDataset.from_tokens([[0], [1], [1], [0, 1], [1]], [1, -1, -1, -1, -1])
    even = balanced(data, np.random.default_rng(0))
    assert even.labels.sum() == 0
    assert even.n_samples == 8
    assert even.posterior_difference[0] > data.posterior_difference[0]


def test_balanced_accuracy_weighs_the_classes_equally() -> None:
    data = ae.TokenDataset.from_tokens([[0]] * 5, [1, 1, 1, 1, -1])
    assert balanced_accuracy(data, np.ones(5)) == 0.5
    assert balanced_accuracy(data, data.labels) == 1.0


def test_the_baseline_reaches_its_stationary_point() -> None:
    data = ae.make_iid_dataset(
        n_samples=200, length=20, positive_probs=[0.5, 0.2, 0.3], negative_probs=[0.2, 0.5, 0.3], rng=0
    )
    model = BagOfWords.fit(data, data)
    x, y = BagOfWords.features(data), data.labels
    np.testing.assert_allclose(x.multiply(x).sum(axis=1), 1, rtol=1e-12)
    slope = -y / (1 + np.exp(y * model.output(data))) / y.size
    gradient = x.T @ slope + model.penalty * model.weights
    assert np.linalg.norm(gradient) < 1e-2 * np.linalg.norm(x.T @ y / y.size)
    assert balanced_accuracy(data, model.output(data)) > 0.9 > balanced_accuracy(data, -model.output(data))


def test_the_picture_finds_a_parabola_and_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    tilt = rng.uniform(-0.9, 0.9, size=200)
    probs = np.stack([1 + tilt, 1 - tilt])
    probs /= probs.sum(axis=1, keepdims=True)
    data = ae.make_iid_dataset(n_samples=4000, length=20, positive_probs=probs[0], negative_probs=probs[1], rng=rng)
    delta = np.nan_to_num(data.posterior_difference)
    E = np.stack([delta, 3 * delta**2 + 0.1 * rng.standard_normal(200)], axis=1)
    picture = Picture.of(ae.AttentionModel(E, [0.0, 1.0], [1.0, 0.0]), data)
    assert abs(picture.numbers["quadratic_coefficient"] - 3) < 4 * picture.numbers["quadratic_standard_error"] < 0.5
    assert picture.numbers["spearman_scores_absolute_difference"] > 0.9
    flat = Picture.of(ae.AttentionModel(E, [0.0, 0.0], [1.0, 0.0]), data)
    assert flat.numbers["spearman_scores_absolute_difference"] == 0
    assert "quadratic_coefficient" not in flat.numbers


@pytest.mark.thorough  # half a minute; the same picture of Yelp takes a third
def test_imdb_reaches_the_papers_picture(data_folder: Path, tmp_path: Path) -> None:
    numbers = reproduce("imdb", data=data_folder, out=tmp_path, quick=True).numbers
    assert numbers["one_step.spearman_values_signed_frequency"]["mean"] >= 0.97
    assert numbers["trained.spearman_scores_absolute_difference"]["mean"] >= 0.92
    assert numbers["trained.quadratic_in_standard_errors"]["mean"] >= 10
    assert numbers["test_accuracy.attention"]["mean"] >= 0.88
    # The negative control: scores against a p that has not been trained show nothing.
    assert abs(numbers["one_step.spearman_scores_absolute_difference"]["mean"]) < 0.1


@pytest.mark.slow
def test_yelp_shows_the_same_picture(data_folder: Path, tmp_path: Path) -> None:
    numbers = reproduce("yelp", data=data_folder, out=tmp_path, quick=True).numbers
    assert numbers["one_step.spearman_values_signed_frequency"]["mean"] >= 0.97
    assert numbers["trained.spearman_scores_absolute_difference"]["mean"] >= 0.9
    # One split of 3,495 reviews: the balanced accuracy has a standard error of 0.006 about its mean of 0.92.
    assert numbers["test_balanced_accuracy.attention"]["mean"] >= 0.905


@pytest.mark.slow
def test_ratings_are_left_out_of_a_second_training(tmp_path: Path) -> None:
    """Here the rating alone decides: without it chance is left."""
    rng = np.random.default_rng(0)
    signs = rng.integers(0, 2, size=300)
    words = [" ".join(rng.choice(["alpha", "beta", "gamma", "delta", "eta", "zeta"], 6)) for _ in signs]
    text = "".join(f"{sign}\t{word} {9 if sign else 2} 10\n" for sign, word in zip(signs, words))
    (tmp_path / "reviews.tsv").write_text(text)
    corpus = load_corpus(tmp_path / "reviews.tsv", (), vocabulary=100, cache=tmp_path)
    run = Run.draw(corpus, ReviewOptions(epochs=5), np.random.default_rng(0))
    for name in ("attention", "bag_of_words"):
        assert run.numbers[f"test_balanced_accuracy.{name}"] > 0.9
        assert run.numbers[f"test_balanced_accuracy.{name}_without_ratings"] < 0.75
    plain = Run.draw(corpus, ReviewOptions(epochs=5, also_without_ratings=False), np.random.default_rng(0))
    assert plain.numbers.items() < run.numbers.items()
