"""Pictures written as PNG, and comparisons of the enlarged LR, models and HR with names and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards.format.files import open_atomic
from shards.format.outputs import head_of
from shards.format.png import picture_chunks

if TYPE_CHECKING:
    from pipeline.inference.evaluate import Evaluated

OURS = ("ours",)
"""Caption of the model where there is only one."""

_SOFTWARE = "Software"
_HEAD_BYTES = 256
_CAPTION_PX = 30
_GAP_PX = 6
_DETAIL_PX = 96
_DETAIL_ENLARGEMENT = 4


def write_png(path: Path, picture: np.ndarray, *, job: str) -> None:
    """Write a picture as PNG, whole or not at all; its folder is created if need be.

    Args:
        path: Target; an existing file is replaced.
        picture: (H, W, C) uint8 or uint16; gray, gray and alpha, RGB, or RGBA.
        job: The job that writes it, stored in the file; see `is_picture_of`.
    """
    write_png_bands(path, [picture], len(picture), job=job)


def write_png_bands(path: Path, bands: Iterable[np.ndarray], height_px: int, *, job: str) -> None:
    """Write a picture that comes in bands of rows, from the top; see `write_png`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as stream:
        for part in picture_chunks(bands, height_px, {_SOFTWARE: _signature(job)}):
            stream.write(part)


def is_picture_of(path: Path, job: str) -> bool:
    """Return whether a file is a picture that `write_png` wrote for a job."""
    return f"tEXt{_SOFTWARE}\0{_signature(job)}".encode("latin-1") in head_of(path, _HEAD_BYTES)


def _signature(job: str) -> str:
    return f"sed-trainer {job}\n"


def side_by_side(image: Sequence[Evaluated], labels: Sequence[str] = OURS) -> np.ndarray:
    """Return LR enlarged by bicubic | every model | HR of one image as (H, W, 3) uint8; see `captioned_panels`."""
    return _row(captioned_panels(image, labels))


def before_and_after(images: Iterable[Sequence[Evaluated]], labels: Sequence[str] = OURS) -> np.ndarray:
    """Return a picture of several images: for each the whole row, and under it a detail enlarged without smoothing."""
    rows = []
    for image in images:
        rows.append(side_by_side(image, labels))
        rows.append(_fit(_row(_details(image)), rows[-1].shape[1]))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, _GAP_PX), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)


def captioned_panels(image: Sequence[Evaluated], labels: Sequence[str] = OURS) -> list[np.ndarray]:
    """Return the panels of one image, captioned, with PSNR-Y where it was computed.

    Args:
        image: The image as each model upscaled it.
        labels: Of the models.
    """
    first = image[0]
    models = zip(labels, image, strict=True)
    return [
        _captioned(first.bicubic, f"{first.pair.name}: LR enlarged, bicubic{_decibels(first, 'bicubic_psnr_y')}"),
        *(_captioned(model.sr, f"{label}{_decibels(model, 'psnr_y')}") for label, model in models),
        _captioned(first.pair.gt, "HR"),
    ]


def _decibels(evaluated: Evaluated, result: str) -> str:
    return f", {evaluated.metrics[result]:.2f} dB" if result in evaluated.metrics else ""


def _details(image: Sequence[Evaluated]) -> list[np.ndarray]:
    gt = image[0].pair.gt
    top, left = _busiest_window(gt)
    window = (slice(top, top + _DETAIL_PX), slice(left, left + _DETAIL_PX))
    panels = (image[0].bicubic, *(model.sr for model in image), gt)
    return [panel[window].repeat(_DETAIL_ENLARGEMENT, 0).repeat(_DETAIL_ENLARGEMENT, 1) for panel in panels]


def _busiest_window(image: np.ndarray) -> tuple[int, int]:
    """Return the corner of the window with the largest variance: a rule, so that the detail is not cherry-picked."""
    gray = image.astype(np.float64).mean(2)
    step = _DETAIL_PX // 2
    corners = [
        (top, left)
        for top in range(0, max(1, gray.shape[0] - _DETAIL_PX + 1), step)
        for left in range(0, max(1, gray.shape[1] - _DETAIL_PX + 1), step)
    ]
    return max(corners, key=lambda corner: gray[corner[0] :, corner[1] :][:_DETAIL_PX, :_DETAIL_PX].var())


def _row(panels: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((panels[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    pieces: list[np.ndarray] = []
    for panel in panels:
        pieces += [panel, gap]
    return np.concatenate(pieces[:-1], axis=1)


def _fit(image: np.ndarray, width: int) -> np.ndarray:
    if image.shape[1] == width:
        return image
    height = round(image.shape[0] * width / image.shape[1])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST))


def _captioned(image: np.ndarray, text: str) -> np.ndarray:
    caption = Image.new("RGB", (image.shape[1], _CAPTION_PX), "white")
    font = ImageFont.load_default(_fitting_size(text, image.shape[1]))
    ImageDraw.Draw(caption).text((4, 4), text, fill="black", font=font)
    return np.concatenate([np.asarray(caption), image])


def _fitting_size(text: str, width: int) -> int:
    for size in range(18, 8, -1):
        if ImageFont.load_default(size).getlength(text) <= width - 8:
            return size
    return 8
