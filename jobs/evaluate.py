"""Measure a model on evaluation sets: metrics per set and per image, beside those of bicubic upscaling."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.command_line import CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import end_with_faults, run_job
from pipeline.progress import Progress, say
from shards.errors import InputError

_JOB = "evaluate"

COMMAND = CommandLine(
    "python jobs/evaluate.py",
    "Measure a model on evaluation sets: metrics per set and per image, beside those of bicubic upscaling.",
    (
        "runs/rrdb_sed_p_x4 --sets data/benchmarks/Set5 data/benchmarks/Set14 --output numbers.json",
        "models:/sed-x4@champion --sets data/benchmarks/Set5 --picture before_after.png",
        "--metrics help  # lists the metrics",
    ),
)


@dataclass(frozen=True)
class EvaluateConfig:
    """What to measure. The defaults are the demo's run and its held-out photos."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "demo/run"
    """A .safetensors or .pth file, a run folder, or models:/NAME@ALIAS."""
    sets: tuple[Path, ...] = (Path("demo/photos/validation"),)
    """Folders that hold HR/ and, optionally, LRx4/ (else LR is the bicubic downscale of HR)."""
    metrics: tuple[str, ...] = ("psnr_y", "ssim_y")
    """Metrics by name; `--metrics help` lists them."""
    output: Path = Path("demo/evaluation.json")
    """JSON file for the results, per set and per image."""
    table: Path | None = None
    """Also write a CSV: one line per image, one column per metric."""
    picture: Path | None = None
    """Also write a PNG: bicubic upscaling | the model | HR, each with a detail."""
    overwrite: bool = False
    """Replace existing files that an earlier evaluation did not write; inputs are never replaced."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/evaluate.py --help`."""
    config = COMMAND.parse(EvaluateConfig, argv)

    from pipeline.data.evaluation import all_files, check_sets, evaluation_files, passed_over

    if config.metrics != ("help",):  # before torch is imported
        if not config.sets:
            raise InputError("--sets names no evaluation set; give a folder that holds HR/")
        prepare_validation_photos(config.sets)
        check_sets(config.sets)

    from pipeline.inference.device import best_device
    from pipeline.inference.evaluate import evaluate_sets
    from pipeline.inference.evaluation_report import EvaluationReport, is_evaluation, is_image_table
    from pipeline.inference.named_model import open_model
    from pipeline.inference.pictures import before_and_after, is_picture_of, write_png
    from pipeline.metrics.choice import choose_metrics, describe_metrics
    from shards.format.files import check_writable, write_atomically
    from shards.format.outputs import check_output_files
    from shards.format.storage import parse_local_path

    if config.metrics == ("help",):
        print(describe_metrics())
        return 0
    metrics, not_computed = choose_metrics(config.metrics)
    num_images = sum(len(evaluation_files(folder)) for folder in config.sets)
    if others := passed_over(folder / "HR" for folder in config.sets):
        say(others)
    outputs = [path for path in (config.output, config.table, config.picture) if path is not None]
    check_output_files(
        outputs,
        [parse_local_path(config.model), *(file for folder in config.sets for file in all_files(folder))],
        is_own=lambda path: is_evaluation(path) or is_image_table(path) or is_picture_of(path, _JOB),
        overwrite=config.overwrite,
    )
    for path in outputs:
        check_writable(path.parent)
    model = open_model(config.model, unfinished=True)
    say(f"generator: {model.weights}")
    model.generator.to(best_device())
    report = EvaluationReport(tuple(metrics), not_computed)
    with Progress("evaluating", num_images, "images") as progress:

        def skip(error: InputError) -> None:
            report.faults.append(str(error))
            progress.advance(1)

        for set_name, evaluated in evaluate_sets(model.generator, config.sets, model.scale, metrics, skip=skip):
            report.add(set_name, evaluated)
            progress.advance(1)
    print(report.text())
    report.write(config.output, config.model, model)
    if config.table is not None:
        write_atomically(config.table, report.csv())
    if config.picture is not None and report.images:
        write_png(config.picture, before_and_after(report.images), job=_JOB)
        say(f"picture: {config.picture}")
    return end_with_faults(report.faults, num_images, "images")


if __name__ == "__main__":
    sys.exit(run_job(main))
