"""Options that keep a GAN stable, together in real runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from harness import changed, prepare_tiny_data
from sessions import assert_same_end, lines_of, run_session

import pipeline.run.record
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from pipeline.losses import AdversarialLossName
from pipeline.run.assembly import build_state, start_networks
from pipeline.run.dry_run import describe
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preset:
    """R3GAN's loss and both penalties, warm-up and cosine, AdamW, frequency and MS-SSIM losses."""
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    preset = prepare_tiny_data(tmp_path / "data")
    losses = dataclasses.replace(
        preset.train.losses,
        adversarial=AdversarialLossName("relativistic_pairwise"),
        r1_weight=0.1,
        r2_weight=0.2,
        extra={"frequency": 0.1, "ms_ssim": 0.1},
    )
    schedule = dataclasses.replace(
        preset.train.schedule,
        milestones_images=(),
        learning_rate_decay="cosine",
        learning_rate_warmup_images=8,
        weight_decay=0.01,
    )
    return changed(preset, losses=losses, schedule=schedule)


def test_run_with_all_of_them_is_the_same_when_it_resumes(preset: Preset, tmp_path: Path) -> None:
    run_session(preset, tmp_path / "straight")
    for stop_at in (4, 12, 16, None):
        run_session(preset, tmp_path / "pieces", stop_at)
    assert_same_end(tmp_path / "pieces", tmp_path / "straight")
    terms = {"discriminator/r1", "discriminator/r2", "generator/frequency", "generator/ms_ssim"}
    assert terms <= lines_of(tmp_path / "straight")[-2].keys()


def test_weight_decay_shrinks_every_weight_by_the_learning_rate_times_it(preset: Preset) -> None:
    config = preset.train
    backend = Backend(config.runtime, batch_size=config.data.batch_size)
    state = build_state(config, start_networks(config, 256), backend)
    network = state.generator.bare
    before = [parameter.detach().clone() for parameter in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.generator.step(0.5)
    for parameter, old in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old * (1 - 0.5 * 0.01))


def test_dry_run_names_them(preset: Preset) -> None:
    text = " ".join(describe(preset).split())
    assert "r1 (approximate) x 0.1, r2 (approximate) x 0.2" in text
    assert "AdamW, decay 0.01" in text
    assert "rising over 8 images to 0.001 from 8 images, then by a cosine to 0 at 24 (generator)" in text


def test_run_under_a_cosine_may_not_be_lengthened(preset: Preset, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_config(preset)
    longer = changed(preset, schedule=dataclasses.replace(preset.train.schedule, total_images=48))
    with pytest.raises(ConfigError, match=r"train.schedule.total_images: the run has 24, the command says 48"):
        folder.check(longer)
