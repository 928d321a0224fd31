"""Theorems about attention and structured prediction as executable NumPy/SciPy code.

data = ae.make_balanced_dataset(rng=0)                     # sequences as token counts
model = ae.AttentionModel.random(data.vocab_size, 64, rng=0)
step = ae.one_step(model, data, step_size=100.0)           # E aligns with v ...
flow = ae.gradient_flow(step.model, data, until=40.0)      # ... and p selects (until log t = 40)
report = ae.verify("attention")                            # every statement, measured
"""

from typing import TYPE_CHECKING

from attnembed._lazy import attach
from attnembed._moved import install
from attnembed._version import __version__ as __version__

if TYPE_CHECKING:
    from attnembed import losses
    from attnembed.attention import theory
    from attnembed.attention.data import TokenDataset, make_balanced_dataset, make_iid_dataset
    from attnembed.attention.descent import normalised_descent
    from attnembed.attention.diagnosis import diagnose
    from attnembed.attention.first_step import one_step
    from attnembed.attention.flow import gradient_flow
    from attnembed.attention.model import AttentionModel
    from attnembed.attention.reviews import load_reviews
    from attnembed.attention.selection import margin_constraints, select
    from attnembed.attention.svmlight import load_counts
    from attnembed.attention.text import Tokenizer
    from attnembed.attention.training import train
    from attnembed.attention.two_layer import TwoLayerModel
    from attnembed.auditing import audit
    from attnembed.compare import compare_arms
    from attnembed.errors import NotSeparableError
    from attnembed.evidence import Evidence, by_construction, claim, claims, verify
    from attnembed.experiments import reproduce
    from attnembed.gradcheck import check_gradient
    from attnembed.infeasibility import infeasibility_proof
    from attnembed.integration import integrate
    from attnembed.margins import max_margin, max_margin_pairs
    from attnembed.optim import SGD, Adam
    from attnembed.results import Status
    from attnembed.structured.certified import chain_log_partition_enclosure
    from attnembed.structured.chain import chain_log_partition, chain_marginals, chain_sample, chain_viterbi
    from attnembed.structured.constraints import bio_constraints
    from attnembed.structured.corpora import load_horses, load_ocr, load_sentences
    from attnembed.structured.data import ChainDataset, GridDataset, make_chain_dataset, make_grid_dataset
    from attnembed.structured.decoding import chain_k_best, chain_posterior_decode
    from attnembed.structured.grid import grid_decode, grid_map
    from attnembed.structured.model import ChainCRF, GridCRF
    from attnembed.structured.networks import Network, birnn, conv_net, lenet, mlp
    from attnembed.structured.objectives import chain_objective
    from attnembed.structured.scaling import OfflineScaling, OnlineScaling, scale_diagnosis
    from attnembed.structured.training import train_structured
    from attnembed.sweeping import sweep
    from attnembed.threads import set_threads

__all__ = [
    "SGD",
    "Adam",
    "AttentionModel",
    "ChainCRF",
    "ChainDataset",
    "Evidence",
    "GridCRF",
    "GridDataset",
    "Network",
    "NotSeparableError",
    "OfflineScaling",
    "OnlineScaling",
    "Status",
    "TokenDataset",
    "Tokenizer",
    "TwoLayerModel",
    "audit",
    "bio_constraints",
    "birnn",
    "by_construction",
    "chain_k_best",
    "chain_log_partition",
    "chain_log_partition_enclosure",
    "chain_marginals",
    "chain_objective",
    "chain_posterior_decode",
    "chain_sample",
    "chain_viterbi",
    "check_gradient",
    "claim",
    "claims",
    "compare_arms",
    "conv_net",
    "diagnose",
    "gradient_flow",
    "grid_decode",
    "grid_map",
    "infeasibility_proof",
    "integrate",
    "lenet",
    "load_counts",
    "load_horses",
    "load_ocr",
    "load_reviews",
    "load_sentences",
    "losses",
    "make_balanced_dataset",
    "make_chain_dataset",
    "make_grid_dataset",
    "make_iid_dataset",
    "margin_constraints",
    "max_margin",
    "max_margin_pairs",
    "mlp",
    "normalised_descent",
    "one_step",
    "reproduce",
    "scale_diagnosis",
    "select",
    "set_threads",
    "sweep",
    "theory",
    "train",
    "train_structured",
    "verify",
]

attach(
    __name__,
    {
        "attnembed": ("losses",),
        "attnembed.attention": ("theory",),
        "attnembed.attention.data": ("TokenDataset", "make_balanced_dataset", "make_iid_dataset"),
        "attnembed.attention.descent": ("normalised_descent",),
        "attnembed.attention.diagnosis": ("diagnose",),
        "attnembed.attention.flow": ("gradient_flow",),
        "attnembed.attention.model": ("AttentionModel",),
        "attnembed.attention.first_step": ("one_step",),
        "attnembed.attention.reviews": ("load_reviews",),
        "attnembed.attention.selection": ("margin_constraints", "select"),
        "attnembed.attention.svmlight": ("load_counts",),
        "attnembed.attention.text": ("Tokenizer",),
        "attnembed.attention.training": ("train",),
        "attnembed.attention.two_layer": ("TwoLayerModel",),
        "attnembed.auditing": ("audit",),
        "attnembed.compare": ("compare_arms",),
        "attnembed.errors": ("NotSeparableError",),
        "attnembed.gradcheck": ("check_gradient",),
        "attnembed.infeasibility": ("infeasibility_proof",),
        "attnembed.integration": ("integrate",),
        "attnembed.margins": ("max_margin", "max_margin_pairs"),
        "attnembed.optim": ("SGD", "Adam"),
        "attnembed.results": ("Status",),
        "attnembed.structured.certified": ("chain_log_partition_enclosure",),
        "attnembed.structured.chain": ("chain_log_partition", "chain_marginals", "chain_sample", "chain_viterbi"),
        "attnembed.structured.constraints": ("bio_constraints",),
        "attnembed.structured.corpora": ("load_horses", "load_ocr", "load_sentences"),
        "attnembed.structured.data": ("ChainDataset", "GridDataset", "make_chain_dataset", "make_grid_dataset"),
        "attnembed.structured.decoding": ("chain_k_best", "chain_posterior_decode"),
        "attnembed.structured.grid": ("grid_decode", "grid_map"),
        "attnembed.structured.model": ("ChainCRF", "GridCRF"),
        "attnembed.structured.networks": ("Network", "birnn", "conv_net", "lenet", "mlp"),
        "attnembed.structured.objectives": ("chain_objective",),
        "attnembed.structured.scaling": ("OfflineScaling", "OnlineScaling", "scale_diagnosis"),
        "attnembed.structured.training": ("train_structured",),
        "attnembed.sweeping": ("sweep",),
        "attnembed.threads": ("set_threads",),
        "attnembed.evidence": ("Evidence", "by_construction", "claim", "claims", "verify"),
        "attnembed.experiments": ("reproduce",),
    },
)

install(
    {
        "attnembed.attention.one_step": "attnembed.attention.first_step",
        "attnembed.attention.theory.asymptotics": "attnembed.attention.theory.rates",
        "attnembed.attention.theory.divergence": "attnembed.attention.theory.stationarity",
        "attnembed.structured.compare": "attnembed.compare",
        "attnembed.sweep": "attnembed.sweeping",
        "attnembed.verify": "attnembed.evidence",
    }
)
