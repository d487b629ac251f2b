"""Options of discriminators with semantic-aware fusion blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pipeline.errors import positive, refuse
from pipeline.models.discriminators.options import DiscriminatorOptions


@dataclass(frozen=True, kw_only=True)
class FusionOptions(DiscriminatorOptions):
    """Options that the patch, unet and image discriminators have in common."""

    ablations: ClassVar[tuple[str, ...]] = ("fusion", "residual")
    """Options that change the fusion blocks; the released code's are the defaults."""

    num_features: int
    """Channels of the first layer; the paper's is 64."""
    fusion: Literal["cross_attention", "concatenation", "modulation"] = "cross_attention"
    """How image and semantics meet in a fusion block; the paper's is cross_attention, the others are for ablations."""
    residual: bool = False
    """Skip connections inside the fusion blocks, which the paper's code does not have; for ablations."""

    def __post_init__(self) -> None:
        """Check ranges, and that an ablation has something to change."""
        super().__post_init__()
        changed = ", ".join(self._changed())
        has_no_effect = bool(changed) and not self.semantic
        refuse(
            [
                *positive(num_features=self.num_features),
                f"{changed} set, but semantic=false builds no fusion block; set semantic=true"
                if has_no_effect
                else None,
            ]
        )

    @property
    def details(self) -> Mapping[str, str]:
        """See `DiscriminatorOptions`."""
        if not self.semantic:
            return {}
        return {"fusion": f"{self.fusion.replace('_', '-')}, {'with' if self.residual else 'without'} skip connections"}

    @property
    def is_released(self) -> bool:
        """Whether the fusion blocks are those of the released SeD."""
        return self.semantic and not self._changed()

    def _changed(self) -> list[str]:
        return [name for name in self.ablations if getattr(self, name) != getattr(type(self), name)]
