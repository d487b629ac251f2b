"""RRDBNet, the generator of ESRGAN, Real-ESRGAN and SeD.

Guarantees: any input size; keys are those of BasicSR and Real-ESRGAN (`body.0.rdb1.conv1`), so an exported
state dict is read by other tools as it is. With 64 features, 23 blocks, growth 32 and scale 4 it has
16,697,987 parameters.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.models.ops.enlarged_convolution import convolve_enlarged
from pipeline.models.ops.memory_layout import new_map
from pipeline.models.ops.spectral_norm import without_autocast
from pipeline.models.shapes import check_finite, check_image

_UPSAMPLING_STEPS = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
_RESIDUAL_SCALE = 0.2
_SLOPE = 0.2


class _DenseConvolutions(torch.autograd.Function):
    """The convolutions of a dense block, which write what they make behind what they see.

    Composed of torch's own operators every concatenation is kept for the backward pass, 768 channels a block of 64 and
    32. They all begin alike, so here the longest is kept alone, 192 channels. The same bits, forward and backward.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, *parameters: Tensor) -> Tensor:
        """Map (n, c, h, w) to what the last convolution makes; `parameters` are weight and bias of each in turn."""
        weights, biases = parameters[::2], parameters[1::2]
        n, channels, height, width = features.shape
        seen = new_map(features, (n, weights[-1].shape[1], height, width))
        seen[:, :channels] = features
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            start, stop = weight.shape[1], weight.shape[1] + weight.shape[0]
            grown = F.conv2d(seen[:, :start], weight, bias, padding=1)
            seen[:, start:stop] = F.leaky_relu_(grown, _SLOPE)
        ctx.save_for_backward(seen, *weights)
        return F.conv2d(seen, weights[-1], biases[-1], padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Go back from the last convolution to the first, adding up what each map gets from all that see it."""
        (gradient,) = gradients
        seen, *weights = ctx.saved_tensors
        to_seen, *to_parameters = _convolution_backward(gradient, seen, weights[-1])
        for weight in reversed(weights[:-1]):
            start, stop = weight.shape[1], weight.shape[1] + weight.shape[0]
            grown = torch.ops.aten.leaky_relu_backward(to_seen[:, start:stop], seen[:, start:stop], _SLOPE, True)
            more, *own = _convolution_backward(grown, seen[:, :start], weight)
            to_seen, to_parameters = to_seen[:, :start].add_(more), [*own, *to_parameters]
        return (to_seen, *to_parameters)


def _convolution_backward(gradient: Tensor, seen: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the map, the weight and the bias of a 3x3 convolution with padding 1."""
    one, zero = (1, 1), (0, 0)
    return torch.ops.aten.convolution_backward(
        gradient, seen, weight, [weight.shape[0]], one, one, one, False, zero, 1, (True, True, True)
    )


class ResidualDenseBlock(nn.Module):
    """Five 3x3 convolutions, each seeing all before it; the last is added at a fifth of its strength.

    Args:
        num_features: Channels in and out.
        growth_channels: Channels that each of the first four convolutions adds.
    """

    def __init__(self, num_features: int, growth_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_features, growth_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(num_features + growth_channels, growth_channels, 3, padding=1)
        self.conv3 = nn.Conv2d(num_features + 2 * growth_channels, growth_channels, 3, padding=1)
        self.conv4 = nn.Conv2d(num_features + 3 * growth_channels, growth_channels, 3, padding=1)
        self.conv5 = nn.Conv2d(num_features + 4 * growth_channels, num_features, 3, padding=1)
        self._start_small()

    @torch.no_grad()
    def _start_small(self) -> None:
        for convolution in self._convolutions():
            nn.init.kaiming_normal_(convolution.weight)
            convolution.weight.mul_(0.1)
            nn.init.zeros_(convolution.get_parameter("bias"))

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, num_features, h, w) to the same shape."""
        inputs = [features, *(part for layer in self._convolutions() for part in (layer.weight, layer.bias))]
        device = features.device
        if device.type != "meta" and torch.is_autocast_enabled(device.type):
            inputs = [part.to(torch.get_autocast_dtype(device.type)) for part in inputs]
        with without_autocast(device):
            return features + _RESIDUAL_SCALE * _DenseConvolutions.apply(*inputs)

    def _convolutions(self) -> list[nn.Conv2d]:
        return [self.conv1, self.conv2, self.conv3, self.conv4, self.conv5]


class ResidualInResidualDenseBlock(nn.Module):
    """Three dense blocks inside one more scaled skip connection."""

    def __init__(self, num_features: int, growth_channels: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_features, growth_channels)
        self.rdb2 = ResidualDenseBlock(num_features, growth_channels)
        self.rdb3 = ResidualDenseBlock(num_features, growth_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, num_features, h, w) to the same shape."""
        return features + _RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(features)))


class RRDBNet(nn.Module):
    """Residual-in-residual dense network for super-resolution.

    Args:
        num_features: Channels of the trunk.
        num_blocks: Residual-in-residual dense blocks.
        growth_channels: Channels that a convolution inside a dense block adds.
        scale: Upscaling factor: 1, 2, 3, 4 or 8.
        unshuffle_factor: The input's pixels are first folded into channels by this factor. By default 2 for
            scale 2 and 4 for scale 1, as in Real-ESRGAN; KAIR's x2 networks have 1.
        gradient_checkpointing: Recompute each block in the backward pass: less memory, about a third more
            time.

    Raises:
        ValueError: The scale and the fold do not give a factor that can be upsampled.

    References:
        Wang et al. 2018, ESRGAN, arXiv:1809.00219, Sec. 3.1. Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833,
        Sec. 3.3 (the fold for x2 and x1). x3 is one nearest-neighbour step, as in the first ESRGAN release.
    """

    def __init__(
        self,
        num_features: int = 64,
        num_blocks: int = 23,
        growth_channels: int = 32,
        scale: int = 4,
        *,
        unshuffle_factor: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        fold = {1: 4, 2: 2}.get(scale, 1) if unshuffle_factor is None else unshuffle_factor
        if scale * fold not in _UPSAMPLING_STEPS:
            raise ValueError(
                f"RRDBNet cannot upscale by {scale} (pixels folded by {fold}); scale must be 1, 2, 3, 4 or 8"
            )
        self.scale = scale
        self.unshuffle_factor = fold
        self.gradient_checkpointing = gradient_checkpointing
        self.upsampling_steps = _UPSAMPLING_STEPS[scale * fold]
        self.conv_first = nn.Conv2d(3 * fold**2, num_features, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualInResidualDenseBlock(num_features, growth_channels) for _ in range(num_blocks))
        )
        self.conv_body = nn.Conv2d(num_features, num_features, 3, padding=1)
        for index in range(len(self.upsampling_steps)):
            self.add_module(f"conv_up{index + 1}", nn.Conv2d(num_features, num_features, 3, padding=1))
        self.conv_hr = nn.Conv2d(num_features, num_features, 3, padding=1)
        self.conv_last = nn.Conv2d(num_features, 3, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        """Upscale a batch.

        Args:
            lq: (n, 3, h, w), RGB in [0, 1], any size.

        Returns:
            (n, 3, h * scale, w * scale), not clamped.

        Raises:
            ValueError: `lq` is not a batch of RGB images, or not finite (looked at in evaluation mode, on the CPU).
        """
        check_image(lq, "lq")
        if not self.training:
            check_finite(lq, "lq")
        height, width = lq.shape[-2:]
        features = self.conv_first(self._fold(lq))
        features = features + self.conv_body(self._run_body(features))
        for index, factor in enumerate(self.upsampling_steps):
            convolution = cast(nn.Conv2d, self.get_submodule(f"conv_up{index + 1}"))
            features = F.leaky_relu_(convolve_enlarged(features, convolution, factor), _SLOPE)
        sr = self.conv_last(F.leaky_relu_(self.conv_hr(features), _SLOPE))
        return sr[..., : height * self.scale, : width * self.scale]

    def _fold(self, lq: Tensor) -> Tensor:
        fold = self.unshuffle_factor
        if fold == 1:
            return lq
        height, width = lq.shape[-2:]
        padding = (0, -width % fold, 0, -height % fold)
        return F.pixel_unshuffle(F.pad(lq, padding, mode="replicate"), fold)

    def _run_body(self, features: Tensor) -> Tensor:
        for block in self.body:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                features = checkpoint(block, features, use_reentrant=False)
            else:
                features = block(features)
        return features
