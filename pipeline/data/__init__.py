"""From shards to the batches of one rank, resumable at any image; knows no networks."""
