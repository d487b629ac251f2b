"""docs/models.md shows the discriminators' sizes; this file, run as a script, writes the table."""

from __future__ import annotations

import torch
from documented_tables import shown, write

from pipeline.models.discriminators import (
    DiscriminatorOptions,
    FeatureOptions,
    ImageOptions,
    PatchOptions,
    UNetOptions,
    build_discriminator,
)

NAME = "discriminators"
CROP_PX, CHANNELS = 256, 1024
SHOWN: dict[str, DiscriminatorOptions] = {
    "P": PatchOptions(semantic=False, num_features=64),
    "P+SeD": PatchOptions(semantic=True, num_features=64),
    "U": UNetOptions(semantic=False, num_features=64),
    "U+SeD": UNetOptions(semantic=True, num_features=64),
    "I": ImageOptions(semantic=False, num_features=64),
    "I+SeD": ImageOptions(semantic=True, num_features=64),
    "features of CLIP RN50": FeatureOptions(backbone="open_clip:RN50", layers=(1, 2, 3)),
    "features of DINOv3 ViT-S/16": FeatureOptions(backbone="timm:vit_small_patch16_dinov3", layers=(2, 5, 8, 11)),
}


def table() -> str:
    lines = [
        "| discriminator | architecture, semantic | trained parameters | logits of a crop of 256 px |",
        "| --- | --- | --- | --- |",
        *(row(name, options) for name, options in SHOWN.items()),
    ]
    return "\n".join(lines)


def row(name: str, options: DiscriminatorOptions) -> str:
    with torch.device("meta"):
        network = build_discriminator(options, CHANNELS, CROP_PX)
        grid = CROP_PX // 16
        semantics = torch.empty(1, CHANNELS, grid, grid) if options.semantic else None
        logits = network(torch.empty(1, 3, CROP_PX, CROP_PX), semantics)
    trained = sum(parameter.numel() for parameter in network.parameters())
    kind = f"`{options.architecture}`, {str(options.semantic).lower()}"
    return f"| {name} | {kind} | {trained:,} | {' x '.join(map(str, logits.shape[1:]))} |"


def test_table_of_discriminators_shows_their_sizes() -> None:
    assert shown(NAME) == table()


if __name__ == "__main__":
    write(NAME, table())
