"""Claims about attention, in the order of the theory: derivatives, one step, the flow, its limits, closed forms."""

from attnembed.verify.attention import gradients, curvature, one_step, flow, selection, limits, closed_forms  # noqa: F401, I001  (the order of the registry)
