"""Predictions of the theory of attention with trained embeddings, from data statistics and parameters alone.

Each function returns a small frozen object with the predicted quantities and the truth value of every hypothesis.
Nothing here imports the model, the training or the flow with which the predictions are compared.
"""

from typing import TYPE_CHECKING

from attnembed._lazy import attach

if TYPE_CHECKING:
    from attnembed.attention.theory.basin import (
        BasinBound,
        BasinCondition,
        LargeStepCondition,
        LargeStepSize,
        SmallStepCondition,
        basin_bound,
        basin_condition,
        large_step_condition,
        large_step_size,
        small_step_condition,
    )
    from attnembed.attention.theory.family import Family, FamilyState
    from attnembed.attention.theory.hypotheses import Hypothesis, Prediction
    from attnembed.attention.theory.one_step import (
        GaussianOneStepBound,
        OneStepBound,
        OneStepPrediction,
        gaussian_one_step_bound,
        one_step_bound,
        one_step_prediction,
    )
    from attnembed.attention.theory.optima import local_optima
    from attnembed.attention.theory.orthogonal import (
        OrthogonalEmbeddings,
        OrthogonalMargin,
        balanced_pair_margin,
        orthogonal_embeddings,
        orthogonal_margin,
        private_margin,
        single_margin,
        unequal_pair_margin,
    )
    from attnembed.attention.theory.path import RegularisationPath, regularisation_path
    from attnembed.attention.theory.rates import Asymptotics, asymptotics
    from attnembed.attention.theory.smoothness import SmoothnessBound, smoothness_bound
    from attnembed.attention.theory.stationarity import Divergence, divergence
    from attnembed.attention.theory.steepest import SteepestBound, steepest_bound
    from attnembed.attention.theory.ties import TieInvariant, tie_invariant
    from attnembed.attention.theory.window import RandomStepWindow, random_step_window

__all__ = [
    "Asymptotics",
    "BasinBound",
    "BasinCondition",
    "Divergence",
    "Family",
    "FamilyState",
    "GaussianOneStepBound",
    "Hypothesis",
    "LargeStepCondition",
    "LargeStepSize",
    "OneStepBound",
    "OneStepPrediction",
    "OrthogonalEmbeddings",
    "OrthogonalMargin",
    "Prediction",
    "RandomStepWindow",
    "RegularisationPath",
    "SmallStepCondition",
    "SmoothnessBound",
    "SteepestBound",
    "TieInvariant",
    "asymptotics",
    "balanced_pair_margin",
    "basin_bound",
    "basin_condition",
    "divergence",
    "gaussian_one_step_bound",
    "large_step_condition",
    "large_step_size",
    "local_optima",
    "one_step_bound",
    "one_step_prediction",
    "orthogonal_embeddings",
    "orthogonal_margin",
    "private_margin",
    "random_step_window",
    "regularisation_path",
    "single_margin",
    "small_step_condition",
    "smoothness_bound",
    "steepest_bound",
    "tie_invariant",
    "unequal_pair_margin",
]

attach(
    __name__,
    {
        "attnembed.attention.theory.rates": ("Asymptotics", "asymptotics"),
        "attnembed.attention.theory.basin": (
            "BasinBound",
            "BasinCondition",
            "LargeStepCondition",
            "LargeStepSize",
            "SmallStepCondition",
            "basin_bound",
            "basin_condition",
            "large_step_condition",
            "large_step_size",
            "small_step_condition",
        ),
        "attnembed.attention.theory.stationarity": ("Divergence", "divergence"),
        "attnembed.attention.theory.family": ("Family", "FamilyState"),
        "attnembed.attention.theory.hypotheses": ("Hypothesis", "Prediction"),
        "attnembed.attention.theory.one_step": (
            "GaussianOneStepBound",
            "OneStepBound",
            "OneStepPrediction",
            "gaussian_one_step_bound",
            "one_step_bound",
            "one_step_prediction",
        ),
        "attnembed.attention.theory.optima": ("local_optima",),
        "attnembed.attention.theory.orthogonal": (
            "OrthogonalEmbeddings",
            "OrthogonalMargin",
            "balanced_pair_margin",
            "orthogonal_embeddings",
            "orthogonal_margin",
            "private_margin",
            "single_margin",
            "unequal_pair_margin",
        ),
        "attnembed.attention.theory.path": ("RegularisationPath", "regularisation_path"),
        "attnembed.attention.theory.smoothness": ("SmoothnessBound", "smoothness_bound"),
        "attnembed.attention.theory.steepest": ("SteepestBound", "steepest_bound"),
        "attnembed.attention.theory.ties": ("TieInvariant", "tie_invariant"),
        "attnembed.attention.theory.window": ("RandomStepWindow", "random_step_window"),
    },
)
