"""What configurations and feature caches call a vision model, and what earlier versions called it.

Without torch: configurations are read without it, so whether a library has a model is known only when it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.errors import ConfigError

Layer: TypeAlias = int | str
"""A layer by its index in the library's `forward_intermediates` (from 0; -1 is the last), or by its name there."""
Rgb: TypeAlias = tuple[float, float, float]

PRETRAINED, PACKAGE, RANDOM = "pretrained", "package", "random"
"""What `semantics.weights` may be beside the path of a file."""
_OPENAI = "openai"
_LIBRARIES = ("open_clip", "timm")


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an RGB image in [0, 1] before the network sees it.

    Attributes:
        library: Whose values these are.
        mean: Subtracted from each channel.
        std: Divides each channel.
    """

    library: str
    mean: Rgb
    std: Rgb

    @property
    def name(self) -> str:
        """Identifies it in the header of a feature cache."""
        mean, std = (" ".join(f"{value:.8g}" for value in values) for values in (self.mean, self.std))
        return f"{self.library}: rgb-01, mean {mean}, std {std}"


@dataclass(frozen=True)
class _OldModel:
    """A vision model by the name that it had before any model of two libraries could be named.

    Attributes:
        architecture: Its name now.
        tagged: The same with the tag of its published weights, as in feature caches.
        layers: Index of each layer by its old number.
        weights: What its published weights were called.
        preprocessing: Of its old caches.
    """

    architecture: str
    tagged: str
    layers: Mapping[int, int]
    weights: str
    preprocessing: Preprocessing


_SAME = {layer: layer for layer in range(1, 5)}
_CLIP = Preprocessing("open_clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = Preprocessing("timm", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _clip(name: str, layers: Mapping[int, int] = _SAME) -> _OldModel:
    return _OldModel(f"open_clip:{name}", f"open_clip:{name}:openai", layers, _OPENAI, _CLIP)


_OLD_MODELS = {
    "clip-rn50": _clip("RN50"),
    "clip-rn101": _clip("RN101"),
    "clip-rn50x4": _clip("RN50x4"),
    # The number of blocks then, the index of the last one now.
    "clip-vit-b16": _clip("ViT-B-16", {blocks: blocks - 1 for blocks in range(1, 13)}),
    "imagenet-rn50": _OldModel("timm:resnet50.tv_in1k", "timm:resnet50.tv_in1k", _SAME, _OPENAI, _IMAGENET),
    # Its stages 4 and 6 are none of timm's. Its weights have other names now, so that old caches are written again.
    "efficientnet-lite0": _OldModel(
        *("timm:tf_efficientnet_lite0", "timm:tf_efficientnet_lite0.in1k", {1: 0, 2: 1, 3: 2, 5: 3, 7: 4}),
        weights=PACKAGE,
        preprocessing=Preprocessing(PACKAGE, (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)),
    ),
}


def split_name(architecture: str) -> tuple[str, str]:
    """Return library and name: `open_clip:RN50` is ("open_clip", "RN50").

    Raises:
        ConfigError: It names no library.
    """
    library, _, name = architecture.partition(":")
    if library not in _LIBRARIES or not name:
        raise ConfigError(
            f"semantics.architecture={architecture!r} names no vision model; use open_clip:NAME, such as the paper's "
            "open_clip:RN50, or timm:NAME, such as timm:vit_small_patch16_dinov3 (docs/models.md has more)"
        )
    return library, name


def present_names(architecture: str, layer: Layer, weights: str) -> tuple[str, Layer, str]:
    """Return what an architecture, a layer and weights are called now; names of now stay as they are.

    Raises:
        ConfigError: The architecture names no library, an old architecture had no such layer, or the weights are those
            of another architecture.
    """
    old = _OLD_MODELS.get(architecture)
    if old is not None:
        if layer not in old.layers or isinstance(layer, str):
            numbers = ", ".join(map(str, old.layers))
            raise ConfigError(
                f"{architecture} has the layers {numbers}; got {layer}; use semantics.architecture={old.architecture} "
                "to name any layer that its library has"
            )
        layer = old.layers[layer]
        published = old.weights
        architecture = old.architecture
    else:
        published = _OPENAI if _is_openais(architecture) else PRETRAINED
    split_name(architecture)
    if weights == _OPENAI:
        if published != _OPENAI:
            other = f" or {PACKAGE}" if published == PACKAGE else ""
            raise ConfigError(
                f"weights='openai' are not those of {architecture}; set --semantics.weights pretrained{other}"
            )
        weights = PRETRAINED
    return architecture, layer, weights


def _is_openais(architecture: str) -> bool:
    library, _, rest = architecture.partition(":")
    _, _, tag = rest.partition(":")
    return library == "open_clip" and tag in ("", _OPENAI)


def present_extractor(extractor: str) -> tuple[str, str] | None:
    """Return what the header of a feature cache of earlier versions calls an extractor in the words of now.

    Args:
        extractor: Such as `clip-rn50 layer 3`.

    Returns:
        Start of the extractor's name and its preprocessing, which such a header may name wrongly: until c7a254d it was
        CLIP's for every architecture. None for a header of now.
    """
    name, _, number = extractor.partition(" layer ")
    old = _OLD_MODELS.get(name)
    if old is None or not number.isdecimal() or int(number) not in old.layers:
        return None
    return f"{old.tagged} layer {old.layers[int(number)]}", old.preprocessing.name
