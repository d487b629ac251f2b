"""What all passes of a step through the discriminator have in common, computed once.

The part of the fusion blocks that needs no image depends on the semantics of the truth and on the discriminator's
weights. Neither changes within a step, so that the passes on the output and on the truth, in both phases, can share it
(`Discriminator.prepare`). Each pass but the last is given copies cut off from its graph: a pass for the generator
leaves nothing on them, one for the discriminator its gradient, which the last pass then sends on to the weights along
with its own.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Protocol, TypeAlias

from torch import Tensor

Prepared: TypeAlias = tuple[Any, ...]
"""What a discriminator prepares: a named tuple of tensors for each fusion block; `of_rows` cuts it to some images."""


class PreparesSemantics(Protocol):
    """A discriminator as far as this room knows it."""

    def prepare(self, semantics: Tensor) -> Prepared:
        """Do the part of its work that needs no image."""
        ...


class StepSemantics:
    """A step's prepared semantics, or those of some of its images.

    Args:
        prepared: What the discriminator made of the semantics of all images, with its graph.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._copies: Prepared = tuple(
            fusion._make(part.detach().requires_grad_(part.requires_grad) for part in fusion) for fusion in prepared
        )
        self._rows = slice(None)

    def __getitem__(self, rows: slice) -> StepSemantics:
        """Return those of some images; gradients add up on the same copies."""
        some = copy(self)
        some._rows = rows
        return some

    @property
    def without_graph(self) -> Prepared:
        """For a pass whose gradient reaches the image alone."""
        return self._cut(tuple(fusion._make(part.detach() for part in fusion) for fusion in self._copies))

    @property
    def waiting(self) -> Prepared:
        """For a pass whose gradient waits on the copies."""
        return self._cut(self._copies)

    @property
    def with_graph(self) -> Prepared:
        """For the last pass, whose backward pass `owed` joins."""
        return self._cut(self._prepared)

    @property
    def copies(self) -> list[Tensor]:
        """The tensors on which gradients wait."""
        return [part for fusion in self._copies for part in fusion if part.requires_grad]

    def owed(self) -> Tensor | float:
        """Return a scalar whose gradient is what waits on the copies; its value means nothing."""
        parts = [part for fusion in self._prepared for part in fusion if part.requires_grad]
        pairs = ((part, waiting.grad) for part, waiting in zip(parts, self.copies, strict=True))
        return sum(((part * grad).sum() for part, grad in pairs if grad is not None), 0.0)

    def _cut(self, prepared: Prepared) -> Prepared:
        return tuple(fusion.of_rows(self._rows) for fusion in prepared)
