"""What a manifest says about its dataset: the settings that decide the bytes, parsed when the manifest is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, TypeAlias

from shards.degradation.crops import NUM_DIHEDRALS
from shards.errors import InputError
from shards.format.codecs import CODECS, FP16
from shards.format.curation import CurationRules
from shards.schema import Count, Positive, Range, Sha256

# Pillow refuses images of more than 178,956,970 pixels; no square side above this can be decoded.
MAX_SIDE_PX = 13_377
SidePx: TypeAlias = Annotated[int, Range(1, MAX_SIDE_PX)]
FeatureSide: TypeAlias = Annotated[int, Range(1, 65_536)]
Orientation: TypeAlias = Annotated[int, Range(0, NUM_DIHEDRALS - 1)]
ALL_ORIENTATIONS = tuple(range(NUM_DIHEDRALS))
MAX_VARIANTS = 100_000
_RECORD_BYTES = 2**20
_SEED_BYTES = 64


@dataclass(frozen=True)
class ImageSettings:
    """Settings of image shards; every value takes part in the plan's fingerprint."""

    alpha: Literal["composite", "reject"]
    degradation: Literal["classical", "realworld", "paired"]
    encoder: str
    """PNG level and library versions; see `shards.format.png.ENCODER`."""
    max_pixels: Positive
    recipe: str
    """Name of the degradation recipe; `given` for paired shards, whose LQ images are none of ours."""
    scale: Annotated[int, Range(1, 64)]
    seed: Count
    """Dataset seed: keys the order of photos over shards and every degradation."""
    shard_size_mib: float
    stride_px: SidePx
    sub_image_px: SidePx
    variants: Annotated[int, Range(1, MAX_VARIANTS)]
    """K, the number of degradation seeds recorded per sub-image."""
    recipe_table: Mapping[str, Any] | None = None
    """Content of the recipe, as in its TOML file; None for a recipe that ships with this project."""
    keep_together: Literal["photo", "folder"] = "photo"
    """What no two shards share: photo allows a photo at the end of one and the start of the next; folder nothing."""
    curation: CurationRules = field(default_factory=CurationRules)
    """What is removed for what it looks like."""

    @property
    def has_lq(self) -> bool:
        """Whether an LQ image is stored beside each sub-image; else training makes it."""
        return self.degradation != "realworld"

    @property
    def has_recipe(self) -> bool:
        """Whether LQ images come from a recipe; else they were given."""
        return self.degradation != "paired"

    @property
    def side_px(self) -> dict[str, int]:
        """Side of each image of a sample, by its member's extension."""
        sides = {"png": self.sub_image_px}
        return sides | {"lq.png": self.sub_image_px // self.scale} if self.has_lq else sides

    @property
    def max_member_bytes(self) -> int:
        """No member is larger: neither an image, which zlib enlarges by less than a third, nor a record."""
        return max(4 * self.sub_image_px**2, _SEED_BYTES * self.variants) + _RECORD_BYTES

    def to_plain(self) -> dict[str, Any]:
        """Return the manifest's `config`."""
        plain = asdict(self)
        if self.recipe_table is None:
            del plain["recipe_table"]
        if self.keep_together == "photo":  # so that it is absent from datasets written before it existed
            del plain["keep_together"]
        del plain["curation"]  # likewise
        curation = self.curation.to_plain()
        return plain | {"curation": curation} if curation else plain


@dataclass(frozen=True)
class FeatureSettings:
    """Everything that the values of a feature cache depend on."""

    image_manifest: Sha256
    """Digest of the manifest of the image shards."""
    crop_px: SidePx
    """Side of the HR square that a feature is of."""
    num_variants: Annotated[int, Range(1, MAX_VARIANTS)]
    """Features of each sample; those of crops are of variant `epoch % num_variants`."""
    extractor: str
    """Architecture and layer."""
    weights_sha256: Sha256
    """Hash of the extractor's weights."""
    shape: tuple[FeatureSide, FeatureSide, FeatureSide]
    """(c, h, w) of one feature."""
    preprocessing: str
    """Name of the transformation from RGB to the extractor's input."""
    dtype: str = "float16"
    """Of the numbers that are stored; as the codec says, like the next."""
    quantisation: str = "none"
    """What the numbers mean."""
    codec: str = FP16
    """How a feature becomes the bytes of a member; see `shards.format.codecs`."""
    codec_state_sha256: Sha256 | None = None
    """Hash of the file with what the codec learned from the data (`shards.format.feature_coding`), if it learned."""
    mode: Literal["crops", "map"] = "crops"
    """What a feature is of. crops: the very pixels that training draws for a variant, turned as it turns them; map: the
    whole cells of a sub-image, out of which training cuts crops on the grid of cells."""
    orientations: tuple[Orientation, ...] = ALL_ORIENTATIONS
    """The symmetries in which features are computed, as `shards.degradation.crops.Crop` numbers them."""

    def __post_init__(self) -> None:
        """Check that codec and what is said of it fit.

        Raises:
            InputError: There is no such codec, or it stores something else.
        """
        codec = CODECS[self.codec]
        if (self.dtype, self.quantisation) != (codec.dtype, codec.quantisation):
            raise InputError(
                f"codec {codec.name} stores {codec.dtype} ({codec.quantisation}); got {self.dtype} "
                f"({self.quantisation})"
            )
        if self.codec_state_sha256 and not codec.is_fitted:
            raise InputError(f"codec {codec.name} learns nothing from the data; got codec_state_sha256")

    def coded_by(self, name: str) -> FeatureSettings:
        """Return the same for another codec, not yet fitted.

        Raises:
            InputError: There is none of that name.
        """
        codec = CODECS[name]
        return replace(self, codec=name, dtype=codec.dtype, quantisation=codec.quantisation, codec_state_sha256=None)

    @property
    def extensions(self) -> list[str]:
        """Member extension of each variant: `000.f16`, `001.f16`, ..."""
        return [f"{variant:03d}.{CODECS[self.codec].suffix}" for variant in range(self.num_variants)]

    @property
    def max_member_bytes(self) -> int:
        """No member is larger."""
        return CODECS[self.codec].max_bytes(self.shape)

    @property
    def facts(self) -> dict[str, Any]:
        """Every field as plain data."""
        return asdict(self) | {"shape": list(self.shape), "orientations": list(self.orientations)}

    def to_plain(self) -> dict[str, Any]:
        """Return the manifest's `config`, which every feature tar's header carries too."""
        # So that what did not exist yet is absent from the caches of that time.
        return {name: value for name, value in self.facts.items() if (name, value) not in _UNWRITTEN}


_UNWRITTEN = (
    ("codec", FP16),
    ("codec_state_sha256", None),
    ("mode", "crops"),
    ("orientations", list(ALL_ORIENTATIONS)),
)
"""What a header says by having no such field."""
