"""Operators that compute what a few lines of torch would, in less time or memory.

Each file has the plain twin, which states the mathematics, and the fast version; tests/unit/models/test_ops.py checks
that they agree in value and gradient, and benchmarks/ops.py measures what keeps the fast one.
"""
