"""The tensors of a step, and the split of a rank's images into micro-batches that fit on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class StepInput:
    """The images of a step on one rank, on its device; values in [0, 1].

    Attributes:
        lq: Low-quality images, the generator's input.
        gt: HR images, which the discriminator is shown as real.
        target: What the image losses compare with: `gt`, or its sharpened version in the real-world task.
        semantics: Semantic map of `gt`; None for a plain discriminator and in the pixel stage.
    """

    lq: Float[Tensor, "n 3 h w"]
    gt: Float[Tensor, "n 3 H W"]
    target: Float[Tensor, "n 3 H W"]
    semantics: Float[Tensor, "n c grid_h grid_w"] | None


@dataclass(frozen=True)
class MicroBatch(StepInput):
    """Part of a step's images, processed in one forward and backward pass.

    Attributes:
        share: Its fraction of the rank's images.
        is_last: Whether the gradients are complete after it.
    """

    share: float
    is_last: bool


def micro_batches(batch: StepInput, size: int, *discriminators: nn.Module) -> Iterator[MicroBatch]:
    """Split a rank's images into micro-batches, in order; the last may be smaller.

    Every micro-batch sees the discriminators that the whole batch would have seen: their spectral norms iterate in each
    forward pass, so their buffers are restored before each micro-batch but the first.

    Args:
        batch: The rank's images.
        size: Images per micro-batch; 0 for all of them.
        discriminators: The networks whose buffers to restore; those that take part.
    """
    num_images = len(batch.lq)
    size = size or num_images
    is_cut = size < num_images
    buffers = [buffer for network in discriminators for buffer in network.buffers()] if is_cut else []
    initial = [buffer.clone() for buffer in buffers]
    for first in range(0, num_images, size):
        for buffer, value in zip(buffers, initial, strict=True) if first else ():
            buffer.copy_(value)
        rows = slice(first, min(first + size, num_images))
        yield MicroBatch(
            batch.lq[rows],
            batch.gt[rows],
            batch.target[rows],
            None if batch.semantics is None else batch.semantics[rows],
            share=(rows.stop - rows.start) / num_images,
            is_last=rows.stop == num_images,
        )
