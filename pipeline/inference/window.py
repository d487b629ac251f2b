"""Square parts of an image."""

from __future__ import annotations

from dataclasses import dataclass

from numpy import ndarray


@dataclass(frozen=True)
class Window:
    """A square part of an image."""

    top_px: int
    left_px: int
    side_px: int

    def cut(self, image: ndarray) -> ndarray:
        """Return a copy of the part of an image of (H, W, ...)."""
        rows, columns = (slice(first, first + self.side_px) for first in (self.top_px, self.left_px))
        return image[rows, columns].copy()
