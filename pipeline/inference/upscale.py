"""One image through a generator: any size, in tiles when it does not fit into memory.

Tiles overlap and are blended, so no seam shows. The outer quarter of an overlap has weight 0, since the padding at a
tile's border corrupts it: with an overlap of four times the generator's receptive radius the result equals that of the
whole image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Float32, UInt8, UInt16
from torch import Tensor, nn

from pipeline.errors import CheckpointError, is_out_of_memory
from pipeline.inference.tiles import DEFAULT_OVERLAP_PX, DEFAULT_TILE_PX, check_tiles, lay_tiles
from shards.errors import InputError

Pixels: TypeAlias = UInt8[np.ndarray, "_ _ _"] | UInt16[np.ndarray, "_ _ _"] | Float32[np.ndarray, "_ _ _"]
"""An RGB image, or a gray one of one channel: of 8 or 16 bits, or floats in [0, 1]."""

_BAND_PIXELS = 2**18

_FULL = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}


def to_tensor(image: Pixels, device: torch.device) -> Float[Tensor, "1 3 h w"]:
    """Convert pixels to RGB in float32, in [0, 1]."""
    values = image if image.dtype == np.uint8 else image.astype(np.float32)
    # A copy: decoded images are read-only, and rotated ones have negative strides; torch supports neither.
    tensor = (
        torch.tensor(np.ascontiguousarray(values), device=device).permute(2, 0, 1)[None].float() / _FULL[image.dtype]
    )
    return tensor.expand(-1, 3, -1, -1)


def to_pixels(image: Float[Tensor, "1 c h w"], dtype: npt.DTypeLike = np.uint8) -> Pixels:
    """Clamp to [0, 1], and round to 8 or 16 bits unless floats are requested.

    Raises:
        CheckpointError: A value is NaN or infinite; the cast would silently turn it into an arbitrary colour.
    """
    if not bool(image.isfinite().all()):
        raise CheckpointError(
            f"the generator's output holds {int((~image.isfinite()).sum())} NaN or infinite values of {image.numel()}; "
            "its weights are damaged, or the run that made them diverged; take an earlier checkpoint"
        )
    clamped = image[0].float().clamp(0, 1).permute(1, 2, 0)
    if np.dtype(dtype) == np.float32:
        return clamped.cpu().numpy()
    scaled = (clamped * _FULL[np.dtype(dtype)]).round()
    if np.dtype(dtype) == np.uint8:
        return scaled.to(torch.uint8).cpu().numpy()
    return scaled.cpu().numpy().astype(np.uint16)


def upscale(
    generator: nn.Module,
    lq: Pixels,
    scale: int,
    *,
    tile_px: int = DEFAULT_TILE_PX,
    overlap_px: int = DEFAULT_OVERLAP_PX,
) -> Pixels:
    """Upscale one image into memory; see `upscale_bands`."""
    height, width, num_channels = lq.shape
    sr = np.empty((height * scale, width * scale, num_channels), lq.dtype)
    top = 0
    for band in upscale_bands(generator, lq, scale, tile_px=tile_px, overlap_px=overlap_px):
        sr[top : top + len(band)] = band
        top += len(band)
    return sr


@torch.inference_mode()
def upscale_bands(
    generator: nn.Module,
    lq: Pixels,
    scale: int,
    *,
    tile_px: int = DEFAULT_TILE_PX,
    overlap_px: int = DEFAULT_OVERLAP_PX,
) -> Iterator[Pixels]:
    """Upscale one image, in bands of rows from the top.

    Args:
        generator: Network in evaluation mode, from and to RGB images in [0, 1].
        lq: The image. A gray one enters the network as three equal channels, whose mean is returned.
        scale: The generator's.
        tile_px: Largest side of a tile in LQ px, at least 1 and at least twice the overlap.
        overlap_px: Overlap of neighbouring tiles in LQ px.

    Yields:
        Bands of the same type and channels. One row of tiles is in memory, on the network's device: 16 bytes for each
        of its output pixels.

    Raises:
        InputError: The tile sizes do not fit together, or memory ran out.
        CheckpointError: The output holds a NaN or infinite value.
    """
    check_tiles(tile_px, overlap_px)
    height, width, num_channels = lq.shape
    try:
        if max(height, width) <= tile_px:
            rows = _in_bands(generator(to_tensor(lq, _device_of(generator))))
        else:
            rows = _tiled(generator, lq, scale, tile_px, overlap_px)
        for band in rows:
            yield to_pixels(band.mean(1, keepdim=True) if num_channels == 1 else band, lq.dtype)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"memory ran out for an image of {width}x{height} px at x{scale} with tiles of {tile_px} px; "
            "lower --tile-px"
        ) from error


def _in_bands(image: Float[Tensor, "1 c h w"]) -> Iterator[Float[Tensor, "1 c rows w"]]:
    yield from image.split(max(1, _BAND_PIXELS // image.shape[3]), dim=2)


def _tiled(
    generator: nn.Module, lq: Pixels, scale: int, tile_px: int, overlap_px: int
) -> Iterator[Float[Tensor, "1 3 rows w"]]:
    """Yield the finished rows of the output."""
    height, width = lq.shape[:2]
    device = _device_of(generator)
    spans, columns_of_tiles = (lay_tiles(side, tile_px, overlap_px) for side in (height, width))
    total = torch.zeros(1, 3, (spans[0][1] - spans[0][0]) * scale, width * scale, device=device)
    weight = torch.zeros_like(total[:, :1])
    for (top, bottom), (next_top, _) in zip(spans, [*spans[1:], (height, height)], strict=True):
        rows = to_tensor(lq[top:bottom], device)
        for left, right in columns_of_tiles:
            tile = generator(rows[..., left:right]).float()
            ramp = (
                _ramp(top, bottom, height, overlap_px, scale).to(device)[:, None]
                * _ramp(left, right, width, overlap_px, scale).to(device)
            )  # fmt: skip
            columns = slice(left * scale, right * scale)
            total[..., columns] += tile * ramp
            weight[..., columns] += ramp
        finished = min(next_top - top, bottom - top) * scale
        for sums, weights in zip(_in_bands(total[:, :, :finished]), _in_bands(weight[:, :, :finished]), strict=True):
            yield sums / weights
        _move_up(total, finished)
        _move_up(weight, finished)


def _move_up(sums: Float[Tensor, "1 c h w"], finished: int) -> None:
    """Drop the first rows and add as many zeros: the rows below overlap with the next row of tiles."""
    kept = sums.shape[2] - finished
    for top in range(0, kept, finished):  # in pieces that do not overlap with their destination
        stop = min(top + finished, kept)
        sums[:, :, top:stop] = sums[:, :, top + finished : stop + finished]
    sums[:, :, kept:] = 0


def _device_of(generator: nn.Module) -> torch.device:
    return next(generator.parameters()).device


def _ramp(start_px: int, stop_px: int, side_px: int, overlap_px: int, scale: int) -> Tensor:
    """Weights of one axis of a tile: 0 over the outer quarter of an overlap, then rising; 1 at the image's border."""
    length, overlap = (stop_px - start_px) * scale, overlap_px * scale
    outer = overlap // 4
    position = torch.arange(length, dtype=torch.float32)
    rising = ((position - outer + 1) / (overlap - 2 * outer + 1)).clamp(0, 1)
    whole = torch.ones(length)
    return (rising if start_px > 0 else whole) * (rising.flip(0) if stop_px < side_px else whole)
