"""Claims about attention, in the order of the theory: gradients, one step, the flow, its limits, closed forms."""

from attnembed.verify.attention import gradients, one_step, flow, selection, limits, geometry, closed_forms  # noqa: F401, I001  (the order of the registry)
