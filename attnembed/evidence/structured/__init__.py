"""Claims about structured prediction: chains and the effect of scale, inference against enumeration, and grids."""

# The order of the registry.
from attnembed.evidence.structured import chains, scales, populations, inference, lengths, certainty  # noqa: F401, I001
from attnembed.evidence.structured import statistics, optimisers, grids, best, networks, training  # noqa: F401
