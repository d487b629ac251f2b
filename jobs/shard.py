"""Write shards of a folder of photos, with Ray.

Surveys the photos and cuts them in the same pass, plans every shard, writes what is missing, and publishes the manifest
last. After a kill at any moment, rerun the same command: photos already cut and shards already finished are kept, and
the output is byte for byte that of an uninterrupted run. When photos are added to the source, a rerun writes
them to shards of their own, as a new generation.
"""

from __future__ import annotations

import sys

from jobs.command_line import PRESETS, CommandLine
from jobs.sample_photos import prepare_training_photos, prepare_validation_photos
from jobs.terminal import run_job
from pipeline.progress import say
from shards.config import ShardConfig

COMMAND = CommandLine(
    "python jobs/shard.py",
    "Write shards of one or more folders of photos, with Ray. Rerun the same command to finish what is missing, or to\n"
    "add new photos. On a cluster: ray job submit -- python jobs/shard.py ...",
    (
        "--source photos/ --output shards/  # the demo's settings on other photos",
        "rrdb_sed_p_x4 --source data/DF2K/HR --output s3://bucket/df2k_x4",
        "rrdb_sed_p_x4 --degradation paired --source data/mine/HR --lq-source data/mine/LRx4 --output shards/",
        "rrdb_sed_p_x4 --dry-run  # surveys and plans, writes nothing",
    ),
)


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/shard.py --help`."""
    call = COMMAND.parse_preset(argv, lambda name: PRESETS.load(name, ShardConfig, table="shards"))
    config, dry_run = call.config, call.dry_run

    from shards.format.files import check_writable
    from shards.format.outputs import check_output_folder
    from shards.format.photos import describe_passed_over
    from shards.write.dataset import describe, survey_and_plan, write
    from shards.write.generations import OUTPUT_NAMES, read_generations
    from shards.write.plan import settings_of
    from shards.write.sources import discover, list_folders, name_sources

    prepare_training_photos(config.source)
    prepare_validation_photos(config.exclude)
    listings, lqs = list_folders(config.source), list_folders(config.lq_source, flag="--lq-source")
    sources = name_sources(listings, lqs, config.scale)
    excluded = discover(config.exclude, flag="--exclude")
    settings_of(config)  # refuses a bad recipe before any work
    check_output_folder(config.output, (*config.source, *config.lq_source, *config.exclude), OUTPUT_NAMES)
    if not dry_run:
        check_writable(config.output)
    read_generations(config.output)

    from jobs.ray_tasks import ray_session

    with ray_session() as session:
        say(f"using {session.description}")
        plans = survey_and_plan(config, sources, excluded, session.executor, cut=not dry_run)
        say(describe(plans, sources))
        if passed_over := describe_passed_over([*listings, *lqs]):
            say(passed_over)
        if dry_run:
            say(f"dry run: nothing was written to {config.output}")
            return 0
        write(plans, config.output, sources, session.executor)
    return 0


if __name__ == "__main__":
    sys.exit(run_job(main))
