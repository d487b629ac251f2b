"""Send to its trackers what runs have on the disk and a tracker has not: after an outage, or trained offline."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.command_line import CommandLine
from jobs.terminal import end_with_faults, run_job
from pipeline.progress import say
from shards.errors import InputError

COMMAND = CommandLine(
    "python jobs/sync.py",
    "Send to MLflow what it has not received of runs: numbers, pictures, files, settings and how each ended. A run\n"
    "that was trained without a server is created there; nothing is sent twice.",
    (
        "runs/rrdb_sed_p_x4",
        "runs/*  # every run in a folder",
        "runs/rrdb_sed_p_x4 --tracker tensorboard  # event files of a run that was trained without them",
    ),
)


@dataclass(frozen=True)
class SyncConfig:
    """What to send. The default is the demo's run."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR [RUN_DIR ...]")] = (
        Path("demo/sed"),
    )
    """Run folders. One that is being trained is refused: its own process sends it."""
    tracker: str = "mlflow"
    """Where to: mlflow (MLFLOW_TRACKING_URI says where), tensorboard or wandb."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/sync.py --help`."""
    config = COMMAND.parse(SyncConfig, argv)

    from pipeline.errors import SaveError, TrackingError
    from pipeline.run.sync import check_run, sync_run
    from pipeline.tracking import check_trackers

    check_trackers([config.tracker])
    if not config.runs:
        raise InputError("no run is named; give the --run-dir of jobs/train_sed.py")
    for run in config.runs:
        check_run(run)
    faults = []
    for run in config.runs:
        try:
            say(sync_run(run, config.tracker))
        except (InputError, SaveError, TrackingError) as error:
            faults.append(f"{run}: {error}")
    return end_with_faults(faults, len(config.runs), "runs")


if __name__ == "__main__":
    sys.exit(run_job(main))
