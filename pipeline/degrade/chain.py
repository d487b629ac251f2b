"""Degrade a batch: one pass of batched tensor work, no loop over samples, no synchronisation with the host.

(On a CPU, where a pass costs nothing to start, each sample takes its own: unpadded, it stays in the cache.)

The same batch on the same kind of device gives the same bits. Arithmetic is in float64 by default: JPEG and the
8-bit levels of Poisson noise round, and in float32 the last bits, which depend on the batch's shape and on the
device, now and then push a coefficient across and change a block by several gray levels. In float64 a sample alone,
or in any other batch comes out the same, but for a last rounding in very many pixels.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.degrade.filters import blur, sharpen
from pipeline.degrade.jpeg import jpeg
from pipeline.degrade.noise import gaussian_noise, poisson_noise
from pipeline.degrade.resample import resize, resize_matrices
from pipeline.degrade.stack import BlurBatch, DegradationBatch, NoiseBatch, ResizeBatch, StepBatch
from shards.errors import InputError


class DegradedBatch(NamedTuple):
    """What a training step sees.

    Attributes:
        lq: (N, 3, crop / scale, crop / scale) float32 in [0, 1], multiples of 1/255.
        gt: (N, 3, crop, crop) float32, the same place of the truth.
        gt_sharp: The same of the sharpened truth: the target of pixel and perceptual losses. Where the recipe does
            not sharpen it is `gt` itself.
    """

    lq: Tensor
    gt: Tensor
    gt_sharp: Tensor


@torch.no_grad()
def degrade(hr: Tensor, parameters: DegradationBatch, *, dtype: torch.dtype = torch.float64) -> DegradedBatch:
    """Apply drawn parameters to a batch.

    Args:
        hr: (N, 3, canvas, canvas), floating, RGB in [0, 1]. Not modified.
        parameters: Of `stack_parameters`, on the images' device.
        dtype: Of the arithmetic. float32 is faster where a device is slow at float64, and keeps the first promise
            of this module only: equal bits for equal batches.

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
        return DegradedBatch(lq, gt, gt_sharp if parameters.sharpen else gt)


def _degrade_one_by_one(hr: Tensor, parameters: DegradationBatch, dtype: torch.dtype) -> DegradedBatch:
    """A CPU's way: less padding, and a working set that does not grow with the batch."""
    parts = [_degrade(hr[k : k + 1], parameters.select([k]), dtype) for k in range(len(hr))]
    return DegradedBatch(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _degrade(hr: Tensor, parameters: DegradationBatch, dtype: torch.dtype) -> DegradedBatch:
    truth = hr.to(dtype)
    sharp = sharpen(truth, parameters.sharpen) if parameters.sharpen else truth
    image = sharp
    size_px = torch.full((len(hr),), parameters.canvas_px, device=hr.device)
    for step in parameters.steps:
        image, size_px = _apply(step, image, size_px, parameters.seed)
    gt, gt_sharp = (
        _cut(picture, parameters.crop_top_px, parameters.crop_left_px, parameters.crop_px).float()
        for picture in (hr, sharp)
    )
    return DegradedBatch(_cut_lq(image, parameters), gt, gt_sharp)


def _cut_lq(image: Tensor, parameters: DegradationBatch) -> Tensor:
    scale = parameters.scale
    top_px, left_px = parameters.crop_top_px // scale, parameters.crop_left_px // scale
    image = _cut(image, top_px, left_px, parameters.crop_px // scale)
    return (image.clamp(0, 1) * 255).round().float() / 255


def _apply(step: StepBatch, image: Tensor, size_px: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Run one step; returns the batch and each sample's side."""
    if isinstance(step, ResizeBatch):
        shape_px = (step.out_max_px, image.shape[-1])
        matrices = resize_matrices(step.mode, step.in_px, step.out_px, step.step, shape_px=shape_px, taps=step.taps)
        return resize(image, matrices), step.out_px
    if isinstance(step, NoiseBatch):
        return _add_noise(step, image, size_px, seed), size_px
    touched_px = size_px[step.rows.index]
    if isinstance(step, BlurBatch):
        return step.rows.apply(image, lambda part: blur(part, step.kernels, touched_px)), size_px
    compress = functools.partial(jpeg, quality=step.quality, size_px=touched_px, mode=step.mode)
    return step.rows.apply(image, compress), size_px


def _add_noise(step: NoiseBatch, image: Tensor, size_px: Tensor, seed: Tensor) -> Tensor:
    def gaussian(part: Tensor) -> Tensor:
        index = step.gaussian.index
        return gaussian_noise(part, step.strength[index], step.is_gray[index], seed[index], step.operation)

    def poisson(part: Tensor) -> Tensor:
        index = step.poisson.index
        return poisson_noise(
            part, step.strength[index], step.is_gray[index], seed[index], step.operation, size_px[index]
        )

    return step.poisson.apply(step.gaussian.apply(image, gaussian), poisson)


def _cut(image: Tensor, top_px: Tensor, left_px: Tensor, crop_px: int) -> Tensor:
    """A window a sample, (N, C, crop, crop)."""
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
