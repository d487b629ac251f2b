"""Export of a finished run: the averaged generator and the discriminators as safetensors files."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.errors import CheckpointError, saving
from pipeline.models.discriminators import save_discriminator
from pipeline.models.generators import save_generator
from pipeline.runtime.backend import Backend
from pipeline.train.state import TrainingState
from pipeline.weights.files import read_metadata
from pipeline.weights.strict import load_strictly


@dataclass(frozen=True)
class Provenance:
    """What exported files say of their run.

    Attributes:
        config: The run's configuration.
        manifest_digest: Of the dataset.
        started: When the run started, UTC: the same state is the same bytes whenever it is exported. None for a run of
            a version that did not record it.
    """

    config: TrainConfig
    manifest_digest: str
    started: str | None

    def at(self, images_seen: int) -> dict[str, str]:
        """Return the metadata of weights that were taken at a position of the run."""
        discriminators = self.config.discriminators.values()
        trained_with = [f"{one.architecture} discriminator, semantic: {one.semantic}" for one in discriminators]
        metadata = {
            "images_seen": str(images_seen),
            "image_manifest": self.manifest_digest,
            "modelspec.description": f"trained with {' and '.join(trained_with)}",
        }
        return metadata if self.started is None else {**metadata, "modelspec.date": self.started}


def export_networks(state: TrainingState, folder: RunFolder, provenance: Provenance, backend: Backend) -> None:
    """Write all networks into the run folder; the leader writes. All ranks must call.

    Raises:
        SaveError: The disk is full, or the folder is gone.
    """
    # Collective: with ZeRO-3 every rank holds a part of the weights.
    weights = {name: discriminator.weights() for name, discriminator in state.discriminators.items()}
    if not backend.is_leader:
        return
    metadata, options = provenance.at(state.images_seen), provenance.config.discriminators
    with saving(folder.generator.parent):
        for name, tensors in weights.items():
            save_discriminator(folder.discriminator(name), options[name], tensors, metadata)
        # Last: `exported_position` takes its presence for a complete export.
        save_generator(folder.generator, state.average.module, metadata)


def export_best(
    generator: nn.Module, weights: Mapping[str, Tensor], folder: RunFolder, metadata: dict[str, str]
) -> None:
    """Write the averaged generator of the checkpoint with the best validation.

    Args:
        generator: A network of its architecture, which is left as it is.
        weights: Of the checkpoint.
        folder: Where to write.
        metadata: See `Provenance`.

    Raises:
        SaveError: The disk is full, or the folder is gone.
    """
    best = copy.deepcopy(generator)
    load_strictly(best, weights)
    with saving(folder.best_generator.parent):
        save_generator(folder.best_generator, best, metadata)


def exported_position(folder: RunFolder) -> int | None:
    """Return the position of the run at which the exported weights were taken; None without an export."""
    try:
        return int(read_metadata(folder.generator)["images_seen"])
    except (CheckpointError, KeyError, ValueError):
        return None
