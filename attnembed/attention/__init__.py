"""The one-layer attention classifier: data, model, flow, and the theory of both."""

from attnembed._lazy import attach

attach(__name__, {})
