"""Claims about attention, in the order of the theory: derivatives, one step, flow, limits, closed forms, neighbours."""

from attnembed.verify.attention import gradients, curvature, one_step, flow, selection, limits, closed_forms, neighbours  # noqa: F401, I001  (the order of the registry)
