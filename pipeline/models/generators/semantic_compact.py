"""The compact generator, shown what its input means: semantics in the generator instead of the discriminator.

For ablations (the paper puts them into the discriminator, where the HR image is at hand). A generator has its input
alone: a frozen vision model sees the LQ image, enlarged, in training as in use.

Guarantees: begins as the plain compact generator with the same weights; the vision model has no parameters, so that no
optimizer, average or wrapper changes it, and is part of the exported file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.generators.compact import COMPACT, SRVGGNetCompact
from pipeline.models.generators.contract import GeneratorArchitecture
from pipeline.models.generators.options import GENERATORS
from pipeline.models.generators.semantic_compact_options import SemanticCompactOptions
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.extractor import FrozenMaps, build_frozen_maps

_IDENTITY = "identity"


class SemanticCompact(SRVGGNetCompact):
    """SRVGGNetCompact whose features are scaled and shifted by semantics, at each place.

    Args:
        extractor: Frozen, with one layer; becomes part of the network.
        identity: Model and layer of the extractor, by which an exported file is recognised.
        num_features: Channels between the convolutions.
        num_convs: Convolutions between the first and the last.
        scale: Upscaling factor.
        activation: See `SRVGGNetCompact`.

    References:
        Wang et al. 2018, SFT-GAN, arXiv:1804.02815, Sec. 3.2: spatial feature transform.
    """

    identity: Tensor

    def __init__(
        self,
        extractor: FrozenMaps,
        identity: str,
        num_features: int = 64,
        num_convs: int = 16,
        scale: int = 4,
        activation: str = "prelu",
    ) -> None:
        super().__init__(num_features, num_convs, scale, activation)
        self.extractor = _without_parameters(extractor)
        self.register_buffer(_IDENTITY, torch.tensor(list(identity.encode()), dtype=torch.uint8))
        self.condition = nn.Sequential(nn.Conv2d(extractor.num_channels[0], num_features, 1), nn.LeakyReLU(0.1))
        self.transforms = nn.ModuleList(nn.Conv2d(num_features, 2 * num_features, 1) for _ in range(num_convs + 1))
        for transform in self.transforms:
            for parameter in transform.parameters():
                nn.init.zeros_(parameter)

    def detail(self, lq: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """Return what is added to the input, before its pixels are shuffled."""
        condition = self._condition(lq)
        features = lq
        transforms = iter(self.transforms)
        for layer in self.body:
            features = layer(features)
            if not isinstance(layer, nn.Conv2d):  # after each activation
                scale, shift = next(transforms)(condition).chunk(2, dim=1)
                features = features * (1 + scale) + shift
        return features

    def _condition(self, lq: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f h w"]:
        height, width = lq.shape[-2:]
        with torch.no_grad():
            enlarged = F.interpolate(lq, scale_factor=self.scale, mode="bicubic").clamp(0, 1)
            missing_px = [-side % SEMANTIC_STRIDE_PX for side in enlarged.shape[-2:]]
            (semantics,) = self.extractor.maps(F.pad(enlarged, (0, missing_px[1], 0, missing_px[0]), mode="replicate"))
        condition = self.condition(semantics.to(lq.dtype))
        per_cell = SEMANTIC_STRIDE_PX / self.scale
        return F.interpolate(condition, scale_factor=per_cell, mode="bilinear")[..., :height, :width]


def _without_parameters(network: FrozenMaps) -> FrozenMaps:
    """Turn a frozen network's parameters into buffers, which nothing trains, averages or reduces."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    return network


class SemanticCompactArchitecture(GeneratorArchitecture[SemanticCompactOptions]):
    """SRVGGNetCompact with semantics; no other project's tools read its files."""

    name = "semantic_compact"
    options = SemanticCompactOptions
    network = SemanticCompact
    modelspec = "sed-semantic-compact"
    # Sizes are rounded up to the grid.
    is_one_graph = False

    def build(self, options: SemanticCompactOptions) -> SemanticCompact:
        """See `GeneratorArchitecture`."""
        extractor = build_frozen_maps(options.semantics, [options.semantics_layer], options.semantics_weights)
        if extractor.backbone.model.only_px:
            raise ValueError(f"{options.semantics} takes images of one size alone, and a generator's differ")
        return SemanticCompact(
            extractor,
            f"{options.semantics} {options.semantics_layer}",
            options.num_features,
            options.num_blocks,
            options.scale,
            options.activation,
        )

    def recognise(self, state: Mapping[str, Tensor], scale: int | None) -> SemanticCompactOptions | None:
        """See `GeneratorArchitecture`."""
        if _IDENTITY not in state or "transforms.0.weight" not in state:
            return None
        plain = COMPACT.recognise({name: value for name, value in state.items() if name.startswith("body.")}, scale)
        if plain is None:
            return None
        semantics, layer = bytes(state[_IDENTITY].tolist()).decode().rsplit(" ", 1)
        return SemanticCompactOptions(
            scale=plain.scale,
            num_features=plain.num_features,
            num_blocks=plain.num_blocks,
            activation=plain.activation,
            semantics=semantics,
            semantics_layer=int(layer) if layer.isdecimal() else layer,
            # The file's own take their place.
            semantics_weights="random",
        )


GENERATORS.add(SemanticCompactArchitecture())
