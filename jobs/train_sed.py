"""Train a super-resolution network with the semantic-aware discriminator.

Run directly for one process, through `accelerate launch` for several. Rerunning the same command on the same run folder
resumes, on any number of processes that divides the batch.
"""

from __future__ import annotations

import dataclasses
import os
import sys

from jobs.command_line import PRESETS, CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import EXIT_FAULTS, run_job, show_logs, show_traceback
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from pipeline.runtime.signals import EXIT_PREEMPTED

COMMAND = CommandLine(
    "python jobs/train_sed.py",
    "Train with the semantic-aware discriminator. Rerun the same command on the same run folder to resume.\n"
    "For several GPUs: accelerate launch --config_file infra/accelerate/node.yaml jobs/train_sed.py PRESET ...",
    (
        "rrdb_sed_p_x4 --dry-run  # what the run will do, and the memory it needs",
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

    image_manifest(preset.train.data.shards)  # before anything starts, torch included: the most common mistakes
    _check_start(preset)
    prepare_validation_photos(preset.train.report.validation_sets)
    show_logs()

    from pipeline.run.training import train

    return 0 if train(preset).is_finished else EXIT_PREEMPTED


def _check_start(preset: Preset) -> None:
    """Name the preset that trains the initial weights, where they are missing."""
    file = preset.train.generator.initial_file
    if file is None or file.is_file():
        return
    for name in PRESETS.names():
        if RunFolder(PRESETS.load(name, Preset).train.run_dir).generator == file:
            raise ConfigError(
                f"generator.initial_weights: {file} is not there yet; python jobs/train_sed.py {name} trains it; "
                "or give another file, or 'random'"
            )


def run_to_exit_code(argv: list[str] | None = None) -> int:
    """Return the job's exit code, whatever happens; shows the traceback of an internal error as Python would."""
    try:
        return run_job(main, argv)
    except Exception as error:  # noqa: BLE001 - a failed rank exits by `os._exit`: the last place to show its traceback
        show_traceback(type(error), error, error.__traceback__)
        return EXIT_FAULTS


if __name__ == "__main__":
    code = run_to_exit_code()
    sys.stdout.flush()
    sys.stderr.flush()
    if "RANK" in os.environ and code not in (0, EXIT_PREEMPTED):
        # A rank that failed alone must not wait for the others in a destructor; the launcher ends them.
        os._exit(code)
    sys.exit(code)
