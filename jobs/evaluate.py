"""Evaluate models side by side: metrics per set and per image, next to those of bicubic upscaling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.command_line import CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import end_with_faults, leave, run_job
from shards.errors import InputError

COMMAND = CommandLine(
    "python jobs/evaluate.py",
    "Evaluate models side by side: metrics per set and per image, next to those of bicubic upscaling.",
    (
        "runs/rrdb_sed_p_x4 --sets data/benchmarks/Set5 data/benchmarks/Set14 --output numbers.json",
        "runs/mine runs/other RRDB_PSNR_x4.pth --sets data/benchmarks/Set14 --metrics psnr_y gmsd",
        "runs/mine --sets data/benchmarks/DIV2K  # on several GPUs: accelerate launch jobs/evaluate.py ...",
        "runs/mine runs/other --sets data/benchmarks/Set14 --metrics psnr_y gmsd --figure plane.png",
        "models:/sed-x4@champion --sets data/benchmarks/Set5 --picture before_after.png",
        "--metrics help  # lists the metrics",
    ),
)


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate. The defaults are the demo's run and its held-out photos."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL [MODEL ...]")] = ("demo/sed",)
    """.safetensors or .pth files, run folders, or models:/NAME@ALIAS, all of one scale; the first is what others are
    compared with."""
    sets: tuple[Path, ...] = (Path("demo/photos/validation"),)
    """Evaluation sets: folders with HR/ and, optionally, LRx4/; with original/ or GTmod12/ and LRbicx4/; with
    image_SRF_4/; DIV2K or its HR folder; or with images alone. LR that is missing is the bicubic downscale of HR."""
    metrics: tuple[str, ...] = ("psnr_y", "ssim_y")
    """Metrics by name; `--metrics help` lists them."""
    output: Path = Path("demo/evaluation.json")
    """JSON file for the results, per set and per image; of several models, with the differences to the first."""
    table: Path | None = None
    """Also write a CSV: one line per model and image, one column per metric."""
    picture: Path | None = None
    """Also write a PNG: bicubic upscaling | every model | HR, each with an enlarged detail."""
    figure: Path | None = None
    """Also write a PNG or SVG: perception against distortion, a point per model and set. The axes are the first metric
    of distortion and the first perceptual one of --metrics."""
    overwrite: bool = False
    """Replace existing files that an earlier evaluation did not write; inputs are never replaced."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/evaluate.py --help`."""
    config = COMMAND.parse(EvaluateConfig, argv)

    if config.metrics == ("help",):
        from pipeline.metrics.choice import describe_metrics

        print(describe_metrics())
        return 0

    from pipeline.data.evaluation import check_sets
    from pipeline.inference.model_names import label_models

    if not config.sets:
        raise InputError("--sets names no evaluation set; give a folder of HR images")
    prepare_validation_photos(config.sets)
    check_sets(config.sets)  # before torch is imported
    models = label_models(config.models)

    from pipeline.inference.evaluate_files import EvaluationFiles, evaluate_models
    from pipeline.inference.evaluation_table import tables

    files = EvaluationFiles(config.output, config.table, config.picture, config.figure)
    report = evaluate_models(models, config.sets, config.metrics, files, overwrite=config.overwrite)
    if report is None:  # the leader writes
        return 0
    files.write(report)
    print(tables(report))
    return end_with_faults(report.faults, report.num_images, "images")


if __name__ == "__main__":
    leave(run_job(main))
