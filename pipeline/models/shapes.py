"""Checks shared by the networks, so that a bad tensor is refused with a text that says what to do.

Shapes are always checked. Values are looked at outside training alone, and where that waits for no device: an
image with NaN in it is refused by a network in evaluation mode, on the CPU. A training step never looks: its images
come from 8-bit files, which hold no NaN, and what the generator makes of them is judged by the loop from the losses.
What a generator gives is looked at once more where it becomes pixels (`pipeline.inference.upscale`), on any device.
"""

import torch
from torch import Tensor


def check_image(image: Tensor, name: str, *, channels: int = 3) -> None:
    """Refuse anything that is not a batch of images.

    Args:
        image: What the caller handed in.
        name: How the text calls it ("lq", "image").
        channels: Channels the network reads.

    Raises:
        ValueError: `image` is not (n, channels, h, w).
    """
    if image.ndim != 4 or image.shape[1] != channels:
        raise ValueError(
            f"{name} must be a batch of shape (n, {channels}, h, w); got {tuple(image.shape)}; "
            "add the batch dimension with image[None] or convert to RGB"
        )


def check_multiple(image: Tensor, name: str, *, multiple_px: int) -> None:
    """Refuse a batch whose height or width is no multiple of `multiple_px`.

    Raises:
        ValueError: Names the size and the nearest sizes that would do.
    """
    height, width = image.shape[-2:]
    if height % multiple_px or width % multiple_px or not height or not width:
        nearest = tuple(max(1, round(side / multiple_px)) * multiple_px for side in (height, width))
        raise ValueError(
            f"{name} must have sides that are multiples of {multiple_px} px; got {height}x{width}; "
            f"crop or pad it, for example to {nearest[0]}x{nearest[1]}"
        )


def check_finite(image: Tensor, name: str) -> None:
    """Refuse a batch with NaN or infinity in it; passes what lies on another device, and while compiling.

    Raises:
        ValueError: Names how many values are not finite, and the image that holds the first.
    """
    if torch.compiler.is_compiling() or image.device.type != "cpu":
        return
    is_finite = image.isfinite()
    if not is_finite.all():
        first = int((~is_finite).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(
            f"{name} must be finite; got {int((~is_finite).sum())} NaN or infinite values, the first in image {first} "
            f"of {len(image)}; look at what made it (a division by zero, half precision, a damaged file)"
        )
