"""Claims about structured prediction: chains and the effect of scale, inference against enumeration, and grids."""

# The order of the registry.
from attnembed.evidence.structured import chains, scales, inference, lengths, certainty  # noqa: F401, I001
from attnembed.evidence.structured import statistics, optimisers, grids  # noqa: F401
