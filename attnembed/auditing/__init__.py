"""What is in a data set before anything is learned from it: duplicates, contradictions, shared types, baselines."""
