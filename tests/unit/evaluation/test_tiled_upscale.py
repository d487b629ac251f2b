"""Whole images and tiles: the same picture, for any size."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from harness import photo
from torch import Tensor, nn

from pipeline.inference.device import autocast
from pipeline.inference.tiles import lay_tiles
from pipeline.inference.upscale import to_pixels, to_tensor, upscale, upscale_bands
from pipeline.models.generators import SRVGGNetCompact
from shards.errors import InputError

# Four convolutions of 3x3 at low resolution: nothing further than 4 px away counts.
REACH_PX = 4


@pytest.fixture
def compact() -> nn.Module:
    return SRVGGNetCompact(8, 2, 4).eval()


class Enlarged(nn.Module):
    """Repeats each pixel; remembers the sizes that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, lq: Tensor) -> Tensor:
        self.sizes.append(tuple(lq.shape[-2:]))
        return lq.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_read_only_image_is_upscaled_without_a_warning() -> None:
    image = photo(1, 9, 11)
    image.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert upscale(SRVGGNetCompact(4, 1, 2).eval(), image, 2).shape == (18, 22, 3)


def test_pixels_when_made_a_tensor_and_back_are_the_same() -> None:
    image = photo(0, 7, 5)
    tensor = to_tensor(image, torch.device("cpu"))
    assert tensor.shape == (1, 3, 7, 5)
    assert float(tensor.max()) <= 1
    assert np.array_equal(to_pixels(tensor), image)


def test_image_turned_by_its_orientation_is_made_a_tensor() -> None:
    image = photo(0, 5, 7)
    turned = np.rot90(image, -1)
    assert min(turned.strides) < 0
    np.testing.assert_array_equal(to_pixels(to_tensor(turned, torch.device("cpu"))), np.ascontiguousarray(turned))


def test_pixels_when_out_of_range_are_clamped_and_rounded() -> None:
    values = torch.tensor([-1.0, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 9.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert to_pixels(values)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize(("height_px", "width_px"), [(1, 1), (17, 23), (8, 31)])
def test_image_when_small_goes_through_whole(compact: nn.Module, height_px: int, width_px: int) -> None:
    image = photo(1, height_px, width_px)
    with torch.inference_mode():
        expected = to_pixels(compact(to_tensor(image, torch.device("cpu"))))
    assert np.array_equal(upscale(compact, image, 4), expected)
    assert expected.shape == (4 * height_px, 4 * width_px, 3)


@pytest.mark.parametrize(("height_px", "width_px"), [(33, 20), (20, 33), (41, 57), (16, 17), (3, 40)])
@pytest.mark.parametrize(("tile_px", "overlap_px"), [(16, 8), (16, 5), (16, 0), (20, 1)])
def test_tiles_when_the_network_is_pointwise_cover_every_pixel(
    height_px: int, width_px: int, tile_px: int, overlap_px: int
) -> None:
    network, image = Enlarged(), photo(2, height_px, width_px)
    tiled = upscale(network, image, 2, tile_px=tile_px, overlap_px=overlap_px)
    assert np.array_equal(tiled, image.repeat(2, 0).repeat(2, 1))
    assert (len(network.sizes) > 1) == (max(height_px, width_px) > tile_px)
    assert max(max(size) for size in network.sizes) <= tile_px
    assert len(set(network.sizes)) == 1


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(512, 32), (64, 32), (16, 5), (20, 0), (1, 0)])
def test_tiles_are_few_equal_and_no_larger_than_required(tile_px: int, overlap_px: int) -> None:
    for side_px in (*range(1, 90), 339, 512, 513, 600, 800, 992, 993, 2040):
        tiles = lay_tiles(side_px, tile_px, overlap_px)
        (length_px,) = {stop - start for start, stop in tiles}
        assert (tiles[0][0], tiles[-1][1]) == (0, side_px)
        assert length_px <= tile_px
        assert all(after - stop <= -overlap_px for (_, stop), (after, _) in pairwise(tiles))
        assert len(tiles) == max(1, math.ceil((side_px - overlap_px) / (tile_px - overlap_px)))
        computed_twice = len(tiles) * length_px - side_px
        assert computed_twice <= (len(tiles) - 1) * overlap_px + len(tiles) * 8


@pytest.mark.parametrize("overlap_px", [REACH_PX, 2 * REACH_PX])
def test_pixels_in_one_tile_only_when_the_overlap_covers_the_receptive_field_equal_the_whole(
    compact: nn.Module, overlap_px: int
) -> None:
    image, tile_px = photo(3, 2 * 32 - overlap_px, 30), 32
    whole = upscale(compact, image, 4)
    tiled = upscale(compact, image, 4, tile_px=tile_px, overlap_px=overlap_px)
    shared = slice(4 * (tile_px - overlap_px), 4 * tile_px)
    assert np.array_equal(np.delete(tiled, shared, axis=0), np.delete(whole, shared, axis=0))


class Blurred(nn.Module):
    """Mean of the 9x9 pixels around, black outside: at a tile's edge it goes badly wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Conv2d(3, 3, 2 * REACH_PX + 1, padding=REACH_PX, groups=3, bias=False)
        nn.init.constant_(self.mean.weight, 1 / (2 * REACH_PX + 1) ** 2)

    def forward(self, lq: Tensor) -> Tensor:
        return self.mean(lq).repeat_interleave(2, -1).repeat_interleave(2, -2)


def worst_error(overlap_px: int) -> int:
    network, image = Blurred(), photo(3, 90, 47)
    whole = upscale(network, image, 2).astype(int)
    return int(np.abs(upscale(network, image, 2, tile_px=48, overlap_px=overlap_px) - whole).max())


def test_seam_when_tiles_overlap_is_far_weaker_than_when_they_touch() -> None:
    assert worst_error(0) > 30
    assert worst_error(24) <= 10


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(15, 8), (16, -1), (-4, 0), (0, 0)])
def test_tile_when_smaller_than_twice_the_overlap_is_refused(compact: nn.Module, tile_px: int, overlap_px: int) -> None:
    with pytest.raises(
        ValueError, match=f"tile_px={tile_px} must be at least 1 and at least twice overlap_px={overlap_px}"
    ):
        upscale(compact, photo(5, 8, 8), 4, tile_px=tile_px, overlap_px=overlap_px)


@pytest.mark.parametrize("size_px", [(50, 47), (33, 70)])
def test_tiles_when_the_overlap_is_four_times_the_reach_equal_the_whole(
    compact: nn.Module, size_px: tuple[int, int]
) -> None:
    image = photo(3, *size_px)
    whole = upscale(compact, image, 4).astype(int)
    tiled = upscale(compact, image, 4, tile_px=32, overlap_px=4 * REACH_PX).astype(int)
    # Blending equal values rounds in the last bit, which may cross a gray level.
    assert np.abs(tiled - whole).max() <= 1
    assert np.mean(tiled != whole) < 1e-3


def test_bands_are_no_higher_than_a_row_of_tiles(compact: nn.Module) -> None:
    heights = [len(band) for band in upscale_bands(compact, photo(3, 100, 37), 4, tile_px=16, overlap_px=4)]
    assert len(heights) > 6
    assert max(heights) <= 4 * 16
    assert sum(heights) == 400


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
@pytest.mark.parametrize("side_px", [8, 40])
def test_memory_when_it_runs_out_names_the_option(error: Exception, side_px: int) -> None:
    class Greedy(Enlarged):
        def forward(self, lq: Tensor) -> Tensor:
            raise error

    with pytest.raises(InputError, match=r"memory ran out .* lower --tile-px"):
        upscale(Greedy(), photo(3, side_px, side_px), 2, tile_px=16, overlap_px=2)


@pytest.mark.parametrize("size_px", [(9, 12), (40, 33)])
def test_image_of_16_bits_keeps_them(size_px: tuple[int, int]) -> None:
    image = np.random.RandomState(4).randint(0, 65536, (*size_px, 3), np.uint16)
    tiled = upscale(Enlarged(), image, 2, tile_px=16, overlap_px=4)
    assert tiled.dtype == np.uint16
    assert np.abs(tiled.astype(int) - image.repeat(2, 0).repeat(2, 1)).max() <= 1


@pytest.mark.parametrize("size_px", [(9, 12), (40, 33)])
def test_gray_image_is_that_of_three_equal_channels(size_px: tuple[int, int]) -> None:
    image = photo(3, *size_px)[..., :1]
    assert np.array_equal(upscale(Enlarged(), image, 2, tile_px=16, overlap_px=4), image.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_changes_pixels_by_a_few_gray_levels(compact: nn.Module, precision: str) -> None:
    image = photo(3, 50, 47)
    cpu = torch.device("cpu")
    with autocast(cpu, "float32"):
        expected = upscale(compact, image, 4)
    with autocast(cpu, precision):
        lowered = upscale(compact, image, 4, tile_px=32, overlap_px=4 * REACH_PX)
    assert np.array_equal(expected, upscale(compact, image, 4))
    assert lowered.dtype == np.uint8
    assert 0 < np.abs(lowered.astype(int) - expected.astype(int)).max() <= 4
