"""Side-by-side benchmarks of attnembed and its peers; see docs/performance.md."""
