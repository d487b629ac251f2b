"""Every tested architecture of spandrel in a run with P+SeD: two steps, resumed to the same bits, read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness import changed, photo, two_step_preset
from sessions import assert_same_end, run_session
from spandrel import ModelLoader
from spandrel_sizes import SMALL, small_options

import pipeline.run.record
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from pipeline.inference.named_model import open_model
from pipeline.inference.upscale import upscale
from pipeline.run.dry_run import describe
from pipeline.tracking import Trackers


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return two_step_preset(tmp_path_factory.mktemp("spandrel"))


@pytest.fixture(autouse=True)
def nothing_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())


def with_generator(preset: Preset, name: str) -> Preset:
    return changed(preset, generator=replace(small_options(name), initial_weights=Path("random")))


# A convolutional and a transformer network, one with BatchNorm, and one that computes weights of its own.
QUICK = ("DAT", "HAT", "RealPLKSR", "SPAN")


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(SMALL.keys() - QUICK))]
)
def test_run_resumes_to_the_same_bits_and_its_export_is_read_back(preset: Preset, name: str, tmp_path: Path) -> None:
    run = with_generator(preset, name)
    assert f"generator        spandrel:{name} x4, " in describe(run)
    run_session(run, tmp_path / "straight")
    outcome, positions = run_session(run, tmp_path / "run", stop_at=2)
    assert (outcome.is_finished, positions) == (False, [0, 2])
    unfinished = open_model(str(tmp_path / "run"), unfinished=True)
    assert unfinished.scale == 4
    assert run_session(run, tmp_path / "run")[0].is_finished
    assert_same_end(tmp_path / "run", tmp_path / "straight")

    ours = open_model(str(tmp_path / "run")).generator
    theirs = ModelLoader(device="cpu").load_from_file(tmp_path / "run" / "export" / "generator.safetensors").eval()
    lq = torch.rand(1, 3, 16, 32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(lq.clone()), ours(lq).clamp(0, 1), rtol=0, atol=1e-6)
    assert upscale(ours, photo(0, 40, 50), 4, tile_px=32, overlap_px=8).shape == (160, 200, 3)


def test_precision_that_the_architecture_does_not_bear_is_refused(preset: Preset, tmp_path: Path) -> None:
    half = changed(preset, runtime=replace(preset.train.runtime, precision="fp16"))
    with pytest.raises(ConfigError, match=r"spandrel:HAT trains in float32 or bf16; set --runtime\.precision bf16"):
        describe(with_generator(half, "HAT"))
    with pytest.raises(ConfigError, match="spandrel:HAT trains in float32 or bf16"):
        run_session(with_generator(half, "HAT"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "precision        fp16" in describe(with_generator(half, "SPAN"))


def test_crop_that_the_architecture_does_not_take_is_refused_by_the_dry_run(preset: Preset) -> None:
    data = replace(preset.train.data, crop_px=48, canvas_px=48)
    with pytest.raises(ConfigError, match=r"takes multiples of 32 px at scale 4; set --data\.crop-px 64"):
        describe(with_generator(changed(preset, data=data), "DITN"))
