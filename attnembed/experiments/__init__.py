"""Experiments and their figures: `experiments` lists them, `reproduce` runs one and writes the results."""

from attnembed.experiments.registry import Experiment, Outcome, experiments, reproduce

__all__ = ["Experiment", "Outcome", "experiments", "reproduce"]
