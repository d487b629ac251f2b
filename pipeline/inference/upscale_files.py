"""Upscales image files: which file becomes which, and one at a time."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.evaluation import image_files, read_image
from pipeline.inference.named_model import NamedModel
from pipeline.inference.pictures import write_png
from pipeline.inference.upscale import upscale
from shards.errors import InputError
from shards.format.files import check_writable


def plan_outputs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Pair each image of a file or folder with the PNG file to write.

    Raises:
        InputError: The source does not exist or holds no image, or the output cannot be written or does not fit it.
    """
    if source.is_dir():
        return _plan_folder(source, output)
    if not source.is_file():
        raise InputError(f"no such image or folder: {source}")
    target = output / f"{source.stem}.png" if output.is_dir() else output
    if target.suffix.lower() != ".png":
        raise InputError(f"the output is written as PNG, but {target} does not end in .png; rename it")
    check_writable(target.parent)
    return [(source, target)]


def _plan_folder(source: Path, output: Path) -> list[tuple[Path, Path]]:
    check_writable(output)
    if output.is_file():
        raise InputError(f"{source} is a folder, but {output} is a file; give an output folder")
    files = image_files(source)
    targets = [output / f"{file.stem}.png" for file in files]
    if len(set(targets)) != len(targets):
        raise InputError(f"two images in {source} differ only in their suffix; rename one")
    return list(zip(files, targets, strict=True))


def upscale_file(model: NamedModel, source: Path, target: Path, *, tile_px: int, overlap_px: int) -> None:
    """Upscale one image file.

    Raises:
        InputError: The source is not a readable image.
        CheckpointError: The output holds a NaN or infinite value.
    """
    sr = upscale(model.generator, read_image(source), model.scale, tile_px=tile_px, overlap_px=overlap_px)
    write_png(target, sr)
