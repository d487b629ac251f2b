"""docs/models.md shows the discriminators' sizes; this file, run as a script, writes the table."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.models.discriminators import (
    DiscriminatorOptions,
    FeatureOptions,
    ImageOptions,
    PatchOptions,
    UNetOptions,
    build_discriminator,
)

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
BEGIN, END = "<!-- discriminators: begin -->", "<!-- discriminators: end -->"
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
    _, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    shown, end, _ = rest.partition(END)
    assert begin
    assert end
    assert shown.strip() == table()


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
