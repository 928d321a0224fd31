"""Predictions of the theory of attention with trained embeddings, from data statistics and parameters alone.

Each function returns a small frozen object with the predicted quantities and the truth of every hypothesis. Nothing
here imports the model, the training or the flow that the predictions are compared with.
"""

from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
from attnembed.attention.theory.one_step import (
    GaussianOneStepBound,
    OneStepBound,
    OneStepPrediction,
    gaussian_one_step_bound,
    one_step_bound,
    one_step_prediction,
)
from attnembed.attention.theory.smoothness import SmoothnessBound, smoothness_bound

__all__ = [
    "GaussianOneStepBound",
    "Hypothesis",
    "OneStepBound",
    "OneStepPrediction",
    "Prediction",
    "SmoothnessBound",
    "gaussian_one_step_bound",
    "one_step_bound",
    "one_step_prediction",
    "smoothness_bound",
]
