"""Options of generators, and the registry of their architectures. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import positive, refuse
from pipeline.registry import ArchitectureOptions, Architectures, RegisteredName

GENERATORS: Architectures[Any] = Architectures("generator")
"""Each a `GeneratorArchitecture`, whose import here would be a cycle; by the name that configurations use."""


RANDOM = Path("random")
"""In place of a file: random weights, on purpose."""


class GeneratorName(RegisteredName):
    """Name of a generator architecture."""

    __slots__ = ()
    registry = GENERATORS


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions(ArchitectureOptions):
    """Options of the network that is trained to upscale."""

    registry = GENERATORS

    architecture: GeneratorName
    """rrdb: RRDBNet of ESRGAN; swinir: SwinIR; compact: SRVGGNetCompact of Real-ESRGAN; spandrel:NAME: of the library
    spandrel (docs/models.md). Each has options of its own."""
    scale: int
    """Upscaling factor."""
    initial_weights: Path | None = None
    """Generator file to start from (ours, BasicSR's, Real-ESRGAN's, KAIR's, any that spandrel reads); none: random
    weights, and a run needs a pixel stage before its discriminator starts; random: random weights without one."""
    initial_weights_partial: bool = False
    """Take the tensors of that file that fit by name and shape, and list the others; false: all must fit."""
    from_file: bool = False
    """Where that file does not fit the network described here, train the network that it holds: its architecture, scale
    and sizes. So it is where --generator.initial-weights is the only flag of the generator."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        asks = {"initial_weights_partial": self.initial_weights_partial, "from_file": self.from_file}
        refuse(
            [
                *positive(scale=self.scale),
                *(
                    f"{name}=true needs a file in initial_weights; or leave it out"
                    for name, is_set in asks.items()
                    if is_set and self.initial_file is None
                ),
                "from_file=true takes the whole file, and initial_weights_partial=true a part; leave one out"
                if all(asks.values())
                else None,
            ]
        )

    @property
    def initial_file(self) -> Path | None:
        """The file to start from; None for random weights, whether they were asked for or not."""
        return None if self.initial_weights == RANDOM else self.initial_weights


@dataclass(frozen=True, kw_only=True)
class FromFileOptions(GeneratorOptions):
    """Options of a table that names no architecture: all are those of the network in the file."""

    architecture: GeneratorName = field(default=GeneratorName("from-file"), init=False)
    scale: int = field(default=1, init=False)
    """Not known until the file is read."""
    initial_weights_partial: bool = field(default=False, init=False)
    from_file: bool = field(default=True, init=False)


GeneratorOptions.unnamed = FromFileOptions
