"""Every scale from photos to a trained generator's numbers, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import changed, photo, small_shard_config, tiny_preset, write_photos, write_shards
from PIL import Image
from sessions import lines_of, run_session

import pipeline.run.record
from pipeline.config.schema import Preset
from pipeline.data.datasets import open_datasets
from pipeline.data.evaluation import read_pair, set_images
from pipeline.data.samples import TrainingSamples, collate
from pipeline.errors import ConfigError
from pipeline.models.generators import build_generator
from pipeline.models.generators.swinir.options import SwinIROptions
from pipeline.run.checks import check_shards
from pipeline.run.inputs import StepInputs
from pipeline.tracking import Trackers
from shards.degradation.bicubic import downscale
from shards.errors import InputError

SCALES = [1, 2, 3, 4, 8]


def preset_of(folder: Path, scale: int, degradation: str) -> Preset:
    """The tiny preset at a scale, with its shards written."""
    preset = tiny_preset(
        folder,
        **{
            "generator.scale": scale,
            "data.canvas_px": 96,
            "schedule.total_images": 12,
            "schedule.pixel_only_images": 4,
            "schedule.milestones_images": [],
            "report.validate_every_images": 12,
            "report.checkpoint_every_images": 12,
        },
    )
    write_photos(folder / "photos", [(160, 176), (128, 200)])
    write_photos(folder / "validation" / "HR", [(96, 72)])
    changes = {"scale": scale, "degradation": degradation, "sub_image_px": 96, "stride_px": 48, "shard_size_mib": 0.2}
    if degradation == "paired":
        (folder / "pairs").mkdir()
        for path in sorted((folder / "photos").iterdir()):
            pixels = np.asarray(Image.open(path))
            height_px, width_px = (side // scale for side in pixels.shape[:2])
            Image.fromarray(pixels[: height_px * scale, : width_px * scale]).save(path)
            Image.fromarray(photo(9, height_px, width_px)).save(folder / "pairs" / path.name)
        changes["lq_source"] = (folder / "pairs",)
    shards = dataclasses.replace(preset.shards, **changes)
    write_shards(shards)
    return dataclasses.replace(preset, shards=shards)


def kind_of(scale: int) -> str:
    return "paired" if scale == 1 else "classical"


@pytest.mark.parametrize("scale", SCALES)
def test_run_at_a_scale_trains_validates_and_exports(
    tmp_path: Path, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    preset = preset_of(tmp_path, scale, kind_of(scale))
    outcome, _ = run_session(preset, tmp_path / "run")
    assert outcome.is_finished
    lines = lines_of(tmp_path / "run")
    assert any("discriminator/real" in line for line in lines)
    assert all(math.isfinite(value) for line in lines for name, value in line.items() if "bicubic" not in name)
    (validated,) = [line for line in lines if "validation/psnr_y" in line]
    assert validated["images_seen"] == 12


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("degradation", ["classical", "realworld", "paired"])
def test_samples_at_a_scale_show_one_place_in_both_sizes(tmp_path: Path, scale: int, degradation: str) -> None:
    if (scale, degradation) == (1, "classical"):
        with pytest.raises(InputError, match="scale=1 with recipe bicubic-1 makes LQ images that are HR itself"):
            small_shard_config(tmp_path, scale=1)
        return
    preset = preset_of(tmp_path, scale, degradation)
    item = TrainingSamples(preset.train.data, 1)[5]
    if degradation == "realworld":
        assert item.hr.shape == (96, 96, 3)
        assert (item.parameters.scale, item.parameters.crop_px) == (scale, 48)
        step = StepInputs(None, contextlib.nullcontext, torch.contiguous_format)(collate([item]), is_adversarial=False)
        assert step.lq.shape == (1, 3, 48 // scale, 48 // scale)
        assert step.gt.shape == (1, 3, 48, 48)
    else:
        assert item.hr.shape == (48, 48, 3)
        assert item.lq.shape == (48 // scale, 48 // scale, 3)
    if degradation == "classical":  # inside, where the photo's surroundings do not count
        inside = np.s_[2:-2, 2:-2]
        assert np.abs(downscale(item.hr, scale)[inside].astype(int) - item.lq[inside]).max() <= 1


def test_crop_that_is_no_whole_lq_pixels_is_refused_with_the_nearest(tmp_path: Path) -> None:
    text = r"data\.crop_px=64 is not a multiple of generator\.scale=3; nearest multiple of 3 and 16 is 48"
    with pytest.raises(ConfigError, match=text):
        tiny_preset(tmp_path, **{"generator.scale": 3, "data.crop_px": 64, "data.canvas_px": 64})


def test_canvas_that_is_no_whole_lq_pixels_is_refused_before_the_run(tmp_path: Path) -> None:
    preset = preset_of(tmp_path, 3, "realworld")
    other = changed(preset, data=dataclasses.replace(preset.train.data, canvas_px=95)).train
    with pytest.raises(InputError, match=r"reads 95 px of HR.*set --data\.canvas-px to a multiple of 3, such as 93"):
        check_shards(other, open_datasets(other.data))


@pytest.mark.parametrize("scale", SCALES)
def test_swinir_can_be_built_for_a_scale(scale: int) -> None:
    options = SwinIROptions(
        scale=scale,
        num_features=8,
        num_blocks=1,
        layers_per_block=1,
        num_heads=2,
        window_size=4,
        upsampler="pixelshuffledirect",
    )
    with torch.no_grad():
        assert build_generator(options)(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8 * scale, 8 * scale)


def test_evaluation_at_scale_1_reads_the_lq_of_its_set(tmp_path: Path) -> None:
    write_photos(tmp_path / "HR", [(24, 30)])
    lq = photo(5, 24, 30)
    (tmp_path / "LRx1").mkdir()
    Image.fromarray(lq).save(tmp_path / "LRx1" / "photo0.png")
    (image,) = set_images(tmp_path, 1)
    assert np.array_equal(read_pair(image, 1).lq, lq)
