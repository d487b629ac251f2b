"""Where a semantic-aware discriminator looks: the cross-attention of its first fusion block, for pictures.

The fused kernel of the forward pass keeps no weights, so they are computed again from what the block was given.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.discriminators.base import Discriminator
from pipeline.models.discriminators.semantic_fusion import SemanticFusionBlock


@torch.no_grad()
def first_attention_maps(
    discriminator: Discriminator, image: Float[Tensor, "n 3 h w"], semantics: Float[Tensor, "n c grid_h grid_w"]
) -> Float[Tensor, "n grid_h grid_w feature_h feature_w"] | None:
    """Return the cross-attention weights of the fusion block that runs first.

    Args:
        discriminator: In evaluation mode.
        image: RGB in [0, 1].
        semantics: Of the HR image, one cell per 16 px.

    Returns:
        For each cell of the semantics its weights over the positions of the block's image features, whose sum is 1;
            None where no block has cross-attention.
    """
    calls: list[tuple[SemanticFusionBlock, Tensor, Tensor]] = []

    def note(block: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        if isinstance(block, SemanticFusionBlock):
            calls.append((block, *inputs))

    blocks = [module for module in discriminator.modules() if _attends(module)]
    hooks = [block.register_forward_pre_hook(note) for block in blocks]
    try:
        discriminator(image, semantics)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        return None
    block, block_semantics, features = calls[0]
    return block.cross_attention_weights(block_semantics, features)


def _attends(module: nn.Module) -> bool:
    return isinstance(module, SemanticFusionBlock) and module.fusion == "cross_attention"
