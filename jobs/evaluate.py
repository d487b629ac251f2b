"""Measure a model on evaluation sets: metrics per set and per image, beside those of bicubic upscaling."""

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
from pipeline.inference.evaluate import DEFAULT_METRICS, Evaluated, evaluate_folder, protocol_of, result_names
from pipeline.inference.named_model import NamedModel, open_model
from pipeline.inference.pictures import before_and_after, write_png
from pipeline.metrics import METRICS, Metric
from shards.errors import InputError
from shards.format.files import check_writable, sha256_of, write_atomically


@dataclass(frozen=True)
class EvaluateConfig:
    """What to measure. With no argument: the demo's run on the demo's held-out photos."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "demo/run"
    """A .safetensors or .pth file, a run folder, or models:/NAME@ALIAS."""
    sets: tuple[Path, ...] = (Path("demo/photos/validation"),)
    """Folders that hold HR/ and, optionally, LRx4/ (else LR is made by bicubic)."""
    metrics: tuple[str, ...] = tuple(metric.name for metric in DEFAULT_METRICS)
    """Metrics by name; `--metrics help` lists them."""
    output: Path = Path("demo/evaluation.json")
    """The results per set and per image."""
    picture: Path | None = None
    """Also write a picture: LR enlarged by bicubic | ours | HR, with a detail of each."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/evaluate.py --help`."""
    config = tyro.cli(EvaluateConfig, args=argv, prog="python jobs/evaluate.py", description=__doc__)
    if config.metrics == ("help",):
        sys.stdout.write("".join(map(_described, METRICS)))
        return 0
    metrics, not_computed = _choose(config.metrics)
    prepare_validation_photos(config.sets)
    files = [file for folder in check_sets(config.sets) for file in evaluation_files(folder)]
    for path in (config.output, config.picture):
        if path is not None:
            check_writable(path.parent)
    model = open_model(config.model)
    model.generator.to("cuda" if torch.cuda.is_available() else "cpu")
    by_set = _measure(model, config, metrics, len(files))
    _write(model, config, metrics, by_set, not_computed)
    if config.picture is not None:
        pictures = [image for images in by_set.values() for image in images]
        write_png(config.picture, before_and_after(pictures))
        say(f"picture: {config.picture}")
    return 0


def _described(metric: Metric) -> str:
    reference = "full-reference" if metric.needs_reference else "no-reference"
    better = "higher" if metric.is_higher_better else "lower"
    missing = metric.missing()
    needs = "" if missing is None else f"; not computed: needs {missing}"
    return f"{metric.name}: {reference}, {better} is better; {metric.protocol}{needs}\n"


def _choose(names: tuple[str, ...]) -> tuple[list[Metric], dict[str, str]]:
    """The metrics that can be computed here, and what each of the others needs."""
    chosen = [METRICS[name] for name in dict.fromkeys(names)]
    not_computed = {metric.name: needs for metric in chosen if (needs := metric.missing()) is not None}
    metrics = [metric for metric in chosen if metric.name not in not_computed]
    if not metrics:
        needs = "".join(f"\n  {name}: not computed: needs {what}" for name, what in not_computed.items())
        raise InputError(f"--metrics leaves nothing to compute; `--metrics help` lists all{needs}")
    return metrics, not_computed


def _measure(
    model: NamedModel, config: EvaluateConfig, metrics: list[Metric], num_images: int
) -> dict[str, list[Evaluated]]:
    by_set: dict[str, list[Evaluated]] = {}
    with Progress("evaluating", num_images, "images") as progress:
        for folder in config.sets:
            images = by_set.setdefault(folder.name, [])
            for evaluated in evaluate_folder(model.generator, folder, model.scale, metrics):
                images.append(evaluated)
                progress.advance(1)
    return by_set


def _write(
    model: NamedModel,
    config: EvaluateConfig,
    metrics: list[Metric],
    by_set: dict[str, list[Evaluated]],
    not_computed: dict[str, str],
) -> None:
    sets: dict[str, Any] = {}
    for name, images in by_set.items():
        mean = {key: sum(image.metrics[key] for image in images) / len(images) for key in result_names(metrics)}
        sets[name] = {"mean": mean, "images": {image.pair.name: image.metrics for image in images}}
        sys.stdout.write(f"{name}: {', '.join(_compared(metric, mean) for metric in metrics)}\n")
    for name, needs in not_computed.items():
        sys.stdout.write(f"{name}: not computed: needs {needs}\n")
    document = {
        "model": config.model,
        "weights_sha256": sha256_of(model.weights),
        "scale": model.scale,
        "protocol": protocol_of(metrics),
        "sets": sets,
    }
    if not_computed:
        document["not_computed"] = not_computed
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config.output, (json.dumps(document, indent=1) + "\n").encode())


def _compared(metric: Metric, mean: dict[str, float]) -> str:
    baseline = mean[f"bicubic_{metric.name}"]
    return f"{metric.label} {metric.text(mean[metric.name])} (bicubic {baseline:.{metric.decimals}f})"


if __name__ == "__main__":
    sys.exit(run_job(main))
