"""A discriminator that rests while it wins: who decides, what a rest changes, and runs that resume."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from gans import both, gan_of, losses, report
from harness import changed, prepare_tiny_data, tiny_preset
from safetensors.torch import load_file
from sessions import assert_same_end, lines_of, run_session
from torch import Tensor, nn

import pipeline.run.record
import pipeline.train.state
from pipeline.config.schema import Preset, ReportConfig, TrainConfig
from pipeline.errors import ConfigError
from pipeline.losses import GradientPenalty
from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.generators import SRVGGNetCompact
from pipeline.run.dry_run import describe
from pipeline.tracking import Trackers
from pipeline.train.ema import MovingAverage
from pipeline.train.gan_step import GanStep, gan_step, gan_step_shared_pass
from pipeline.train.loop import turn_at
from pipeline.train.micro_batches import StepInput
from pipeline.train.skips import SkippedUpdates
from pipeline.train.state import ACCURACY_HALF_LIFE_IMAGES, TrainingState

CHANNELS = 64
RESTING = dataclasses.replace(both(0.1), discriminator_rests=True)


def limited(tmp_path: Path, limit: float = 0.8, **changes: Any) -> TrainConfig:
    """Pixel stage of 8 images, in steps of 4."""
    return tiny_preset(tmp_path, **{"schedule.discriminator_max_accuracy": limit, **changes}).train


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_running_mean_starts_at_chance_and_is_halfway_after_a_half_life_whatever_the_batch(batch_size: int) -> None:
    gan = gan_of(nn.Linear(1, 1), None, losses())
    state = TrainingState(gan.generator, {}, MovingAverage(gan.generator.bare), SkippedUpdates(9))
    assert state.discriminator_accuracy == 0.5
    for _ in range(ACCURACY_HALF_LIFE_IMAGES // batch_size):
        state.follow_accuracy(1.0, batch_size)
    assert state.discriminator_accuracy == pytest.approx(0.75)


def test_discriminator_rests_above_the_limit_alone(tmp_path: Path) -> None:
    config = limited(tmp_path)
    assert [turn_at(config, 8, accuracy).discriminator_rests for accuracy in (0.7, 0.8, 0.81)] == [False, False, True]
    assert not turn_at(config, 4, 0.9).discriminator_rests, "in the pixel stage"
    warming = limited(tmp_path, **{"schedule.discriminator_warmup_images": 8})
    turns = [turn_at(warming, images_seen, 0.9) for images_seen in (8, 12, 16)]
    assert [turn.discriminator_rests for turn in turns] == [False, False, True]
    assert [turn.generator_learning_rate is None for turn in turns] == [True, True, False]
    assert not turn_at(limited(tmp_path, 0.0), 8, 0.99).discriminator_rests, "without a limit"


@pytest.mark.parametrize("limit", [0.5, 1.0, -0.9, 80.0])
def test_limit_that_is_no_accuracy_above_chance_is_refused(tmp_path: Path, limit: float) -> None:
    message = (
        rf"discriminator_max_accuracy={limit} must be above 0\.5 \(chance\) and below 1, such as 0\.9; 0: no limit"
    )
    with pytest.raises(ConfigError, match=message):
        limited(tmp_path, limit)


def test_limit_that_slows_one_network_while_another_option_slows_the_other_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"generator_every_steps=2 the generator; set one of them: .*=0 or .*=1"):
        limited(tmp_path, **{"schedule.generator_every_steps": 2})


def step_input() -> StepInput:
    torch.manual_seed(7)
    gt = torch.rand(4, 3, 32, 32)
    return StepInput(torch.rand(4, 3, 8, 8), gt, gt * 0.5, torch.randn(4, CHANNELS, 2, 2))


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("step", [gan_step, gan_step_shared_pass])
def test_rest_leaves_the_discriminator_measures_it_and_trains_the_generator_alike(step: GanStep, size: int) -> None:
    ends = []
    for turn in (both(0.1), RESTING):
        torch.manual_seed(0)
        generator, discriminator = SRVGGNetCompact(4, 1, 4), PatchDiscriminator(8, CHANNELS)
        before = weights(discriminator)
        penalty = GradientPenalty(r1_weight=0.1) if step is gan_step else GradientPenalty()
        gan = gan_of(generator, discriminator, losses(adversarial_weight=0.1), micro_batch_size=size, penalty=penalty)
        scalars = report(step(gan, step_input(), turn))
        assert same(weights(discriminator), before) == turn.discriminator_rests
        assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminator.parameters())
        ends.append((weights(generator), scalars))
    (updated, scalars), (rested, measured) = ends
    assert scalars.keys() - measured.keys() - {"discriminator/r1"} == {"discriminator/skipped"}
    assert measured.keys() <= scalars.keys()
    if step is gan_step:
        assert same(rested, updated)
        # To the bit: the decision to update again is made on what an update would have measured.
        assert all(torch.equal(value, scalars[name]) for name, value in measured.items())
    else:
        # Apart, the spectral norms iterate once more.
        for one, other in zip(rested, updated, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    """Eight steps of 4 images, the first two on pixels; a generator that soon wins back."""
    preset = prepare_tiny_data(tmp_path_factory.mktemp("adaptive"))
    return changed(
        preset,
        schedule=dataclasses.replace(preset.train.schedule, total_images=32, generator_learning_rate=1e-2),
        losses=dataclasses.replace(preset.train.losses, adversarial_weight=1.0),
        report=reporting(preset, checkpoint_every_images=8, validate_every_images=16, keep_checkpoints=9),
    )


def reporting(preset: Preset, **changes: int) -> ReportConfig:
    return dataclasses.replace(preset.train.report, **changes)


@pytest.fixture
def preset(plain: Preset, monkeypatch: pytest.MonkeyPatch) -> Preset:
    """As `plain`; the discriminator rests in the fifth and the sixth step."""
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    monkeypatch.setattr(pipeline.train.state, "ACCURACY_HALF_LIFE_IMAGES", 4)
    return changed(plain, schedule=dataclasses.replace(plain.train.schedule, discriminator_max_accuracy=0.53))


def rest_shares(run_dir: Path) -> list[float]:
    return [line["discriminator/rest_share"] for line in lines_of(run_dir) if "discriminator/rest_share" in line]


def test_run_rests_while_the_discriminator_wins_and_reports_it(preset: Preset, tmp_path: Path) -> None:
    preset = changed(preset, report=reporting(preset, checkpoint_every_images=4))
    run_session(preset, tmp_path / "run")
    rests = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert rest_shares(tmp_path / "run") == rests
    folder = tmp_path / "run" / "checkpoints"
    files = [load_file(folder / f"images-{at:010d}" / "discriminator.safetensors") for at in range(8, 33, 4)]
    moved = [
        any(not torch.equal(after[name], before[name]) for name in after if not name.endswith(("_u", "_v")))
        for before, after in itertools.pairwise(files)
    ]
    assert moved == [not rest for rest in rests]
    sparse = changed(preset, report=reporting(preset, every_images=8, checkpoint_every_images=8))
    run_session(sparse, tmp_path / "sparse")
    assert rest_shares(tmp_path / "sparse") == [0.0, 1.0, 0.0]


class Killed(BaseException):
    """As if the process were gone."""


def test_run_that_is_stopped_or_killed_at_any_step_ends_with_the_same_bits(preset: Preset, tmp_path: Path) -> None:
    run_session(preset, tmp_path / "straight")
    for stop_at in (12, 16, 20, 24, 28):
        run_session(preset, tmp_path / "stopped", stop_at)
    run_session(preset, tmp_path / "stopped")
    assert_same_end(tmp_path / "stopped", tmp_path / "straight")

    def kill_at(position: int, last: int) -> bool:
        if position >= last:
            raise Killed
        return False

    for last in (12, 20, 24, 28):
        with pytest.raises(Killed):
            run_session(preset, tmp_path / "killed", must_stop=lambda position, last=last: kill_at(position, last))
    run_session(preset, tmp_path / "killed")
    assert_same_end(tmp_path / "killed", tmp_path / "straight")


def test_run_without_a_limit_neither_follows_the_accuracy_nor_reports_a_share(plain: Preset, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
        patch.setattr(TrainingState, "follow_accuracy", lambda *_: pytest.fail("it waits for the device"))
        run_session(plain, tmp_path / "run")
    assert rest_shares(tmp_path / "run") == []


def test_dry_run_says_so(preset: Preset) -> None:
    assert "turns            the discriminator rests while its accuracy is above 0.53" in describe(preset)
