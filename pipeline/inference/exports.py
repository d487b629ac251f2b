"""The discriminators that a run folder exports. Nothing here imports torch before one is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig

if TYPE_CHECKING:
    from pipeline.models.discriminators import Discriminator


def why_no_discriminator(run: RunFolder, config: TrainConfig, name: str = "discriminator") -> str | None:
    """Return why a run has no exported discriminator of a name; None where it has."""
    if not config.is_adversarial:
        return "the run trains no discriminator"
    if not run.discriminator(name).is_file():
        return f"no {run.discriminator(name).relative_to(run.path)}, which a run writes at its end"
    return None


def load_exported(
    run: RunFolder, config: TrainConfig, semantic_channels: int, name: str = "discriminator"
) -> Discriminator:
    """Load a discriminator of a run, by default the first, in evaluation mode.

    Args:
        run: The run.
        config: Its configuration.
        semantic_channels: Channels of the semantics; ignored by a plain discriminator.
        name: Of the discriminator, as reports call it.

    Raises:
        InputError: The weights cannot be loaded, or do not fit the configuration.
    """
    from pipeline.models.discriminators import build_discriminator, load_discriminator_weights
    from pipeline.weights.files import read_weights

    network = build_discriminator(config.discriminators[name], semantic_channels, config.data.crop_px)
    load_discriminator_weights(network, read_weights(run.discriminator(name)))
    return network.eval()
