"""One image through a generator: any size, in tiles when it does not fit into memory.

Tiles overlap and are blended, so no seam shows. The outer quarter of an overlap has weight 0, since the padding at a
tile's border corrupts it: with an overlap of four times the generator's receptive radius the result equals that of the
whole image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.inference.tiles import DEFAULT_OVERLAP_PX, DEFAULT_TILE_PX, check_tiles


def to_tensor(image: UInt8[np.ndarray, "h w 3"], device: torch.device) -> Float[Tensor, "1 3 h w"]:
    """Convert RGB pixels to float32 in [0, 1]."""
    # Copied: a decoded image is read-only, and torch warns of sharing such memory.
    return torch.tensor(np.ascontiguousarray(image), device=device).permute(2, 0, 1)[None].float() / 255


def to_pixels(image: Float[Tensor, "1 3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Clamp to [0, 1] and round to 8-bit RGB.

    Raises:
        CheckpointError: A value is NaN or infinite; the cast would silently turn it into an arbitrary colour.
    """
    if not image.isfinite().all():
        raise CheckpointError(
            f"the generator's output holds {int((~image.isfinite()).sum())} NaN or infinite values of {image.numel()}; "
            "its weights are damaged, or the run that made them diverged; take an earlier checkpoint"
        )
    return (image[0].float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


@torch.inference_mode()
def upscale(
    generator: nn.Module,
    lq: UInt8[np.ndarray, "h w 3"],
    scale: int,
    *,
    tile_px: int = DEFAULT_TILE_PX,
    overlap_px: int = DEFAULT_OVERLAP_PX,
) -> UInt8[np.ndarray, "{scale}*h {scale}*w 3"]:
    """Upscale one RGB image.

    Args:
        generator: Network in evaluation mode, from and to images in [0, 1].
        lq: The image.
        scale: The generator's.
        tile_px: Largest side of a tile in LQ px, at least 1 and at least twice the overlap.
        overlap_px: Overlap of neighbouring tiles in LQ px.

    Raises:
        InputError: The tile sizes do not fit together.
        CheckpointError: The output holds a NaN or infinite value.
    """
    check_tiles(tile_px, overlap_px)
    device = next(generator.parameters()).device
    image = to_tensor(lq, device)
    height, width = lq.shape[:2]
    if max(height, width) <= tile_px:
        return to_pixels(generator(image))
    total = torch.zeros(1, 3, height * scale, width * scale, device=device)
    weight = torch.zeros(1, 1, height * scale, width * scale, device=device)
    for top, bottom in _spans(height, tile_px, overlap_px):
        for left, right in _spans(width, tile_px, overlap_px):
            tile = generator(image[..., top:bottom, left:right]).float()
            ramp = (
                _ramp(top, bottom, height, overlap_px, scale).to(device)[:, None]
                * _ramp(left, right, width, overlap_px, scale).to(device)
            )  # fmt: skip
            rows, columns = slice(top * scale, bottom * scale), slice(left * scale, right * scale)
            total[..., rows, columns] += tile * ramp
            weight[..., rows, columns] += ramp
    return to_pixels(total / weight)


def _spans(side_px: int, tile_px: int, overlap_px: int) -> Iterator[tuple[int, int]]:
    """Yield the tiles of one axis; the last is moved inwards, so that all have the same size."""
    start = 0
    while start + tile_px < side_px:
        yield start, start + tile_px
        start += tile_px - overlap_px
    yield max(0, side_px - tile_px), side_px


def _ramp(start_px: int, stop_px: int, side_px: int, overlap_px: int, scale: int) -> Tensor:
    """Weights of one axis of a tile: 0 over the outer quarter of an overlap, then rising; 1 at the image's border."""
    length, overlap = (stop_px - start_px) * scale, overlap_px * scale
    outer = overlap // 4
    position = torch.arange(length, dtype=torch.float32)
    rising = ((position - outer + 1) / (overlap - 2 * outer + 1)).clamp(0, 1)
    whole = torch.ones(length)
    return (rising if start_px > 0 else whole) * (rising.flip(0) if stop_px < side_px else whole)
