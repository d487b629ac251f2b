"""The contract of a discriminator architecture: the network, and others' names for its tensors.

The options and the registry stand in `options`, so that a command line is read without torch. The registry drives
everything else: configurations and flags, building, initial weights, exporting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.discriminators.base import Discriminator
from pipeline.models.discriminators.options import DISCRIMINATORS, DiscriminatorOptions

OWN_LAYOUT = "sed-trainer"

OptionsT = TypeVar("OptionsT", bound=DiscriminatorOptions)


class DiscriminatorArchitecture(ABC, Generic[OptionsT]):
    """One architecture: what the registry knows of a network.

    Attributes:
        name: As configurations name it.
        options: Its options.
        network: Its class.
    """

    name: str
    options: type[OptionsT]
    network: type[Discriminator]

    @abstractmethod
    def build(self, options: OptionsT, semantic_channels: int | None, crop_px: int) -> Discriminator:
        """Build the network with random weights.

        Args:
            options: Of this architecture.
            semantic_channels: Channels of the semantics; None for a plain network.
            crop_px: Side of the HR crops that it will see.

        Raises:
            ValueError: The options do not fit together.
        """

    def import_state(self, network: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename a file's tensors to the network's own names; the default expects these."""
        return dict(state)

    def export_state(self, options: OptionsT, state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
        """Rename the network's tensors for export.

        Returns:
            The name of the layout, and the tensors; by default `OWN_LAYOUT` and the network's own names.
        """
        return OWN_LAYOUT, dict(state)


def build_discriminator(options: DiscriminatorOptions, semantic_channels: int, crop_px: int) -> Discriminator:
    """Build a discriminator with random weights.

    Args:
        options: Of any registered architecture.
        semantic_channels: Channels of the semantics; ignored unless the options are semantic.
        crop_px: Side of the HR crops that it will see.

    Raises:
        ConfigError: The architecture is unknown, its options do not fit together, or the crops are too small for it.
    """
    architecture: DiscriminatorArchitecture[Any] = DISCRIMINATORS[options.architecture]
    smallest_px = architecture.network.smallest_side_px
    if crop_px < smallest_px:
        raise ConfigError(
            f"data.crop_px={crop_px} is too small for the {architecture.name} discriminator, which needs at least "
            f"{smallest_px} px"
        )
    try:
        return architecture.build(options, semantic_channels if options.semantic else None, crop_px)
    except ValueError as error:
        raise ConfigError(f"discriminator {architecture.name}: {error}") from error
