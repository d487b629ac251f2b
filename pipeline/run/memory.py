"""The memory of a training step: estimated before the first one, and what to change where it ran out.

The estimate counts what autograd saves, on networks that hold no memory. Workspaces, fragments and the device's own
context come on top of it: `HEADROOM`.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.schema import TrainConfig
from pipeline.errors import ConfigError, is_out_of_memory
from pipeline.losses import PERCEPTUAL_LOSSES
from pipeline.models.discriminators import Discriminator
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.run.hollow import HollowRun, build_hollow, num_parameters
from pipeline.runtime.backend import Backend
from pipeline.runtime.device_memory import available_bytes

HEADROOM = 1.25
"""Of a step over its estimate. Measured peaks are 1.01 to 1.06 of it in float32, less in bf16 (docs/benchmarks.md)."""

_BYTES = 4
_ADAM_COPIES = 4  # weights, gradients, two moments
_GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device: weights, gradients and optimizer state; activations saved for the backward pass."""

    state_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both together, without headroom."""
        return self.state_bytes + self.activation_bytes


def estimate_memory(config: TrainConfig, hollow: HollowRun, num_images: int) -> MemoryEstimate:
    """Estimate one device's memory for `num_images` per pass, in float32."""
    crop_px, scale = config.data.crop_px, config.generator.scale
    lq = torch.empty(num_images, 3, crop_px // scale, crop_px // scale, device="meta")
    gt = torch.empty(num_images, 3, crop_px, crop_px, device="meta")
    discriminators = list(hollow.discriminators.values())
    of_discriminators = [_saved_by(network, gt, _semantics_of(network, gt)) for network in discriminators]
    sr = torch.empty_like(gt, requires_grad=True)
    of_losses = sum(_saved_by(term.loss, sr, *(gt, gt)[: 1 + term.needs_average]) for term in hollow.losses.image)
    # The generator's update holds its own activations, those of the losses and one pass of each discriminator; a
    # discriminator's update holds two passes of it.
    generators = _saved_by(hollow.generator, lq) + of_losses + sum(of_discriminators)
    state = _ADAM_COPIES * sum(map(num_parameters, (hollow.generator, *discriminators)))
    state += num_parameters(hollow.generator)  # its moving average
    if config.uses_perceptual_network:
        state += PERCEPTUAL_LOSSES[config.losses.perceptual].num_parameters
    return MemoryEstimate(_BYTES * state, max(generators, 2 * max(of_discriminators, default=0)))


def _semantics_of(discriminator: Discriminator, gt: Tensor) -> Tensor | None:
    if discriminator.semantic_channels is None:
        return None
    height, width = (side // SEMANTIC_STRIDE_PX for side in gt.shape[-2:])
    return torch.empty(len(gt), discriminator.semantic_channels, height, width, device="meta")


def _saved_by(network: nn.Module, *inputs: Tensor | None) -> int:
    counter = _SavedBytes(network)
    with torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda tensor: tensor):
        output = network(*inputs)
    total = counter.total
    del output
    return total


class _SavedBytes:
    """Counts the bytes that autograd saves for the backward pass, each storage once; weights are not among them."""

    def __init__(self, network: nn.Module) -> None:
        self._weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        self._storages: dict[int, Any] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # Kept alive until the end, so that no address is reused by another storage.
        self._storages[storage._cdata] = storage
        return tensor

    @property
    def total(self) -> int:
        return sum(storage.nbytes() for key, storage in self._storages.items() if key not in self._weights)


def largest_micro_batch(config: TrainConfig, num_images: int, num_bytes: int) -> int:
    """Return how many of `num_images` fit into one pass by the estimate and its headroom; at least 1."""
    hollow = build_hollow(config)
    sizes, limit = range(1, num_images + 1), num_bytes / HEADROOM
    fitting = bisect.bisect_right(sizes, limit, key=lambda size: estimate_memory(config, hollow, size).total_bytes)
    return max(1, fitting)


def resolve_micro_batch(config: TrainConfig, backend: Backend) -> TrainConfig:
    """Replace `runtime.micro_batch_size = "auto"` by what fits on every device. All ranks must call."""
    if config.runtime.micro_batch_size != "auto":
        return config
    num_images = config.data.batch_size // backend.world_size
    fits = largest_micro_batch(config, num_images, available_bytes(backend.device))
    is_too_large = backend.any_rank_of_each([size > fits for size in range(1, num_images + 1)])
    size = is_too_large.count(False)
    return replace(config, runtime=replace(config.runtime, micro_batch_size=0 if size == num_images else size))


@contextlib.contextmanager
def naming_memory(config: TrainConfig, backend: Backend) -> Iterator[None]:
    """Say what to change where memory runs out in this block.

    Raises:
        ConfigError: It did.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(_remedy(config, backend)) from error


def _remedy(config: TrainConfig, backend: Backend) -> str:
    num_images = config.data.batch_size // backend.world_size
    together = int(config.runtime.micro_batch_size) or num_images
    limit = available_bytes(backend.device)
    fits = min(largest_micro_batch(config, num_images, limit), together // 2)
    remedies = [f"--runtime.micro-batch-size {fits}, with the same result"] if fits else []
    smaller = f"a smaller --data.crop-px than {config.data.crop_px}, or a smaller network"
    return (
        f"memory ran out on {backend.device} ({limit / _GIB:.1f} GiB) with {together} images of "
        f"{config.data.crop_px} px per pass; take {', or '.join([*remedies, smaller])}; the same command then resumes"
    )
