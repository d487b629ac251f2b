"""Two ranks of which each alone would decide otherwise about the discriminator's update decide together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import changed, prepare_tiny_data, run_ranks, write_preset
from sessions import lines_of, run_session
from torch import Tensor

import pipeline.run.record
import pipeline.run.session
import pipeline.train.state
from pipeline.config.presets import load_resolved
from pipeline.config.schema import Preset
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers
from pipeline.train.gan_step import Gan, StepResult, Turn
from pipeline.train.micro_batches import StepInput

ACCURACIES = (1.0, 0.6)
"""Of each rank, in every step; 0.8 together."""


class Watched:
    """A step whose accuracies are this rank's of `ACCURACIES`; notes of each whether the discriminator rested, and is
    as it was."""

    def __init__(self, step: Any, rank: int) -> None:
        self.step, self.rank = step, rank
        self.rests: list[bool] = []
        self.is_unmoved: list[bool] = []

    def __call__(self, gan: Gan, batch: StepInput, turn: Turn) -> StepResult:
        before = weights(gan)
        result = self.step(gan, batch, turn)
        if turn.is_adversarial:
            self.rests.append(turn.discriminator_rests)
            self.is_unmoved.append(torch.equal(weights(gan), before))
            for side in ("real", "fake"):
                result.scalars[f"discriminator/accuracy_{side}"].fill_(ACCURACIES[self.rank])
        return result


def weights(gan: Gan) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in gan.adversaries[0].bare.parameters()])


def train_on_rank(rank: int, world_size: int, folder: str, limits: dict[float, list[bool]]) -> None:
    pipeline.run.record.open_trackers = lambda *_: Trackers()
    pipeline.train.state.ACCURACY_HALF_LIFE_IMAGES = 1e-3  # of the last step alone
    build_gan, watched = pipeline.run.session.build_gan, list[Watched]()

    def build(*args: Any) -> Any:
        gan, step = build_gan(*args)
        watched.append(Watched(step, rank))
        return gan, watched[-1]

    pipeline.run.session.build_gan = build
    for limit, rests in limits.items():
        preset = load_resolved(Path(folder) / "preset.json", Preset)
        schedule = dataclasses.replace(preset.train.schedule, discriminator_max_accuracy=limit)
        run_session(changed(preset, schedule=schedule), Path(folder) / str(limit))
        assert watched[-1].rests == watched[-1].is_unmoved == rests, f"rank {rank} at {limit}"
    Backend(preset.train.runtime, batch_size=preset.train.data.batch_size).close()


@pytest.mark.slow
@pytest.mark.distributed
def test_ranks_that_measure_other_accuracies_decide_by_their_mean(tmp_path: Path) -> None:
    preset = prepare_tiny_data(tmp_path)
    write_preset(preset, tmp_path / "preset.json")
    # Four adversarial steps; the accuracy is known from the first.
    limits = {0.75: [False, True, True, True], 0.85: [False] * 4}
    run_ranks(train_on_rank, world_size=2, folder=tmp_path, args=(str(tmp_path), limits))
    for limit, rests in limits.items():
        reports = [line for line in lines_of(tmp_path / str(limit)) if "discriminator/real" in line]
        assert [line["discriminator/rest_share"] for line in reports] == [float(rest) for rest in rests]
