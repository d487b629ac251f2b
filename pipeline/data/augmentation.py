"""Draws CutBlur, MixUp and CutMix for the samples of a run: a pure function of (run seed, position in the run).

A sample is mixed with its partner, the sample at the neighbouring position: 0 with 1, 2 with 3, and so on. Each rank
has an even number of consecutive positions, so that both are on one rank, for any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.config.data import AugmentationConfig
from pipeline.degrade import Augmentation, AugmentationBatch
from shards.degradation.draws import Stream, StreamNumber, position_seed

_LEAST_SIDE, _MOST_SIDE = 0.2, 0.8


@dataclass(frozen=True)
class DrawnAugmentation:
    """What is drawn for one sample.

    Attributes:
        kind: What is done; most samples are often left as they are.
        weight: MixUp: the sample's own share, in [0, 1].
        box_px: Top, bottom, left and right of the rectangle of CutBlur and CutMix, in LQ pixels.
        is_outside: CutBlur: whether it changes what is around the rectangle, and not what is in it.
    """

    kind: Augmentation = Augmentation.NONE
    weight: float = 1.0
    box_px: tuple[int, int, int, int] = (0, 0, 0, 0)
    is_outside: bool = False


UNCHANGED = DrawnAugmentation()


def draw_augmentation(config: AugmentationConfig, run_seed: int, position: int, lq_px: int) -> DrawnAugmentation:
    """Draw whether and how a sample is mixed.

    Args:
        config: Probabilities.
        run_seed: Of the run.
        position: Of the sample in the run.
        lq_px: Side of its LQ crop.
    """
    stream = Stream(position_seed(run_seed, position), StreamNumber.AUGMENTATION)
    kind = Augmentation(stream.choice(config.probabilities))
    if kind is Augmentation.NONE:
        return UNCHANGED
    if kind is Augmentation.MIXUP:
        return DrawnAugmentation(kind, weight=stream.uniform())
    (top_px, bottom_px), (left_px, right_px) = (_draw_span(stream, lq_px) for _ in range(2))
    return DrawnAugmentation(kind, 1.0, (top_px, bottom_px, left_px, right_px), stream.chance(0.5))


def _draw_span(stream: Stream, side_px: int) -> tuple[int, int]:
    """Draw where a rectangle begins and ends along a side, within the image."""
    length_px = max(1, round(side_px * stream.uniform(_LEAST_SIDE, _MOST_SIDE)))
    start_px = stream.integer(0, side_px - length_px)
    return start_px, start_px + length_px


def stack_augmentations(drawn: Sequence[DrawnAugmentation]) -> AugmentationBatch | None:
    """Return a batch of draws; None where no sample is mixed."""
    kinds = {one.kind for one in drawn} - {Augmentation.NONE}
    if not kinds:
        return None
    return AugmentationBatch(
        kind=torch.tensor([one.kind for one in drawn]),
        weight=torch.tensor([one.weight for one in drawn], dtype=torch.float32),
        box_px=torch.tensor([one.box_px for one in drawn]),
        is_outside=torch.tensor([one.is_outside for one in drawn]),
        kinds=frozenset(kinds),
    )
