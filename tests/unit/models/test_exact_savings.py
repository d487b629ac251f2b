"""What the networks compute in another order than it is written is still the same, forward and backward."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models import SemanticFusionBlock
from pipeline.models.discriminators.base import activate_onto
from pipeline.models.generators.rrdb import ResidualDenseBlock
from pipeline.models.ops.enlarged_convolution import convolve_enlarged
from pipeline.models.ops.spectral_norm import SpectralNormConv2d
from pipeline.models.ops.upsampled_convolution import convolve_upsampled


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


@pytest.mark.parametrize("size_px", [(1, 1), (1, 3), (2, 2), (5, 4)])
def test_upsampled_convolution_at_any_size_equals_upsampling_then_convolving(size_px):
    torch.manual_seed(0)

    def written_out(features: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(F.interpolate(features, scale_factor=2, mode="bilinear"), weight, padding=1)

    assert_same(convolve_upsampled, written_out, draw(2, 3, *size_px), draw(4, 3, 3, 3))


def test_upsampled_convolution_passes_a_numerical_gradient_check():
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(convolve_upsampled, (draw(1, 2, 3, 2), draw(2, 2, 3, 3)))


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size_px", [(1, 1), (1, 3), (5, 4)])
def test_convolution_of_an_enlarged_map_equals_enlarging_then_convolving(factor, memory_format, size_px):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 3, padding=1).double()

    def fused(features: Tensor, *_: Tensor) -> Tensor:
        return convolve_enlarged(features, convolution, factor)

    def written_out(features: Tensor, *_: Tensor) -> Tensor:
        return convolution(F.interpolate(features, scale_factor=factor, mode="nearest"))

    features = draw(2, 3, *size_px).detach().contiguous(memory_format=memory_format).requires_grad_()
    assert_same(fused, written_out, features, *convolution.parameters())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_spectrally_normalised_parts_equal_dividing_then_cutting(memory_format):
    torch.manual_seed(0)
    convolution = SpectralNormConv2d(5, 4, 3, bias=False).double().to(memory_format=memory_format).eval()

    def written_out(weight: Tensor) -> Tensor:
        sigma = torch.dot(convolution.weight_u, torch.mv(weight.flatten(1), convolution.weight_v))
        return torch.cat((2.0 * (weight / sigma)[:, :3], (weight / sigma)[:, 3:]), dim=1)

    def in_parts(weight: Tensor) -> Tensor:
        first, second = convolution._normalised_parts(3, 2)
        return torch.cat((2.0 * first, second), dim=1)

    assert_same(in_parts, written_out, convolution.weight)
    (gradient,) = torch.autograd.grad(in_parts(convolution.weight).square().sum(), convolution.weight)
    # Else the optimizer would copy it, or read it in another order.
    assert gradient.stride() == convolution.weight.stride()


def test_spectral_estimate_is_the_same_in_either_layout():
    torch.manual_seed(0)
    one = SpectralNormConv2d(5, 4, 3, bias=False).double()
    other = copy.deepcopy(one).to(memory_format=torch.channels_last)
    for _ in range(2):
        torch.testing.assert_close(one.normalised_weight(), other.normalised_weight())
    torch.testing.assert_close(one.state_dict(), other.state_dict())


def test_convolution_of_parts_equals_that_of_their_concatenation():
    torch.manual_seed(0)
    convolution = SpectralNormConv2d(5, 4, 3, bias=True).double().eval()
    assert_same(convolution, lambda *parts: convolution(torch.cat(parts, dim=1)), draw(2, 3, 6, 5), draw(2, 2, 6, 5))


def test_activation_onto_a_skip_equals_activating_then_adding():
    torch.manual_seed(0)

    def written_out(features: Tensor, skip: Tensor) -> Tensor:
        return F.leaky_relu(2 * features, 0.2) + skip

    # It works in place, which a leaf does not allow.
    assert_same(lambda features, skip: activate_onto(skip, 2 * features), written_out, draw(2, 3, 4), draw(2, 3, 4))


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


def written_out(block: ResidualDenseBlock, features: Tensor) -> Tensor:
    seen = features
    *growing, last = block.children()
    for convolution in growing:
        seen = torch.cat((seen, F.leaky_relu(convolution(seen), 0.2)), dim=1)
    return features + 0.2 * last(seen)


def dense_block() -> ResidualDenseBlock:
    torch.manual_seed(0)
    block = ResidualDenseBlock(6, 4)
    for convolution in block.children():
        nn.init.normal_(convolution.bias)
    return block


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("num_images", [1, 2])
def test_dense_block_equals_concatenating(memory_format, num_images):
    block = dense_block().to(memory_format=memory_format)
    features = torch.randn(num_images, 6, 5, 7).contiguous(memory_format=memory_format).requires_grad_()
    results = []
    for run in (block, lambda features: written_out(block, features)):
        out = run(features)
        results.append([out, *torch.autograd.grad(out.square().sum(), [features, *block.parameters()])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-5)
    assert torch.equal(results[0][0], results[1][0])


def test_dense_block_passes_a_numerical_gradient_check():
    block = dense_block().double()
    assert torch.autograd.gradcheck(lambda features, *_: block(features), (draw(1, 6, 3, 2), *block.parameters()))


def test_dense_block_keeps_each_map_once_for_the_backward_pass():
    block, features, kept = ResidualDenseBlock(64, 32), torch.rand(2, 64, 8, 8, requires_grad=True), {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = block(features)
    weights = sum(parameter.nbytes for parameter in block.parameters() if parameter.ndim == 4)
    assert sum(kept.values()) - weights == (64 + 4 * 32) * 2 * 8 * 8 * 4
    del held


def test_dense_block_under_autocast_gives_the_same_bits_too():
    block, features = dense_block(), torch.randn(2, 6, 5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = block(features), written_out(block, features)
    assert got.dtype == wanted.dtype == torch.float32
    assert torch.equal(got, wanted)
    got.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in block.parameters())


def test_dense_block_is_one_graph_for_the_compiler_forward_and_backward():
    block, features = dense_block(), torch.randn(2, 6, 5, 7, requires_grad=True)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    inputs = [features, *block.parameters()]
    got, wanted = (torch.autograd.grad(run(features).square().sum(), inputs) for run in (compiled, block))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)
