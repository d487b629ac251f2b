"""Registers a model as a new version, and makes it the champion if it beats the present one."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pipeline.checkpoint import CheckpointStore
from pipeline.data.evaluation import evaluation_files
from pipeline.inference.device import best_device
from pipeline.inference.evaluate import evaluate_sets, result_names
from pipeline.inference.named_model import NamedModel, open_model
from pipeline.metrics import METRICS
from pipeline.metrics.order import is_better, mean, only_finite
from pipeline.models import save_generator
from pipeline.tracking import registry
from pipeline.weights.files import hash_weights
from shards.errors import InputError
from shards.format.files import sha256_of

DECISIVE = "psnr_y"
"""The metric that decides; higher is better."""


class Progress(Protocol):
    """Counts images."""

    def advance(self, count: int) -> None:
        """Count images done since the last call."""
        ...


class ProgressDisplay(Protocol):
    """Opens the display of one stage."""

    def __call__(self, description: str, total: int, unit: str) -> AbstractContextManager[Progress]:
        """Open it for `total` units, of which `unit` is the plural."""
        ...


def promote(
    source: str, name: str, sets: Sequence[Path], display: ProgressDisplay, *, replace_champion: bool = False
) -> str:
    """Register a model, and crown it if it is better than the champion.

    Args:
        source: The model as a user names it; see `open_model`.
        name: Registered model.
        sets: Evaluation sets that decide.
        display: Shows progress.
        replace_champion: Crown the model without a comparison, because the champion's files are lost.

    Returns:
        What happened, in one line.

    Raises:
        CheckpointError: A model cannot be loaded, or the MLflow server is unreachable.
        InputError: A set is not an evaluation set.
    """
    if not sets:
        raise InputError("--sets names no evaluation set, and nothing can be compared without one; give a folder")
    model = open_model(source)
    champion = registry.champion(name)
    digest = sha256_of(model.weights)
    if champion is not None and champion.tags.get("weights_sha256") == digest:
        return f"{name} version {champion.version} is this very model, and champion; nothing to do"
    results = measure(model, sets, display, "measuring the model")
    theirs: list[float] | None = None
    if champion is not None and not replace_champion:
        rival = open_model(f"{registry.SCHEME}{name}@{registry.CHAMPION}")
        if hash_weights(rival.generator.state_dict()) == hash_weights(model.generator.cpu().state_dict()):
            return f"{name} version {champion.version} has these very weights, and is champion; nothing to do"
        theirs = measure(rival, sets, display, "measuring the champion")[DECISIVE]
    facts = {
        "weights_sha256": digest,
        "source": source,
        "evaluation_sets": ", ".join(str(folder) for folder in sets),
    }
    means = only_finite({metric: mean(values) for metric, values in results.items()})
    version = _register(model, name, means, facts)
    metric, ours = METRICS[DECISIVE], results[DECISIVE]
    our_text = metric.text(mean(ours))
    if champion is None or theirs is None:
        registry.crown(name, version)
        return f"{name} version {version} is champion: {metric.label} {our_text}"
    their_text = metric.text(mean(theirs))
    if not is_better(ours, theirs):
        return (
            f"registered {name} version {version}; version {champion.version} stays champion: "
            f"{their_text} against {our_text}"
        )
    registry.crown(name, version)
    return (
        f"{name} version {version} is champion: {metric.label} {our_text}, "
        f"before: version {champion.version} with {their_text}"
    )


def measure(
    model: NamedModel, sets: Sequence[Path], display: ProgressDisplay, description: str
) -> dict[str, list[float]]:
    """Return the values of every metric, image by image, set by set."""
    results: dict[str, list[float]] = {name: [] for name in result_names()}
    num_images = sum(len(evaluation_files(folder)) for folder in sets)
    model.generator.to(best_device())
    with display(description, num_images, "images") as progress:
        for _, evaluated in evaluate_sets(model.generator, sets, model.scale):
            for name, values in results.items():
                values.append(evaluated.metrics[name])
            progress.advance(1)
    return results


def _register(model: NamedModel, name: str, metrics: dict[str, float], facts: dict[str, str]) -> str:
    tags = {**facts, **{metric: f"{value:.4f}" for metric, value in metrics.items()}}
    run_id = _run_id(model)
    module = model.generator.cpu()
    if model.weights.name == registry.WEIGHTS:
        return registry.register(name, module, model.weights, tags, run_id, metrics)
    with tempfile.TemporaryDirectory() as folder:
        # Another project's file: the registry holds our layout, which every reader knows.
        weights = Path(folder) / registry.WEIGHTS
        save_generator(weights, module)
        return registry.register(name, module, weights, tags, run_id, metrics)


def _run_id(model: NamedModel) -> str | None:
    if model.run is None:
        return None
    checkpoint = CheckpointStore(model.run.checkpoints).newest()
    return checkpoint.facts.get("mlflow_run_id") if checkpoint else None
