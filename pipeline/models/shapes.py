"""Shape checks shared by the networks, so that a bad tensor is refused with a text that says what to do.

Only shapes are looked at, never values, so a check costs nothing and never waits for a device.
"""

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
