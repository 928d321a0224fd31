"""Every public function of structured, given something of another kind for any one argument, says so by name."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

import attnembed as ae
from attnembed.structured import grid, layers, metrics, networks, scaling, theory
from attnembed.structured.chain import chain_score
from attnembed.structured.features import WindowFeatures
from attnembed.structured.grid_objectives import grid_objective
from attnembed.structured.objectives import chain_objective, loss_augmented
from tests.doors import Calls, check_doors

U, W = np.zeros((3, 2)), np.zeros((2, 2))
IMAGES, MASKS = np.ones((2, 4, 4, 3)), np.zeros((2, 4, 4), dtype=int)
CHAINS = ae.make_chain_dataset(4, 3, 2, 3, rng=0)
PICTURES = ae.GridDataset(IMAGES, MASKS)
CHAIN = ae.ChainCRF(ae.mlp(3, (), 2, rng=0), np.eye(2), start=np.zeros(2))
GRID = ae.GridCRF(ae.conv_net(3, (), 2, size=3, rng=0), np.eye(2))
FEATURES = WindowFeatures()
SENTENCE = ae.structured.sentences.Sentence(("a", "b"), ("N", "V"), ("B-NP", "B-VP"))
FOLDER = Path(tempfile.mkdtemp())
CHAIN.save(FOLDER / "chain.npz")
GRID.save(FOLDER / "grid.npz")

CHAIN_CALL = {"unary": U, "pairwise": W}
GRID_CALL = {"unary": np.zeros((2, 4, 4, 2)), "pairwise": W}
TRAINING = {"n_epochs": 1, "rng": 0}

CALLS: Calls = {
    **{f.__name__: (f, CHAIN_CALL) for f in (ae.chain_log_partition, ae.chain_marginals, ae.chain_viterbi)},
    "chain_sample": (ae.chain_sample, CHAIN_CALL),
    "chain_k_best": (ae.chain_k_best, {**CHAIN_CALL, "k": 2}),
    "chain_posterior_decode": (ae.chain_posterior_decode, CHAIN_CALL),
    "chain_score": (chain_score, {**CHAIN_CALL, "labels": [0, 1, 0]}),
    "chain_objective": (chain_objective, {**CHAIN_CALL, "objective": "nll", "labels": [0, 1, 0]}),
    "loss_augmented": (loss_augmented, {"unary": U, "labels": [0, 1, 0]}),
    **{f.__name__: (f, GRID_CALL) for f in (ae.grid_decode, ae.grid_map, grid.grid_icm, grid.grid_mean_field)},
    "grid_score": (grid.grid_score, {**GRID_CALL, "labels": MASKS}),
    "grid_objective": (grid_objective, {**GRID_CALL, "objective": "ssvm", "labels": MASKS}),
    "contrast_weights": (grid.contrast_weights, {"images": IMAGES}),
    "bio_constraints": (ae.bio_constraints, {"tags": ["O", "B-NP", "I-NP"]}),
    # --- data
    "ChainDataset": (ae.ChainDataset, {"inputs": [U, U], "labels": [[0, 1, 0], [0, 0, 1]]}),
    "ChainDataset.subset": (CHAINS.subset, {"indices": [0, 1]}),
    "ChainDataset.rows": (CHAINS.rows, {"indices": [0, 1]}),
    "ChainDataset.split": (CHAINS.split, {"rows": CHAINS.inputs}),
    "GridDataset": (ae.GridDataset, {"images": IMAGES, "labels": MASKS}),
    "GridDataset.subset": (PICTURES.subset, {"indices": [0, 1]}),
    "GridDataset.rows": (PICTURES.rows, {"indices": [0, 1]}),
    "make_chain_dataset": (ae.make_chain_dataset, {"n_sequences": 2}),
    "make_grid_dataset": (ae.make_grid_dataset, {"n_images": 2, "sweeps": 2}),
    # --- networks
    "mlp": (ae.mlp, {"n_inputs": 3, "hidden": (4,), "n_labels": 2}),
    "lenet": (ae.lenet, {"hidden": 4}),
    "birnn": (ae.birnn, {"vocab_size": 5, "n_ids": 2, "n_labels": 3, "dim": 4, "hidden": 3}),
    "conv_net": (ae.conv_net, {"n_channels": 3, "hidden": (4,)}),
    "two_scale_net": (networks.two_scale_net, {"n_channels": 3}),
    "Network": (ae.Network, {"layer": layers.Sequential(()), "params": {}}),
    "Network.create": (ae.Network.create, {"layers": [layers.Dense(2, 2)]}),
    "Dense": (layers.Dense, {"n_in": 2, "n_out": 2}),
    "Reshape": (layers.Reshape, {"shape": (2, 2)}),
    "Conv2D": (layers.Conv2D, {"n_in": 2, "n_out": 2}),
    "Coordinates": (layers.Coordinates, {"multiple": 1}),
    "LayerNorm": (layers.LayerNorm, {"size": 2}),
    "Embedding": (layers.Embedding, {"vocab_size": 2, "dim": 2}),
    "EmbeddingSum": (layers.EmbeddingSum, {"vocab_size": 2, "dim": 2}),
    "BiRecurrent": (layers.BiRecurrent, {"n_in": 2, "n_hidden": 2}),
    "Sequential": (layers.Sequential, {"layers": (layers.ReLU(),)}),
    "Branches": (layers.Branches, {"branches": (layers.ReLU(),)}),
    # --- models
    "ChainCRF": (ae.ChainCRF, {"network": CHAIN.network, "pairwise": W}),
    "ChainCRF.from_arrays": (ae.ChainCRF.from_arrays, {"transitions": W, "weights": np.eye(2)}),
    "GridCRF": (ae.GridCRF, {"network": GRID.network, "pairwise": W}),
    **{
        f"{type(model).__name__}.{name}": (getattr(model, name), {"data": data})
        for model, data in ((CHAIN, CHAINS), (GRID, PICTURES))
        for name in ("unary", "predict", "predict_rows", "accuracy", "loss", "loss_and_grads", "sequence_accuracy")
        if hasattr(model, name)
    },
    "GridCRF.weights": (GRID.weights, {"data": PICTURES}),
    "ChainCRF.with_parameters": (CHAIN.with_parameters, {"params": CHAIN.parameters()}),
    "ChainCRF.save": (CHAIN.save, {"path": FOLDER / "saved.npz"}),
    "ChainCRF.restore": (CHAIN.restore, {"path": FOLDER / "chain.npz"}),
    "GridCRF.restore": (GRID.restore, {"path": FOLDER / "grid.npz"}),
    # --- features and metrics
    "WindowFeatures": (WindowFeatures, {}),
    "WindowFeatures.fit": (WindowFeatures().fit, {"sentences": [SENTENCE]}),
    "WindowFeatures.transform": (WindowFeatures().fit([SENTENCE]).transform, {"sentences": [SENTENCE]}),
    "chunk_spans": (metrics.chunk_spans, {"tags": ["B-NP", "O"]}),
    "chunk_f1": (metrics.chunk_f1, {"true": [["B-NP", "O"]], "predicted": [["B-NP", "O"]]}),
    "letter_accuracy": (metrics.letter_accuracy, {"true": [[0, 1]], "predicted": [[0, 1]]}),
    "word_accuracy": (metrics.word_accuracy, {"true": [[0, 1]], "predicted": [[0, 1]]}),
    "pixel_accuracy": (metrics.pixel_accuracy, {"true": MASKS, "predicted": MASKS}),
    "foreground_iou": (metrics.foreground_iou, {"true": MASKS, "predicted": MASKS}),
    # --- scales
    "component_norms": (theory.component_norms, {"unary": U, "pairwise": W}),
    "effective_step_size": (theory.effective_step_size, {"method": "sgd", "scale": 1.0, "step_size": 0.1}),
    "scale_objective": (theory.scale_objective, {**CHAIN_CALL, "labels": [0, 1, 0]}),
    "fit_scales": (theory.fit_scales, {**CHAIN_CALL, "labels": [0, 1, 0]}),
    "OnlineScaling": (ae.OnlineScaling, {}),
    "OfflineScaling": (ae.OfflineScaling, {}),
    "scale_diagnosis": (ae.scale_diagnosis, {"model": CHAIN, "data": CHAINS}),
    "best_pairwise_factor": (scaling.best_pairwise_factor, {"model": CHAIN, "data": CHAINS}),
    "bigram_potentials": (scaling.bigram_potentials, {"data": CHAINS, "n_labels": 2}),
    "suggest_ratio": (scaling.suggest_ratio, {"model": CHAIN, "data": CHAINS}),
    # --- training
    "train_structured": (ae.train_structured, {"model": CHAIN, "data": CHAINS, **TRAINING}),
    "compare_arms": (
        ae.compare_arms,
        {
            "arms": {"joint": {}},
            "make_model": lambda rng: CHAIN,
            "data": CHAINS,
            "validation": CHAINS,
            "test": CHAINS,
            "n_epochs": 1,
        },
    ),
    # --- readers
    "load_ocr": (lambda path: ae.load_ocr(path), {"path": FOLDER}),
    "load_horses": (lambda path: ae.load_horses(path), {"path": FOLDER}),
    "load_sentences": (lambda path, encoding=None: ae.load_sentences(path, encoding=encoding), {"path": FOLDER}),
}
READERS = {"load_ocr", "load_horses", "load_sentences"}  # there is no file to read

# What is documented and fine: (a call, a parameter, what it takes).
FINE = {
    ("mlp", "hidden", "an empty list"),  # a linear model
    ("conv_net", "hidden", "an empty list"),
    ("Network.create", "layers", "an empty list"),  # the identity
    ("Sequential", "layers", "an empty list"),
    ("Reshape", "shape", "an empty list"),  # one number per row
    ("ChainCRF.save", "path", "text"),
    ("WindowFeatures.transform", "sentences", "an empty list"),  # of nothing, nothing
    ("chunk_spans", "tags", "an empty list"),
    ("component_norms", "unary", "NaN in an array"),
    ("component_norms", "unary", "too many axes"),  # (..., K)
    ("component_norms", "pairwise", "too many axes"),  # (..., K, K)
    ("train_structured", "batch_size", "None"),
    ("train_structured", "learned_scales", "an empty list"),
    ("train_structured", "metric", "None"),  # the default
    ("train_structured", "checkpoint", "text"),
    ("compare_arms", "batch_size", "None"),
    ("compare_arms", "metric", "None"),
}


@pytest.mark.parametrize("name", [name for name in CALLS if name not in READERS])
def test_the_good_call_is_good(name: str) -> None:
    function, good = CALLS[name]
    function(**good)


@pytest.mark.parametrize("name", CALLS)
def test_another_kind_of_argument_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.chdir(tmp_path)  # some are names of files
    check_doors(CALLS, name, fine={(p, wrong) for call, p, wrong in FINE if call == name})
