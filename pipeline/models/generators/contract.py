"""The contract of a generator architecture: the network, how its weight files are recognised and written.

The options and the registry stand in `options`, so that a command line is read without torch. The registry drives
everything else: configurations and flags, building, loading anyone's file, exporting.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.generators.options import GENERATORS, GeneratorOptions
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.shapes import check_finite, check_image


class Generator(nn.Module, ABC):
    """A network that upscales images by a whole factor.

    Attributes:
        scale: Upscaling factor.
        smallest_side_px: Smallest height and width of an input to train on, LQ px.
        size_multiple_px: Height and width of an input to train on are multiples of it, LQ px.
    """

    scale: int
    smallest_side_px: int = 1
    size_multiple_px: int = 1

    def check_input(self, lq: Tensor) -> None:
        """Refuse what is no input; the first statement of `forward`.

        Raises:
            ValueError: `lq` is not a batch of RGB images, or (checked in evaluation mode, on the CPU) not finite.
        """
        check_image(lq, "lq")
        if not self.training:
            check_finite(lq, "lq")

    @abstractmethod
    def forward(self, lq: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 height width"]:
        """Upscale a batch of RGB images in [0, 1]; height and width are `scale` times those of `lq`, not clamped."""


OptionsT = TypeVar("OptionsT", bound=GeneratorOptions)


class GeneratorArchitecture(ABC, Generic[OptionsT]):
    """One architecture: what the registry knows of a network.

    Attributes:
        name: As configurations name it.
        options: Its options.
        network: Its class.
        modelspec: Its identifier in the metadata of exported files (ModelSpec 1.0.1), which spandrel's users know.
        precisions: Values of `runtime.precision` that it trains in.
        is_one_graph: Whether torch exports it for images of any size.
    """

    name: str
    options: type[OptionsT]
    network: type[Generator]
    modelspec: str
    precisions: tuple[str, ...] = ("float32", "bf16", "fp16")
    is_one_graph: bool = True

    @abstractmethod
    def build(self, options: OptionsT) -> Generator:
        """Build the network with random weights.

        Raises:
            ValueError: The options do not fit together.
        """

    @abstractmethod
    def recognise(self, state: Mapping[str, Tensor], scale: int | None) -> OptionsT | None:
        """Read the options off the names and shapes of a weight file.

        Args:
            state: Tensors as the file names them, unwrapped.
            scale: Upscaling factor where the file's metadata tells it.

        Returns:
            The options of the network that the file holds; None where it is of another architecture.

        Raises:
            CheckpointError: It is whole and of this architecture, but of a variant that cannot be used here.
            KeyError, ValueError, IndexError: It is of this architecture, but its tensors do not fit together.
        """

    def import_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename a file's tensors to the network's own names; the default expects these."""
        return dict(state)

    def export_state(self, network: Any) -> dict[str, Tensor]:
        """Return the network's tensors as exported files name them, which spandrel reads; by default its own names."""
        return network.state_dict()


def check_rgb(architecture: GeneratorArchitecture[Any], channels_in: int, channels_out: int) -> None:
    """Refuse a file's network that does not map RGB to RGB: gray, with alpha, or for another kind of image.

    Raises:
        CheckpointError: Says how many channels it takes and, if that is another number, returns.
    """
    if (channels_in, channels_out) != (3, 3):
        takes = f"{channels_in} channel{'' if channels_in == 1 else 's'}"
        returns = "" if channels_in == channels_out else f" and returns {channels_out}"
        raise CheckpointError(
            f"its network ({architecture.name}) takes {takes}{returns}; only RGB networks can be used here"
        )


def count_layers(state: Mapping[str, Tensor], pattern: str, first: int = 0) -> int:
    """Count the numbered layers of a state dict.

    Args:
        state: Tensors by name.
        pattern: Matches the names' beginning; its group is the number.
        first: Number of the first layer.

    Raises:
        ValueError: A number is left out. A single huge number must not make anybody build that many layers.
    """
    numbers = {int(found[1]) for name in state if (found := re.match(pattern, name))}
    if numbers != set(range(first, first + len(numbers))):
        raise ValueError(f"the numbers of the {len(numbers)} layers {pattern} have gaps")
    return len(numbers)


def build_generator(options: GeneratorOptions, crop_px: int | None = None) -> Generator:
    """Build a generator with random weights.

    Args:
        options: Of any registered architecture.
        crop_px: Side of the HR crops that it will be trained on, if it will.

    Raises:
        ConfigError: The architecture is unknown, its options do not fit together, or the crops are too small for it.
    """
    architecture: GeneratorArchitecture[Any] = GENERATORS[options.architecture]
    try:
        generator = architecture.build(options)
    except ValueError as error:
        raise ConfigError(f"generator {options.architecture}: {error}") from error
    if crop_px is not None:
        _check_crop(architecture.name, generator, crop_px)
    return generator


def _check_crop(name: str, generator: Generator, crop_px: int) -> None:
    scale, multiple_px = generator.scale, generator.size_multiple_px * generator.scale
    # Of the discriminator's grid too, whose cells every crop is a multiple of.
    step_px = math.lcm(multiple_px, SEMANTIC_STRIDE_PX)
    num_steps = -(-generator.smallest_side_px * scale // step_px)
    if crop_px < generator.smallest_side_px * scale:
        raise ConfigError(
            f"data.crop_px={crop_px} is too small for the {name} generator, which needs at least "
            f"{num_steps * step_px} px at scale {scale}"
        )
    if crop_px % multiple_px:
        nearest_px = max(num_steps, round(crop_px / step_px)) * step_px
        raise ConfigError(
            f"data.crop_px={crop_px} does not fit the {name} generator, which takes multiples of {multiple_px} px at "
            f"scale {scale}; set --data.crop-px {nearest_px}"
        )
