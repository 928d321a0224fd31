"""Deep structured prediction on chains and grids: inference, objectives, networks, training and scaling ([SO19])."""

from typing import TYPE_CHECKING

from attnembed._lazy import attach

if TYPE_CHECKING:
    from attnembed.structured.base import StructuredGrads, StructuredModel
    from attnembed.structured.chain import (
        ChainMarginals,
        chain_log_partition,
        chain_marginals,
        chain_sample,
        chain_score,
        chain_viterbi,
    )
    from attnembed.structured.constraints import bio_constraints
    from attnembed.structured.corpora import Letters, Sentence, load_horses, load_ocr, load_sentences
    from attnembed.structured.data import ChainDataset, GridDataset, make_chain_dataset, make_grid_dataset
    from attnembed.structured.features import WindowFeatures
    from attnembed.structured.grid import (
        GridMap,
        MeanField,
        contrast_weights,
        grid_decode,
        grid_icm,
        grid_map,
        grid_mean_field,
        grid_score,
    )
    from attnembed.structured.grid_objectives import grid_objective
    from attnembed.structured.metrics import (
        ChunkScore,
        ForegroundIoU,
        chunk_f1,
        foreground_iou,
        letter_accuracy,
        pixel_accuracy,
        word_accuracy,
    )
    from attnembed.structured.model import ChainCRF, GridCRF
    from attnembed.structured.networks import Network, birnn, conv_net, identity, lenet, mlp, two_scale_net
    from attnembed.structured.objectives import ObjectiveValue, chain_objective
    from attnembed.structured.packing import Packing
    from attnembed.structured.scaling import (
        OfflineScaling,
        OnlineScaling,
        ScaleDiagnosis,
        best_pairwise_factor,
        scale_diagnosis,
        suggest_ratio,
    )
    from attnembed.structured.stepping import StructuredState
    from attnembed.structured.training import StructuredResult, train_structured

__all__ = [
    "ChainCRF",
    "ChainDataset",
    "ChainMarginals",
    "ChunkScore",
    "ForegroundIoU",
    "GridCRF",
    "GridDataset",
    "GridMap",
    "Letters",
    "MeanField",
    "Network",
    "ObjectiveValue",
    "OfflineScaling",
    "OnlineScaling",
    "Packing",
    "ScaleDiagnosis",
    "Sentence",
    "StructuredGrads",
    "StructuredModel",
    "StructuredResult",
    "StructuredState",
    "WindowFeatures",
    "best_pairwise_factor",
    "bio_constraints",
    "birnn",
    "chain_log_partition",
    "chain_marginals",
    "chain_objective",
    "chain_sample",
    "chain_score",
    "chain_viterbi",
    "chunk_f1",
    "contrast_weights",
    "conv_net",
    "foreground_iou",
    "grid_decode",
    "grid_icm",
    "grid_map",
    "grid_mean_field",
    "grid_objective",
    "grid_score",
    "identity",
    "lenet",
    "letter_accuracy",
    "load_horses",
    "load_ocr",
    "load_sentences",
    "make_chain_dataset",
    "make_grid_dataset",
    "mlp",
    "pixel_accuracy",
    "scale_diagnosis",
    "suggest_ratio",
    "train_structured",
    "two_scale_net",
    "word_accuracy",
]

attach(
    __name__,
    {
        "attnembed.structured.base": ("StructuredGrads", "StructuredModel"),
        "attnembed.structured.chain": (
            "ChainMarginals",
            "chain_log_partition",
            "chain_marginals",
            "chain_sample",
            "chain_score",
            "chain_viterbi",
        ),
        "attnembed.structured.constraints": ("bio_constraints",),
        "attnembed.structured.corpora": ("Letters", "Sentence", "load_horses", "load_ocr", "load_sentences"),
        "attnembed.structured.data": ("ChainDataset", "GridDataset", "make_chain_dataset", "make_grid_dataset"),
        "attnembed.structured.features": ("WindowFeatures",),
        "attnembed.structured.grid": (
            "GridMap",
            "MeanField",
            "contrast_weights",
            "grid_decode",
            "grid_icm",
            "grid_map",
            "grid_mean_field",
            "grid_score",
        ),
        "attnembed.structured.grid_objectives": ("grid_objective",),
        "attnembed.structured.metrics": (
            "ChunkScore",
            "ForegroundIoU",
            "chunk_f1",
            "foreground_iou",
            "letter_accuracy",
            "pixel_accuracy",
            "word_accuracy",
        ),
        "attnembed.structured.model": ("ChainCRF", "GridCRF"),
        "attnembed.structured.networks": (
            "Network",
            "birnn",
            "conv_net",
            "identity",
            "lenet",
            "mlp",
            "two_scale_net",
        ),
        "attnembed.structured.objectives": ("ObjectiveValue", "chain_objective"),
        "attnembed.structured.packing": ("Packing",),
        "attnembed.structured.scaling": (
            "OfflineScaling",
            "OnlineScaling",
            "ScaleDiagnosis",
            "best_pairwise_factor",
            "scale_diagnosis",
            "suggest_ratio",
        ),
        "attnembed.structured.stepping": ("StructuredState",),
        "attnembed.structured.training": ("StructuredResult", "train_structured"),
    },
)
