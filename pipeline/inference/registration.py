"""Registers a measured model: its package, card, picture and lineage."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.data.evaluation import read_pair, set_images
from pipeline.inference.evaluate import evaluate_image
from pipeline.inference.lineage import lineage_of
from pipeline.inference.model_card import PICTURE, Described, Measured, model_card
from pipeline.inference.named_model import NamedModel
from pipeline.inference.pictures import side_by_side, write_png
from pipeline.inference.shipped import package
from pipeline.models.generators import save_generator
from pipeline.tracking import registry


def register_version(
    model: NamedModel, name: str, measured: Measured, facts: Mapping[str, str], run_id: str | None
) -> str:
    """Register a model as a new version, and return the version.

    Args:
        model: Its generator moves to the CPU.
        name: Registered model.
        measured: How good it is.
        facts: Tags of the version, besides its numbers and lineage; `source` and `weights_sha256` among them.
        run_id: The MLflow run that trained it.

    Raises:
        CheckpointError: The server cannot be reached, or the stored model computes another output.
    """
    lineage = lineage_of(model)
    described = Described(model.generator, facts["source"], facts["weights_sha256"], lineage, measured)
    numbers = {metric: f"{value:.6g}" for metric, value in measured.means.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _draw(model, measured.sets[0], folder / PICTURE)
        generator, weights = model.generator.cpu(), model.weights
        if weights.name != registry.WEIGHTS:
            # A file of another project: the registry stores our layout, which every reader knows.
            weights = folder / registry.WEIGHTS
            save_generator(weights, generator)
        return registry.register(
            name,
            package(generator, weights, folder / "code"),
            {**facts, **lineage.tags, **numbers},
            run_id,
            measured.means,
            card=lambda place: model_card(place, described),
            pictures=[folder / PICTURE],
        )


def _draw(model: NamedModel, evaluation_set: Path, target: Path) -> None:
    """Write LR enlarged by bicubic | SR | HR of a set's first image."""
    first = read_pair(set_images(evaluation_set, model.scale)[0], model.scale)
    write_png(target, side_by_side(evaluate_image([model.generator], first, model.scale)), job="promote")
