"""The drawn parameters of a batch as tensors, ready to travel from a loader's worker to a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from pipeline.degrade.operations import APPLICATIONS
from pipeline.degrade.step_batch import OnDevice, StepBatch
from shards.degradation.draws import seed_words
from shards.degradation.parameters import SampleParameters
from shards.degradation.recipe import SharpenRecipe
from shards.errors import InputError


@dataclass(frozen=True)
class DegradationBatch(OnDevice):
    """Everything `degrade` needs besides the images.

    Attributes:
        scale: Integer ratio of ground-truth to low-quality side.
        canvas_px: Side of the images it applies to.
        crop_px: Side of the crop of the ground truth.
        crop_top_px: First row of each crop in the canvas.
        crop_left_px: First column.
        seed: Words in [0, 2**32): the keys of the noise.
        sharpen: Unsharp mask, the same for all images, or None.
        steps: In running order.
    """

    scale: int
    canvas_px: int
    crop_px: int
    crop_top_px: Int[Tensor, " n"]
    crop_left_px: Int[Tensor, " n"]
    seed: Int[Tensor, "n 4"]
    sharpen: SharpenRecipe | None
    steps: tuple[StepBatch, ...]

    def __len__(self) -> int:
        return len(self.seed)

    def select(self, samples: list[int]) -> DegradationBatch:
        """The parameters of some images, in the given order; only for a batch on the CPU, as it reads the tensors."""
        return replace(
            self,
            crop_top_px=self.crop_top_px[samples],
            crop_left_px=self.crop_left_px[samples],
            seed=self.seed[samples],
            steps=tuple(step.select(samples) for step in self.steps),
        )


def stack_parameters(parameters: Sequence[SampleParameters]) -> DegradationBatch:
    """Build a batch of drawn parameters on the host; cheap enough for a loader's collate function.

    Args:
        parameters: One per sample, all of the same recipe and sizes.

    Raises:
        InputError: None given, or they cannot share a batch; names the samples.
    """
    if not parameters:
        raise InputError("no degradation parameters given; a batch has at least one sample")
    first = parameters[0]
    for other in parameters[1:]:
        _check_alike(first, other)
    steps: list[StepBatch] = []
    sizes_px = [first.canvas_px] * len(parameters)
    for column in zip(*(sample.steps for sample in parameters), strict=True):
        steps.append(APPLICATIONS[column[0].application].stack(column, sizes_px))
        sizes_px = [step.size_after_px(size_px) for step, size_px in zip(column, sizes_px, strict=True)]
    return DegradationBatch(
        first.scale,
        first.canvas_px,
        first.crop_px,
        torch.tensor([sample.crop_top_px for sample in parameters]),
        torch.tensor([sample.crop_left_px for sample in parameters]),
        torch.tensor([_seed_words_32(sample.seed_hex) for sample in parameters]),
        first.sharpen,
        tuple(steps),
    )


def _check_alike(first: SampleParameters, other: SampleParameters) -> None:
    for field in ("recipe", "scale", "canvas_px", "crop_px", "sharpen"):
        ours, theirs = getattr(first, field), getattr(other, field)
        if ours != theirs:
            raise InputError(
                f"a batch needs one {field}; sample {first.seed_hex} has {ours}, sample {other.seed_hex} {theirs}"
            )
    kinds = [[(step.application, step.batch_key()) for step in sample.steps] for sample in (first, other)]
    if kinds[0] != kinds[1]:
        raise InputError(f"samples {first.seed_hex} and {other.seed_hex} have different steps: {kinds}")


def _seed_words_32(seed_hex: str) -> list[int]:
    return [part for word in seed_words(seed_hex) for part in (word & 0xFFFFFFFF, word >> 32)]
