"""Export of a finished run: the averaged generator and the discriminator as safetensors files."""

from __future__ import annotations

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.errors import CheckpointError, saving
from pipeline.models.discriminators import save_discriminator
from pipeline.models.generators import save_generator
from pipeline.runtime.backend import Backend
from pipeline.train.state import TrainingState
from pipeline.weights.files import read_metadata


def export_networks(
    state: TrainingState,
    config: TrainConfig,
    folder: RunFolder,
    manifest_digest: str,
    started: str | None,
    backend: Backend,
) -> None:
    """Write both networks into the run folder; the leader writes. All ranks must call.

    The same state is the same bytes whenever it is exported: the date in the files is the run's, not that of writing.

    Args:
        state: The run's state.
        config: Its configuration.
        folder: Where to write.
        manifest_digest: Of the dataset.
        started: When the run started, UTC; None for a run of a version that did not record it.
        backend: Ranks and devices.

    Raises:
        SaveError: The disk is full, or the folder is gone.
    """
    # Collective: with ZeRO-3 every rank holds a part of the weights.
    weights = state.discriminator.weights() if state.discriminator is not None else None
    if not backend.is_leader:
        return
    metadata = {
        "images_seen": str(state.images_seen),
        "image_manifest": manifest_digest,
        "modelspec.description": f"trained with {config.discriminator.architecture} discriminator, "
        f"semantic: {config.discriminator.semantic}",
    }
    if started is not None:
        metadata["modelspec.date"] = started
    with saving(folder.generator.parent):
        if weights is not None:
            save_discriminator(folder.discriminator, config.discriminator, weights, metadata)
        # Last: `exported_position` takes its presence for a complete export.
        save_generator(folder.generator, state.average.module, metadata)


def exported_position(folder: RunFolder) -> int | None:
    """Return the position of the run at which the exported weights were taken; None without an export."""
    try:
        return int(read_metadata(folder.generator)["images_seen"])
    except (CheckpointError, KeyError, ValueError):
        return None
