"""Degrade a batch: one batched pass, without a loop over images and without synchronising with the device.

(On a CPU, where launching an operator costs little, each image is processed alone: unpadded, it stays in the cache.)

The same batch on the same kind of device gives the same bits. Arithmetic is in float64 by default: JPEG and the
8-bit levels of Poisson noise round, and the last bits of float32, which depend on the batch's shape and on the
device, occasionally move a coefficient across a rounding threshold and change a block by several gray levels. In
float64 an image gives the same result alone or in any other batch, but for a last rounding in very few pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from pipeline.degrade.sharpen import sharpen
from pipeline.degrade.stack import DegradationBatch
from shards.errors import InputError


class TrainingImages(NamedTuple):
    """What a training step sees: aligned crops in [0, 1].

    Attributes:
        lq: Low-quality crops, multiples of 1/255.
        gt: The same place of the ground truth.
        target: The same place of the sharpened ground truth: the target of pixel and perceptual losses. Where the
            recipe does not sharpen, it is `gt` itself.
    """

    lq: Float32[Tensor, "n 3 lq lq"]
    gt: Float32[Tensor, "n 3 gt gt"]
    target: Float32[Tensor, "n 3 gt gt"]


@torch.no_grad()
def degrade(
    hr: Float[Tensor, "n 3 canvas canvas"], parameters: DegradationBatch, *, dtype: torch.dtype = torch.float64
) -> TrainingImages:
    """Apply drawn parameters to a batch.

    Args:
        hr: RGB in [0, 1]. Not modified.
        parameters: From `stack_parameters`, on the images' device.
        dtype: Of the arithmetic. float32 is faster on devices that are slow at float64, and guarantees only that
            equal batches give equal bits.

    Returns:
        The aligned crops.

    Raises:
        InputError: Shapes, type or devices do not fit. Values are not checked: reading them would synchronise with
            the device.
    """
    _check(hr, parameters)
    with torch.autocast(hr.device.type, enabled=False):
        run = _degrade_one_by_one if hr.device.type == "cpu" else _degrade
        lq, gt, gt_sharp = run(hr, parameters, dtype)
        return TrainingImages(lq, gt, gt_sharp if parameters.sharpen else gt)


def _degrade_one_by_one(hr: Tensor, parameters: DegradationBatch, dtype: torch.dtype) -> TrainingImages:
    """For a CPU: less padding, and a working set that does not grow with the batch."""
    parts = [_degrade(hr[k : k + 1], parameters.select([k]), dtype) for k in range(len(hr))]
    return TrainingImages(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _degrade(hr: Tensor, parameters: DegradationBatch, dtype: torch.dtype) -> TrainingImages:
    canvas = hr.to(dtype)
    sharp = sharpen(canvas, parameters.sharpen) if parameters.sharpen else canvas
    image = sharp
    size_px = torch.full((len(hr),), parameters.canvas_px, device=hr.device)
    for step in parameters.steps:
        image, size_px = step.apply(image, size_px, parameters.seed)
    gt, gt_sharp = (
        _cut(picture, parameters.crop_top_px, parameters.crop_left_px, parameters.crop_px).float()
        for picture in (hr, sharp)
    )
    return TrainingImages(_cut_lq(image, parameters), gt, gt_sharp)


def _cut_lq(image: Tensor, parameters: DegradationBatch) -> Tensor:
    scale = parameters.scale
    top_px, left_px = parameters.crop_top_px // scale, parameters.crop_left_px // scale
    image = _cut(image, top_px, left_px, parameters.crop_px // scale)
    return (image.clamp(0, 1) * 255).round().float() / 255


def _cut(image: Tensor, top_px: Tensor, left_px: Tensor, crop_px: int) -> Tensor:
    """One window per image."""
    axis = torch.arange(crop_px, device=image.device)
    sample = torch.arange(len(image), device=image.device).view(-1, 1, 1)
    rows, columns = top_px.view(-1, 1, 1) + axis.view(1, -1, 1), left_px.view(-1, 1, 1) + axis.view(1, 1, -1)
    return image[sample, :, rows, columns].permute(0, 3, 1, 2).contiguous()


def _check(hr: Tensor, parameters: DegradationBatch) -> None:
    expected = (len(parameters), 3, parameters.canvas_px, parameters.canvas_px)
    if tuple(hr.shape) != expected or not hr.is_floating_point():
        raise InputError(
            f"degrade needs floating images of shape {expected}; got {hr.dtype} {tuple(hr.shape)}; "
            f"cut canvases of {parameters.canvas_px} px and scale them to [0, 1]"
        )
    if hr.device != parameters.seed.device:
        raise InputError(
            f"images are on {hr.device}, their degradation on {parameters.seed.device}; "
            f"move it with parameters.to({str(hr.device)!r})"
        )
