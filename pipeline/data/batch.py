"""The batch that a training step reads; images of one kind lie together, and a mix of datasets has several kinds."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pipeline.degrade import AugmentationBatch, DegradationBatch
from pipeline.degrade.step_batch import OnDevice


@dataclass(frozen=True)
class Images(OnDevice):
    """Images whose LQ is made in one way.

    Attributes:
        hr: RGB, the HR crop where LQ is stored, or the canvas that a real-world degradation works on.
        lq: RGB, cut from the photo's LQ, bicubic or given; None where it is made.
        degradation: Drawn parameters where LQ is made, else None.
    """

    hr: UInt8[Tensor, "n 3 hr_px hr_px"]
    lq: UInt8[Tensor, "n 3 lq_px lq_px"] | None
    degradation: DegradationBatch | None


@dataclass(frozen=True)
class Batch(OnDevice):
    """One rank's share of one step.

    Attributes:
        images: By kind; most runs have one.
        keys: The samples' keys with their variants and augmentations, in order, for error reports.
        semantics: From the feature cache, on the 16-px grid; None when they are computed online.
        faults: One message per replacement sample.
        order: Where each sample lies in `images`, one kind after the other; None where they are in order already.
        augmentation: Drawn CutBlur, MixUp and CutMix; None where no sample has any.
    """

    images: tuple[Images, ...]
    keys: tuple[str, ...]
    semantics: Float[Tensor, "n c grid grid"] | None = None
    faults: tuple[str, ...] = ()
    order: Int[Tensor, " n"] | None = None
    augmentation: AugmentationBatch | None = None
