"""Options of generators, and the registry of their architectures. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import positive, refuse
from pipeline.registry import ArchitectureOptions, Architectures, RegisteredName

GENERATORS: Architectures[Any] = Architectures("generator")
"""Each a `GeneratorArchitecture`, whose import here would be a cycle; by the name that configurations use."""


_INSISTS_ON_RANDOM = Path("random")


class GeneratorName(RegisteredName):
    """Name of a generator architecture."""

    __slots__ = ()
    registry = GENERATORS


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions(ArchitectureOptions):
    """Options of the network that is trained to upscale."""

    registry = GENERATORS

    architecture: GeneratorName
    """rrdb: RRDBNet of ESRGAN; swinir: SwinIR; compact: SRVGGNetCompact of Real-ESRGAN. Each has options of its own."""
    scale: int
    """Upscaling factor."""
    initial_weights: Path | None = None
    """Generator file to start from (ours, BasicSR's, Real-ESRGAN's, KAIR's, SwinIR's); none: random weights, and a run
    needs a pixel stage before its discriminator starts; random: random weights without one."""
    initial_weights_partial: bool = False
    """Take the tensors of that file that fit by name and shape, and list the others; false: all must fit."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        has_none = self.initial_weights_partial and self.initial_file is None
        refuse(
            [
                *positive(scale=self.scale),
                "initial_weights_partial=true needs a file in initial_weights; or leave it out" if has_none else None,
            ]
        )

    @property
    def initial_file(self) -> Path | None:
        """The file to start from; None for random weights, whether they were asked for or not."""
        return None if self.initial_weights == _INSISTS_ON_RANDOM else self.initial_weights
