"""Claims about structured prediction: chains and what scale does to them, inference against enumeration, grids."""

from attnembed.evidence.structured import chains, inference, lengths, certainty, statistics, optimisers, grids  # noqa: F401, I001
