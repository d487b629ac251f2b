"""A network without the hooks that an engine has put on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def without_hooks(network: nn.Module) -> Iterator[None]:
    """Take a network's hooks away: ZeRO-3 gathers weights by them, whenever all ranks call the network."""
    modules = list(network.modules())
    hooks = [(module._forward_pre_hooks, module._forward_hooks) for module in modules]
    for module in modules:
        module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for module, (before, after) in zip(modules, hooks, strict=True):
            module._forward_pre_hooks, module._forward_hooks = before, after
