"""Measurements against named peers; never tests. `docs/benchmarks.md` shows their tables."""
