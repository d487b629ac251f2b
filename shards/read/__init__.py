"""Shards to samples: the sampling order, the reader, the cache of a machine, verification."""
