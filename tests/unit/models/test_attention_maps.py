"""The attention weights for pictures are those of the forward pass, which keeps none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.models.discriminators import (
    ImageDiscriminator,
    PatchDiscriminator,
    SemanticFusionBlock,
    UNetDiscriminator,
)
from pipeline.models.discriminators.attention_maps import first_attention_maps
from pipeline.models.discriminators.semantic_fusion import Attention

TOLERANCE = 1e-5


def build(network: type[nn.Module], **options: object) -> nn.Module:
    torch.manual_seed(0)
    discriminator = network(8, semantic_channels=64, **options).eval()
    for module in discriminator.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.5)  # so that no weight is even
    return discriminator


def test_weights_of_an_attention_sum_to_1_and_give_its_output_when_applied_to_the_values() -> None:
    attention = Attention(16)
    tokens, context = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    weights = attention.weights(tokens, context)
    assert weights.shape == (2, 5, 7)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 5))
    assert torch.allclose(
        attention.to_out(weights @ attention.to_value(context)), attention(tokens, context), atol=1e-6
    )


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("network", "options", "feature_grid"),
    [
        (PatchDiscriminator, {}, (16, 12)),
        (UNetDiscriminator, {}, (8, 6)),
        (UNetDiscriminator, {"placement": "encoder"}, (32, 24)),
        (ImageDiscriminator, {}, (32, 24)),
    ],
)
def test_maps_are_the_weights_of_the_block_that_runs_first(network, options, feature_grid, residual) -> None:
    discriminator = build(network, residual=residual, **options)
    image, semantics = torch.rand(2, 3, 64, 48), torch.rand(2, 64, 4, 3)
    calls = []
    for module in discriminator.modules():
        if isinstance(module, SemanticFusionBlock):
            module.cross_attention.register_forward_hook(lambda *call: calls.append(call))
    maps = first_attention_maps(discriminator, image, semantics)
    attention, (_, context), output = calls[0]
    assert maps.shape == (2, 4, 3, *feature_grid)
    weights = maps.flatten(1, 2).flatten(2)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 12), atol=TOLERANCE)
    assert weights.std() > 1e-4
    assert torch.allclose(attention.to_out(weights @ attention.to_value(context)), output, atol=TOLERANCE)


def test_maps_of_a_network_without_cross_attention_are_none() -> None:
    discriminator = build(PatchDiscriminator, fusion="concatenation")
    assert first_attention_maps(discriminator, torch.rand(1, 3, 32, 32), torch.rand(1, 64, 2, 2)) is None
    with pytest.raises(ValueError, match="no cross-attention"):
        discriminator.fusion1.cross_attention_weights(torch.rand(1, 64, 2, 2), torch.rand(1, 16, 8, 8))


def test_network_is_left_without_hooks_whatever_happens() -> None:
    discriminator = build(PatchDiscriminator)
    with pytest.raises(ValueError, match="grid 2x2"):
        first_attention_maps(discriminator, torch.rand(1, 3, 32, 32), torch.rand(1, 64, 4, 4))
    first_attention_maps(discriminator, torch.rand(1, 3, 32, 32), torch.rand(1, 64, 2, 2))
    assert not any(module._forward_pre_hooks for module in discriminator.modules())
