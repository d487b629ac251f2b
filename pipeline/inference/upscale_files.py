"""Upscales image files: pairs inputs with outputs, and upscales one file at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline.data.evaluation import image_files, read_picture_file
from pipeline.errors import OutputError
from pipeline.inference.pictures import is_picture_of, write_png_bands
from shards.errors import InputError
from shards.format.files import check_writable, clean_stale_kind
from shards.format.outputs import check_output_files
from shards.format.rejects import PhotoNote

if TYPE_CHECKING:
    from pipeline.inference.named_model import NamedModel
    from pipeline.inference.upscale import Pixels

_JOB = "upscale"


def plan_outputs(
    source: Path, output: Path, *, also_read: Iterable[Path] = (), overwrite: bool = False
) -> list[tuple[Path, Path]]:
    """Pair each image of a file or folder with the PNG file to write.

    Args:
        source: An image, or a folder of images.
        output: A PNG file or a folder for an image, a folder for a folder.
        also_read: Other inputs of the job.
        overwrite: Replace existing files that are not upscaled pictures; inputs are never replaced.

    Raises:
        InputError: The source does not exist or holds no image, or the output cannot be written, does not fit it, or
            would replace an input or another program's file.
    """
    pairs = _pair_folder(source, output) if source.is_dir() else [_pair_file(source, output)]
    check_output_files(
        [target for _, target in pairs],
        [*(file for file, _ in pairs), *also_read],
        is_own=lambda path: is_picture_of(path, _JOB),
        overwrite=overwrite,
    )
    if source.resolve() == output.resolve():
        raise InputError(f"{output} is the input folder, where the next run would enlarge its own output; give another")
    check_writable(pairs[0][1].parent)
    return pairs


def _pair_file(source: Path, output: Path) -> tuple[Path, Path]:
    if not source.is_file():
        raise InputError(f"no such image or folder: {source}")
    target = output / f"{source.stem}.png" if output.is_dir() else output
    if target.suffix.lower() != ".png":
        raise InputError(f"the output is written as PNG, but {target} does not end in .png; rename it")
    return source, target


def _pair_folder(source: Path, output: Path) -> list[tuple[Path, Path]]:
    check_writable(output)
    if output.is_file():
        raise InputError(f"{source} is a folder, but {output} is a file; give an output folder")
    files = image_files(source)
    targets = [output / f"{file.stem}.png" for file in files]
    if len(set(targets)) != len(targets):
        raise InputError(f"two images in {source} differ only in their suffix; rename one")
    return list(zip(files, targets, strict=True))


def clean_stale_pictures(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Remove unfinished pictures that killed jobs left in the output folders."""
    for folder in {target.parent for _, target in pairs}:
        clean_stale_kind(folder, ".png")


def upscale_file(
    model: NamedModel, source: Path, target: Path, *, tile_px: int, overlap_px: int
) -> tuple[PhotoNote, ...]:
    """Upscale one image file to one of the same kind: gray or colour, with or without alpha, of 8 or 16 bits.

    Returns:
        Notes on what was lost or assumed of the source.

    Raises:
        InputError: The source is not a readable image.
        CheckpointError: The output holds a NaN or infinite value.
        OutputError: The picture cannot be written: the disk is full, or the folder is gone.
    """
    from pipeline.inference.upscale import upscale_bands

    picture = read_picture_file(source)
    bands = upscale_bands(model.generator, picture.colour, model.scale, tile_px=tile_px, overlap_px=overlap_px)
    if picture.alpha is not None:
        bands = _with_alpha(bands, picture.alpha, model.scale)
    try:
        write_png_bands(target, bands, len(picture.colour) * model.scale, job=_JOB)
    except OSError as error:
        raise OutputError(
            f"{target} could not be written: {error.strerror or error}; free some space and rerun the same command"
        ) from error
    return picture.notes


def _with_alpha(bands: Iterable[Pixels], alpha: np.ndarray, scale: int) -> Iterator[Pixels]:
    """Add alpha, enlarged by bicubic: generators are trained on photos, and would not keep an opaque plane opaque."""
    width = alpha.shape[1]
    plane = Image.fromarray(alpha.astype(np.float32))
    top = 0
    for band in bands:
        box = (0, top / scale, width, (top + len(band)) / scale)
        enlarged = np.asarray(plane.resize((width * scale, len(band)), Image.Resampling.BICUBIC, box=box))
        rounded = np.clip(np.rint(enlarged), 0, np.iinfo(alpha.dtype).max).astype(alpha.dtype)
        yield np.concatenate([band, rounded[..., None]], axis=2)
        top += len(band)
