"""Write an HTML report of models on evaluation sets: numbers, comparison sliders, curves and attention, in one file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.command_line import CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import end_with_faults, run_job
from shards.errors import InputError
from shards.secrets import command_without_secrets

COMMAND = CommandLine(
    "python jobs/report.py",
    "Write an HTML report of models on evaluation sets: numbers, comparison sliders, curves, attention, in one file.",
    (
        "runs/rrdb_sed_p_x4 --sets data/benchmarks/Set5 --output report.html",
        "runs/rrdb_psnr_x4 runs/rrdb_sed_p_x4 --sets data/benchmarks/Set5 --metrics lpips --output report.html",
    ),
)


@dataclass(frozen=True)
class ReportConfig:
    """What to show. The defaults are the demo's run and its held-out photos."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL [MODEL ...]")] = ("demo/sed",)
    """Each a .safetensors or .pth file, a run folder (which adds its curves), or models:/NAME@ALIAS."""
    sets: tuple[Path, ...] = (Path("demo/photos/validation"),)
    """Evaluation sets, in the layouts of jobs/evaluate.py."""
    metrics: tuple[str, ...] = ("psnr_y", "ssim_y", "features-efficientnet", "spectrum")
    """Metrics by name, next to PSNR-Y and the high-frequency energy; jobs/evaluate.py --metrics help lists them."""
    output: Path = Path("demo/report.html")
    """HTML file to write; it needs no other file and no network."""
    max_photos: int = 20
    """Photos shown, evenly spread over the sets; the numbers are of all."""
    overwrite: bool = False
    """Replace an existing file that is not a report; inputs are never replaced."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/report.py --help`."""
    config = COMMAND.parse(ReportConfig, argv)

    from pipeline.data.evaluation import check_sets
    from pipeline.inference.html_report.output import check_report_file
    from pipeline.inference.model_names import label_models

    if not config.models or not config.sets:
        raise InputError("name at least one model, and one evaluation set after --sets: a folder of HR images")
    if config.max_photos < 0:
        raise InputError(f"--max-photos must be at least 0; got {config.max_photos}")
    prepare_validation_photos(config.sets)
    check_sets(config.sets)
    models = label_models(config.models)
    check_report_file(config.output, config.models, config.sets, overwrite=config.overwrite)  # before torch is imported

    from pipeline.inference.html_report.report import ReportRequest, write_report

    command = command_without_secrets(["python", "jobs/report.py", *argv])
    written = write_report(
        ReportRequest(
            models=models,
            sets=config.sets,
            metrics=config.metrics,
            output=config.output,
            max_photos=config.max_photos,
            command=command,
        )
    )
    for table in written.tables:
        print(f"{table.text}\n* best of its column")
    return end_with_faults(written.faults, written.num_photos, "photos")


if __name__ == "__main__":
    sys.exit(run_job(main))
