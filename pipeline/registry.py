"""The registry class, for the rooms of the pipeline; it lives in `shards`, where degradation operations register."""

from shards.registry import Registry

__all__ = ["Registry"]
