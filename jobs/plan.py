"""Estimate what a run costs on a cluster: semantics, computed or cached; and what of the cluster breaks first."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from jobs.command_line import PRESETS, CommandLine
from jobs.terminal import run_job
from pipeline.config.schema import DataConfig, Preset, ReportConfig, ScheduleConfig, SemanticsConfig, TrainConfig
from pipeline.errors import ConfigError, positive, refuse
from pipeline.inference.feature_cost import Rates, Work, describe, estimate, rates_of
from pipeline.inference.machine_profile import MachineProfile, load_profile
from pipeline.inference.run_limits import describe_scale
from pipeline.inference.run_scale import DatasetSize, LargeCluster, RunScale, Training
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.progress import say
from shards.format.files import check_writable
from shards.format.manifest import Manifest
from shards.format.remote import RemotePath
from shards.write.plan import settings_of

if TYPE_CHECKING:
    from pipeline.models.semantics.vision_model import Backbone

COMMAND = CommandLine(
    "python jobs/plan.py",
    "Estimate what semantic features cost on a cluster, computed in every step (online) or read from a cache, and\n"
    "what the whole run needs: shards, requests, memory, checkpoints, lost work, and what breaks first.\n"
    "Sizes come from the shards' manifest, rates from a profile: run it once with --measure on a machine of the\n"
    "cluster, which takes less than two minutes, and with other --cluster.* afterwards, anywhere.",
    (
        "rrdb_sed_p_x4 --data.shards s3://bucket/df2k_x4 --measure",
        "rrdb_sed_p_x4 --cluster.num-nodes 4 --cluster.gpus-per-node 8 --cluster.price-per-gpu-hour 2.5",
        "rrdb_sed_p_x4 --cluster.read-mb-per-second 500  # what if the storage were slower",
        "rrdb_sed_p_x4 --samples 2e6  # what if there were so many sub-images",
        "rrdb_sed_p_x4 --samples 1e9 --cluster.num-nodes 1000 --data.batch-size 64000  # before there are shards",
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
    report: ReportConfig
    shard_size_mib: float
    """Size of the shards that `samples` are planned in, in MiB."""
    cluster: LargeCluster = field(default_factory=LargeCluster)
    samples: float | None = None
    """Plan for so many samples, such as 1e9: like those in `data.shards`, or where none are yet by the preset."""
    measure: bool = False
    """Measure this machine first: extractor, step, loader, codecs and storage; writes `profile`."""
    profile: Path = Path("machine-profile.json")
    """What --measure wrote; used where it exists."""

    def __post_init__(self) -> None:
        """Check ranges."""
        refuse(
            positive(shard_size_mib=self.shard_size_mib, **({} if self.samples is None else {"samples": self.samples}))
        )

    def train(self, preset: str) -> TrainConfig:
        """Return the run: the preset's, with these settings."""
        run = PRESETS.load(preset, Preset).train
        changes = {"data": self.data, "semantics": self.semantics, "schedule": self.schedule, "report": self.report}
        return dataclasses.replace(run, **changes)


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/plan.py --help`."""
    call = COMMAND.parse_preset(argv, _from_preset)
    config, run = call.config, call.config.train(call.preset)
    if not run.uses_semantics:
        raise ConfigError(f"{call.preset} uses no semantics, so there is nothing to plan; give a preset of SeD")

    images = _manifest(config)
    dataset = _planned(call.preset, config) if images is None else _existing(images, config)

    from pipeline.run.hollow import build_hollow, num_parameters

    hollow = build_hollow(run)
    extractor = cast("Backbone", hollow.backbone)  # there is one, since the run uses semantics
    profile = _profile(config, run, images, extractor.name)
    batch_size, crop_px = config.data.batch_size, config.data.crop_px
    side = crop_px // SEMANTIC_STRIDE_PX
    rates = rates_of(config.cluster, profile, (extractor.num_channels, side, side))
    checkpoint_bytes = _FLOAT32_BYTES * (
        _COPIES_OF_GENERATOR * num_parameters(hollow.generator)
        + _COPIES_OF_DISCRIMINATOR * sum(map(num_parameters, hollow.discriminators.values()))
    )
    schedule = config.schedule
    work = Work(dataset.settings, dataset.num_samples, dataset.sample_bytes, schedule.total_images, batch_size, crop_px)
    print(describe(estimate(config.cluster, rates, work), config.cluster, rates, work, checkpoint_bytes))
    if config.data.why_not_cached is not None:
        print(f"Not to be cached: {config.data.why_not_cached}.")
    print()
    print(describe_scale(RunScale(config.cluster, dataset, _training(run, rates, checkpoint_bytes))))
    return 0


def _manifest(config: PlanConfig) -> Manifest | None:
    """Return that of the shards; None where there are none, and none are needed."""
    from pipeline.data.datasets import image_manifest

    is_optional = config.samples is not None and not config.measure
    return None if is_optional and not config.data.shards.exists() else image_manifest(config.data.shards)


def _existing(images: Manifest, config: PlanConfig) -> DatasetSize:
    dataset = DatasetSize.of_manifest(images, is_remote=isinstance(config.data.shards, RemotePath))
    return dataset if config.samples is None else dataset.with_samples(int(config.samples))


def _planned(preset: str, config: PlanConfig) -> DatasetSize:
    """Return the size of `config.samples` in shards by the preset's settings."""
    shards = dataclasses.replace(PRESETS.load(preset, Preset).shards, shard_size_mib=config.shard_size_mib)
    is_remote = isinstance(config.data.shards, RemotePath)
    return DatasetSize.planned(int(config.samples or 0), settings_of(shards), is_remote=is_remote)


def _training(run: TrainConfig, rates: Rates, checkpoint_bytes: int) -> Training:
    return Training(
        images_per_second=1 / (1 / rates.step_images_per_second + 1 / rates.extractor_images_per_second),
        read_mb_per_second=rates.read_mb_per_second,
        batch_size=run.data.batch_size,
        num_workers=run.data.num_workers,
        window_shards=run.data.window_shards,
        cache_bytes=run.data.cache_gib * 2**30,
        checkpoint_bytes=checkpoint_bytes,
        checkpoint_every_images=run.report.checkpoint_every_images,
        timeout_s=run.runtime.timeout_s,
    )


def _profile(config: PlanConfig, run: TrainConfig, images: Manifest | None, extractor: str) -> MachineProfile | None:
    """Return the profile, measured now if that is asked for; None where there is none yet."""
    from pipeline.run.measure import measure_machine, networks_of

    if config.measure and images is not None:
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
    preset = PRESETS.load(name, Preset)
    train = preset.train
    return PlanConfig(train.data, train.semantics, train.schedule, train.report, preset.shards.shard_size_mib)


if __name__ == "__main__":
    sys.exit(run_job(main))
