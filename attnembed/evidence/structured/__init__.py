"""Claims about structured prediction: chains and what scale does to them, inference against enumeration, grids."""

from attnembed.evidence.structured import chains, populations, inference, grids  # noqa: F401, I001  (the order of the registry)
