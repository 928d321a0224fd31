"""Deep structured prediction on chains and grids: inference, objectives, networks, training and scaling ([SO19])."""
