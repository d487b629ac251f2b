"""Vision models of open_clip: the visual tower of a CLIP, without its text tower."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from jaxtyping import Float
from open_clip.model import _build_vision_tower
from open_clip.modified_resnet import ModifiedResNet
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.transformer import VisionTransformer
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.semantics.names import Preprocessing
from pipeline.models.semantics.published import NOT_STATED, not_downloaded
from pipeline.models.semantics.timm_models import TimmModel
from pipeline.models.semantics.vision_model import LayerInfo, VisionModel
from shards.errors import InputError

_TOWER = "visual."
_TIMM_TOWER = f"{_TOWER}trunk."
_RESNET_LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4")


class _Published:
    """What open_clip says of a model's weights.

    Args:
        name: Such as `RN50`, or with a tag `RN50:openai`; without one, the first that open_clip lists.

    Raises:
        ConfigError: open_clip has no such model or tag.
    """

    def __init__(self, name: str) -> None:
        self.architecture, _, tag = name.partition(":")
        if self.architecture not in open_clip.list_models():
            near = difflib.get_close_matches(self.architecture, open_clip.list_models(), 3)
            hint = f"did you mean {' or '.join(near)}?" if near else "docs/models.md lists some"
            raise ConfigError(f"open_clip has no model {self.architecture!r}; {hint}")
        tags = list_pretrained_tags_by_model(self.architecture)
        self.tag = tag or next(iter(tags), "")
        if tag and tag not in tags:
            raise ConfigError(
                f"open_clip:{self.architecture} has no weights tagged {tag!r}; use one of {', '.join(tags)}"
            )
        self.name = ":".join(filter(None, ("open_clip", self.architecture, self.tag)))
        self.config = get_pretrained_cfg(self.architecture, self.tag)
        mean, std = (
            self.config.get(key, default)
            for key, default in (("mean", open_clip.OPENAI_DATASET_MEAN), ("std", open_clip.OPENAI_DATASET_STD))
        )
        self.preprocessing = Preprocessing("open_clip", tuple(mean), tuple(std))

    def download(self) -> Path:
        """Return the file of the weights."""
        if not self.config:
            raise InputError(
                f"open_clip has no weights of {self.name}; give the path of a file (--semantics.weights PATH), or use "
                "random weights"
            )
        try:
            return Path(open_clip.download_pretrained(self.config))
        except Exception as error:
            repository = self.config.get("hf_hub", "")
            raise not_downloaded(self.name, NOT_STATED, repository, error) from error


def open_model(name: str) -> VisionModel:
    """Return a vision model of open_clip, whose tower may be one of timm's.

    Raises:
        ConfigError: open_clip has no such model or tag, or it has no spatial map.
    """
    published = _Published(name)
    config: Any = open_clip.get_model_config(published.architecture)
    timm_name = config["vision_cfg"].get("timm_model_name")
    return _OpenClipModel(published, config) if timm_name is None else _TimmTower(published, timm_name)


class _OpenClipModel(VisionModel):
    """A tower of open_clip's own: CLIP's ResNet or its vision transformer."""

    licence = NOT_STATED

    def __init__(self, published: _Published, config: Mapping[str, Any]) -> None:
        self.name, self.preprocessing = published.name, published.preprocessing
        self._published, self._config = published, config
        super().__init__()

    def build(self) -> nn.Module:
        # The weights of OpenAI and some others were trained with another GELU than open_clip's configurations say.
        quick_gelu = self._config.get("quick_gelu", False) or self._published.config.get("quick_gelu", False)
        tower: nn.Module = _build_vision_tower(self._config["embed_dim"], self._config["vision_cfg"], quick_gelu)
        return tower

    def describe_layers(self, network: Any) -> Sequence[LayerInfo]:
        if isinstance(network, ModifiedResNet):
            return [LayerInfo(name, 4 * 2 ** max(index - 1, 0)) for index, name in enumerate(_RESNET_LAYERS)]
        blocks = range(len(network.transformer.resblocks))
        return [LayerInfo(f"transformer.resblocks.{index}", network.patch_size[0]) for index in blocks]

    def truncate(self, network: Any, layer: int) -> None:
        if isinstance(network, ModifiedResNet):
            for name in (*_RESNET_LAYERS[layer + 1 :], "attnpool"):
                network.add_module(name, nn.Identity())
            return
        network.prune_intermediate_layers([layer], prune_norm=True, prune_head=True)
        network.attn_pool = network.attn_pool_contrastive = None

    def maps_of(
        self, network: Any, image: Float[Tensor, "n 3 h w"], layers: Sequence[int]
    ) -> list[Float[Tensor, "n c rows columns"]]:
        with _positions_for(network, image):
            # `stop_early` of a ResNet runs all layers; here there are none behind this one.
            return network.forward_intermediates(image, indices=layers, intermediates_only=True)["image_intermediates"]

    def download(self) -> Path:
        return self._published.download()

    def own_names(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return _tower_of(state, _TOWER)


class _TimmTower(TimmModel):
    """A tower that open_clip takes from timm."""

    def __init__(self, published: _Published, timm_name: str) -> None:
        super().__init__(timm_name)
        self.name, self.preprocessing, self.licence = published.name, published.preprocessing, NOT_STATED
        self._published = published

    def download(self) -> Path:
        return self._published.download()

    def own_names(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return super().own_names(_tower_of(state, _TIMM_TOWER))


def _tower_of(state: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """Return the tower of a whole CLIP's state dict; that of a tower alone as it is."""
    if not any(name.startswith(prefix) for name in state):
        return state
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


@contextmanager
def _positions_for(network: Any, image: Tensor) -> Iterator[None]:
    """Resize a transformer's learned positions to an image's grid, which open_clip fixes."""
    if not isinstance(network, VisionTransformer):
        yield
        return
    grid = tuple(side // patch for side, patch in zip(image.shape[-2:], network.patch_size, strict=True))
    learned = network.positional_embedding
    if grid == network.grid_size:
        yield
        return
    resized = resample_abs_pos_embed(learned[None], list(grid), list(network.grid_size))[0]
    network.positional_embedding = nn.Parameter(resized, requires_grad=False)
    try:
        yield
    finally:
        network.positional_embedding = learned
