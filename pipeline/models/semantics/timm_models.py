"""Vision models of timm."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import EntryNotFoundError
from jaxtyping import Float
from timm.models import (
    PretrainedCfg,
    create_model,
    get_arch_pretrained_cfgs,
    get_pretrained_cfg,
    is_model,
    list_models,
)
from timm.models._hub import download_cached_file
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.semantics.names import PACKAGE, Preprocessing
from pipeline.models.semantics.published import NOT_STATED, from_hub, not_downloaded
from pipeline.models.semantics.vision_model import LayerInfo, VisionModel
from pipeline.models.semantics.weights import WeightFile
from pipeline.pretrained.efficientnet import MEAN, STD, VARIANTS, read_package
from shards.errors import InputError

# What a conversion of timm raises for a file that is none of those that it knows.
_NOT_CONVERTED = (RuntimeError, AssertionError, ValueError, TypeError, LookupError, AttributeError)


class TimmModel(VisionModel):
    """A model of timm, by its name and, after a dot, the tag of its weights.

    Args:
        name: Such as `resnet50.tv_in1k`; without a tag, the first that timm lists.

    Raises:
        ConfigError: timm has no such model or tag, or it has no spatial map.
    """

    def __init__(self, name: str) -> None:
        self.architecture, _, tag = name.partition(".")
        self.published = _published(self.architecture, tag)
        self.name = f"timm:{self.architecture}" + (f".{self.published.tag}" if self.published.tag else "")
        (red, green, blue), (red_std, green_std, blue_std) = self.published.mean, self.published.std
        self.preprocessing = Preprocessing("timm", (red, green, blue), (red_std, green_std, blue_std))
        self.licence = self.published.license or NOT_STATED
        super().__init__()

    def build(self) -> nn.Module:
        """See `VisionModel`; transformers that can take images of any size."""
        # With its tag, which may decide the size of learned positions and whether there is a classifier.
        name = f"{self.architecture}.{self.published.tag}" if self.published.tag else self.architecture
        if self.only_px:
            network = create_model(name, img_size=self.only_px)
        else:
            try:
                network = create_model(name, dynamic_img_size=True)
            except TypeError:  # most others have no such option
                network = create_model(name)
        if not hasattr(network, "forward_intermediates"):
            raise ConfigError(
                f"{self.name} has no spatial map: timm returns no features of its layers (forward_intermediates); "
                "use a model of docs/models.md"
            )
        return network

    def fix_size(self, side_px: int) -> None:
        """See `VisionModel`; timm resizes what depends on the size when it converts a file of weights."""
        self.only_px = side_px
        self.whole = self.build_on("meta")

    def describe_layers(self, network: Any) -> Sequence[LayerInfo]:
        """See `VisionModel`; names and strides are timm's."""
        info = network.feature_info
        entries = info if isinstance(info, list) else info.info
        return [LayerInfo(entry["module"], entry["reduction"]) for entry in entries]

    def truncate(self, network: Any, layer: int) -> None:
        """See `VisionModel`."""
        network.prune_intermediate_layers([layer], prune_norm=True, prune_head=True)

    def maps_of(
        self, network: Any, image: Float[Tensor, "n 3 h w"], layers: Sequence[int]
    ) -> list[Float[Tensor, "n c rows columns"]]:
        """See `VisionModel`; without the norm behind the last layer."""
        return network.forward_intermediates(
            image, indices=layers, norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )

    def download(self) -> Path:
        """See `VisionModel`."""
        published, repository = self.published, self.published.hf_hub_id or ""
        try:
            if repository:
                return from_hub(repository, published.hf_hub_filename)
            if isinstance(published.url, str) and published.url:
                return Path(download_cached_file(published.url, check_hash=True))
        except (OSError, RuntimeError, EntryNotFoundError) as error:
            raise not_downloaded(self.name, self.licence, repository, error) from error
        raise InputError(
            f"timm has no weights of {self.name} (licence: {self.licence}); get them from their authors and give the "
            "path of the file (--semantics.weights PATH), or use random weights"
        )

    def own_names(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """See `VisionModel`; files of the original projects are converted as timm converts them."""
        if "_conv_stem.weight" in state and len(state) == len(self.names):
            # The packages name the same tensors differently, in the same order.
            return dict(zip(self.names, state.values(), strict=True))
        # Most of timm's modules have one by this name; the files of the others need none.
        convert = vars(sys.modules[type(self.whole).__module__]).get("checkpoint_filter_fn")
        if convert is None:
            return state
        takes_model = len(inspect.signature(convert).parameters) > 1
        try:
            return convert(dict(state), self.whole) if takes_model else convert(dict(state))
        except _NOT_CONVERTED:
            return state  # refused by its names

    def read_package(self) -> tuple[WeightFile, Preprocessing]:
        """See `VisionModel`."""
        for variant in VARIANTS.values():
            if self.architecture == variant.timm_name:
                return WeightFile(variant.package, read_package(variant)), Preprocessing(PACKAGE, MEAN, STD)
        return super().read_package()


def _published(architecture: str, tag: str) -> PretrainedCfg:
    """Return what timm says of the weights with a tag, or of the first that it lists; little where it lists none.

    Raises:
        ConfigError: There is no such model or tag.
    """
    if not is_model(architecture):
        near = difflib.get_close_matches(architecture, list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "docs/models.md lists some"
        raise ConfigError(f"timm has no model {architecture!r}; {hint}")
    try:
        return get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture) or PretrainedCfg()
    except RuntimeError:
        tags = ", ".join(name.partition(".")[2] for name in get_arch_pretrained_cfgs(architecture))
        raise ConfigError(f"timm:{architecture} has no weights tagged {tag!r}; use one of {tags}") from None
