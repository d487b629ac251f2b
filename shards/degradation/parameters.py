"""The parameters of one degradation: drawn from a recipe and a seed, plain numbers, JSON in and out.

`draw_parameters` is a pure function: the same recipe, seed and sizes give the same numbers on any machine, to the
last bit. `pipeline.degrade` applies them; this module knows no torch. Every step type checks itself, so that
parameters read from a file are as safe as drawn ones.

References:
    Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from shards.degradation.draws import Operation, Stream, seed_words
from shards.degradation.recipe import (
    FAMILIES,
    MAX_KERNEL_PX,
    BlurRecipe,
    EndRecipe,
    JpegRecipe,
    NoiseRecipe,
    Range,
    Recipe,
    ResizeRecipe,
    SharpenRecipe,
    SincRecipe,
    StageRecipe,
)
from shards.errors import InputError

BLUR_FAMILIES = ("none", "gaussian", "generalized", "plateau", "sinc")
RESIZE_MODES = ("area", "bilinear", "bicubic", "matlab_bicubic")
NOISE_KINDS = ("none", "gaussian", "poisson")
JPEG_MODES = ("reference", "faithful")


def _require(holds: bool, field: str, value: object, rule: str) -> None:
    if not holds:
        raise InputError(f"{field} must be {rule}; got {value!r}")


def _require_finite(field: str, value: float, *, low: float, high: float) -> None:
    _require(math.isfinite(value) and low <= value <= high, field, value, f"from {low:g} to {high:g}")


@dataclass(frozen=True)
class Blur:
    """A blur kernel.

    Attributes:
        family: One of `BLUR_FAMILIES`; `none` leaves the image alone.
        size_px: Side, odd, up to 21.
        sigma_x_px: Standard deviation along the rows, before the turn; unused by sinc.
        sigma_y_px: Along the columns.
        theta_rad: Turn of the two axes.
        beta: Shape of the generalized Gaussian and the plateau.
        cutoff_rad: Cutoff of the sinc, in radians a pixel.
    """

    family: str
    size_px: int = MAX_KERNEL_PX
    sigma_x_px: float = 1.0
    sigma_y_px: float = 1.0
    theta_rad: float = 0.0
    beta: float = 1.0
    cutoff_rad: float = math.pi

    def __post_init__(self) -> None:
        _require(self.family in BLUR_FAMILIES, "blur.family", self.family, f"one of {BLUR_FAMILIES}")
        holds = self.size_px % 2 == 1 and 1 <= self.size_px <= MAX_KERNEL_PX
        _require(holds, "blur.size_px", self.size_px, f"odd, from 1 to {MAX_KERNEL_PX}")
        _require_finite("blur.sigma_x_px", self.sigma_x_px, low=1e-3, high=1e3)
        _require_finite("blur.sigma_y_px", self.sigma_y_px, low=1e-3, high=1e3)
        _require_finite("blur.theta_rad", self.theta_rad, low=-2 * math.pi, high=2 * math.pi)
        _require_finite("blur.beta", self.beta, low=1e-3, high=1e3)
        _require_finite("blur.cutoff_rad", self.cutoff_rad, low=1e-3, high=2 * math.pi)


@dataclass(frozen=True)
class Resize:
    """A change of size; images are square here.

    Attributes:
        mode: One of `RESIZE_MODES`.
        size_px: Side afterwards.
        step: Source pixels a pixel afterwards: in / out, or the inverse of the factor it was rounded from.
    """

    mode: str
    size_px: int
    step: float

    def __post_init__(self) -> None:
        _require(self.mode in RESIZE_MODES, "resize.mode", self.mode, f"one of {RESIZE_MODES}")
        _require(self.size_px >= 1, "resize.size_px", self.size_px, "1 or more")
        _require_finite("resize.step", self.step, low=1 / 64, high=64)


@dataclass(frozen=True)
class Noise:
    """Noise, and which stream its field comes from.

    Attributes:
        kind: One of `NOISE_KINDS`.
        strength: Standard deviation in gray levels (Gaussian) or multiplier (Poisson).
        is_gray: All channels share one field.
        operation: Separates this field from those of other steps.
    """

    kind: str
    strength: float
    is_gray: bool
    operation: int

    def __post_init__(self) -> None:
        _require(self.kind in NOISE_KINDS, "noise.kind", self.kind, f"one of {NOISE_KINDS}")
        _require_finite("noise.strength", self.strength, low=0, high=255)
        _require(0 <= self.operation < 1 << 32, "noise.operation", self.operation, "an Operation")


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression.

    Attributes:
        quality: From 1 to 100; None leaves the image alone.
        mode: One of `JPEG_MODES`.
    """

    quality: float | None
    mode: str

    def __post_init__(self) -> None:
        _require(self.mode in JPEG_MODES, "jpeg.mode", self.mode, f"one of {JPEG_MODES}")
        if self.quality is not None:
            _require_finite("jpeg.quality", self.quality, low=1, high=100)


Step = Blur | Resize | Noise | Jpeg
_STEPS: dict[str, Callable[..., Step]] = {"blur": Blur, "resize": Resize, "noise": Noise, "jpeg": Jpeg}


@dataclass(frozen=True)
class SampleParameters:
    """Everything that turns one square canvas into a low-quality crop.

    Attributes:
        seed_hex: The variant's seed; also the key of its noise.
        recipe: Name of the law they were drawn from.
        scale: How much smaller the low-quality image is.
        canvas_px: Side of the canvas.
        crop_px: Side of the crop of the truth, a multiple of the scale.
        crop_top_px: Its first row in the canvas, a multiple of the scale.
        crop_left_px: Its first column.
        sharpen: Unsharp mask, or None.
        steps: In the order in which they run.
    """

    seed_hex: str
    recipe: str
    scale: int
    canvas_px: int
    crop_px: int
    crop_top_px: int
    crop_left_px: int
    sharpen: SharpenRecipe | None
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        seed_words(self.seed_hex)
        _check_sizes(self.scale, self.canvas_px, self.crop_px)
        for field in ("crop_top_px", "crop_left_px"):
            value = getattr(self, field)
            holds = 0 <= value <= self.canvas_px - self.crop_px and value % self.scale == 0
            _require(holds, field, value, f"a multiple of {self.scale} that keeps the crop in the canvas")
        sizes_px = [step.size_px for step in self.steps if isinstance(step, Resize)]
        lq_px = self.canvas_px // self.scale
        _require(sizes_px[-1:] == [lq_px], "the last resize's size_px", sizes_px[-1:], f"{lq_px}")

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, each step with the `name` of its operation."""
        steps = [{"name": type(step).__name__.lower(), **asdict(step)} for step in self.steps]
        return {**asdict(self), "steps": steps}

    @staticmethod
    def from_json(values: dict[str, Any]) -> SampleParameters:
        """The inverse of `to_json`.

        Raises:
            InputError: An unknown operation, a missing or unknown field, or an impossible value; names the seed.
        """
        seed_hex = values.get("seed_hex", "?")
        try:
            steps = tuple(_step_from_json(dict(step)) for step in values["steps"])
            sharpen = None if values["sharpen"] is None else SharpenRecipe(**values["sharpen"])
            return SampleParameters(**{**values, "steps": steps, "sharpen": sharpen})
        except (InputError, TypeError, KeyError) as error:
            raise InputError(f"degradation parameters of sample {seed_hex}: {error}") from error


def _step_from_json(values: dict[str, Any]) -> Step:
    name = values.pop("name", None)
    _require(name in _STEPS, "step.name", name, f"one of {tuple(_STEPS)}")
    return _STEPS[name](**values)


def _check_sizes(scale: int, canvas_px: int, crop_px: int) -> None:
    _require(scale >= 1, "scale", scale, "1 or more")
    _require(canvas_px >= scale and canvas_px % scale == 0, "canvas_px", canvas_px, f"a multiple of {scale}")
    holds = 0 < crop_px <= canvas_px and crop_px % scale == 0
    _require(holds, "crop_px", crop_px, f"a multiple of {scale}, at most the canvas of {canvas_px} px")


def draw_parameters(recipe: Recipe, seed_hex: str, *, scale: int, canvas_px: int, crop_px: int) -> SampleParameters:
    """Draw one degradation.

    Args:
        recipe: The law.
        seed_hex: The variant's seed, from `draws.variant_seed`.
        scale: How much smaller the low-quality image is.
        canvas_px: Side of the square canvas that is degraded (400 in Real-ESRGAN), a multiple of the scale.
        crop_px: Side of the crop of the truth taken from the degraded canvas, a multiple of the scale.

    Returns:
        Plain numbers. Each operation draws from a stream of its own, so that changing one shifts no other.

    Raises:
        InputError: Sizes that do not fit, or a malformed seed; names the seed.
    """
    try:
        _check_sizes(scale, canvas_px, crop_px)
    except InputError as error:
        raise InputError(f"degradation of sample {seed_hex}: {error}") from error
    steps: list[Step] = []
    size_px = canvas_px
    for index, stage in enumerate(recipe.stages):
        stage_steps, size_px = _draw_stage(stage, seed_hex, index, size_px, canvas_px // scale)
        steps += stage_steps
    steps += _draw_end(recipe.end, seed_hex, size_px, canvas_px // scale)
    crop = Stream(seed_hex, Operation.PAIRED_CROP)
    slack = (canvas_px - crop_px) // scale
    top_px, left_px = scale * crop.integer(0, slack), scale * crop.integer(0, slack)
    return SampleParameters(
        seed_hex, recipe.name, scale, canvas_px, crop_px, top_px, left_px, recipe.sharpen, tuple(steps)
    )


_BLURS = (Operation.BLUR_1, Operation.BLUR_2)
_RESIZES = (Operation.RESIZE_1, Operation.RESIZE_2)
_NOISES = (Operation.NOISE_1, Operation.NOISE_2)
_JPEGS = (Operation.JPEG_1, Operation.JPEG_2)


def _draw_stage(stage: StageRecipe, seed_hex: str, index: int, size_px: int, lq_px: int) -> tuple[list[Step], int]:
    """The steps of one stage, and the side after it."""
    steps: list[Step] = []
    for name in stage.order:
        if name == "blur" and stage.blur:
            steps.append(_draw_blur(stage.blur, Stream(seed_hex, _BLURS[index])))
        elif name == "resize" and stage.resize:
            step = _draw_resize(stage.resize, Stream(seed_hex, _RESIZES[index]), size_px, lq_px)
            size_px = step.size_px
            steps.append(step)
        elif name == "noise" and stage.noise:
            steps.append(_draw_noise(stage.noise, seed_hex, _NOISES[index]))
        elif name == "jpeg" and stage.jpeg:
            steps.append(_draw_jpeg(stage.jpeg, Stream(seed_hex, _JPEGS[index])))
    return steps, size_px


def _draw_end(end: EndRecipe, seed_hex: str, size_px: int, lq_px: int) -> list[Step]:
    chances = [getattr(end, f"{mode}_probability") for mode in RESIZE_MODES]
    mode = RESIZE_MODES[Stream(seed_hex, Operation.END_RESIZE).choice(chances)]
    steps: list[Step] = [Resize(mode, lq_px, size_px / lq_px)]
    if end.sinc:
        steps.append(_draw_sinc(end.sinc, Stream(seed_hex, Operation.END_SINC)))
    if end.jpeg:
        drawn = _draw_jpeg(end.jpeg, Stream(seed_hex, Operation.END_JPEG))
        skipped = Jpeg(None, end.jpeg.mode)
        is_last = Stream(seed_hex, Operation.END_ORDER).chance(end.jpeg_last_probability)
        # Both places exist in every sample, so that a batch has one sequence of steps.
        steps = [skipped, *steps, drawn] if is_last else [drawn, *steps, skipped]
    return steps


def _draw_size(size_px: tuple[int, int], stream: Stream) -> int:
    return 2 * stream.integer(size_px[0] // 2, size_px[1] // 2) + 1


def _draw_blur(recipe: BlurRecipe, stream: Stream) -> Blur:
    if not stream.chance(recipe.probability):
        return Blur("none")
    size_px = _draw_size(recipe.size_px, stream)
    if stream.chance(recipe.sinc_probability):
        is_small = size_px < recipe.sinc_small_below_px
        cutoff_pi = recipe.sinc_cutoff_small_pi if is_small else recipe.sinc_cutoff_pi
        return Blur("sinc", size_px, cutoff_rad=math.pi * stream.uniform(*cutoff_pi))
    name = FAMILIES[stream.choice([getattr(recipe, f"{name}_probability") for name in FAMILIES])]
    sigma_x_px = sigma_y_px = stream.uniform(*recipe.sigma_px)
    theta_rad = 0.0
    if name.endswith("anisotropic"):
        sigma_y_px = stream.uniform(*recipe.sigma_px)
        theta_rad = stream.uniform(-math.pi, math.pi)
    family, beta = "gaussian", 1.0
    if name.startswith("generalized"):
        family, beta = "generalized", _draw_beta(recipe.generalized_beta, stream)
    elif name.startswith("plateau"):
        family, beta = "plateau", _draw_beta(recipe.plateau_beta, stream)
    return Blur(family, size_px, sigma_x_px, sigma_y_px, theta_rad, beta)


def _draw_beta(beta: Range, stream: Stream) -> float:
    """Evenly below or above 1, then uniform there."""
    return stream.uniform(beta[0], 1.0) if stream.chance(0.5) else stream.uniform(1.0, beta[1])


def _draw_sinc(recipe: SincRecipe, stream: Stream) -> Blur:
    if not stream.chance(recipe.probability):
        return Blur("none")
    size_px = _draw_size(recipe.size_px, stream)
    return Blur("sinc", size_px, cutoff_rad=math.pi * stream.uniform(*recipe.cutoff_pi))


def _draw_resize(recipe: ResizeRecipe, stream: Stream, size_px: int, lq_px: int) -> Resize:
    chances = [recipe.up_probability, recipe.down_probability, recipe.keep_probability]
    factor_range: Range = [recipe.up_factor, recipe.down_factor, (1.0, 1.0)][stream.choice(chances)]
    factor = stream.uniform(*factor_range)
    chances = [recipe.area_probability, recipe.bilinear_probability, recipe.bicubic_probability]
    mode = RESIZE_MODES[stream.choice(chances)]
    if recipe.base == "current":
        return Resize(mode, max(1, math.floor(size_px * factor)), 1 / factor)
    new_px = max(1, math.floor(lq_px * factor))
    return Resize(mode, new_px, size_px / new_px)


def _draw_noise(recipe: NoiseRecipe, seed_hex: str, operation: Operation) -> Noise:
    stream = Stream(seed_hex, operation)
    if not stream.chance(recipe.probability):
        return Noise("none", 0.0, False, int(operation))
    is_gray = stream.chance(recipe.gray_probability)
    if stream.chance(recipe.gaussian_probability):
        return Noise("gaussian", stream.uniform(*recipe.sigma_255), is_gray, int(operation))
    return Noise("poisson", stream.uniform(*recipe.poisson_scale), is_gray, int(operation))


def _draw_jpeg(recipe: JpegRecipe, stream: Stream) -> Jpeg:
    if not stream.chance(recipe.probability):
        return Jpeg(None, recipe.mode)
    return Jpeg(stream.uniform(*recipe.quality), recipe.mode)
