"""The end of a degradation: the resize to the low-quality size, a sinc after it, and JPEG before or after the two.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, section 3.3: the last sinc filter and JPEG compression run in
    random order.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.degradation.draws import Stream, StreamNumber
from shards.degradation.operation import Place, Step
from shards.degradation.operations.jpeg import JPEG, Jpeg, JpegRecipe
from shards.degradation.operations.resize import RESIZE_MODES, Resize
from shards.degradation.operations.sinc import SINC, SincRecipe
from shards.degradation.rules import require_mixture, require_probability


@dataclass(frozen=True)
class EndRecipe:
    """The last resize, to the low-quality size, with a sinc after it and JPEG before or after the two.

    Attributes:
        area_probability: Chances of the filters; this and the next three sum to 1.
        matlab_bicubic_probability: This filter is antialiased, as in the classical task.
        jpeg_last_probability: How often JPEG comes after resize and sinc rather than before.
        sinc: Without this table: none.
        jpeg: Without this table: none.
    """

    area_probability: float
    bilinear_probability: float
    bicubic_probability: float
    matlab_bicubic_probability: float
    jpeg_last_probability: float = 0.5
    sinc: SincRecipe | None = None
    jpeg: JpegRecipe | None = None

    def __post_init__(self) -> None:
        require_mixture(self, RESIZE_MODES)
        require_probability("jpeg_last_probability", self.jpeg_last_probability)


def draw_end(end: EndRecipe, seed_hex: str, size_px: int, lq_px: int) -> list[Step]:
    """Draw the steps that follow the last stage, from an image of `size_px` to one of `lq_px`."""

    def at(number: StreamNumber) -> Place:
        return Place(Stream(seed_hex, number), size_px, lq_px)

    chances = [getattr(end, f"{mode}_probability") for mode in RESIZE_MODES]
    mode = RESIZE_MODES[Stream(seed_hex, StreamNumber.END_RESIZE).choice(chances)]
    steps: list[Step] = [Resize(mode, lq_px, size_px / lq_px)]
    if end.sinc:
        steps.append(SINC.draw(end.sinc, at(StreamNumber.END_SINC)))
    if end.jpeg:
        drawn, skipped = JPEG.draw(end.jpeg, at(StreamNumber.END_JPEG)), Jpeg(None, end.jpeg.mode)
        is_last = Stream(seed_hex, StreamNumber.END_ORDER).chance(end.jpeg_last_probability)
        # Both places exist for every image, so that a batch has one sequence of steps.
        steps = [skipped, *steps, drawn] if is_last else [drawn, *steps, skipped]
    return steps
