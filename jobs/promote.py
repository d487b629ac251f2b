"""Register a model as a new version, and make it the champion only if it is better.

Better means: a higher mean PSNR-Y over the evaluation sets than the champion's own model has on the same sets, both
measured here and now.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import Progress, run_job, say
from pipeline.checkpoint import CheckpointStore
from pipeline.data.evaluation import check_sets, evaluation_files
from pipeline.inference.evaluate import evaluate_folder, result_names
from pipeline.inference.named_model import NamedModel, open_model
from pipeline.models import save_generator
from pipeline.tracking import registry
from shards.format.files import sha256_of


@dataclass(frozen=True)
class PromoteConfig:
    """What to register. With no argument: the demo's run as sed-demo."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "demo/run"
    """A .safetensors or .pth file, or a run folder."""
    name: str = "sed-demo"
    """Registered model in MLflow."""
    sets: tuple[Path, ...] = (Path("demo/photos/validation"),)
    """Evaluation sets that decide."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/promote.py --help`."""
    config = tyro.cli(PromoteConfig, args=argv, prog="python jobs/promote.py", description=__doc__)
    prepare_validation_photos(config.sets)
    check_sets(config.sets)
    model = open_model(config.model)
    digest = sha256_of(model.weights)
    champion = registry.champion(config.name)
    if champion is not None and champion.tags.get("weights_sha256") == digest:
        say(f"{config.name} version {champion.version} is this very model, and champion; nothing to do")
        return 0
    metrics = measure(model, config.sets, "measuring the model")
    before = None
    if champion is not None:
        rival = open_model(f"{registry.SCHEME}{config.name}@{registry.CHAMPION}")
        before = measure(rival, config.sets, "measuring the champion")["psnr_y"]
    version = _register(model, config, metrics, digest)
    if champion is not None and before is not None and metrics["psnr_y"] <= before:
        say(
            f"registered {config.name} version {version}; version {champion.version} stays champion: "
            f"{before:.3f} dB against {metrics['psnr_y']:.3f} dB"
        )
        return 0
    registry.crown(config.name, version)
    was = f", before: version {champion.version} with {before:.3f} dB" if champion and before is not None else ""
    say(f"{config.name} version {version} is champion: PSNR-Y {metrics['psnr_y']:.3f} dB{was}")
    return 0


def measure(model: NamedModel, sets: Sequence[Path], description: str) -> dict[str, float]:
    """Return the mean of every metric over all images of the sets."""
    sums: dict[str, float] = dict.fromkeys(result_names(), 0.0)
    num_images = sum(len(evaluation_files(folder)) for folder in sets)
    model.generator.to("cuda" if torch.cuda.is_available() else "cpu")
    with Progress(description, num_images, "images") as progress:
        for folder in sets:
            for image in evaluate_folder(model.generator, folder, model.scale):
                for name in result_names():
                    sums[name] += image.metrics[name] / num_images
                progress.advance(1)
    return sums


def _register(model: NamedModel, config: PromoteConfig, metrics: dict[str, float], digest: str) -> str:
    tags = {
        "weights_sha256": digest,
        "source": config.model,
        "evaluation_sets": ", ".join(str(folder) for folder in config.sets),
        **{name: f"{value:.4f}" for name, value in metrics.items()},
    }
    run_id = _run_id(model)
    module = model.generator.cpu()
    if model.weights.name == registry.WEIGHTS:
        return registry.register(config.name, module, model.weights, tags, run_id, metrics)
    with tempfile.TemporaryDirectory() as folder:
        # Another project's file: the registry holds ours, in the layout that every reader knows.
        weights = Path(folder) / registry.WEIGHTS
        save_generator(weights, module)
        return registry.register(config.name, module, weights, tags, run_id, metrics)


def _run_id(model: NamedModel) -> str | None:
    if model.run is None:
        return None
    checkpoint = CheckpointStore(model.run.checkpoints).newest()
    return checkpoint.facts.get("mlflow_run_id") if checkpoint else None


if __name__ == "__main__":
    sys.exit(run_job(main))
