"""Whose turn a step is: warm-up of the discriminator, and how often the generator learns."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from harness import changed, prepare_tiny_data
from safetensors.torch import load_file
from sessions import lines_of, run_session

import pipeline.run.record
from pipeline.config.schema import Preset, ScheduleConfig
from pipeline.errors import ConfigError
from pipeline.run.dry_run import describe
from pipeline.tracking import Trackers


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    """Six steps of 4 images; the first two on pixels alone."""
    return prepare_tiny_data(tmp_path_factory.mktemp("turns"))


def scheduled(preset: Preset, **changes: int) -> Preset:
    return changed(preset, schedule=dataclasses.replace(preset.train.schedule, **changes))


def rests(schedule: ScheduleConfig, batch_size: int, num_steps: int) -> list[bool]:
    first = schedule.pixel_only_images
    return [schedule.generator_rests(first + step * batch_size, batch_size) for step in range(num_steps)]


@pytest.mark.parametrize(
    ("warmup", "every", "expected"),
    [(0, 1, "GGGGGG"), (8, 1, "DDGGGG"), (6, 1, "DDGGGG"), (0, 2, "DGDGDG"), (0, 3, "DDGDDG"), (8, 2, "DDDGDG")],
)
def test_generator_rests_in_the_warm_up_and_between_its_turns(
    preset: Preset, warmup: int, every: int, expected: str
) -> None:
    schedule = scheduled(preset, discriminator_warmup_images=warmup, generator_every_steps=every).train.schedule
    assert ["D" if resting else "G" for resting in rests(schedule, 4, 6)] == list(expected)


def test_turns_that_cannot_be_are_refused(preset: Preset) -> None:
    with pytest.raises(ConfigError, match="generator_every_steps=0 must be above 0"):
        scheduled(preset, generator_every_steps=0)
    with pytest.raises(ConfigError, match="discriminator_warmup_images=-1 must be 0 or above"):
        scheduled(preset, discriminator_warmup_images=-1)


@pytest.mark.parametrize("discriminator_pass", ["separate", "shared"])
def test_run_when_the_generator_rests_moves_the_discriminator_alone(
    preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, discriminator_pass: str
) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    resting = scheduled(preset, discriminator_warmup_images=8, generator_every_steps=2)
    resting = changed(
        resting,
        runtime=dataclasses.replace(resting.train.runtime, discriminator_pass=discriminator_pass),
        report=dataclasses.replace(resting.train.report, checkpoint_every_images=4, keep_checkpoints=9),
    )
    assert "discriminator warm-up of 8 images, then the generator updates in one of 2 steps" in describe(resting)
    run_session(resting, tmp_path / "run", stop_at=12)
    run_session(resting, tmp_path / "run")

    def moved(network: str) -> list[bool]:
        folder = tmp_path / "run" / "checkpoints"
        files = [load_file(folder / f"images-{at:010d}" / f"{network}.safetensors") for at in range(4, 25, 4)]
        return [
            any(not torch.equal(after[name], before[name]) for name in after if not name.endswith(("_u", "_v")))
            for before, after in itertools.pairwise(files)
        ]

    # Steps 2 to 6; the last of the pixel stage, two of the warm-up, the other's turn, the generator's.
    assert moved("generator") == [True, False, False, False, True]
    assert moved("discriminator") == [False, True, True, True, True]
    learned = [json.dumps(sorted(line)) for line in lines_of(tmp_path / "run") if "learning_rate" in line]
    assert ["generator/pixel" in names for names in learned] == [True, True, False, False, False, True]
