"""Shape and value checks shared by the networks, with errors that say what to do.

Shapes are always checked. Values are checked outside training only, and only where that does not synchronise with a
device: a network in evaluation mode on the CPU refuses an image with NaN. A training step does not check: its images
come from 8-bit files, which hold no NaN, and the loop checks the losses. A generator's output is checked once more
where it becomes pixels (`pipeline.inference.upscale`), on any device.
"""

import torch
from torch import Tensor


def check_image(image: Tensor, name: str) -> None:
    """Refuse anything that is not a batch of RGB images.

    Args:
        image: The tensor to check.
        name: Its name in the error ("lq", "image").

    Raises:
        ValueError: `image` is not (n, 3, h, w).
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(
            f"{name} must be a batch of shape (n, 3, h, w); got {tuple(image.shape)}; "
            "add the batch dimension with image[None] or convert to RGB"
        )


def check_multiple(image: Tensor, name: str, *, multiple_px: int) -> None:
    """Refuse a batch whose height or width is not a multiple of `multiple_px`.

    Raises:
        ValueError: Names the size and the nearest valid one.
    """
    height, width = image.shape[-2:]
    if height % multiple_px or width % multiple_px or not height or not width:
        nearest = tuple(max(1, round(side / multiple_px)) * multiple_px for side in (height, width))
        raise ValueError(
            f"{name} must have sides that are multiples of {multiple_px} px; got {height}x{width}; "
            f"crop or pad it, for example to {nearest[0]}x{nearest[1]}"
        )


def check_finite(image: Tensor, name: str) -> None:
    """Refuse a batch on the CPU that holds NaN or infinity; does nothing on other devices and while compiling.

    Raises:
        ValueError: Says how many values are not finite, and which image holds the first.
    """
    if torch.compiler.is_compiling() or image.device.type != "cpu":
        return
    is_finite = image.isfinite()
    if not is_finite.all():
        first = int((~is_finite).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(
            f"{name} must be finite; got {int((~is_finite).sum())} NaN or infinite values, the first in image {first} "
            f"of {len(image)}; check where it comes from (a division by zero, half precision, a corrupt file)"
        )
