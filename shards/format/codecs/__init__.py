"""Codecs: how the numbers of a cached feature are stored. A cache names its codec in every header.

A new one is a file here, which adds itself, and a line in the registry below.
"""

from shards.format.codecs.codec import CODECS, Coding, FeatureCodec, Shape

FP16 = "fp16"
"""The codec of caches whose header names none."""
DEFAULT_CODEC = "uint8-zstd"
"""The smallest within the bound that docs/features.md states."""

__all__ = ["CODECS", "DEFAULT_CODEC", "FP16", "Coding", "FeatureCodec", "Shape"]
