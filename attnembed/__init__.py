"""Theorems about attention and structured prediction as executable NumPy/SciPy code.

data = ae.make_balanced_dataset(rng=0)                     # sequences as token counts
model = ae.AttentionModel.random(data.vocab_size, 64, rng=0)
step = ae.one_step(model, data, step_size=100.0)           # E aligns with v ...
flow = ae.gradient_flow(step.model, data, until=40.0)      # ... and p selects (until log t = 40)
report = ae.verify("attention")                            # every statement, measured
"""

from attnembed.attention import theory
from attnembed.attention.data import TokenDataset, make_balanced_dataset, make_iid_dataset
from attnembed.attention.flow import gradient_flow
from attnembed.attention.model import AttentionModel
from attnembed.attention.one_step import one_step
from attnembed.attention.reviews import load_reviews
from attnembed.attention.selection import margin_constraints, select
from attnembed.attention.text import Tokenizer
from attnembed.attention.training import train
from attnembed.errors import NotSeparableError
from attnembed.margins import max_margin
from attnembed.verify import claims, verify

__version__ = "0.1.0"

__all__ = [
    "AttentionModel",
    "NotSeparableError",
    "TokenDataset",
    "Tokenizer",
    "claims",
    "gradient_flow",
    "load_reviews",
    "make_balanced_dataset",
    "make_iid_dataset",
    "margin_constraints",
    "max_margin",
    "one_step",
    "select",
    "theory",
    "train",
    "verify",
]
