"""The one-layer attention classifier: data, model, flow, and the theory of both."""

from typing import TYPE_CHECKING

from attnembed._lazy import attach

if TYPE_CHECKING:
    from attnembed.attention.data import (
        AssumptionReport,
        TokenDataset,
        TokenKind,
        make_balanced_dataset,
        make_iid_dataset,
    )
    from attnembed.attention.descent import DescentResult, DescentState, normalised_descent
    from attnembed.attention.diagnosis import Diagnosis, diagnose
    from attnembed.attention.first_step import OneStepResult, one_step
    from attnembed.attention.flow import FlowResult, gradient_flow
    from attnembed.attention.model import AttentionGradients, AttentionModel
    from attnembed.attention.reviews import Reviews, ReviewStream, iter_reviews, load_reviews
    from attnembed.attention.selection import MarginConstraints, Selection, margin_constraints, select, top_tokens
    from attnembed.attention.splitting import split_dataset
    from attnembed.attention.svmlight import LabelledCounts, load_counts
    from attnembed.attention.text import ReviewCounts, Tokenizer, count_reviews
    from attnembed.attention.training import TrainResult, TrainState, train
    from attnembed.attention.two_layer import TwoLayerGradients, TwoLayerModel

__all__ = [
    "AssumptionReport",
    "AttentionGradients",
    "AttentionModel",
    "DescentResult",
    "DescentState",
    "Diagnosis",
    "FlowResult",
    "LabelledCounts",
    "MarginConstraints",
    "OneStepResult",
    "ReviewCounts",
    "ReviewStream",
    "Reviews",
    "Selection",
    "TokenDataset",
    "TokenKind",
    "Tokenizer",
    "TrainResult",
    "TrainState",
    "TwoLayerGradients",
    "TwoLayerModel",
    "count_reviews",
    "diagnose",
    "gradient_flow",
    "iter_reviews",
    "load_counts",
    "load_reviews",
    "make_balanced_dataset",
    "make_iid_dataset",
    "margin_constraints",
    "normalised_descent",
    "one_step",
    "select",
    "split_dataset",
    "top_tokens",
    "train",
]

attach(
    __name__,
    {
        "attnembed.attention.data": (
            "AssumptionReport",
            "TokenDataset",
            "TokenKind",
            "make_balanced_dataset",
            "make_iid_dataset",
        ),
        "attnembed.attention.descent": ("DescentResult", "DescentState", "normalised_descent"),
        "attnembed.attention.diagnosis": ("Diagnosis", "diagnose"),
        "attnembed.attention.first_step": ("OneStepResult", "one_step"),
        "attnembed.attention.flow": ("FlowResult", "gradient_flow"),
        "attnembed.attention.model": ("AttentionGradients", "AttentionModel"),
        "attnembed.attention.reviews": ("ReviewStream", "Reviews", "iter_reviews", "load_reviews"),
        "attnembed.attention.selection": (
            "MarginConstraints",
            "Selection",
            "margin_constraints",
            "select",
            "top_tokens",
        ),
        "attnembed.attention.splitting": ("split_dataset",),
        "attnembed.attention.svmlight": ("LabelledCounts", "load_counts"),
        "attnembed.attention.text": ("ReviewCounts", "Tokenizer", "count_reviews"),
        "attnembed.attention.training": ("TrainResult", "TrainState", "train"),
        "attnembed.attention.two_layer": ("TwoLayerGradients", "TwoLayerModel"),
    },
)
