"""Chains from the arrays of other packages: what they score there, they score here."""

from __future__ import annotations

from itertools import pairwise as neighbours
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import attnembed as ae
from attnembed.errors import InputError, InputTypeError
from benchmarks.crfsuite_file import read_weights

K, F = 3, 4


def arrays(seed: int = 0, **sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"transitions": (K, K), "weights": (F, K), "bias": (K,), "start": (K,), "end": (K,)} | sizes
    return {name: rng.normal(size=size) for name, size in sizes.items()}


def log_likelihood(unary, labels, transitions, start=0.0, end=0.0) -> float:
    """log P(Y), with Z as the sum over all labelings."""
    start, end = np.zeros(len(transitions)) + start, np.zeros(len(transitions)) + end

    def score(y) -> float:
        inner = sum(unary[i, k] for i, k in enumerate(y)) + sum(transitions[a, b] for a, b in neighbours(y))
        return start[y[0]] + inner + end[y[-1]]

    scores = [score(y) for y in product(range(len(transitions)), repeat=len(unary))]
    return score(labels) - float(np.logaddexp.reduce(scores))


def sequences(seed: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    lengths = (4, 1, 3)
    return [rng.normal(size=(n, F)) for n in lengths], [rng.integers(0, K, n) for n in lengths]


def test_a_linear_chain_by_enumeration():
    given, (xs, ys) = arrays(), sequences()
    model = ae.ChainCRF.from_arrays(**given)
    ends = given["transitions"], given["start"], given["end"]
    truth = [log_likelihood(x @ given["weights"] + given["bias"], y, *ends) for x, y in zip(xs, ys)]
    assert -model.loss(ae.ChainDataset(xs, ys)) * len(xs) == pytest.approx(sum(truth), abs=1e-12)


def test_without_weights_the_inputs_are_the_potentials():
    given = arrays()
    model = ae.ChainCRF.from_arrays(given["transitions"])
    unary, labels = np.random.default_rng(2).normal(size=(4, K)), [0, 2, 2, 1]
    truth = log_likelihood(unary, labels, given["transitions"])
    assert -model.loss(ae.ChainDataset([unary], [labels])) == pytest.approx(truth, abs=1e-12)
    assert_array_equal(model.predict(ae.ChainDataset([unary]))[0], ae.chain_viterbi(unary, given["transitions"]))


def test_rows_of_the_weights_are_summed_for_indicators():
    given, ids = arrays(), np.array([[0, 1], [3, 3], [2, 0]])
    counts = np.array([np.bincount(row, minlength=F) for row in ids], dtype=float)
    summed = ae.ChainCRF.from_arrays(**given, indicators=True).unary(ae.ChainDataset([ids]))
    assert_allclose(summed, counts @ given["weights"] + given["bias"], rtol=1e-14)


def test_arrays_are_copied_keep_their_precision_and_can_be_trained():
    given = {name: value.astype(np.float32) for name, value in arrays().items()}
    model = ae.ChainCRF.from_arrays(**given)
    before = model.parameters()
    assert {value.dtype for name, value in before.items() if not name.endswith("scale")} == {np.dtype(np.float32)}
    for value in given.values():
        value[...] = 7.0
    assert all(np.array_equal(value, before[name]) for name, value in model.parameters().items())
    data = ae.ChainDataset(*sequences())
    trained = ae.train_structured(model, data, n_epochs=3, optimizer=ae.Adam(step_size=0.1), rng=0).last_model
    assert trained.loss(data) < model.loss(data)


def test_minus_infinity_forbids():
    given = arrays()
    given["transitions"][0, 1] = given["start"][2] = -np.inf
    model = ae.ChainCRF.from_arrays(**given)
    assert not model.allowed[0, 1]
    assert not model.start_allowed[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transitions": np.zeros((2, 3))}, r"`transitions` must be a square matrix \(K, K\); got shape \(2, 3\)"),
        ({"transitions": np.zeros((0, 0))}, r"`transitions` must be a square matrix \(K, K\); got shape \(0, 0\)"),
        ({"transitions": np.full((K, K), np.nan)}, r"`transitions` must be finite or -inf; got nan at index \(0, 0\)"),
        ({"weights": np.zeros((K, F))}, r"`weights` must have shape \(F, 3\); got shape \(3, 4\); .*weights.T"),
        ({"weights": np.zeros((5, F))}, r"`weights` must have shape \(F, 3\); got shape \(5, 4\); .*one row per"),
        ({"bias": np.zeros(2)}, r"`bias` must have shape \(3,\)"),
        ({"start": np.zeros(2)}, r"`start` must have shape \(3,\)"),
        ({"end": np.full(K, np.inf)}, r"`end` must be finite"),
        ({"weights": None}, r"`bias` belongs to `weights`; got no weights"),
        ({"weights": None, "bias": None, "indicators": True}, r"`indicators` belongs to `weights`"),
    ],
)
def test_arrays_that_do_not_fit_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        ae.ChainCRF.from_arrays(**arrays() | changes)


def test_a_tensor_that_numpy_may_not_read_is_named_with_what_to_do():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")

    for name in ("transitions", "weights", "bias", "start", "end"):
        with pytest.raises(InputTypeError, match=rf"`{name}` must be an array; got Tensor; .*detach\(\)"):
            ae.ChainCRF.from_arrays(**arrays() | {name: Tensor()})


# --- peers, which the default environment does not have ---------------------------------------------------------


def test_the_log_likelihood_of_pytorch_crf():
    torch = pytest.importorskip("torch", reason="a peer: pip install attnembed[bench]")
    torchcrf = pytest.importorskip("torchcrf", reason="a peer: pip install attnembed[bench]")
    torch.manual_seed(0)
    xs, ys = sequences()
    layer, linear = torchcrf.CRF(K, batch_first=True).double(), torch.nn.Linear(F, K).double()
    mask = torch.arange(4) < torch.tensor([len(x) for x in xs])[:, None]
    inputs, labels = torch.zeros(3, 4, F, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.long)
    inputs[mask], labels[mask] = torch.from_numpy(np.concatenate(xs)), torch.from_numpy(np.concatenate(ys))
    optimizer = torch.optim.Adam([*layer.parameters(), *linear.parameters()], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        loss = -layer(linear(inputs), labels, mask=mask, reduction="sum")
        loss.backward()
        optimizer.step()
    named = {"transitions": layer.transitions, "start": layer.start_transitions, "end": layer.end_transitions}
    named |= {"weights": linear.weight.T, "bias": linear.bias}
    model = ae.ChainCRF.from_arrays(**{name: value.detach().numpy() for name, value in named.items()})
    with torch.no_grad():
        theirs = float(layer(linear(inputs), labels, mask=mask, reduction="sum"))
        decoded = layer.decode(linear(inputs), mask=mask)
    data = ae.ChainDataset(xs, ys)
    assert -model.loss(data) * len(data) == pytest.approx(theirs, rel=1e-10)
    assert [labels.tolist() for labels in model.predict(data)] == decoded


@pytest.mark.parametrize("indicators", [False, True])
def test_the_log_likelihood_of_crfsuite(tmp_path: Path, indicators: bool):
    pycrfsuite = pytest.importorskip("pycrfsuite", reason="a peer: pip install attnembed[bench]")
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 6, (n, 2)) for n in rng.integers(1, 6, 30)]
    tags = [[f"y{(row[0] + rng.integers(0, 2)) % K}" for row in x] for x in ids]
    items = [pycrfsuite.ItemSequence([_values(row, rng, indicators) for row in x]) for x in ids]
    trainer = pycrfsuite.Trainer(verbose=False)
    for item, y in zip(items, tags):
        trainer.append(item, y)
    trainer.set_params({"max_iterations": 30})
    trainer.train(str(tmp_path / "model"))
    tagger = pycrfsuite.Tagger()
    tagger.open(str(tmp_path / "model"))
    weights = read_weights(tmp_path / "model", tagger)
    model = ae.ChainCRF.from_arrays(weights.transitions, weights=weights.state, indicators=indicators)
    column, number = ({name: k for k, name in enumerate(names)} for names in (weights.attributes, weights.labels))
    for item, y in zip(items, tags):
        if indicators:
            inputs = np.array([[column[name] for name in row] for row in item.items()])
        else:
            inputs = np.zeros((len(y), len(column)))
            for i, row in enumerate(item.items()):
                inputs[i, [column[name] for name in row]] = list(row.values())
        tagger.set(item)
        data = ae.ChainDataset([inputs], [[number[tag] for tag in y]])
        assert np.exp(-model.loss(data)) == pytest.approx(tagger.probability(y), rel=1e-10)
        assert [weights.labels[k] for k in model.predict(data)[0]] == tagger.tag()


def _values(row: np.ndarray, rng: np.random.Generator, indicators: bool) -> dict[str, float]:
    """Two different attributes of a token, with the value 1 or a random one; CRFsuite drops sums below 0."""
    return {f"{slot}:{i}": 1.0 if indicators else 0.5 + float(rng.random()) for slot, i in enumerate(row)}


@pytest.mark.parametrize("sparse", [True, False])
def test_counts_of_scikit_learn(sparse: bool):
    text = pytest.importorskip("sklearn.feature_extraction.text", reason="a peer: pip install attnembed[bench]")
    documents, labels = ["good good film", "bad film", "a good one", "bad bad bad"], [1, -1, 1, -1]
    vectorizer = text.CountVectorizer()
    counts = vectorizer.fit_transform(documents)
    names = list(vectorizer.get_feature_names_out())
    data = ae.TokenDataset.from_counts(counts if sparse else counts.toarray(), labels, vocab=names)
    assert list(data.vocab) == ["bad", "film", "good", "one"]
    assert_array_equal(data.lengths, [3, 2, 2, 3])
    assert_array_equal(data.counts.toarray(), counts.toarray())
