"""What a finished run leaves for others: the averaged generator and the discriminator as safetensors files."""

from __future__ import annotations

from safetensors import SafetensorError, safe_open

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.errors import saving
from pipeline.models import save_discriminator, save_generator
from pipeline.runtime.backend import Backend
from pipeline.train.state import TrainingState


def export_networks(
    state: TrainingState, config: TrainConfig, folder: RunFolder, manifest_digest: str, backend: Backend
) -> None:
    """Write both networks into the run folder; the leader writes. All ranks must call.

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
    with saving(folder.generator.parent):
        if weights is not None:
            save_discriminator(folder.discriminator, config.discriminator, weights, metadata)
        # Last: `exported_position` takes its presence for a complete export.
        save_generator(folder.generator, state.average.module, metadata)


def exported_position(folder: RunFolder) -> int | None:
    """Return the position of the run at which the exported weights were taken; None without an export."""
    try:
        with safe_open(folder.generator, "pt") as file:
            return int((file.metadata() or {})["images_seen"])
    except (OSError, SafetensorError, KeyError):
        return None
