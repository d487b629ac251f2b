"""Locates the origin of a non-finite update: the term of the loss, and the layer.

A forward pass spreads NaN to every later layer, a backward pass to every earlier one. So the first layer of the forward
pass whose output is not finite is the origin; if all are finite, the last layer, in the network's order, whose
gradient is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.runtime.trainable import GradientNorms
from pipeline.train.gan_step import Gan, Turn, frozen
from pipeline.train.micro_batches import StepInput, micro_batches


def bad_terms(network: str, scalars: Mapping[str, Tensor]) -> list[str]:
    """Return the terms of a network's loss that are not finite, of this rank's images."""
    terms = {name: value for name, value in scalars.items() if name.startswith(f"{network}/")}
    return [name for name, value in terms.items() if not name.endswith("_logit") and not value.isfinite()]


def first_bad_gradient(norms: GradientNorms | None) -> str | None:
    """Return the parameter at which the backward pass first produced a non-finite gradient."""
    if norms is None:
        return None
    is_bad = norms.values.isfinite().logical_not().tolist()
    return next((name for name, bad in reversed(list(zip(norms.names, is_bad, strict=True))) if bad), None)


def first_bad_output(gan: Gan, batch: StepInput, turn: Turn) -> str | None:
    """Run the forward passes of a step again and name the first layer whose output is not finite.

    Weights and buffers stay as they are. Exact as long as the networks are as they were in the step, which holds
    after a skipped update. All ranks must call, since weights may be partitioned.
    """
    for name in ("lq", "gt", "target", "semantics"):
        tensor = getattr(batch, name)
        if tensor is not None and not tensor.isfinite().all():
            return f"the step's input `{name}`"
    seen: list[tuple[str, Tensor]] = []
    with torch.no_grad(), _watched(gan.generator.bare, "generator", seen), gan.autocast():
        for part in micro_batches(batch, gan.micro_batch_size):
            sr = gan.generator.bare(part.lq)
            for adversary in gan.taking_part(turn):
                network, semantics = adversary.bare, adversary.semantics(part)
                with _watched(network, adversary.name, seen), frozen(network), _restored(network):
                    network(sr, semantics)
                    network(part.gt, semantics)
    return next((name for name, is_finite in seen if not is_finite), None)


@contextmanager
def _watched(network: nn.Module, name: str, seen: list[tuple[str, Tensor]]) -> Iterator[None]:
    """Note of each layer's output, in the order of execution, whether it is finite."""

    def watch(path: str) -> Callable[[nn.Module, object, object], None]:
        def look(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen.append((f"the output of the {name}'s `{path}`", output.isfinite().all()))

        return look

    layers = [(path, module) for path, module in network.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(watch(path or type(module).__name__)) for path, module in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _restored(network: nn.Module) -> Iterator[None]:
    """Restore the buffers after this block: spectral norms iterate in each forward pass."""
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
