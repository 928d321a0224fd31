"""Slow, obvious oracles: definitions evaluated in loops, in many digits, and by enumeration.

Nothing here shares code with the fast modules, and no fast module may import this one: agreement with an oracle is
evidence only if the two were written independently. Sequences are lists of token ids, one list per sequence;
`tokens_from_counts` creates them from a count matrix.
"""

from attnembed.reference.attention import (
    AttentionGradients,
    attention_gradients,
    attention_hessian_p,
    attention_loss,
    attention_output,
    attention_weights,
    tokens_from_counts,
)
from attnembed.reference.decimals import (
    PreciseVector,
    precise_gradient_p,
    precise_hessian_vector_p,
    precise_log_attention,
    precise_loss_gap,
)
from attnembed.reference.enumeration import ChainEnumeration, GridEnumeration, enumerate_chain, enumerate_grid

__all__ = [
    "AttentionGradients",
    "ChainEnumeration",
    "GridEnumeration",
    "PreciseVector",
    "attention_gradients",
    "attention_hessian_p",
    "attention_loss",
    "attention_output",
    "attention_weights",
    "enumerate_chain",
    "enumerate_grid",
    "precise_gradient_p",
    "precise_hessian_vector_p",
    "precise_log_attention",
    "precise_loss_gap",
    "tokens_from_counts",
]
