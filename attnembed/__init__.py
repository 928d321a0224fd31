"""Theorems about attention and structured prediction as executable NumPy/SciPy code."""

__version__ = "0.1.0"
