"""docs/models.md shows what the libraries say of some vision models; this file, run as a script, writes the table."""

from __future__ import annotations

import re

from documented_tables import shown, write

from pipeline.models.semantics.extractor import build_backbone

NAME = "vision models"
# One of each kind that has been tried, at its last layer with one cell per 16 px or one in its middle.
SHOWN = (
    *(("open_clip:RN50", 3), ("open_clip:RN101", 3), ("open_clip:RN50x4", 3), ("open_clip:ViT-B-16", 11)),
    *(("open_clip:ViT-B-16-SigLIP2-256", 11), ("open_clip:convnext_base_w", 2)),
    *(("timm:vit_small_patch14_dinov2", 11), ("timm:vit_base_patch14_dinov2", 11)),
    *(
        ("timm:vit_small_patch16_dinov3", 11),
        ("timm:vit_base_patch16_dinov3", 11),
        ("timm:convnext_tiny.dinov3_lvd1689m", 2),
    ),
    *(("timm:vit_base_patch16_siglip_256.v2_webli", 11), ("timm:samvit_base_patch16", 11), ("timm:sam2_hiera_tiny", 2)),
    *(("timm:convnext_tiny", 2), ("timm:resnet50.tv_in1k", 3), ("timm:swin_tiny_patch4_window7_224", 2)),
    ("timm:tf_efficientnet_lite0", 3),
)


def table() -> str:
    lines = [
        "| architecture | weights | layers | layer | its map | parameters up to it | mean; std | licence |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(architecture, layer) for architecture, layer in SHOWN),
    ]
    return "\n".join(lines)


def row(architecture: str, layer: int) -> str:
    backbone = build_backbone(architecture, layer)
    model, layers = backbone.model, [info.name for info in backbone.model.layers]
    tag = re.split("[:.]", model.name)[-1]
    mean, std = (
        " ".join(f"{value:.3g}" for value in values) for values in (model.preprocessing.mean, model.preprocessing.std)
    )
    parameters = sum(parameter.numel() for parameter in backbone.network.parameters())
    cells = [
        *(f"`{architecture}`", tag, f"`{layers[0]}` to `{layers[-1]}`", f"{layer}, `{layers[layer]}`"),
        *(backbone.description, f"{parameters / 1e6:.1f} M", f"{mean}; {std}", model.licence),
    ]
    return f"| {' | '.join(cells)} |"


def test_table_of_vision_models_is_what_the_libraries_say() -> None:
    assert shown(NAME) == table()


if __name__ == "__main__":
    write(NAME, table())
