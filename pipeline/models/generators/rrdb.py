"""RRDBNet, the generator of ESRGAN, Real-ESRGAN and SeD.

Guarantees: any input size; keys are those of BasicSR and Real-ESRGAN (`body.0.rdb1.conv1`), so an exported
state dict is read by other tools as it is. With 64 features, 23 blocks, growth 32 and scale 4 it has
16,697,987 parameters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.models.generators.contract import (
    Generator,
    GeneratorArchitecture,
    check_rgb,
    count_layers,
)
from pipeline.models.generators.options import GENERATORS
from pipeline.models.generators.rrdb_options import RRDBOptions
from pipeline.models.ops.dense_convolutions import dense_convolutions

_UPSAMPLING_STEPS = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2), 16: (2, 2, 2, 2)}
_RESIDUAL_SCALE = 0.2
_SLOPE = 0.2


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
        return features + _RESIDUAL_SCALE * dense_convolutions(features, self._convolutions(), _SLOPE)

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


class RRDBNet(Generator):
    """Residual-in-residual dense network for super-resolution.

    Args:
        num_features: Channels of the trunk.
        num_blocks: Residual-in-residual dense blocks.
        growth_channels: Channels that a convolution inside a dense block adds.
        scale: Upscaling factor: 1, 2, 3, 4, 8 or 16.
        unshuffle_factor: The input's pixels are first folded into channels by this factor. By default 2 for
            scale 2 and 4 for scale 1, as in Real-ESRGAN; KAIR's x2 networks and most x1 networks have 1.
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
                f"RRDBNet cannot upscale by {scale} with pixels folded by {fold}; "
                f"scale times fold must be one of {', '.join(map(str, _UPSAMPLING_STEPS))}"
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
        self.check_input(lq)
        height, width = lq.shape[-2:]
        features = self.conv_first(self._fold(lq))
        features = features + self.conv_body(self._run_body(features))
        for index, factor in enumerate(self.upsampling_steps):
            convolution = cast(nn.Conv2d, self.get_submodule(f"conv_up{index + 1}"))
            enlarged = F.interpolate(features, scale_factor=factor, mode="nearest")
            features = F.leaky_relu_(convolution(enlarged), _SLOPE)
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


class RRDBArchitecture(GeneratorArchitecture[RRDBOptions]):
    """RRDBNet. Real-ESRGAN's and BasicSR's files have its own names; KAIR's, SeD's and the first ESRGAN's do not."""

    name = "rrdb"
    options = RRDBOptions
    network = RRDBNet
    modelspec = "esrgan"

    def build(self, options: RRDBOptions) -> RRDBNet:
        """See `GeneratorArchitecture`."""
        return RRDBNet(
            options.num_features,
            options.num_blocks,
            options.growth_channels,
            options.scale,
            unshuffle_factor=options.unshuffle_factor,
            gradient_checkpointing=options.gradient_checkpointing,
        )

    def recognise(self, state: Mapping[str, Tensor], scale: int | None) -> RRDBOptions | None:
        """See `GeneratorArchitecture`. Without a scale an unfolded network with one upsampling step is taken for x2."""
        state = self.import_state(state)
        if "body.0.rdb1.conv1.weight" not in state:
            return None
        first, channels_out = state["conv_first.weight"], state["conv_last.weight"].shape[0]
        fold = math.isqrt(first.shape[1] // channels_out)
        folded_channels = fold**2 * channels_out
        check_rgb(self, channels_out if first.shape[1] == folded_channels else first.shape[1], channels_out)
        num_steps = count_layers(state, r"conv_up(\d+)\.weight$", first=1)
        return RRDBOptions(
            scale=scale or 2**num_steps // fold,
            num_features=first.shape[0],
            num_blocks=count_layers(state, r"body\.(\d+)\."),
            growth_channels=state["body.0.rdb1.conv1.weight"].shape[0],
            unshuffle_factor=fold,
        )

    def import_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `GeneratorArchitecture`."""
        if "model.0.weight" in state:
            return _from_first_esrgan(state)
        return {_from_kair(name): tensor for name, tensor in state.items()}


GENERATORS.add(RRDBArchitecture())

_KAIR_NAMES = (
    (r"^RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
    (r"^trunk_conv\.", "conv_body."),
    (r"^upconv(\d)\.", r"conv_up\1."),
    (r"^HRconv\.", "conv_hr."),
)


def _from_kair(name: str) -> str:
    for pattern, replacement in _KAIR_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _from_first_esrgan(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The first ESRGAN release numbers its layers: model.0, the trunk model.1.sub, an upsampling convolution at every
    # third, and the last two at 3n + 2 and 3n + 4.
    numbers = [int(found[1]) for name in state if (found := re.match(r"model\.(\d+)\.(?:weight|bias)$", name))]
    num_steps = (max(numbers, default=4) - 4) // 3
    layers = {0: "conv_first", 3 * num_steps + 2: "conv_hr", 3 * num_steps + 4: "conv_last"}
    layers |= {number: f"conv_up{number // 3}" for number in numbers if number and number % 3 == 0}

    def rename(name: str) -> str:
        name = re.sub(r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3.", name)
        name = re.sub(r"^model\.1\.sub\.\d+\.(weight|bias)$", r"conv_body.\1", name)
        found = re.match(r"^model\.(\d+)\.(weight|bias)$", name)
        return f"{layers[int(found[1])]}.{found[2]}" if found and int(found[1]) in layers else name

    return {rename(name): tensor for name, tensor in state.items()}
