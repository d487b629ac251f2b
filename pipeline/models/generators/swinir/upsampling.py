"""The last layers of SwinIR, one set for each of the official upsamplers, under the official names."""

from __future__ import annotations

import math

from torch import nn

TAIL_FEATURES = 64


def build_tail(upsampler: str, embed_dim: int, scale: int) -> dict[str, nn.Module]:
    """Build the layers after the trunk.

    Args:
        upsampler: "pixelshuffle", "pixelshuffledirect" or "nearest+conv".
        embed_dim: Channels of the trunk.
        scale: Upscaling factor.

    Returns:
        Modules by their name in the official files.

    Raises:
        ValueError: No such upsampler, or it cannot upscale by `scale`.
    """
    if upsampler == "pixelshuffledirect":
        return {"upsample": nn.Sequential(_conv(embed_dim, 3 * scale**2), nn.PixelShuffle(scale))}
    # The slope 0.01 is LeakyReLU's default, which the official code uses here and only here.
    before = nn.Sequential(_conv(embed_dim, TAIL_FEATURES), nn.LeakyReLU(0.01))
    tail: dict[str, nn.Module] = {"conv_before_upsample": before}
    if upsampler == "pixelshuffle":
        tail["upsample"] = nn.Sequential(*_shuffle_steps(scale))
    elif upsampler == "nearest+conv" and _is_power_of_two(scale):
        for index in range(int(math.log2(scale))):
            tail[f"conv_up{index + 1}"] = _conv(TAIL_FEATURES, TAIL_FEATURES)
        tail["conv_hr"] = _conv(TAIL_FEATURES, TAIL_FEATURES)
    else:
        raise ValueError(
            f"SwinIR cannot upscale by {scale} with {upsampler!r}; use pixelshuffle or pixelshuffledirect "
            "(any scale), or nearest+conv (2, 4 or 8)"
        )
    return tail | {"conv_last": _conv(TAIL_FEATURES, 3)}


def _shuffle_steps(scale: int) -> list[nn.Module]:
    factors = [2] * int(math.log2(scale)) if _is_power_of_two(scale) else [scale]
    steps: list[nn.Module] = []
    for factor in factors:
        steps += [_conv(TAIL_FEATURES, TAIL_FEATURES * factor**2), nn.PixelShuffle(factor)]
    return steps


def _is_power_of_two(scale: int) -> bool:
    return scale >= 2 and scale & (scale - 1) == 0


def _conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)
