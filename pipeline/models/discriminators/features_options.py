"""Options of the feature discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import positive, refuse
from pipeline.models.discriminators.options import DiscriminatorName, DiscriminatorOptions
from shards.format.expansion import expand


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(DiscriminatorOptions):
    """Options of the feature discriminator."""

    architecture: DiscriminatorName = DiscriminatorName("features")
    semantic: bool = False
    """Always false: its features are semantics already."""
    backbone: str
    """Frozen vision model: open_clip:NAME or timm:NAME; docs/models.md shows some."""
    layers: tuple[int | str, ...]
    """Layers whose features it tells apart, by index in the library's forward_intermediates or by name."""
    weights: str = "pretrained"
    """pretrained (the library's download), package (for timm:tf_efficientnet_lite0), a file, or random (for tests)."""
    seed: int = 0
    """Seed of random weights."""
    num_features: int = 64
    """Channels of each layer's head."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        object.__setattr__(self, "weights", expand(self.weights))
        refuse(
            [
                *positive(num_features=self.num_features),
                None if self.layers else "layers=() names no layer; name at least one",
                "semantic=true: the features discriminator takes no semantics beside its own; set semantic=false"
                if self.semantic
                else None,
            ]
        )

    @property
    def details(self) -> Mapping[str, str]:
        """See `DiscriminatorOptions`."""
        layers = ", ".join(map(str, self.layers))
        return {"features": f"{self.backbone} layers {layers}, weights {self.weights} (frozen)"}

    @property
    def frozen_weights(self) -> str:
        """See `DiscriminatorOptions`."""
        return self.weights
