"""A semantic-aware discriminator for trainers that call theirs with an image alone (docs/integrate.md)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.discriminators.base import Discriminator


class ConditionedDiscriminator(nn.Module):
    """A discriminator with its semantic extractor, which looks at the HR crops once per batch.

    Its parameters and its state dict hold the discriminator alone: a trainer neither saves nor optimises the extractor.

    Args:
        discriminator: Semantic-aware, with the `channels` of the extractor as its `semantic_channels`.
        extractor: Frozen, such as `build_semantic_extractor` returns; moved to the device of the HR crops.

    Example:
        >>> judge.look_at(gt)                      # once per batch
        >>> real, fake = judge(gt), judge(sr)      # both with the semantics of `gt`
    """

    def __init__(self, discriminator: Discriminator, extractor: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._extractor = (extractor,)  # in a tuple: not a part of this module
        self._semantics: Tensor | None = None

    def look_at(self, gt: Float[Tensor, "n 3 h w"]) -> None:
        """Extract the semantics of HR crops, for the calls up to the next look.

        Args:
            gt: RGB in [0, 1], sides that are multiples of 16 px.
        """
        (extractor,) = self._extractor
        with torch.no_grad():
            self._semantics = extractor.to(gt.device)(gt.detach())

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n ..."]:
        """Return the logits of a batch of the crops last looked at, or of their super-resolved counterparts.

        Raises:
            RuntimeError: Nothing was looked at yet.
            ValueError: The batch has another size than the crops; see `Discriminator.forward`.
        """
        if self._semantics is None:
            raise RuntimeError("no semantics yet: call look_at(gt) with the HR crops once per batch, before the image")
        return self.discriminator(image, self._semantics)
