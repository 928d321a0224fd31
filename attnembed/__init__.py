"""Theorems about attention and structured prediction as executable NumPy/SciPy code.

data = ae.make_balanced_dataset(rng=0)                     # sequences as token counts
model = ae.AttentionModel.random(data.vocab_size, 64, rng=0)
step = ae.one_step(model, data, step_size=100.0)           # E aligns with v ...
flow = ae.gradient_flow(step.model, data, until=40.0)      # ... and p selects (until log t = 40)
report = ae.verify("attention")                            # every statement, measured
"""

from attnembed.attention import theory
from attnembed.attention.data import TokenDataset, make_balanced_dataset, make_iid_dataset
from attnembed.attention.diagnosis import diagnose
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.one_step import one_step
from attnembed.attention.reviews import load_reviews
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.svmlight import load_counts
from attnembed.attention.text import Tokenizer
from attnembed.attention.training import train
from attnembed.attention.two_layer import TwoLayerModel
from attnembed.errors import NotSeparableError
from attnembed.margins import max_margin
from attnembed.structured.chain import chain_log_partition, chain_marginals, chain_sample, chain_viterbi
from attnembed.structured.corpora import load_horses, load_ocr, load_sentences
from attnembed.structured.data import ChainDataset, GridDataset, make_chain_dataset, make_grid_dataset
from attnembed.structured.grid import grid_map
from attnembed.structured.model import ChainCRF, GridCRF
from attnembed.structured.networks import Network, birnn, conv_net, lenet, mlp
from attnembed.structured.scaling import OfflineScaling, OnlineScaling, scale_diagnosis
from attnembed.structured.training import compare_arms, train_structured
from attnembed.sweep import sweep
from attnembed.threads import set_threads
from attnembed.verify import claims, verify

__version__ = "0.1.0"

__all__ = [
    "AttentionModel",
    "ChainCRF",
    "ChainDataset",
    "GridCRF",
    "GridDataset",
    "Network",
    "NotSeparableError",
    "OfflineScaling",
    "OnlineScaling",
    "TokenDataset",
    "Tokenizer",
    "TwoLayerModel",
    "birnn",
    "chain_log_partition",
    "chain_marginals",
    "chain_sample",
    "chain_viterbi",
    "claims",
    "compare_arms",
    "conv_net",
    "diagnose",
    "gradient_flow",
    "grid_map",
    "lenet",
    "load_counts",
    "load_horses",
    "load_ocr",
    "load_reviews",
    "load_sentences",
    "make_balanced_dataset",
    "make_chain_dataset",
    "make_grid_dataset",
    "make_iid_dataset",
    "margin_constraints",
    "max_margin",
    "mlp",
    "one_step",
    "scale_diagnosis",
    "select",
    "set_threads",
    "sweep",
    "theory",
    "train",
    "train_structured",
    "verify",
]
