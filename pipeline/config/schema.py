"""All settings of a run: frozen dataclasses, checked when they are built.

A preset is one `Preset`: the `[shards]` table configures `jobs/shard.py`, the `[train]` tables `jobs/train_sed.py`. The
options of the networks are defined next to the networks, in `pipeline.models`. Amounts of work are counted in images,
not steps, so that batch size and number of processes may change without touching a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipeline.config.architectures import add_architectures
from pipeline.config.data import DataConfig
from pipeline.config.discriminators import FurtherDiscriminator
from pipeline.config.learning import LossConfig, ScheduleConfig
from pipeline.config.plain import CONVERTER, RUN_FOLDER_CONVERTER
from pipeline.config.running import ReportConfig, RuntimeConfig
from pipeline.config.semantics import SemanticsConfig
from pipeline.errors import refuse
from pipeline.models.discriminators import DiscriminatorOptions
from pipeline.models.generators import GeneratorOptions
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from shards.config import ShardConfig

__all__ = [
    "DataConfig",
    "FurtherDiscriminator",
    "LossConfig",
    "Preset",
    "ReportConfig",
    "RuntimeConfig",
    "ScheduleConfig",
    "SemanticsConfig",
    "TrainConfig",
]

# Here, so that every reader of a training table has the hooks and `pipeline.config.plain` imports no network.
add_architectures(CONVERTER, drops_foreign=False)
add_architectures(RUN_FOLDER_CONVERTER, drops_foreign=True)
_structure_schedule = RUN_FOLDER_CONVERTER.get_structure_hook(ScheduleConfig)


def _structure_schedule_of_any_version(raw: object, kind: type[ScheduleConfig]) -> ScheduleConfig:
    """Keep the clock of a run that is older than `discriminator_clock`; without a pixel stage both are equal."""
    if isinstance(raw, Mapping) and "discriminator_clock" not in raw and raw.get("pixel_only_images"):
        raw = {**raw, "discriminator_clock": "run"}
    return _structure_schedule(raw, kind)


RUN_FOLDER_CONVERTER.register_structure_hook(ScheduleConfig, _structure_schedule_of_any_version)


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    run_dir: Path
    """Folder of the run; the same command on the same folder resumes."""
    seed: int
    """Seed of the initial weights and of the sampling order."""
    data: DataConfig
    generator: GeneratorOptions
    discriminator: DiscriminatorOptions
    semantics: SemanticsConfig
    losses: LossConfig
    schedule: ScheduleConfig
    runtime: RuntimeConfig
    report: ReportConfig
    further_discriminators: Annotated[tuple[FurtherDiscriminator, ...], tyro.conf.Fixed] = ()
    """Discriminators beside the first: [[train.further_discriminators]] in a preset, each with its adversarial_weight
    and a table `network` like [train.discriminator]; reports call them discriminator_2 and so on."""

    def __post_init__(self) -> None:
        """Check the constraints between sections."""
        batch = self.data.batch_size
        refuse(
            [
                self._crop_fault(),
                self._cache_fault(),
                f"report.every_images={self.report.every_images} is not a multiple of data.batch_size={batch}; "
                f"nearest is {max(batch, round(self.report.every_images / batch) * batch)}"
                if self.report.every_images % batch
                else None,
                "a loss (losses.ldl_weight or losses.extra) compares with the averaged generator, but "
                "schedule.ema_half_life_images=0 keeps no average; LDL's decay of 0.999 per step is a half-life of "
                f"{693 * batch} images at this batch size"
                if not self.schedule.ema_half_life_images and self.losses.compares_with_average
                else None,
                "schedule.stop_after_no_improvement_images needs report.keep_best: the metric that has to improve, "
                "such as psnr_y"
                if self.schedule.stop_after_no_improvement_images and not self.report.keep_best
                else None,
            ]
        )

    def _crop_fault(self) -> str | None:
        """An HR crop consists of whole cells of the semantic grid and of whole LQ pixels."""
        crop_px, scale = self.data.crop_px, self.generator.scale
        if crop_px % scale == 0:
            return None
        both = math.lcm(scale, SEMANTIC_STRIDE_PX)
        return (
            f"data.crop_px={crop_px} is not a multiple of generator.scale={scale}; nearest multiple of {scale} and "
            f"{SEMANTIC_STRIDE_PX} is {max(1, round(crop_px / both)) * both}"
        )

    def _cache_fault(self) -> str | None:
        if self.semantics.mode is None or not self.uses_semantics or self.data.why_not_cached is None:
            return None
        return f'semantics.source="{self.semantics.source}": {self.data.why_not_cached}; set it to "online"'

    @property
    def num_steps(self) -> int:
        """Optimisation steps of the whole run."""
        return math.ceil(self.schedule.total_images / self.data.batch_size)

    @property
    def is_adversarial(self) -> bool:
        """Whether any step of the run trains the discriminator."""
        return self.losses.adversarial_weight > 0 and self.schedule.pixel_only_images < self.schedule.total_images

    @property
    def discriminators(self) -> dict[str, DiscriminatorOptions]:
        """The options of all discriminators, by the names that reports and checkpoints call them."""
        further = enumerate(self.further_discriminators, start=2)
        return {"discriminator": self.discriminator} | {
            f"discriminator_{number}": one.network for number, one in further
        }

    @property
    def is_semantic(self) -> bool:
        """Whether a discriminator is semantic-aware."""
        return any(options.semantic for options in self.discriminators.values())

    @property
    def uses_semantics(self) -> bool:
        """Whether the run computes or reads semantics."""
        return self.is_adversarial and self.is_semantic

    @property
    def uses_perceptual_network(self) -> bool:
        """Whether the run loads the perceptual network."""
        return self.is_adversarial and self.losses.perceptual_weight > 0


@dataclass(frozen=True)
class Preset:
    """A preset file: what to write, and what to train on it."""

    shards: ShardConfig
    train: TrainConfig
