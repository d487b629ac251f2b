"""Measurements against named peers; never tests. `docs/benchmarks.md` keeps what they printed."""
