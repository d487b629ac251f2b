"""Weights of vision models: read from a file, or drawn from a seed.

Guarantees: every layer in use is loaded, or the file is refused with a list; a random draw depends on the seed and the
names alone and leaves torch's global generator untouched.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.weights.files import read_weights

# Keeps the features of a random residual network near unit variance after a dozen blocks.
_RANDOM_RESIDUAL_GAIN = 0.25
_NUM_FAULTS_SHOWN = 8
_EMBEDDINGS = ("embedding", "pos_embed", "_token")


@dataclass(frozen=True)
class WeightFile:
    """Weights by name, and where they are from."""

    origin: str
    state: dict[str, Tensor]

    @classmethod
    def read(cls, path: str | Path) -> WeightFile:
        """Read OpenAI's TorchScript archive, a plain state dict, or safetensors.

        Raises:
            CheckpointError: Missing or unreadable.
        """
        return cls(str(path), read_weights(path))


def load_network(network: nn.Module, known: Collection[str], weights: WeightFile, only_px: int | None = None) -> None:
    """Load weights into a truncated network.

    Args:
        network: Changed in place.
        known: Names of the entries of the whole network.
        weights: Of the whole network; layers behind the one in use are ignored.
        only_px: Side of the only images that the network takes, for the advice; None: of many sizes.

    Raises:
        CheckpointError: Entries of the layers in use are missing or misshapen, or the file has some that the whole
            network has not, so that it is of another; lists them.
    """
    wanted = network.state_dict()
    # Counters of batch normalisations have no effect on a frozen network, and some files lack them.
    state = {name: tensor for name, tensor in wanted.items() if name.endswith("num_batches_tracked")} | weights.state
    faults = [
        f"{name} is {tuple(state[name].shape)}, needs {tuple(tensor.shape)}" if name in state else f"missing {name}"
        for name, tensor in wanted.items()
        if name not in state or state[name].shape != tensor.shape
    ]
    faults += [f"unknown {name}" for name in state if name not in known]
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:_NUM_FAULTS_SHOWN])
        more = f"\n  and {len(faults) - _NUM_FAULTS_SHOWN} more" if len(faults) > _NUM_FAULTS_SHOWN else ""
        raise CheckpointError(
            f"{weights.origin}: not the weights of this vision model; of its {len(wanted)} entries up to the layer in "
            f"use, these do not fit:{shown}{more}\n  give the file of the architecture that is set, or set the file's "
            "architecture (--semantics.architecture)"
            + (f"; weights for other images than of {only_px} px need --data.crop-px of theirs" if only_px else "")
        )
    network.load_state_dict({name: state[name] for name in wanted})


@torch.no_grad()
def fill_randomly(network: nn.Module, seed: int) -> None:
    """Draw all parameters from a seed: Kaiming for matrices and kernels, identity for normalisations.

    Args:
        network: Changed in place; its buffers are what its own initialisation made them.
        seed: Same seed, same weights, on any machine.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(network.named_parameters()):
        parameter.copy_(_draw(name, parameter, generator))


def _draw(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if any(part in name for part in _EMBEDDINGS):
        return torch.randn(tensor.shape, generator=generator) / math.sqrt(tensor.shape[-1])
    if tensor.ndim >= 2:
        fan_in = math.prod(tensor.shape[1:])
        return torch.randn(tensor.shape, generator=generator) * math.sqrt(2.0 / fan_in)
    if name.endswith(".weight"):
        return torch.full(tensor.shape, _RANDOM_RESIDUAL_GAIN if ".bn3." in name else 1.0)
    # The scale of a residual branch, which published networks learn: timm's `gamma`, `ls1.gamma`, `gamma_1`.
    if "gamma" in name:
        return torch.full(tensor.shape, _RANDOM_RESIDUAL_GAIN)
    return torch.zeros(tensor.shape)
