"""The paper's non-mathematical benchmarks, through Inspect."""
