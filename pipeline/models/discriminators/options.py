"""Options of discriminators, and the registry of their architectures. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.registry import ArchitectureOptions, Architectures, RegisteredName

DISCRIMINATORS: Architectures[Any] = Architectures("discriminator")
"""Each a `DiscriminatorArchitecture`, whose import here would be a cycle; by the name that configurations use."""


class DiscriminatorName(RegisteredName):
    """Name of a discriminator architecture."""

    __slots__ = ()
    registry = DISCRIMINATORS


@dataclass(frozen=True, kw_only=True)
class DiscriminatorOptions(ArchitectureOptions):
    """Options of the network that tells real from fake."""

    registry = DISCRIMINATORS

    architecture: DiscriminatorName
    """patch: PatchGAN (P); unet: pixel-wise U-Net (U); image: VGG-style, one logit per image (I); features: heads
    on a frozen vision model. Each has options of its own."""
    semantic: bool
    """True: SeD, with semantic-aware fusion blocks; false: the plain baseline."""
    initial_weights: Path | None = None
    """Discriminator file to start from (ours, SeD's, or Real-ESRGAN's for a plain unet); none: random."""
    initial_weights_partial: bool = False
    """Take the tensors of that file that fit by name and shape, and list the others; false: all must fit."""

    def __post_init__(self) -> None:
        """Check that a partial start has a file."""
        super().__post_init__()
        if self.initial_weights_partial and self.initial_weights is None:
            raise ConfigError("initial_weights_partial=true needs a file in initial_weights; or leave it out")

    @property
    def details(self) -> Mapping[str, str]:
        """What a dry run says of the options beyond name and size, by the title of its line."""
        return {}

    @property
    def frozen_weights(self) -> str | None:
        """Weights of the frozen network that it holds; None where it holds none."""
        return None
