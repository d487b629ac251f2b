"""What the networks compute in another order than it is written is still the same, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models import SemanticFusionBlock


def assert_same(one: Callable[..., Tensor], other: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Compare values and the gradients of all inputs, in float64."""
    got, wanted = one(*inputs), other(*inputs)
    torch.testing.assert_close(got, wanted)
    cotangent = torch.randn(got.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(
        torch.autograd.grad(got, inputs, cotangent), torch.autograd.grad(wanted, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("upscale", "trims_one"), [(2, False), (2, True), (4, False), (8, False)])
@pytest.mark.parametrize("fusion", ["cross_attention", "modulation"])
def test_spreading_in_one_convolution_equals_projecting_shuffling_convolving(upscale, trims_one, fusion):
    torch.manual_seed(0)
    block = SemanticFusionBlock(64, 8, upscale, trims_one=trims_one, fusion=fusion).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)

    def written_out(tokens: Tensor) -> Tensor:
        shuffled = F.pixel_shuffle(block.project_out(tokens), upscale)
        # The reference goes through each block column by column, PixelShuffle row by row.
        blocks = shuffled.unflatten(2, (-1, upscale)).unflatten(4, (-1, upscale)).transpose(3, 5)
        return block.conv_out(blocks.flatten(4, 5).flatten(2, 3))

    def spread(tokens: Tensor) -> Tensor:
        return block._spread(tokens, block.prepare(torch.zeros(1, 64, 3, 2, dtype=torch.float64)))

    assert_same(spread, written_out, draw(2, 64, 3, 2))
