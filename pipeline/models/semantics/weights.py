"""Weights of the semantic extractors: downloaded, read from a file, or drawn from a seed.

Guarantees: every layer in use is loaded, or the file is refused; a random draw depends on the seed and the names alone
and leaves torch's global generator untouched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.weights.files import read_weights
from shards.errors import InputError

# Keeps the features of a random residual network near unit variance after a dozen blocks.
_RANDOM_RESIDUAL_GAIN = 0.25
_NUM_FAULTS_SHOWN = 8


@dataclass(frozen=True)
class WeightFile:
    """Weights by name, and where they are from."""

    origin: str
    state: dict[str, Tensor]

    @classmethod
    def read(cls, path: str | Path) -> WeightFile:
        """Read OpenAI's TorchScript archive, an open_clip or plain state dict, or safetensors.

        Raises:
            CheckpointError: Missing or unreadable.
        """
        return cls(str(path), read_weights(path))


def openai_weights(open_clip_name: str) -> WeightFile:
    """Download OpenAI's weights through open_clip, or find them in its cache.

    Args:
        open_clip_name: "RN50", "RN101", "RN50x4" or "ViT-B-16".

    Raises:
        InputError: The download fails; says what to use instead.
    """
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    try:
        path = download_pretrained(get_pretrained_cfg(open_clip_name, "openai"))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"OpenAI's {open_clip_name} could not be downloaded ({reason}); check the network, give the path "
            f"of the weights, or use random weights (--weights random for features, --semantics.weights "
            f"random for training)"
        ) from error
    return WeightFile.read(path)


def torchvision_weights() -> WeightFile:
    """Download torchvision's ResNet-50, or find it in torch's cache.

    Raises:
        InputError: The download fails; says what to use instead.
    """
    from torchvision.models import ResNet50_Weights

    weights = ResNet50_Weights.IMAGENET1K_V1
    try:
        return WeightFile(weights.url, dict(weights.get_state_dict(check_hash=True, weights_only=True)))
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"torchvision's ResNet-50 could not be downloaded ({error}); check the network, give the path of "
            f"the weights, or use random weights"
        ) from error


def load_backbone(backbone: nn.Module, weights: WeightFile) -> None:
    """Load weights into a truncated backbone.

    Args:
        backbone: Changed in place.
        weights: A whole CLIP, its visual tower, or an ImageNet network; layers behind the one in use are ignored.

    Raises:
        CheckpointError: Entries are missing or misshapen; lists them.
    """
    state = weights.state
    if any(name.startswith("visual.") for name in state):
        state = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}
    wanted = backbone.state_dict()
    # Counters of batch normalisations have no effect on a frozen network, and some files lack them.
    state = {name: tensor for name, tensor in wanted.items() if name.endswith("num_batches_tracked")} | state
    faults = [
        f"{name} is {tuple(state[name].shape)}, needs {tuple(tensor.shape)}" if name in state else f"missing {name}"
        for name, tensor in wanted.items()
        if name not in state or state[name].shape != tensor.shape
    ]
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:_NUM_FAULTS_SHOWN])
        more = f"\n  and {len(faults) - _NUM_FAULTS_SHOWN} more" if len(faults) > _NUM_FAULTS_SHOWN else ""
        raise CheckpointError(
            f"{weights.origin}: not the weights of this semantic extractor, {len(faults)} of {len(wanted)} entries do "
            f"not fit:{shown}{more}\n  give the file of the architecture that is set, or set the file's architecture "
            f"(--semantics.architecture)"
        )
    backbone.load_state_dict({name: state[name] for name in wanted})


@torch.no_grad()
def fill_randomly(backbone: nn.Module, seed: int) -> None:
    """Draw all weights from a seed: Kaiming for matrices and kernels, identity for normalisations.

    Args:
        backbone: Changed in place.
        seed: Same seed, same weights, on any machine.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(backbone.state_dict().items()):
        tensor.copy_(_draw(name, tensor, generator))


def _draw(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if "embedding" in name:
        return torch.randn(tensor.shape, generator=generator) / math.sqrt(tensor.shape[-1])
    if tensor.ndim >= 2:
        fan_in = math.prod(tensor.shape[1:])
        return torch.randn(tensor.shape, generator=generator) * math.sqrt(2.0 / fan_in)
    if name.endswith("running_var"):
        return torch.ones(tensor.shape)
    if name.endswith(".weight"):
        return torch.full(tensor.shape, _RANDOM_RESIDUAL_GAIN if ".bn3." in name else 1.0)
    return torch.zeros(tensor.shape)
