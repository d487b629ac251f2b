"""The drawn parameters of a batch as tensors, ready to travel from a loader's worker to a device.

Sizes and the choice of rows are also known on the host, so that applying them needs no synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from pipeline.degrade.kernels import blur_kernels
from pipeline.degrade.resample import num_taps
from shards.degradation.draws import seed_words
from shards.degradation.parameters import RESIZE_MODES, Blur, Jpeg, Noise, Resize, SampleParameters
from shards.degradation.recipe import SharpenRecipe
from shards.errors import InputError

T = TypeVar("T")


class _OnDevice:
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
    if isinstance(value, _OnDevice):
        return replace(value, **{f.name: _mapped(getattr(value, f.name), change) for f in fields(value)})  # pyright: ignore[reportArgumentType]  # every subclass is a dataclass
    return value


@dataclass(frozen=True)
class Rows(_OnDevice):
    """Which samples of the batch a step touches.

    Attributes:
        index: (K,) int64, ascending.
        num_samples: Of the batch.
    """

    index: Tensor
    num_samples: int

    def apply(self, image: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Replace these rows of the batch by `change` of them, which sees only these."""
        if not len(self.index):
            return image
        if len(self.index) == self.num_samples:
            return change(image)
        return image.index_copy(0, self.index, change(image.index_select(0, self.index)))

    def select(self, samples: list[int]) -> tuple[Rows, Tensor]:
        """These rows among some samples of the batch, and which of the old rows they were; reads the index."""
        place = {row: k for k, row in enumerate(self.index.tolist())}
        kept = [(new, place[old]) for new, old in enumerate(samples) if old in place]
        new_rows = torch.tensor([new for new, _ in kept], dtype=torch.int64)
        old_rows = torch.tensor([old for _, old in kept], dtype=torch.int64)
        return Rows(new_rows, len(samples)), old_rows


@dataclass(frozen=True)
class BlurBatch(_OnDevice):
    """Kernels of the samples that are blurred: (K, 21, 21) float64."""

    rows: Rows
    kernels: Tensor

    def select(self, samples: list[int]) -> BlurBatch:
        """Of some samples."""
        rows, old_rows = self.rows.select(samples)
        return BlurBatch(rows, self.kernels[old_rows])


@dataclass(frozen=True)
class ResizeBatch(_OnDevice):
    """New sizes: `mode`, `in_px` and `out_px` (N,) int64, `step` (N,) float64; largest size and taps on the host."""

    mode: Tensor
    in_px: Tensor
    out_px: Tensor
    step: Tensor
    out_max_px: int
    taps: int

    def select(self, samples: list[int]) -> ResizeBatch:
        """Of some samples."""
        out_px = self.out_px[samples]
        mode, in_px, step = self.mode[samples], self.in_px[samples], self.step[samples]
        return ResizeBatch(mode, in_px, out_px, step, int(out_px.max()), self.taps)


@dataclass(frozen=True)
class NoiseBatch(_OnDevice):
    """Noise: `strength` (N,) float64 and `is_gray` (N,) bool of all samples, rows of each kind, and the stream."""

    gaussian: Rows
    poisson: Rows
    strength: Tensor
    is_gray: Tensor
    operation: int

    def select(self, samples: list[int]) -> NoiseBatch:
        """Of some samples."""
        gaussian, poisson = self.gaussian.select(samples)[0], self.poisson.select(samples)[0]
        return NoiseBatch(gaussian, poisson, self.strength[samples], self.is_gray[samples], self.operation)


@dataclass(frozen=True)
class JpegBatch(_OnDevice):
    """Qualities of the samples that are compressed: (K,) float64."""

    rows: Rows
    quality: Tensor
    mode: str

    def select(self, samples: list[int]) -> JpegBatch:
        """Of some samples."""
        rows, old_rows = self.rows.select(samples)
        return JpegBatch(rows, self.quality[old_rows], self.mode)


StepBatch = BlurBatch | ResizeBatch | NoiseBatch | JpegBatch


@dataclass(frozen=True)
class DegradationBatch(_OnDevice):
    """Everything `degrade` needs besides the images.

    Attributes:
        scale: How much smaller the low-quality images are.
        canvas_px: Side of the images it applies to.
        crop_px: Side of the crop of the truth.
        crop_top_px: (N,) int64, in the canvas.
        crop_left_px: (N,) int64.
        seed: (N, 4) int64 words in [0, 2**32): the keys of the noise.
        sharpen: Unsharp mask, the same for all, or None.
        steps: In order.
    """

    scale: int
    canvas_px: int
    crop_px: int
    crop_top_px: Tensor
    crop_left_px: Tensor
    seed: Tensor
    sharpen: SharpenRecipe | None
    steps: tuple[StepBatch, ...]

    def __len__(self) -> int:
        return len(self.seed)

    def select(self, samples: list[int]) -> DegradationBatch:
        """The parameters of some samples, in the given order; for a batch on the CPU, as it reads the tensors."""
        return replace(
            self,
            crop_top_px=self.crop_top_px[samples],
            crop_left_px=self.crop_left_px[samples],
            seed=self.seed[samples],
            steps=tuple(step.select(samples) for step in self.steps),
        )


def stack_parameters(parameters: Sequence[SampleParameters]) -> DegradationBatch:
    """Make a batch of drawn parameters; cheap, on the host, for a loader's collate.

    Args:
        parameters: One a sample, all of the same recipe and sizes.

    Raises:
        InputError: None given, or they do not go together; names the sample.
    """
    if not parameters:
        raise InputError("no degradation parameters given; a batch has at least one sample")
    first = parameters[0]
    for other in parameters[1:]:
        _check_alike(first, other)
    steps: list[StepBatch] = []
    sizes_px = [first.canvas_px] * len(parameters)
    for column in zip(*(sample.steps for sample in parameters), strict=True):
        steps.append(_stack_step(column, sizes_px))
        if isinstance(column[0], Resize):
            sizes_px = [step.size_px for step in column]
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
    kinds = [[_kind(step) for step in sample.steps] for sample in (first, other)]
    if kinds[0] != kinds[1]:
        raise InputError(f"samples {first.seed_hex} and {other.seed_hex} have different steps: {kinds}")


def _kind(step: Blur | Resize | Noise | Jpeg) -> tuple[str, object]:
    """What must agree in a batch."""
    if isinstance(step, Noise):
        return "noise", step.operation
    if isinstance(step, Jpeg):
        return "jpeg", step.mode
    return type(step).__name__.lower(), None


def _stack_step(column: Sequence[Any], sizes_px: list[int]) -> StepBatch:
    if isinstance(column[0], Blur):
        rows = _rows(column, lambda step: step.family != "none")
        return BlurBatch(rows, blur_kernels([column[row] for row in rows.index.tolist()]))
    if isinstance(column[0], Resize):
        return _stack_resizes(column, sizes_px)
    if isinstance(column[0], Noise):
        return NoiseBatch(
            _rows(column, lambda step: step.kind == "gaussian"),
            _rows(column, lambda step: step.kind == "poisson"),
            torch.tensor([step.strength for step in column], dtype=torch.float64),
            torch.tensor([step.is_gray for step in column]),
            column[0].operation,
        )
    rows = _rows(column, lambda step: step.quality is not None)
    quality = torch.tensor([column[row].quality for row in rows.index.tolist()], dtype=torch.float64)
    return JpegBatch(rows, quality, column[0].mode)


def _stack_resizes(column: Sequence[Resize], sizes_px: list[int]) -> ResizeBatch:
    taps = [num_taps(step.mode, size, step.size_px, step.step) for step, size in zip(column, sizes_px, strict=True)]
    return ResizeBatch(
        torch.tensor([RESIZE_MODES.index(step.mode) for step in column]),
        torch.tensor(sizes_px),
        torch.tensor([step.size_px for step in column]),
        torch.tensor([step.step for step in column], dtype=torch.float64),
        max(step.size_px for step in column),
        max(taps),
    )


def _rows(column: Sequence[Any], is_touched: Callable[[Any], bool]) -> Rows:
    index = [row for row, step in enumerate(column) if is_touched(step)]
    return Rows(torch.tensor(index, dtype=torch.int64), len(column))


def _seed_words_32(seed_hex: str) -> list[int]:
    return [part for word in seed_words(seed_hex) for part in (word & 0xFFFFFFFF, word >> 32)]
