"""Networks: generators, discriminators, the semantic-aware fusion block, semantic extractors."""
