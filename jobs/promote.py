"""Register a model as a new version, and move the alias `champion` to it only if it is better.

Better means a higher mean PSNR-Y over all images of the evaluation sets; the model and the champion are both measured
on them in this call.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.command_line import CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import run_job
from pipeline.progress import Progress, say

COMMAND = CommandLine(
    "python jobs/promote.py",
    "Register a model as a new version in MLflow. It becomes `champion` only if its mean PSNR-Y over the evaluation\n"
    "sets is higher than the champion's.",
    ("runs/rrdb_sed_p_x4 --name sed-x4 --sets data/benchmarks/Set5 data/benchmarks/Set14",),
)


@dataclass(frozen=True)
class PromoteConfig:
    """What to register. The defaults are the demo's run, as sed-demo."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "demo/run"
    """A .safetensors or .pth file, or a run folder."""
    name: str = "sed-demo"
    """Registered model in MLflow."""
    sets: tuple[Path, ...] = (Path("demo/photos/validation"),)
    """Evaluation sets that decide: folders with HR/ and, optionally, LRx4/."""
    replace_champion: bool = False
    """Make it the champion without a comparison, because the present champion's files are lost."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/promote.py --help`."""
    config = COMMAND.parse(PromoteConfig, argv)
    prepare_validation_photos(config.sets)

    from pipeline.data.evaluation import check_sets, passed_over
    from pipeline.inference.model_names import check_model_exists

    check_sets(config.sets)
    if others := passed_over(folder / "HR" for folder in config.sets):
        say(others)
    check_model_exists(config.model)  # before torch is imported

    from pipeline.inference.promotion import promote

    say(promote(config.model, config.name, config.sets, Progress, replace_champion=config.replace_champion))
    return 0


if __name__ == "__main__":
    sys.exit(run_job(main))
