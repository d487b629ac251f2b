"""The contract of an operation's device half: drawn steps of a batch as tensors, applied in one pass.

`shards.degradation.operation` is the other half, which draws the steps. Sizes and the choice of rows are known on the
host as well, so that applying a step never synchronises with the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

T = TypeVar("T")


class OnDevice:
    """Moves the tensors of a frozen dataclass, through nested ones and tuples of them."""

    def to(self: T, device: torch.device | str, *, non_blocking: bool = False) -> T:
        """A copy with every tensor on the device."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: T) -> T:
        """A copy in pinned memory; `DataLoader(pin_memory=True)` calls it."""
        return _mapped(self, lambda tensor: tensor.pin_memory())


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(item, change) for item in value)
    if isinstance(value, OnDevice):
        return replace(value, **{f.name: _mapped(getattr(value, f.name), change) for f in fields(value)})  # pyright: ignore[reportArgumentType]  # every subclass is a dataclass
    return value


@dataclass(frozen=True)
class Rows(OnDevice):
    """The images of a batch that a step changes.

    Attributes:
        index: Their positions in the batch, ascending.
        num_samples: Size of the batch.
    """

    index: Int[Tensor, " k"]
    num_samples: int

    @staticmethod
    def where(is_changed: Sequence[bool]) -> Rows:
        """The rows of a batch for which this holds."""
        index = [row for row, holds in enumerate(is_changed) if holds]
        return Rows(torch.tensor(index, dtype=torch.int64), len(is_changed))

    def apply(self, image: Float[Tensor, "n c s s"], change: Callable[[Tensor], Tensor]) -> Float[Tensor, "n c s s"]:
        """Replace these rows of the batch by `change` of them."""
        if not len(self.index):
            return image
        if len(self.index) == self.num_samples:
            return change(image)
        return image.index_copy(0, self.index, change(image.index_select(0, self.index)))

    def select(self, samples: list[int]) -> tuple[Rows, Int[Tensor, " m"]]:
        """These rows within a selection of the batch, and which of the old rows they were; reads the index."""
        place = {row: k for k, row in enumerate(self.index.tolist())}
        kept = [(new, place[old]) for new, old in enumerate(samples) if old in place]
        new_rows = torch.tensor([new for new, _ in kept], dtype=torch.int64)
        old_rows = torch.tensor([old for _, old in kept], dtype=torch.int64)
        return Rows(new_rows, len(samples)), old_rows


class StepBatch(OnDevice, ABC):
    """The same step of all images of a batch: a frozen dataclass of tensors and plain values."""

    @abstractmethod
    def select(self, samples: list[int]) -> StepBatch:
        """The step of some images of the batch, in the given order; only for a batch on the CPU."""

    @abstractmethod
    def apply(
        self, image: Float[Tensor, "n 3 s s"], size_px: Int[Tensor, " n"], seed: Int[Tensor, "n 4"]
    ) -> tuple[Float[Tensor, "n 3 t t"], Int[Tensor, " n"]]:
        """Run the step.

        Args:
            image: Square canvases, padded to the largest; what lies beyond an image's own side must not be read.
            size_px: Side of each image.
            seed: Words in [0, 2**32), the key of the step's noise, if it has any (`counter_random.pixel_words`).

        Returns:
            The batch after the step, and each image's side.
        """


@dataclass(frozen=True)
class Application:
    """Applies one kind of drawn step; its file registers one of these.

    Attributes:
        name: That of `Step.application`.
        stack: Turns one step per image and the side of each image before it into a batch; runs on the host, in a
            loader's worker.
    """

    name: str
    stack: Callable[[Sequence[Any], Sequence[int]], StepBatch]
