"""The grid that discriminators, semantics and crops share."""

SEMANTIC_STRIDE_PX = 16
"""Image pixels per cell of the semantic grid, along each axis."""
