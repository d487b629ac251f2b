"""How far is a crop's part of a sub-image's map from the map of the crop, on real photos?

Of each photo one sub-image is taken, and of it one crop, on the grid. The map of the sub-image is computed once; its
part is compared with what the extractor computes of the crop, in each of the eight orientations, for cells at the
crop's border (the outermost `--border` cells of each side) and inside of it: the least cosine between two crops' cells,
and the largest error as a share of the largest value. Then, as in feature_codecs.py, how far the loss of a
semantic-aware discriminator and its gradients move; the discriminator learned from the first half of the photos, with
the maps of crops, and every number is of the second half. Two yardsticks: the same step in bfloat16, and the features
of the next photo instead of the crop's own.

Run:
    python benchmarks/feature_maps.py --photos DIR
    python benchmarks/feature_maps.py --photos DIR --architecture open_clip:RN50 --weights random
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _origin import add_json_argument, publish
from _tables import Column, Row, label, row_of
from feature_codecs import Effect, add_effect_arguments, effect_of, extract, train_discriminator
from PIL import Image
from torch import Tensor

from pipeline.data.feature_modes import FEATURE_MODES
from pipeline.models.semantics.extractor import SemanticExtractor, build_semantic_extractor
from shards.degradation.crops import NUM_DIHEDRALS, Crop

MAP = FEATURE_MODES["map"]
TURNS = ("as it lies", "columns mirrored", "rows mirrored", "both mirrored")
ORIENTATIONS = (*TURNS, *(f"{turn}, transposed" for turn in TURNS))

COLUMNS = (
    label("features"),
    label("crops"),
    label("orientation"),
    Column("least cosine inside", ".4f", "higher", is_compared=True, noise=1e-2),
    Column("at the border", ".4f", "higher", is_compared=True, noise=1e-2),
    Column("largest error inside", ".2f", "lower", is_compared=True, noise=0.2),
    Column("largest at the border", ".2f", "lower", is_compared=True, noise=0.2),
    Column("change of D's loss", ".1e", "lower", is_compared=True, noise=0.5),
    Column("of D's gradient", ".1e", "lower", is_compared=True, noise=0.5),
    Column("of G's gradient", ".1e", "lower", is_compared=True, noise=0.5),
)


def read_sub_images(photos: Path, side_px: int, count: int) -> list[np.ndarray]:
    """Return the centre of as many photos, (side, side, 3) uint8.

    Raises:
        SystemExit: There are too few photos of that size.
    """
    found: list[np.ndarray] = []
    for file in sorted(path for path in photos.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"}):
        image = np.asarray(Image.open(file).convert("RGB"))
        if min(image.shape[:2]) >= side_px and len(found) < count:
            top_px, left_px = ((side - side_px) // 2 for side in image.shape[:2])
            found.append(image[top_px : top_px + side_px, left_px : left_px + side_px])
    if len(found) < count:
        raise SystemExit(f"{photos} has {len(found)} photos of {side_px} px or more, --crops {count} needs as many")
    return found


def places(sub_image_px: int, crop_px: int, count: int) -> list[tuple[int, int]]:
    """Return offsets on the grid, the same in every call."""
    rng, steps = np.random.default_rng(0), (sub_image_px - crop_px) // MAP.cell_px + 1
    return [(top * MAP.cell_px, left * MAP.cell_px) for top, left in rng.integers(0, steps, (count, 2)).tolist()]


def as_batch(images: list[np.ndarray]) -> Tensor:
    """Return uint8 images as RGB in [0, 1], channels first."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def likeness(online: Tensor, mapped: Tensor, border: int) -> tuple[float, float, float, float]:
    """Return the least cosine of a crop's cells inside and at the border, and the largest error, likewise."""
    is_inside = torch.zeros(online.shape[-2:], dtype=torch.bool)
    is_inside[border:-border, border:-border] = True
    parts = [(online[..., cells].flatten(1), mapped[..., cells].flatten(1)) for cells in (is_inside, ~is_inside)]
    cosines = [float(F.cosine_similarity(ours.double(), theirs.double()).min()) for ours, theirs in parts]
    errors = [float((theirs - ours).abs().max() / online.abs().max()) for ours, theirs in parts]
    return cosines[0], cosines[1], errors[0], errors[1]


def turned(crops: list[Crop], dihedral: int) -> list[Crop]:
    """Return the same windows in one orientation."""
    return [Crop(crop.top_px, crop.left_px, crop.size_px, dihedral) for crop in crops]


def cut_crops(sub_images: list[np.ndarray], crops: list[Crop]) -> Tensor:
    """Return the crops' pixels."""
    return as_batch([crop.apply(image) for crop, image in zip(crops, sub_images, strict=True)])


def cut_maps(maps: Tensor, crops: list[Crop]) -> Tensor:
    """Return the crops' cells."""
    cut = [MAP.cut(one.numpy(), crop) for one, crop in zip(maps, crops, strict=True)]
    return torch.from_numpy(np.stack(cut))


def measure(
    extractor: SemanticExtractor,
    sub_images: list[np.ndarray],
    crops: list[Crop],
    border: int,
    effect: Callable[..., Effect],
) -> Iterator[tuple[str, tuple[float | None, ...]]]:
    """Yield name and numbers: the two yardsticks, then every orientation."""
    maps = extract(extractor, as_batch(sub_images))
    for dihedral, name in enumerate(ORIENTATIONS):
        now = turned(crops, dihedral)
        hr = cut_crops(sub_images, now)
        online, mapped = extract(extractor, hr).clone(), cut_maps(maps, now)
        reference = effect(hr, online)
        if dihedral == 0:
            in_bfloat16 = effect(hr, online, in_bfloat16=True)
            yield "none, step in bfloat16", (None,) * 4 + reference.change_to(in_bfloat16)
            others = online.roll(1, 0)
            moved = reference.change_to(effect(hr, others))
            yield "none, of the next photo", (*likeness(online, others, border), *moved)
        yield name, (*likeness(online, mapped, border), *reference.change_to(effect(hr, mapped)))


def main() -> None:
    """Train a discriminator on the crops' own maps, measure, publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos of at least --sub-image-px")
    add_effect_arguments(parser)
    parser.add_argument("--sub-image-px", type=int, default=480)
    parser.add_argument("--border", type=int, default=2, help="cells at each side of a crop")
    parser.add_argument("--crops", type=int, default=32, help="an even number, of which half are measured")
    add_json_argument(parser)
    options = parser.parse_args()
    options.threads = 1
    torch.set_num_threads(1)
    extractor = build_semantic_extractor(options.architecture, options.layer, options.weights, crop_px=options.crop_px)
    sub_images = read_sub_images(options.photos, options.sub_image_px, options.crops)
    crops = [
        Crop(top_px, left_px, options.crop_px, number % NUM_DIHEDRALS)
        for number, (top_px, left_px) in enumerate(places(options.sub_image_px, options.crop_px, options.crops))
    ]
    half = len(crops) // 2
    hr = cut_crops(sub_images[:half], crops[:half])
    discriminator = train_discriminator(hr, extract(extractor, hr).clone(), options.steps, options.batch)
    print(f"{extractor.description}\n{half} crops of {options.crop_px} px in {options.sub_image_px} px")
    effect = functools.partial(effect_of, discriminator, batch=options.batch)
    name = f"{options.architecture} layer {options.layer}, {options.weights}"
    rows: list[Row] = [
        row_of(COLUMNS, name, half, orientation, *numbers)
        for orientation, numbers in measure(extractor, sub_images[half:], crops[half:], options.border, effect)
    ]
    publish("feature-maps", COLUMNS, rows, options)


if __name__ == "__main__":
    main()
