"""Degradation recipes: laws and order as versioned data, read strictly from TOML.

A recipe says which operations run, in which order, and how each parameter is distributed. It is data: people
write their own file beside the ones shipped in `recipes/`. A file with an unknown key, a missing one, a wrong
type or an impossible value is refused, with every fault listed. A shipped recipe never changes; a changed law
gets a new name (`realesrgan-2`), because data sets record the name.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import cattrs
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError
from cattrs.v import format_exception

from shards.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
FOLDER = Path(__file__).parent / "recipes"
_TOLERANCE = 1e-9

StageOperation = Literal["blur", "resize", "noise", "jpeg"]
JpegMode = Literal["reference", "faithful"]
Range = tuple[float, float]


def _require(holds: bool, field: str, value: object, rule: str) -> None:
    """Raise unless a field obeys its rule."""
    if not holds:
        raise InputError(f"{field} must be {rule}; got {value}")


def _check_probability(field: str, value: float) -> None:
    _require(0 <= value <= 1, field, value, "a probability in [0, 1]")


def _check_range(field: str, value: Range, *, least: float) -> None:
    _require(least <= value[0] <= value[1], field, list(value), f"[low, high] with {least} <= low <= high")


def _check_mixture(recipe: object, names: tuple[str, ...]) -> None:
    """Check fields that together are the chances of one draw."""
    values = {f"{name}_probability": getattr(recipe, f"{name}_probability") for name in names}
    for field, value in values.items():
        _check_probability(field, value)
    total = sum(values.values())
    _require(abs(total - 1) <= _TOLERANCE, " + ".join(values), f"{total:g}", "1 in sum")


@dataclass(frozen=True)
class SharpenRecipe:
    """Unsharp mask of the truth, before anything else and as the loss target.

    Attributes:
        radius_px: Gaussian window; one is added when even.
        weight: How much of the detail is added.
        threshold_255: Detail up to this many gray levels is left alone.
    """

    radius_px: int
    weight: float
    threshold_255: float

    def __post_init__(self) -> None:
        _require(self.radius_px >= 1, "radius_px", self.radius_px, "1 or more")
        _require(self.weight >= 0, "weight", self.weight, "0 or more")
        _require(self.threshold_255 >= 0, "threshold_255", self.threshold_255, "0 or more")


@dataclass(frozen=True)
class SincRecipe:
    """A circular low-pass filter, which rings.

    Attributes:
        probability: How often it is applied.
        size_px: Kernel sides, odd, each as likely.
        cutoff_pi: Cutoff frequency in units of pi radians a pixel.
    """

    probability: float
    size_px: tuple[int, int]
    cutoff_pi: Range

    def __post_init__(self) -> None:
        _check_probability("probability", self.probability)
        _check_kernel_sizes(self.size_px)
        _check_range("cutoff_pi", self.cutoff_pi, least=1e-3)


MAX_KERNEL_PX = 21


def _check_kernel_sizes(size_px: tuple[int, int]) -> None:
    low, high = size_px
    holds = low % 2 == high % 2 == 1 and 1 <= low <= high <= MAX_KERNEL_PX
    _require(holds, "size_px", list(size_px), f"[low, high], odd, from 1 to {MAX_KERNEL_PX}")


FAMILIES = (
    "isotropic",
    "anisotropic",
    "generalized_isotropic",
    "generalized_anisotropic",
    "plateau_isotropic",
    "plateau_anisotropic",
)


@dataclass(frozen=True)
class BlurRecipe:
    """One of six blur families, or a sinc.

    Attributes:
        probability: How often it is applied at all.
        sinc_probability: How often it is a sinc rather than one of the six.
        size_px: Kernel sides, odd, each as likely.
        sigma_px: Standard deviation along each axis.
        generalized_beta: Shape of the generalized Gaussian: evenly below and above 1.
        plateau_beta: Shape of the plateau, likewise.
        sinc_cutoff_pi: Cutoff of kernels of `sinc_small_below_px` or more, in units of pi.
        sinc_cutoff_small_pi: Cutoff of smaller kernels.
        sinc_small_below_px: Where the two meet.
        isotropic_probability: Chances of the families; this and the next five sum to 1.
    """

    probability: float
    sinc_probability: float
    size_px: tuple[int, int]
    sigma_px: Range
    generalized_beta: Range
    plateau_beta: Range
    sinc_cutoff_pi: Range
    sinc_cutoff_small_pi: Range
    sinc_small_below_px: int
    isotropic_probability: float
    anisotropic_probability: float
    generalized_isotropic_probability: float
    generalized_anisotropic_probability: float
    plateau_isotropic_probability: float
    plateau_anisotropic_probability: float

    def __post_init__(self) -> None:
        _check_probability("probability", self.probability)
        _check_probability("sinc_probability", self.sinc_probability)
        _check_kernel_sizes(self.size_px)
        _check_range("sigma_px", self.sigma_px, least=1e-3)
        _check_mixture(self, FAMILIES)
        for name in ("generalized_beta", "plateau_beta"):
            value = getattr(self, name)
            _require(0 < value[0] <= 1 <= value[1], name, list(value), "[low, high] with 0 < low <= 1 <= high")
        _check_range("sinc_cutoff_pi", self.sinc_cutoff_pi, least=1e-3)
        _check_range("sinc_cutoff_small_pi", self.sinc_cutoff_small_pi, least=1e-3)


@dataclass(frozen=True)
class ResizeRecipe:
    """Change of size, without antialiasing.

    Attributes:
        base: What the factor multiplies: the image as it comes (`current`) or the low-quality size (`output`).
        up_probability: Chances of enlarging, shrinking and keeping; this and the next two sum to 1.
        up_factor: Range when enlarging.
        down_factor: Range when shrinking.
        area_probability: Chances of the three filters; this and the next two sum to 1.
    """

    base: Literal["current", "output"]
    up_probability: float
    down_probability: float
    keep_probability: float
    up_factor: Range
    down_factor: Range
    area_probability: float
    bilinear_probability: float
    bicubic_probability: float

    def __post_init__(self) -> None:
        _check_mixture(self, ("up", "down", "keep"))
        _check_mixture(self, ("area", "bilinear", "bicubic"))
        _check_range("up_factor", self.up_factor, least=1.0)
        _check_range("down_factor", self.down_factor, least=0.05)
        _require(self.down_factor[1] <= 1, "down_factor", list(self.down_factor), "at most 1")
        _require(self.up_factor[1] <= 4, "up_factor", list(self.up_factor), "at most 4")


@dataclass(frozen=True)
class NoiseRecipe:
    """Gaussian or Poisson noise, in gray or in colour.

    Attributes:
        probability: How often there is any.
        gaussian_probability: How often it is Gaussian rather than Poisson.
        gray_probability: How often all channels share one field.
        sigma_255: Standard deviation of the Gaussian, in gray levels.
        poisson_scale: Multiplies the Poisson noise.
    """

    probability: float
    gaussian_probability: float
    gray_probability: float
    sigma_255: Range
    poisson_scale: Range

    def __post_init__(self) -> None:
        for name in ("probability", "gaussian_probability", "gray_probability"):
            _check_probability(name, getattr(self, name))
        _check_range("sigma_255", self.sigma_255, least=0.0)
        _check_range("poisson_scale", self.poisson_scale, least=0.0)


@dataclass(frozen=True)
class JpegRecipe:
    """JPEG compression.

    Attributes:
        probability: How often.
        quality: 1..100; fractions count in the reference's simulation and are rounded in the faithful one.
        mode: `reference` simulates as Real-ESRGAN does, `faithful` follows libjpeg's integers.
    """

    probability: float
    quality: Range
    mode: JpegMode

    def __post_init__(self) -> None:
        _check_probability("probability", self.probability)
        _check_range("quality", self.quality, least=1.0)
        _require(self.quality[1] <= 100, "quality", list(self.quality), "at most 100")


@dataclass(frozen=True)
class StageRecipe:
    """Operations in order. A table whose name is not in `order` does not belong in the file.

    Attributes:
        order: Which operations run, each at most once.
        blur: Needed when in `order`, as the others.
        resize: See above.
        noise: See above.
        jpeg: See above.
    """

    order: tuple[StageOperation, ...]
    blur: BlurRecipe | None = None
    resize: ResizeRecipe | None = None
    noise: NoiseRecipe | None = None
    jpeg: JpegRecipe | None = None

    def __post_init__(self) -> None:
        given = {f.name for f in fields(self) if f.name != "order" and getattr(self, f.name) is not None}
        holds = given == set(self.order) and len(given) == len(self.order)
        _require(holds, "order", list(self.order), f"the stage's tables {sorted(given)}, each once")


@dataclass(frozen=True)
class EndRecipe:
    """The last resize, to the low-quality size, with a sinc after it and JPEG before or after the two.

    Attributes:
        area_probability: Chances of the filters; this and the next three sum to 1.
        matlab_bicubic_probability: This filter is antialiased, as in the classical task.
        jpeg_last_probability: How often JPEG comes after resize and sinc rather than before.
        sinc: Left out: none.
        jpeg: Left out: none.
    """

    area_probability: float
    bilinear_probability: float
    bicubic_probability: float
    matlab_bicubic_probability: float
    jpeg_last_probability: float = 0.5
    sinc: SincRecipe | None = None
    jpeg: JpegRecipe | None = None

    def __post_init__(self) -> None:
        _check_mixture(self, ("area", "bilinear", "bicubic", "matlab_bicubic"))
        _check_probability("jpeg_last_probability", self.jpeg_last_probability)


MAX_STAGES = 2


@dataclass(frozen=True)
class Recipe:
    """A whole degradation.

    Attributes:
        format: Version of this schema.
        name: Recorded with every data set that uses it; ends in the version of the law.
        end: What produces the low-quality size.
        stages: Up to two.
        sharpen: Left out: the truth is used as it is.
    """

    format: int
    name: str
    end: EndRecipe
    stages: tuple[StageRecipe, ...] = ()
    sharpen: SharpenRecipe | None = None

    def __post_init__(self) -> None:
        _require(self.format == FORMAT, "format", self.format, f"{FORMAT}, the one this version reads")
        _require(len(self.stages) <= MAX_STAGES, "stages", len(self.stages), f"at most {MAX_STAGES}")
        _require(bool(self.name.strip()), "name", repr(self.name), "a name")


@functools.lru_cache(maxsize=32)
def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a shipped recipe by name, or any by path; once a process, so that callers may ask for every sample.

    Args:
        name_or_path: `realesrgan-1`, `realesrgan-light-1`, `bicubic-1`, or a path that ends in `.toml`.

    Raises:
        InputError: No such recipe, no TOML, or faults in it, all listed with their place.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise InputError(f"no recipe {str(name_or_path)!r}; known: {known}; or give a path that ends in .toml")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error
    return parse_recipe(table, where=str(path))


def parse_recipe(table: dict[str, Any], where: str) -> Recipe:
    """Build a recipe from a table, such as a run's recorded configuration.

    Args:
        table: Nested dictionaries and lists.
        where: Named in errors.

    Raises:
        InputError: Lists every fault.
    """
    try:
        return _CONVERTER.structure(table, Recipe)
    except BaseValidationError as error:
        lines = cattrs.transform_error(error, "recipe", _explain)
        raise InputError(f"{where}: {len(lines)} fault(s)\n  " + "\n  ".join(lines)) from None


def _explain(error: BaseException, type_: type | None) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        known = ", ".join(f.name for f in fields(error.cl))
        return f"unknown key(s) {', '.join(sorted(error.extra_fields))}; known: {known}"
    if isinstance(error, (InputError, TypeError)):
        return str(error)
    return format_exception(error, type_).replace("typing.", "")


def _number(value: Any, _: type) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise TypeError(f"expected a finite number, got {value!r}")
    return float(value)


def _whole_number(value: Any, _: type) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {value!r}")
    return value


def _text(value: Any, _: type) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(int, _whole_number)
    converter.register_structure_hook(str, _text)
    return converter


_CONVERTER = _make_converter()
