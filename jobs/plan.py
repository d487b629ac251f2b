"""Estimate what semantic features cost on a cluster, computed in every step or read from a cache; say which to take."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from jobs.command_line import PRESETS, CommandLine
from jobs.terminal import run_job
from pipeline.config.schema import DataConfig, Preset, ScheduleConfig, SemanticsConfig, TrainConfig
from pipeline.errors import ConfigError, positive, refuse
from pipeline.inference.feature_cost import Cluster, Work, describe, estimate, rates_of
from pipeline.inference.machine_profile import MachineProfile, load_profile
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.progress import say
from shards.format.files import check_writable
from shards.format.manifest import Manifest

if TYPE_CHECKING:
    from pipeline.models.semantics.vision_model import Backbone

COMMAND = CommandLine(
    "python jobs/plan.py",
    "Estimate what semantic features cost on a cluster: computed in every step (online), or read from a cache.\n"
    "Sizes come from the shards' manifest, rates from a profile: run it once with --measure on a machine of the\n"
    "cluster, which takes less than two minutes, and with other --cluster.* afterwards, anywhere.",
    (
        "rrdb_sed_p_x4 --data.shards s3://bucket/df2k_x4 --measure",
        "rrdb_sed_p_x4 --cluster.num-nodes 4 --cluster.gpus-per-node 8 --cluster.price-per-gpu-hour 2.5",
        "rrdb_sed_p_x4 --cluster.read-mb-per-second 500  # what if the storage were slower",
        "rrdb_sed_p_x4 --samples 2000000  # what if there were so many sub-images",
    ),
)
_FLOAT32_BYTES = 4
# Weights, Adam's two moments, and of the generator the moving average.
_COPIES_OF_GENERATOR, _COPIES_OF_DISCRIMINATOR = 4, 3


@dataclass(frozen=True)
class PlanConfig:
    """The machines, and the settings of the training run that matter, whose values come from the preset."""

    data: DataConfig
    semantics: SemanticsConfig
    schedule: ScheduleConfig
    cluster: Cluster = field(default_factory=Cluster)
    measure: bool = False
    """Measure this machine first: extractor, step, loader, codecs and storage; writes `profile`."""
    profile: Path = Path("machine-profile.json")
    """What --measure wrote; used where it exists."""
    samples: int | None = None
    """Plan for as many sub-images like those of the shards, which may be of a few photos of a larger dataset."""

    def __post_init__(self) -> None:
        """Check ranges."""
        refuse(positive(samples=self.samples) if self.samples is not None else [])

    def train(self, preset: str) -> TrainConfig:
        """Return the run: the preset's, with these settings."""
        run = PRESETS.load(preset, Preset).train
        return dataclasses.replace(run, data=self.data, semantics=self.semantics, schedule=self.schedule)


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/plan.py --help`."""
    call = COMMAND.parse_preset(argv, _from_preset)
    config, run = call.config, call.config.train(call.preset)
    if not run.uses_semantics:
        raise ConfigError(f"{call.preset} uses no semantics, so there is nothing to plan; give a preset of SeD")

    from pipeline.data.datasets import image_manifest

    images = image_manifest(config.data.shards)

    from pipeline.run.hollow import build_hollow, num_parameters

    hollow = build_hollow(run)
    extractor = cast("Backbone", hollow.backbone)  # there is one, since the run uses semantics
    profile = _profile(config, run, images, extractor.name)
    side = config.data.crop_px // SEMANTIC_STRIDE_PX
    rates = rates_of(config.cluster, profile, (extractor.num_channels, side, side))
    data = config.data
    work = Work(images, config.schedule.total_images, data.batch_size, data.crop_px, config.samples)
    checkpoint_bytes = _FLOAT32_BYTES * (
        _COPIES_OF_GENERATOR * num_parameters(hollow.generator)
        + _COPIES_OF_DISCRIMINATOR * sum(map(num_parameters, hollow.discriminators.values()))
    )
    print(describe(estimate(config.cluster, rates, work), config.cluster, rates, work, checkpoint_bytes))
    if config.data.why_not_cached is not None:
        print(f"Not to be cached: {config.data.why_not_cached}.")
    return 0


def _profile(config: PlanConfig, run: TrainConfig, images: Manifest, extractor: str) -> MachineProfile | None:
    """Return the profile, measured now if that is asked for; None where there is none yet."""
    from pipeline.run.measure import measure_machine, networks_of

    if config.measure:
        from pipeline.data.datasets import Dataset

        check_writable(config.profile.parent)
        say("measuring extractor, step, loader, codecs and storage on this machine, for up to two minutes")
        profile = measure_machine(run, Dataset(config.data.shards, images))
        profile.save(config.profile)
        say(f"{config.profile}: measured on {profile.device}")
        return profile
    if not config.profile.exists():
        return None
    profile = load_profile(config.profile)
    profile.require(crop_px=config.data.crop_px, extractor=extractor, networks=networks_of(run))
    say(f"rates of {config.profile}, measured on {profile.date} on {profile.device}")
    return profile


def _from_preset(name: str) -> PlanConfig:
    train = PRESETS.load(name, Preset).train
    return PlanConfig(train.data, train.semantics, train.schedule)


if __name__ == "__main__":
    sys.exit(run_job(main))
