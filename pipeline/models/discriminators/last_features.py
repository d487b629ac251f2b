"""What a discriminator makes its decision from: its features behind the last fusion block, for pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.discriminators.base import Discriminator
from pipeline.models.grid import SEMANTIC_STRIDE_PX


@torch.no_grad()
def last_features(
    discriminator: Discriminator,
    image: Float[Tensor, "n 3 h w"],
    semantics: Float[Tensor, "n c_s grid_h grid_w"] | None,
) -> Float[Tensor, "n c grid_h grid_w"]:
    """Return the input of the discriminator's `features_layer`, averaged onto the grid of one cell per 16 px.

    Args:
        discriminator: In evaluation mode, with a `features_layer`.
        image: RGB in [0, 1].
        semantics: Of the HR image; None for a plain network.
    """
    found: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        found.append(inputs[0])

    hook = discriminator.get_submodule(discriminator.features_layer).register_forward_pre_hook(note)
    try:
        discriminator(image, semantics)
    finally:
        hook.remove()
    height, width = (side // SEMANTIC_STRIDE_PX for side in image.shape[-2:])
    return F.adaptive_avg_pool2d(found[0].float(), (height, width))
