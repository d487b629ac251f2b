"""Photos to shards: sources, survey, plan, cutting, spool, generations."""
