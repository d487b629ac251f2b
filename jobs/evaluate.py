"""Measure a model on evaluation sets: PSNR and SSIM a set and an image, beside bicubic's."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import Progress, run_job, say
from pipeline.data.evaluation import check_sets, evaluation_files
from pipeline.inference.evaluate import METRICS, PROTOCOL, Evaluated, evaluate_folder
from pipeline.inference.named_model import NamedModel, open_model
from pipeline.inference.pictures import before_and_after, write_png
from shards.format.files import check_writable, sha256_of, write_atomically


@dataclass(frozen=True)
class EvaluateConfig:
    """What to measure. With no argument: the demo's run on the demo's held-out photos."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "demo/run"
    """A .safetensors or .pth file, a run folder, or models:/NAME@ALIAS."""
    sets: tuple[Path, ...] = (Path("demo/photos/validation"),)
    """Folders that hold HR/ and, optionally, LRx4/ (else LR is made by bicubic)."""
    output: Path = Path("demo/evaluation.json")
    """The numbers, a set and an image."""
    picture: Path | None = None
    """Also write a picture: LR enlarged by bicubic | ours | HR, with a detail of each."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/evaluate.py --help`."""
    config = tyro.cli(EvaluateConfig, args=argv, prog="python jobs/evaluate.py", description=__doc__)
    prepare_validation_photos(config.sets)
    files = [file for folder in check_sets(config.sets) for file in evaluation_files(folder)]
    for path in (config.output, config.picture):
        if path is not None:
            check_writable(path.parent)
    model = open_model(config.model)
    model.generator.to("cuda" if torch.cuda.is_available() else "cpu")
    by_set = _measure(model, config, len(files))
    _write(model, config, by_set)
    if config.picture is not None:
        pictures = [image for images in by_set.values() for image in images]
        write_png(config.picture, before_and_after(pictures))
        say(f"picture: {config.picture}")
    return 0


def _measure(model: NamedModel, config: EvaluateConfig, num_images: int) -> dict[str, list[Evaluated]]:
    by_set: dict[str, list[Evaluated]] = {}
    with Progress("evaluating", num_images, "images") as progress:
        for folder in config.sets:
            images = by_set.setdefault(folder.name, [])
            for evaluated in evaluate_folder(model.generator, folder, model.scale):
                images.append(evaluated)
                progress.advance(1)
    return by_set


def _write(model: NamedModel, config: EvaluateConfig, by_set: dict[str, list[Evaluated]]) -> None:
    sets: dict[str, Any] = {}
    for name, images in by_set.items():
        mean = {metric: sum(image.metrics[metric] for image in images) / len(images) for metric in METRICS}
        sets[name] = {"mean": mean, "images": {image.pair.name: image.metrics for image in images}}
        sys.stdout.write(
            f"{name}: PSNR-Y {mean['psnr_y']:.2f} dB (bicubic {mean['bicubic_psnr_y']:.2f}), "
            f"SSIM-Y {mean['ssim_y']:.4f} (bicubic {mean['bicubic_ssim_y']:.4f})\n"
        )
    document = {
        "model": config.model,
        "weights_sha256": sha256_of(model.weights),
        "scale": model.scale,
        "protocol": PROTOCOL,
        "sets": sets,
    }
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config.output, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(run_job(main))
