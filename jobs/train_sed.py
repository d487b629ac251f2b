"""Train a super-resolution network with the semantic-aware discriminator.

Run directly for one process, through `accelerate launch` for several. Rerunning the same command on the same run folder
resumes, on any number of processes that divides the batch.
"""

from __future__ import annotations

import dataclasses

from jobs.command_line import PRESETS, CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import leave, run_job, show_logs
from pipeline.config.schema import Preset, TrainConfig
from pipeline.errors import ConfigError
from pipeline.runtime.signals import EXIT_PREEMPTED
from shards.format.storage import parse_local_path

COMMAND = CommandLine(
    "python jobs/train_sed.py",
    "Train with the semantic-aware discriminator. Rerun the same command on the same run folder to resume.\n"
    "For several GPUs: accelerate launch --config_file infra/accelerate/node.yaml jobs/train_sed.py PRESET ...",
    (
        "rrdb_sed_p_x4 --dry-run  # what the run will do, and the memory it needs",
        "rrdb_sed_p_x4 --run-dir runs/mine --data.batch-size 16 --semantics.weights pretrained",
        "runs/mine  # resumes with the settings in its config.json",
    ),
)


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/train_sed.py --help`."""
    call = COMMAND.parse_preset(argv, load_train)
    preset = dataclasses.replace(PRESETS.load(call.preset, Preset), train=call.config)
    if call.dry_run:
        from pipeline.run.dry_run import describe

        print(f"preset           {call.preset}\n{describe(preset)}\ndry run: nothing was written")
        return 0

    from pipeline.data.datasets import open_datasets

    open_datasets(preset.train.data)  # before anything starts, torch included: the most common mistakes
    _check_start(preset)
    prepare_validation_photos(preset.train.report.validation_sets)
    show_logs()

    from pipeline.run.training import train

    return 0 if train(preset).is_finished else EXIT_PREEMPTED


def load_train(name: str) -> TrainConfig:
    """Return the training settings of a preset; those of a run folder are for that folder, wherever it was moved."""
    train, given = PRESETS.load(name, Preset).train, parse_local_path(name)
    is_run_folder = PRESETS.find(name) == given / "config.json"
    return dataclasses.replace(train, run_dir=given) if is_run_folder else train


def _check_start(preset: Preset) -> None:
    """Name the preset that trains the initial weights, where they are missing."""
    file = preset.train.generator.initial_file
    if file is None or file.is_file():
        return

    from pipeline.checkpoint import CheckpointStore
    from pipeline.checkpoint.run_folder import RunFolder
    from pipeline.run.backup import backup_of

    if "generator" in CheckpointStore(RunFolder(preset.train.run_dir).checkpoints).groups():
        return  # a resumed run needs none
    if (backup := backup_of(preset.train)) is not None and backup.positions():
        return  # nor does one that is restored
    for name in PRESETS.names():
        if RunFolder(PRESETS.load(name, Preset).train.run_dir).generator == file:
            raise ConfigError(
                f"generator.initial_weights: {file} is not there yet; python jobs/train_sed.py {name} trains it; "
                "or give another file, or 'random'"
            )


if __name__ == "__main__":
    leave(run_job(main))
