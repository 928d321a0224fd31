"""Claims about attention, in the order of the theory: derivatives, one step, flow, limits, closed forms, neighbours."""

# The order of the registry is that of the imports.
# ruff: noqa: F401, I001
from attnembed.evidence.attention import gradients, losses, curvature, one_step, flow, selection, limits
from attnembed.evidence.attention import geometry, closed_forms, neighbours, enclosures, variants, passes
