"""CutBlur, MixUp and CutMix of a batch, with parameters that were drawn before, without synchronising with the device.

A sample's partner is its neighbour: 0 and 1, 2 and 3. Both are taken as they were before any of them was mixed.

References:
    CutBlur: Yoo et al. 2020, Rethinking data augmentation for image super-resolution, arXiv:2004.00448, Sec. 3.1.
    MixUp: Zhang et al. 2018, arXiv:1710.09412. CutMix: Yun et al. 2019, arXiv:1905.04899.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from pipeline.degrade.chain import TrainingImages
from pipeline.degrade.operations.resize import MATLAB_BICUBIC, num_taps, resize, resize_matrices
from pipeline.degrade.step_batch import OnDevice


class Augmentation(enum.IntEnum):
    """What is done to a sample."""

    NONE = 0
    CUTBLUR = 1
    MIXUP = 2
    CUTMIX = 3


@dataclass(frozen=True)
class AugmentationBatch(OnDevice):
    """The draws of a batch, of an even number of samples if any has a partner; see `DrawnAugmentation`.

    Attributes:
        kind: Of `Augmentation`.
        weight: In [0, 1].
        box_px: Top, bottom, left, right.
        is_outside: Whether CutBlur changes what is around the box.
        kinds: Those that occur; on the host, so that nothing waits for the device.
    """

    kind: Int[Tensor, " n"]
    weight: Float[Tensor, " n"]
    box_px: Int[Tensor, "n 4"]
    is_outside: Bool[Tensor, " n"]
    kinds: frozenset[Augmentation]


@torch.no_grad()
def augment(images: TrainingImages, drawn: AugmentationBatch) -> TrainingImages:
    """Mix the samples of a batch.

    Args:
        images: Values in [0, 1]. Not modified.
        drawn: On the images' device.

    Returns:
        CutBlur changes LQ alone: in the box, or around it, it becomes HR, shrunk by MATLAB's bicubic to LQ's size.
        MixUp averages a sample with its partner, CutMix takes the box from it: in LQ, HR and target alike.
    """
    lq, gt, target = images
    scale = gt.shape[-1] // lq.shape[-1]
    in_box = _in_box(drawn.box_px, lq.shape[-1])
    if Augmentation.CUTBLUR in drawn.kinds:
        is_clean = (in_box ^ _of_images(drawn.is_outside)) & _of_images(drawn.kind == Augmentation.CUTBLUR)
        lq = torch.where(is_clean, _shrink(gt, scale), lq)
    if not drawn.kinds & {Augmentation.MIXUP, Augmentation.CUTMIX}:
        return TrainingImages(lq, gt, target)
    of_partner = in_box & _of_images(drawn.kind == Augmentation.CUTMIX)
    enlarged = of_partner.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    mixed = _with_partner(gt, enlarged, drawn.weight)
    return TrainingImages(
        # Of the partner CutBlur changed nothing: it takes part as it was.
        _with_partner(lq, of_partner, drawn.weight, images.lq),
        mixed,
        mixed if target is gt else _with_partner(target, enlarged, drawn.weight),
    )


def _of_images(values: Shaped[Tensor, " n"]) -> Shaped[Tensor, "n 1 1 1"]:
    return values.view(-1, 1, 1, 1)


def _in_box(box_px: Int[Tensor, "n 4"], side_px: int) -> Bool[Tensor, "n 1 side side"]:
    axis = torch.arange(side_px, device=box_px.device)
    top, bottom, left, right = (box_px[:, k].view(-1, 1) for k in range(4))
    rows, columns = (axis >= top) & (axis < bottom), (axis >= left) & (axis < right)
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)


def _with_partner(
    image: Float[Tensor, "n 3 s s"],
    is_partners: Bool[Tensor, "n 1 s s"],
    weight: Float[Tensor, " n"],
    before: Float[Tensor, "n 3 s s"] | None = None,
) -> Float[Tensor, "n 3 s s"]:
    before = image if before is None else before
    partner, own = of_partners(before), _of_images(weight)
    return torch.where(is_partners, partner, own * image + (1 - own) * partner)


def of_partners(samples: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """Return in the place of each sample its partner, the neighbour with which it makes a pair; the number is even."""
    return samples.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def _shrink(gt: Float[Tensor, "n 3 H W"], scale: int) -> Float[Tensor, "n 3 h w"]:
    """Shrink by MATLAB's bicubic to levels of 8 bits, in float64, as classical LQ images are made."""
    side_px = gt.shape[-1]

    def filled(value: int) -> Tensor:
        return torch.full((1,), value, device=gt.device)  # not a copy from the host, which would wait

    matrices = resize_matrices(
        filled(MATLAB_BICUBIC),
        filled(side_px),
        filled(side_px // scale),
        filled(scale).double(),
        shape_px=(side_px // scale, side_px),
        taps=num_taps("matlab_bicubic", side_px, side_px // scale, scale),
    )
    return ((resize(gt.double(), matrices).clamp(0, 1) * 255).round() / 255).to(gt.dtype)
