"""Discriminators P, U and I, plain and semantic-aware, and the semantic-aware fusion block."""
