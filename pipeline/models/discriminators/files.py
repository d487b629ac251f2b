"""Weight files of discriminators: SeD's layout where SeD has the network, ours otherwise; either is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.models.discriminators.base import Discriminator
from pipeline.models.discriminators.contract import build_discriminator
from pipeline.models.discriminators.options import DISCRIMINATORS, DiscriminatorOptions
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d
from pipeline.weights.files import strip_wrappers, write_weights
from pipeline.weights.initial import InitialWeights, read_initial_weights
from pipeline.weights.strict import load_strictly


def start_discriminator(
    options: DiscriminatorOptions, semantic_channels: int, crop_px: int, name: str = "discriminator"
) -> tuple[Discriminator, InitialWeights]:
    """Build a discriminator with its initial weights, where the options name a file, else random ones.

    Returns:
        The network, and the weights that it was given.

    Raises:
        ConfigError: The options do not fit together or to the crops; see `build_discriminator`.
        CheckpointError: The file is unreadable, or of another network.
    """
    discriminator = build_discriminator(options, semantic_channels, crop_px)
    weights = initial_discriminator_weights(options, discriminator, name)
    weights.load_into(discriminator)
    if weights.left_out:
        _restart_spectral_norms(discriminator, weights.tensors)
    return discriminator, weights


def initial_discriminator_weights(
    options: DiscriminatorOptions, discriminator: Discriminator, name: str = "discriminator"
) -> InitialWeights:
    """Read what a discriminator starts from, and check it against the network, which may be on the `meta` device.

    Errors call the discriminator by its name.

    Raises:
        CheckpointError: The file is unreadable, or of another network.
    """
    if options.initial_weights is None:
        return InitialWeights()
    architecture = DISCRIMINATORS.of(discriminator)
    return read_initial_weights(
        discriminator,
        options.initial_weights,
        lambda state: architecture.import_state(discriminator, state),
        partial=options.initial_weights_partial,
        option=f"{name}.initial_weights",
    )


def _restart_spectral_norms(discriminator: Discriminator, taken: Mapping[str, Tensor]) -> None:
    """Estimate the singular vectors again where they or the weight that they belong to were not in the file."""
    for name, layer in discriminator.named_modules():
        if isinstance(layer, SpectralNormConv2d):
            entries = {f"{name}.{entry}" for entry in ("weight", "weight_u", "weight_v")}
            if not entries <= taken.keys():
                layer.reset_vectors()


def load_discriminator_weights(discriminator: Discriminator, state: Mapping[str, Any]) -> None:
    """Load our, SeD's or Real-ESRGAN's weights into a discriminator; it changes only if everything fits.

    Args:
        discriminator: Bare.
        state: Tensors by name, wrapped (`params_ema`, `module.`) or not; either kind of spectral norm.

    Raises:
        CheckpointError: Tensors are missing, unexpected or of another shape; lists them.
    """
    architecture = DISCRIMINATORS.of(discriminator)
    load_strictly(discriminator, architecture.import_state(discriminator, strip_wrappers(state)))


def save_discriminator(
    path: Path | str, options: DiscriminatorOptions, state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a discriminator as safetensors; the metadata name its architecture and the layout of its names.

    Args:
        path: Target; replaced whole or left alone.
        options: Those that it was built from.
        state: Its tensors by its own names.
        metadata: More text to keep with it.
    """
    layout, tensors = DISCRIMINATORS[options.architecture].export_state(options, state)
    facts = {"architecture": str(options.architecture), "layout": layout, "semantic": str(options.semantic).lower()}
    write_weights(path, tensors, facts | dict(metadata))
