"""Estimate what semantic features cost on a cluster, computed in every step or read from a cache."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from jobs.command_line import PRESETS, CommandLine
from jobs.terminal import run_job
from pipeline.config.schema import DataConfig, Preset, ScheduleConfig, SemanticsConfig
from pipeline.inference.feature_cost import Cluster, describe, estimate

COMMAND = CommandLine(
    "python jobs/plan.py",
    "Estimate what semantic features cost on a cluster: computed in every step (online), or read from a cache.\n"
    "Sizes come from the shards' manifest; measure the throughputs with a short run of each kind\n"
    "(`speed/images_per_second`). Nothing but the manifest is read, and nothing is written.",
    (
        "rrdb_sed_p_x4 --cluster.num-nodes 4 --cluster.gpus-per-node 8",
        "rrdb_sed_p_x4 --data.shards s3://bucket/df2k_x4 --cluster.read-mb-per-second 500",
    ),
)


@dataclass(frozen=True)
class PlanConfig:
    """The machines, and the settings of the training run that matter, whose values come from the preset."""

    data: DataConfig
    semantics: SemanticsConfig
    schedule: ScheduleConfig
    cluster: Cluster = field(default_factory=Cluster)


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/plan.py --help`."""
    config = COMMAND.parse_preset(argv, _from_preset).config

    from pipeline.data.datasets import image_manifest

    images = image_manifest(config.data.shards)

    from pipeline.inference.semantics import semantic_channels

    total_images = config.schedule.total_images
    cost = estimate(
        config.cluster,
        images,
        crop_px=config.data.crop_px,
        total_images=total_images,
        channels=semantic_channels(config.semantics, config.data.crop_px),
    )
    print(describe(cost, config.cluster, images, total_images))
    if config.data.why_not_cached is not None:
        print(f"Not to be cached: {config.data.why_not_cached}.")
    return 0


def _from_preset(name: str) -> PlanConfig:
    train = PRESETS.load(name, Preset).train
    return PlanConfig(train.data, train.semantics, train.schedule)


if __name__ == "__main__":
    sys.exit(run_job(main))
