"""Train a super-resolution network with the semantic-aware discriminator.

Started by itself for one process, by `accelerate launch` for many; the same command on the same run folder resumes, on
any number of processes that divides the batch.
"""

from __future__ import annotations

import dataclasses

from jobs.command_line import PRESETS, CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import leave, run_rank, show_logs
from pipeline.config.schema import Preset
from pipeline.runtime.signals import EXIT_PREEMPTED

COMMAND = CommandLine(
    "python jobs/train_sed.py",
    "Train with the semantic-aware discriminator. Rerun the same command on the same run folder to resume.\n"
    "For several GPUs: accelerate launch --config_file infra/accelerate/node.yaml jobs/train_sed.py PRESET ...",
    (
        "rrdb_sed_p_x4 --dry-run  # what it will do, and the memory it needs",
        "rrdb_sed_p_x4 --run-dir runs/mine --data.batch-size 16 --semantics.weights openai",
        "runs/mine  # resumes with the settings in its config.json",
    ),
)


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/train_sed.py --help`."""
    call = COMMAND.parse_preset(argv, lambda name: PRESETS.load(name, Preset).train)
    preset = dataclasses.replace(PRESETS.load(call.preset, Preset), train=call.config)
    if call.dry_run:
        from pipeline.run.dry_run import describe

        print(f"preset           {call.preset}\n{describe(preset)}\ndry run: nothing was written")
        return 0

    from pipeline.data.features import image_manifest

    image_manifest(preset.train.data.shards)  # before anything starts, torch included: the most common mistake
    prepare_validation_photos(preset.train.report.validation_sets)
    show_logs()

    from pipeline.run.training import train

    return 0 if train(preset).is_finished else EXIT_PREEMPTED


def run_to_exit_code(argv: list[str] | None = None) -> int:
    """Return the job's exit code, whatever happens."""
    return run_rank(main, argv)


if __name__ == "__main__":
    leave(run_to_exit_code())
