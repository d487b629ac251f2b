"""What a manifest says about its dataset: the settings that decide the bytes, parsed when the manifest is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

FEATURE_DTYPE = "float16"

T = TypeVar("T")


@dataclass(frozen=True)
class ImageSettings:
    """Settings of image shards; every value takes part in the plan's fingerprint.

    Raises:
        ValueError: A value has the wrong type or is out of range; names the key.
    """

    alpha: Literal["composite", "reject"]
    degradation: Literal["classical", "realworld"]
    encoder: str
    """PNG level and library versions; see `shards.format.png.ENCODER`."""
    max_pixels: int
    recipe: str
    """Name of the degradation recipe."""
    scale: int
    seed: int
    """Dataset seed: keys the order of photos over shards and every degradation."""
    shard_size_mib: float
    stride_px: int
    sub_image_px: int
    variants: int
    """K, the number of degradation seeds recorded per sub-image."""
    recipe_table: Mapping[str, Any] | None = None
    """Content of the recipe, as in its TOML file; None for a recipe that ships with this project."""

    def __post_init__(self) -> None:
        """Check types and ranges."""
        _require(self.alpha in ("composite", "reject"), "alpha", self.alpha)
        _require(self.degradation in ("classical", "realworld"), "degradation", self.degradation)
        for name in ("encoder", "recipe"):
            _require(isinstance(getattr(self, name), str), name, getattr(self, name))
        for name, least in (("max_pixels", 1), ("scale", 1), ("seed", 0), ("stride_px", 1), ("sub_image_px", 1)):
            _require_integer(name, getattr(self, name), least)
        _require_integer("variants", self.variants, 1)
        _require(isinstance(self.shard_size_mib, (int, float)), "shard_size_mib", self.shard_size_mib)
        _require(isinstance(self.recipe_table, (dict, type(None))), "recipe_table", self.recipe_table)

    @property
    def is_classical(self) -> bool:
        """Whether an LQ image is stored beside each sub-image."""
        return self.degradation == "classical"

    def to_plain(self) -> dict[str, Any]:
        """Return the manifest's `config`."""
        plain = asdict(self)
        if self.recipe_table is None:
            del plain["recipe_table"]
        return plain


@dataclass(frozen=True)
class FeatureSettings:
    """Everything that the values of a feature cache depend on.

    Raises:
        ValueError: A value has the wrong type or is out of range; names the key.
    """

    image_manifest: str
    """Digest of the manifest of the image shards."""
    crop_px: int
    """Side of the HR crop."""
    num_variants: int
    """Variants of each sample; training takes variant `epoch % num_variants`."""
    extractor: str
    """Architecture and layer."""
    weights_sha256: str
    """Hash of the extractor's weights."""
    shape: tuple[int, int, int]
    """(c, h, w) of one feature."""
    preprocessing: str
    """Name of the transformation from RGB to the extractor's input."""
    dtype: str = FEATURE_DTYPE
    quantisation: str = "none"

    def __post_init__(self) -> None:
        """Check types and ranges."""
        for name in ("image_manifest", "extractor", "weights_sha256", "preprocessing"):
            _require(isinstance(getattr(self, name), str), name, getattr(self, name))
        for name in ("crop_px", "num_variants"):
            _require_integer(name, getattr(self, name), 1)
        _require(len(self.shape) == 3, "shape", self.shape)
        for side in self.shape:
            _require_integer("shape", side, 1)
        # Features are stored in this one way; see FORMAT.md.
        _require(self.dtype == FEATURE_DTYPE, "dtype", self.dtype)
        _require(self.quantisation == "none", "quantisation", self.quantisation)

    def to_plain(self) -> dict[str, Any]:
        """Return the manifest's `config`, which every feature tar's header carries too."""
        return asdict(self) | {"shape": list(self.shape)}


def parse_settings(kind: object, content: Mapping[str, Any]) -> ImageSettings | FeatureSettings:
    """Parse a manifest's `config`.

    Args:
        kind: `images` or `features`.
        content: As `to_plain` returned it.

    Raises:
        ValueError: The kind is unknown, or a value is impossible.
        TypeError: A key is missing or unknown.
    """
    if kind == "images":
        return ImageSettings(**content)
    if kind == "features":
        return FeatureSettings(**{**content, "shape": tuple(content["shape"])})
    raise ValueError(f"kind={kind!r} is neither images nor features")


def _require(holds: bool, name: str, value: object) -> None:
    if not holds:
        raise ValueError(f"config.{name}={value!r} is not a value that this program writes")


def _require_integer(name: str, value: object, least: int) -> None:
    _require(isinstance(value, int) and not isinstance(value, bool) and value >= least, name, value)
