"""The contract of a metric: what a job must know to compute it, show it and compare two models by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.metrics.pixels import check_pair
from shards.errors import InputError


@runtime_checkable
class Measure(Protocol):
    """Computes one number from an image, its ground truth, and the width of the border that is ignored."""

    def __call__(self, sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
        """A no-reference metric does not read `gt`."""
        ...


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Metric:
    """One metric; its file registers one of these.

    Attributes:
        name: As in `--metrics` and in the written results.
        label: As shown at the terminal.
        measure: Computes it. Only called on pairs that passed `check_pair`, and only if nothing is missing.
        protocol: What exactly is compared, so that the numbers can be compared with a paper's.
        is_higher_better: Which of two models is the better one.
        kind: The axis of the perception-distortion plane: "distortion" compares values pixel by pixel,
            "perceptual" estimates what people see.
        needs_reference: Whether it compares with the ground truth, or scores `sr` alone.
        weights: Learned weights it requires, and where they come from; empty when none.
        smallest_side_px: Of an image without its border; a smaller one is refused.
        decimals: Shown at the terminal.
        unit: Shown after the number.
        missing: What has to be installed or downloaded before `measure` can run ("FILE from WHERE"); None when
            nothing. Jobs report such a metric as not computed and never substitute another.
        configure: Returns the metric of `NAME:ARGUMENT`, such as weights from another path; None when it takes no
            argument. Raises InputError for an argument that cannot be used.
    """

    name: str
    label: str
    measure: Measure
    protocol: str
    is_higher_better: bool
    kind: Literal["distortion", "perceptual"] = "distortion"
    needs_reference: bool = True
    weights: str = ""
    smallest_side_px: int = 1
    decimals: int = 4
    unit: str = ""
    missing: Callable[[], str | None] = _nothing
    configure: Callable[[str], Metric] | None = None

    def __call__(self, sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
        """Check the pair and compute the metric.

        Args:
            sr: RGB, rounded to 8 bits.
            gt: Ground truth.
            border_px: Ignored on each side where the protocol says so; the super-resolution papers take the scale.

        Raises:
            InputError: Not 8-bit RGB, different sizes, or too small without the border.
        """
        check_pair(sr, gt, border_px)
        self.check_size(sr.shape[:2], border_px)
        return float(self.measure(sr, gt, border_px))

    def check_size(self, size_px: Sequence[int], border_px: int) -> None:
        """Check that images of a size can be compared.

        Args:
            size_px: Height and width, border included.
            border_px: As above.

        Raises:
            InputError: They are too small without the border.
        """
        height_px, width_px = (side - 2 * border_px for side in size_px)
        if min(height_px, width_px) < self.smallest_side_px:
            raise InputError(
                f"{self.name} needs {self.smallest_side_px} px per side without the border of {border_px} px; "
                f"got {max(height_px, 0)}x{max(width_px, 0)} px; use larger images or drop the metric"
            )

    @property
    def direction(self) -> str:
        """Which of two values is better, in words."""
        return "higher is better" if self.is_higher_better else "lower is better"

    def text(self, value: float | None) -> str:
        """The number as it is shown: `31.25 dB`; `none` where there is no mean."""
        if value is None:
            return "none"
        return f"{value:.{self.decimals}f} {self.unit}".rstrip()
