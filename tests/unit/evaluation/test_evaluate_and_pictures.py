"""Numbers of evaluation sets against the metrics themselves, however many ranks share the work; and the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from harness import photo, write_photos
from torch import nn

from pipeline.data.evaluation import read_pair, set_images
from pipeline.inference.evaluate import Evaluated, Ranks, evaluate_image, result_names, validate
from pipeline.inference.pictures import before_and_after, captioned_panels, side_by_side
from pipeline.inference.upscale import upscale
from pipeline.metrics import METRICS
from pipeline.models.generators import SRVGGNetCompact
from shards.degradation import bicubic
from shards.errors import InputError


@pytest.fixture
def generator() -> nn.Module:
    torch.manual_seed(3)
    return SRVGGNetCompact(4, 1, 4).eval()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    write_photos(tmp_path / "five" / "HR", [(40, 44), (41, 53), (64, 40), (48, 48), (40, 40)])
    write_photos(tmp_path / "two" / "HR", [(52, 44), (60, 40)])
    return [tmp_path / "five", tmp_path / "two"]


def evaluated_of(generator: nn.Module, folder: Path, scale: int = 4) -> list[Evaluated]:
    return [evaluate_image([generator], read_pair(image, scale), scale)[0] for image in set_images(folder, scale)]


def test_numbers_of_an_image_are_the_metrics_of_its_own_pictures(generator: nn.Module, folders: list[Path]) -> None:
    evaluated = evaluated_of(generator, folders[0])
    assert [image.pair.name for image in evaluated] == [f"photo{number}" for number in range(5)]
    for number, image in enumerate(evaluated):
        assert np.array_equal(image.sr, upscale(generator, image.pair.lq, 4))
        assert np.array_equal(image.bicubic, bicubic.upscale(image.pair.lq, 4))
        gt = image.pair.gt
        expected = (
            METRICS["psnr_y"](image.sr, gt, 4),
            METRICS["ssim_y"](image.sr, gt, 4),
            METRICS["psnr_y"](image.bicubic, gt, 4),
            METRICS["ssim_y"](image.bicubic, gt, 4),
        )
        assert image.metrics == dict(zip(result_names(), expected, strict=True)), number


class Repeated(nn.Module):
    """Enlarges by repeating pixels."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return lq.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


@pytest.mark.parametrize("scale", [1, 8, 16])
def test_numbers_of_scales_without_shards(tmp_path: Path, scale: int) -> None:
    write_photos(tmp_path / "HR", [(96, 118)])
    (image,) = evaluated_of(Repeated(scale), tmp_path, scale)
    height_px, width_px = 96, 118 // scale * scale
    assert image.pair.lq.shape == (height_px // scale, width_px // scale, 3)
    assert np.array_equal(image.sr, image.pair.lq.repeat(scale, 0).repeat(scale, 1))
    assert image.bicubic.shape == image.pair.gt.shape
    if scale == 1:  # nothing is lost
        assert np.array_equal(image.bicubic, image.pair.gt)
        assert np.isinf(image.metrics["bicubic_psnr_y"])


def validated(generator: nn.Module, folders: list[Path], rank: int, world_size: int, total, seen: list[str]):
    def keep(name: str, evaluated: list[Evaluated]) -> None:
        seen.append(f"{name}/{evaluated[0].pair.name}")

    ranks = Ranks(rank, world_size, total)
    return validate(generator, folders, 4, ranks=ranks, keep=keep, must_leave=lambda: False)


def test_validation_on_one_rank_is_the_mean_of_each_set(generator: nn.Module, folders: list[Path]) -> None:
    means = validated(generator, folders, 0, 1, lambda sums: sums, [])
    assert means.keys() == {f"{name}/{metric}" for name in ("five", "two") for metric in result_names()}
    for folder in folders:
        for metric in result_names():
            values = [image.metrics[metric] for image in evaluated_of(generator, folder)]
            assert means[f"{folder.name}/{metric}"] == pytest.approx(np.mean(values), rel=1e-12)


def test_validation_on_three_ranks_gives_every_rank_the_numbers_of_one(
    generator: nn.Module, folders: list[Path]
) -> None:
    alone = validated(generator, folders, 0, 1, lambda sums: sums, [])
    shares: list[list[np.ndarray]] = []
    seen: list[str] = []
    for rank in range(3):
        # First what each rank would send into the sum ...
        shares.append([])
        validated(generator, folders, rank, 3, lambda sums: shares[-1].append(sums.copy()) or sums, seen)
    assert sorted(seen) == sorted(
        [f"five/photo{number}" for number in range(5)] + [f"two/photo{number}" for number in range(2)]
    )
    for rank in range(3):
        # ... then what each makes of the sums.
        sums = iter([sum(parts) for parts in zip(*shares, strict=True)])
        means = validated(generator, folders, rank, 3, lambda _: next(sums), [])  # noqa: B023 - called at once
        assert means == alone


def test_validation_when_a_set_is_missing_is_refused(generator: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        validated(generator, [tmp_path / "none"], 0, 1, lambda sums: sums, [])


def test_row_of_panels_has_all_three_pictures_under_captions(generator: nn.Module, folders: list[Path]) -> None:
    image = evaluated_of(generator, folders[0])[1]
    height, width = image.pair.gt.shape[:2]
    panels = captioned_panels([image])
    caption_px = panels[0].shape[0] - height
    assert caption_px > 0
    for panel, pixels in zip(panels, (image.bicubic, image.sr, image.pair.gt), strict=True):
        assert panel.dtype == np.uint8
        assert np.array_equal(panel[caption_px:], pixels)
        assert panel[:caption_px].min() < 128  # something is written
    row = side_by_side([image])
    gap_px = (row.shape[1] - 3 * width) // 2
    assert row.shape == (caption_px + height, 3 * width + 2 * gap_px, 3)
    assert np.array_equal(row[caption_px:, -width:], image.pair.gt)


def test_picture_of_several_images_of_different_sizes_is_one(generator: nn.Module, folders: list[Path]) -> None:
    images = evaluated_of(generator, folders[0])
    picture = before_and_after([image] for image in images)
    widest = max(side_by_side([image]).shape[1] for image in images)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[1:] == (widest, 3)
    assert picture.shape[0] > sum(side_by_side([image]).shape[0] for image in images)


def test_detail_when_the_image_has_one_busy_corner_shows_that(generator: nn.Module, tmp_path: Path) -> None:
    gt = np.full((200, 200, 3), 128, np.uint8)
    gt[104:, 104:] = photo(1, 96, 96)
    plain = evaluated_of(generator, write_photos(tmp_path / "set" / "HR", [(200, 200)]).parent)[0]
    image = Evaluated(type(plain.pair)("corner", plain.pair.lq, gt), gt, gt, plain.metrics)
    picture = before_and_after([[image]])
    detail = picture[side_by_side([image]).shape[0] :]
    # The windows lie on a grid of 48 px: the last one begins at 96 and is nearly all texture.
    assert detail.reshape(-1, 3).std() > 0.5 * gt[104:, 104:].reshape(-1, 3).std()
