"""Deep structured prediction on chains and grids: inference, objectives, networks, training and scaling ([SO19])."""

from attnembed._lazy import attach

attach(__name__, {})
