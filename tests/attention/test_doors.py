"""Every public function of attention, given something of another kind for any one argument, says so by name.

The good calls are listed; the parameters come from the signatures, so that a new one is tried as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import attnembed as ae
from attnembed import theory
from attnembed.attention.parameters import check_model
from attnembed.attention.text import count_reviews, drop_empty
from attnembed.attention.training import split_dataset
from attnembed.errors import InputError
from attnembed.margins import kkt_residual, max_margin_pairs
from tests.doors import Calls, check_doors

DATA = ae.make_balanced_dataset(n_samples=8, length=4, n_irrelevant=6, rng=0)
MODEL = ae.AttentionModel.random(DATA.vocab_size, 12, rng=0)
TWO = ae.TwoLayerModel(MODEL.E, MODEL.p, MODEL.v, np.eye(12))
TOP = ae.select(MODEL, DATA).top
FAMILY = theory.Family(3, 2, step_size=10.0)
FOLDER = Path(tempfile.mkdtemp())
(FOLDER / "reviews.csv").write_text("label,text\n1,good film\n0,bad film\n")
MODEL.save(FOLDER / "model.npz")
ae.Tokenizer().fit(["a b"]).save(FOLDER / "tokenizer.json")
PAIR = {"model": MODEL, "data": DATA}

CALLS: Calls = {
    "TokenDataset": (ae.TokenDataset, {"counts": np.eye(2), "labels": [1, -1]}),
    "TokenDataset.from_counts": (ae.TokenDataset.from_counts, {"counts": np.eye(2), "labels": [1, -1]}),
    "TokenDataset.from_tokens": (ae.TokenDataset.from_tokens, {"tokens": [[0], [1]], "labels": [1, -1]}),
    "TokenDataset.subset": (DATA.subset, {"indices": [0, 1]}),
    "TokenDataset.check_assumption": (DATA.check_assumption, {}),
    "make_balanced_dataset": (ae.make_balanced_dataset, {}),
    "make_iid_dataset": (ae.make_iid_dataset, {"positive_probs": [1, 0], "negative_probs": [0, 1]}),
    "drop_empty": (drop_empty, {"counts": np.eye(2), "labels": [1, -1]}),
    "split_dataset": (split_dataset, {"data": DATA, "share": 0.4}),
    "AttentionModel": (ae.AttentionModel, {"E": np.eye(2), "p": [0, 1], "v": [1, 0]}),
    "AttentionModel.random": (ae.AttentionModel.random, {"vocab_size": 3, "dim": 2}),
    "AttentionModel.replace": (MODEL.replace, {}),
    **{
        f"{type(model).__name__}.{name}": (getattr(model, name), {"data": DATA})
        for model in (MODEL, TWO)
        for name in ("output", "attention", "loss", "loss_and_grads", "hessian_p", "smoothness_p", "accuracy")
        if hasattr(model, name)
    },
    "AttentionModel.hessian_vector_p": (MODEL.hessian_vector_p, {"data": DATA, "x": np.ones(12)}),
    "AttentionModel.save": (MODEL.save, {"path": FOLDER / "saved.npz"}),
    "AttentionModel.load": (ae.AttentionModel.load, {"path": FOLDER / "model.npz"}),
    "TwoLayerModel": (ae.TwoLayerModel, {"E": np.eye(2), "p": [0, 1], "v": [1, 0], "W": np.eye(2)}),
    "TwoLayerModel.random": (ae.TwoLayerModel.random, {"vocab_size": 3, "dim": 2}),
    "TwoLayerModel.replace": (TWO.replace, {}),
    "one_step": (ae.one_step, {**PAIR, "step_size": 1.0}),
    "gradient_flow": (ae.gradient_flow, {**PAIR, "until": 1.0}),
    "select": (ae.select, PAIR),
    "margin_constraints": (ae.margin_constraints, {**PAIR, "selected": TOP}),
    "max_margin": (ae.max_margin, {"differences": np.eye(2)}),
    "max_margin_pairs": (max_margin_pairs, {"E": np.eye(3), "pairs": [[0, 1], [0, 2]]}),
    "kkt_residual": (kkt_residual, {"differences": np.eye(2), "p": [1, 1], "dual": [1, 1]}),
    "diagnose": (ae.diagnose, PAIR),
    "load_reviews": (lambda path: ae.load_reviews(path), {"path": FOLDER / "reviews.csv"}),
    "count_reviews": (count_reviews, {"path": FOLDER / "reviews.csv", "tokenizer": ae.Tokenizer()}),
    "Tokenizer": (ae.Tokenizer, {}),
    "Tokenizer.tokenize": (ae.Tokenizer().tokenize, {"text": "a"}),
    "Tokenizer.fit": (ae.Tokenizer().fit, {"documents": ["a"]}),
    "Tokenizer.fit_transform": (ae.Tokenizer().fit_transform, {"documents": ["a"]}),
    "Tokenizer.transform": (ae.Tokenizer().fit(["a"]).transform, {"documents": ["a"]}),
    "Tokenizer.save": (ae.Tokenizer().fit(["a"]).save, {"path": FOLDER / "saved.json"}),
    "Tokenizer.load": (ae.Tokenizer.load, {"path": FOLDER / "tokenizer.json"}),
    "theory.asymptotics": (theory.asymptotics, PAIR),
    "theory.basin_bound": (theory.basin_bound, {**PAIR, "t": [1.0, 2.0]}),
    "theory.basin_condition": (theory.basin_condition, PAIR),
    "theory.balanced_pair_margin": (theory.balanced_pair_margin, {"kappa": 0.5, "n_irrelevant": 3}),
    "theory.divergence": (theory.divergence, PAIR),
    "theory.Family": (theory.Family, {"length": 3, "repeats": 2, "step_size": 10.0}),
    "theory.Family.lift": (FAMILY.lift, {"x": np.zeros(4)}),
    "theory.Family.rate": (FAMILY.rate, {"x": np.zeros(4)}),
    "theory.Family.observe": (FAMILY.observe, {"x": np.zeros(4)}),
    "theory.Family.limit": (FAMILY.limit, {"log_time": 3.0}),
    "theory.gaussian_one_step_bound": (
        theory.gaussian_one_step_bound,
        {"data": DATA, "v": np.ones(8), "step_size": 1.0, "embedding_scale": 0.1, "cls_scale": 0.1},
    ),
    "theory.large_step_condition": (theory.large_step_condition, PAIR),
    "theory.large_step_size": (theory.large_step_size, PAIR),
    "theory.one_step_bound": (theory.one_step_bound, {**PAIR, "step_size": 1.0}),
    "theory.one_step_prediction": (theory.one_step_prediction, {**PAIR, "step_size": 1.0}),
    "theory.orthogonal_embeddings": (theory.orthogonal_embeddings, PAIR),
    "theory.orthogonal_margin": (theory.orthogonal_margin, {"kappa": [0.5, -0.5], "n_irrelevant": 3}),
    "theory.private_margin": (theory.private_margin, {"kappa": [0.5], "n_irrelevant": [3]}),
    "theory.single_margin": (theory.single_margin, {"kappa": 0.5, "n_irrelevant": 3}),
    "theory.small_step_condition": (theory.small_step_condition, PAIR),
    "theory.smoothness_bound": (theory.smoothness_bound, PAIR),
    "theory.unequal_pair_margin": (
        theory.unequal_pair_margin,
        {"kappa_plus": 0.5, "kappa_minus": -0.5, "n_irrelevant": 3},
    ),
}

# What is documented and fine: (a parameter, what it takes). None is fine where it is the default.
FINE = {
    ("vocab", "a list of objects"),  # names of anything
    ("vocab", "NaN in an array"),
    ("vocab", "too many axes"),
    ("path", "text"),
    ("cache", "text"),
    ("documents", "text"),
    ("text", "text"),
    ("t", "an empty list"),  # any shape
    ("t", "too many axes"),
}
EMPTY = {("Tokenizer.transform", "documents")}  # of nothing, nothing


@pytest.mark.parametrize("name", CALLS)
def test_the_good_call_is_good(name: str) -> None:
    function, good = CALLS[name]
    function(**good)


@pytest.mark.parametrize("name", CALLS)
def test_another_kind_of_argument_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.chdir(tmp_path)  # some are names of files
    fine = {*FINE, *((p, "an empty list") for call, p in EMPTY if call == name)}
    check_doors(CALLS, name, fine=fine, also={"vocab", "vocab_size", "min_length", "length"})


# ------------------------------------------------------------------------------------------------------ models


class Duck:
    """E, p and v without the class."""

    def __init__(self, E: Any = MODEL.E, p: Any = MODEL.p, v: Any = MODEL.v) -> None:
        self.E, self.p, self.v = E, p, v


def test_anything_with_the_parameters_will_do_for_the_theory() -> None:
    check_model(Duck())
    assert ae.select(Duck(), DATA).tokens.tolist() == ae.select(MODEL, DATA).tokens.tolist()
    assert theory.basin_condition(Duck(), DATA).slack == theory.basin_condition(MODEL, DATA).slack


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (TWO, "`model` must be an AttentionModel; got TwoLayerModel; the theory is about one layer"),
        (ae.AttentionModel, "`model` must be an AttentionModel; got type"),
        (Duck(E=None), "`model` must be an AttentionModel; got Duck"),
        (Duck(E=MODEL.E[0]), "`model.E` must have shape (V, d); got shape (12,)"),
        (Duck(p=MODEL.p[:3]), "`model.p` must have shape (12,); got shape (3,)"),
        (Duck(v="text"), "`model.v` must be an array of floats; got dtype <U4"),
        (Duck(E=np.ma.array(MODEL.E)), "`model.E` must not be masked"),
    ],
)
def test_models_of_another_kind(model: Any, message: str) -> None:
    for function in (ae.select, theory.asymptotics, theory.smoothness_bound, ae.diagnose):
        with pytest.raises(InputError) as caught:
            function(model, DATA)
        assert str(caught.value).startswith(message)


# ------------------------------------------------------------------------------------------------- overflow

LARGE = {
    "scores E p": ae.AttentionModel(1e200 * MODEL.E, 1e200 * MODEL.p, MODEL.v),
    "values E v": ae.AttentionModel(1e200 * MODEL.E, MODEL.p, 1e200 * MODEL.v),
    "both": ae.AttentionModel(np.float32(1e30) * MODEL.E.astype(np.float32), 1e30 * MODEL.p, MODEL.v),
}
READERS: dict[str, Callable[[ae.AttentionModel], Any]] = {
    **{
        name: lambda model, name=name: getattr(model, name)(DATA)
        for name in ("output", "attention", "loss", "loss_and_grads", "hessian_p", "smoothness_p", "accuracy")
    },
    "token_scores": lambda model: model.token_scores,
    "token_values": lambda model: model.token_values,
    "hessian_vector_p": lambda model: model.hessian_vector_p(DATA, np.ones(12)),
    "select": lambda model: ae.select(model, DATA),
    "diagnose": lambda model: ae.diagnose(model, DATA),
    "gradient_flow": lambda model: ae.gradient_flow(model, DATA, until=1.0),
    "one_step": lambda model: ae.one_step(model, DATA, 1.0),
    "asymptotics": lambda model: theory.asymptotics(model, DATA),
    "divergence": lambda model: theory.divergence(model, DATA),
    "two layers": lambda model: ae.TwoLayerModel(model.E, model.p, model.v, np.zeros((12, 12))).loss(DATA),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", ["scores E p", "values E v"])
def test_scores_that_overflow_are_named(what: str, reader: str) -> None:
    name = {"scores E p": r"scores p\.E_s", "values E v": r"values E_s\.v"}[what]
    with pytest.raises(InputError, match=rf"^`model` must have finite {name}; got .* overflow in float64: use smaller"):
        READERS[reader](LARGE[what])


@pytest.mark.parametrize("sizes", [(1e50, 1e50, 1e50), (1e50, 1e-50, 1e-50), (1e-50, 1e50, 1e50), (1e25, 1e25, 1e25)])
def test_the_largest_parameters_overflow_nowhere(sizes: tuple[float, float, float]) -> None:
    model = ae.AttentionModel(*(size * array for size, array in zip(sizes, (MODEL.E, MODEL.p, MODEL.v))))
    for name in ("asymptotics", "basin_condition", "divergence", "large_step_condition", "large_step_size"):
        getattr(theory, name)(model, DATA)
    for function in (theory.orthogonal_embeddings, theory.small_step_condition, theory.smoothness_bound, ae.diagnose):
        function(model, DATA)
    step = ae.one_step(model, DATA, 1.0)
    assert np.isfinite(step.model.E).all()
    assert (step.bound >= 0).all()  # inf where nothing can be said
    ae.gradient_flow(model, DATA, until=1.0, max_nfev=100)


@pytest.mark.parametrize("which", ["E", "p", "v"])
def test_larger_parameters_are_named(which: str) -> None:
    model = MODEL.replace(**{which: 1e60 * getattr(MODEL, which)})
    with pytest.raises(InputError, match=rf"^`model` must have entries of {which} of at most 1e\+50; got .*e\+\d\d; "):
        ae.gradient_flow(model, DATA)
    assert isinstance(str(ae.diagnose(model, DATA)), str)
    assert np.isfinite(model.loss(DATA))


def test_single_precision_overflows_earlier() -> None:
    with pytest.raises(InputError, match=r"overflow in float32: use smaller parameters, or float64$"):
        LARGE["both"].loss(DATA)
    assert LARGE["both"].replace(E=LARGE["both"].E.astype(float)).loss(DATA) > 0


def test_differences_of_finite_scores_that_overflow_are_named() -> None:
    data = ae.TokenDataset.from_tokens([[0, 1], [1]], [1, -1])
    model = ae.AttentionModel([[1.0, 0.0], [-1.0, 0.0]], [1e308, 0.0], [1e-300, 1.0])
    for function in (model.loss, model.attention, model.hessian_p, model.loss_and_grads):
        with pytest.raises(InputError, match=r"^`model` must have finite scores p.E_s; got -1e.308 to 1e.308; the"):
            function(data)


def test_a_gradient_that_overflows_is_named() -> None:
    counts = np.eye(2) + 1
    data = ae.TokenDataset.from_counts(counts, [1, -1])
    model = ae.AttentionModel([[1e200, 1.0], [-1e200, 1.0]], [1e-200, 0.0], [-1e100, 0.0])
    assert np.isfinite(model.output(data)).all()
    with pytest.raises(InputError, match="`model` must have gradients finite in float64; got an overflow"):
        model.loss_and_grads(data)
    with pytest.raises(InputError, match="`model` must have a Hessian finite in float64; got an overflow"):
        model.hessian_p(data)


@pytest.mark.parametrize(("dtype", "step_size"), [(np.float32, 1e39), (np.float32, 3e38), (np.float64, 1e308)])
def test_a_step_that_overflows_blames_the_step_size(dtype: Any, step_size: float) -> None:
    model = ae.AttentionModel(MODEL.E.astype(dtype), MODEL.p, 1e3 * MODEL.v)
    message = rf"^`step_size` must leave the embeddings finite in {np.dtype(dtype)}; got .*; take a smaller step$"
    with pytest.raises(InputError, match=message):
        ae.one_step(model, DATA, step_size)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f4", "<f8", "=f8", ">f2", ">i4", ">u8"])
def test_byte_order_makes_no_difference(dtype: str) -> None:
    E = np.array([[1, 2], [3, 4], [0, 1]], dtype=dtype)
    model = ae.AttentionModel(E, np.array([0.5, 1], dtype=">f8"), np.array([1, 2], dtype=">f4"))
    assert model.E.dtype.isnative
    assert model.E.dtype == (np.float32 if dtype[1:] == "f4" else np.float64)
    assert model.E.tolist() == E.tolist()
    assert model.p.dtype == model.E.dtype
    data = ae.TokenDataset.from_tokens([[0, 2], [1, 2]], [1, -1])
    assert ae.train(model, data, n_epochs=2, rng=0).success
    assert ae.TokenDataset.from_tokens(np.array([[0, 2], [1, 2]], dtype=">i8"), [1, -1]).counts.nnz == 4
