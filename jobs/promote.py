"""Register a model as a new version, and move the alias `champion` to it only if it is proven better.

Better means by a perceptual metric, in a paired bootstrap over all images of the evaluation sets, with a floor on
PSNR; the model and the champion are both evaluated on them in this call. docs/registry.md describes a version.
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
from pipeline.progress import say

COMMAND = CommandLine(
    "python jobs/promote.py",
    "Register a model as a new version in MLflow. It becomes `champion` only if a paired bootstrap over the images of\n"
    "the evaluation sets proves it better by a perceptual metric, and its PSNR-Y is at most 0.5 dB below the\n"
    "champion's; otherwise it becomes `challenger`. `best-METRIC` names the version with the best mean by a metric.",
    (
        "runs/rrdb_sed_p_x4 --name sed-x4 --sets data/benchmarks/Set5 data/benchmarks/Set14",
        "runs/rrdb_sed_p_x4 --name sed-x4 --metric lpips --floor psnr_y=-0.5 --sets data/benchmarks/Set14",
        "--metric help  # lists the metrics",
    ),
)


@dataclass(frozen=True)
class PromoteConfig:
    """What to register. The defaults are the demo's run, as sed-demo."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "demo/sed"
    """A .safetensors or .pth file, or a run folder."""
    name: str = "sed-demo"
    """Registered model in MLflow."""
    sets: tuple[Path, ...] = (Path("demo/photos/validation"),)
    """Evaluation sets that decide, in any layout that jobs/evaluate.py takes."""
    metric: str = ""
    """Metric that decides; `--metric help` lists them. Empty: the best perceptual one that can be computed here."""
    floor: str = "psnr_y=-0.5"
    """NAME=LARGEST_LOSS: how much worse than the champion the model may be on average by a distortion metric; by
    the same metric it must also be no worse than bicubic upscaling."""
    force: bool = False
    """Make it the champion whatever the comparison says, or because the champion's files are lost; the tags say so."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/promote.py --help`."""
    config = COMMAND.parse(PromoteConfig, argv)
    if config.metric == "help":
        from pipeline.metrics.choice import describe_metrics

        print(describe_metrics())
        return 0

    from pipeline.data.evaluation import check_sets, passed_over_in_sets
    from pipeline.inference.model_names import check_model_exists

    prepare_validation_photos(config.sets)
    check_sets(config.sets)
    if others := passed_over_in_sets(config.sets):
        say(others)
    check_model_exists(config.model)  # before torch is imported

    from pipeline.inference.promotion import parse_rule, promote

    rule = parse_rule(config.metric, config.floor)
    say(promote(config.model, config.name, config.sets, rule, force=config.force))
    return 0


if __name__ == "__main__":
    sys.exit(run_job(main))
