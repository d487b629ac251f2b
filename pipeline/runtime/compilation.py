"""Compilation of the networks."""

from __future__ import annotations

import torch._functorch.config as functorch
from torch import nn


def compile_network(network: nn.Module, backend: str = "inductor") -> None:
    """Compile a network in place, so that the names of its parameters stay as they are.

    Where blocks repeat, each is compiled by itself: they share one piece of code, which compiles in seconds, where the
    paper's 23 blocks as a whole take minutes.
    """
    # The shared pass and the gradients of a report go backward through a network twice; a compiled one would otherwise
    # reuse what it kept for the first time, and refuse.
    functorch.donated_buffer = False
    for part in _repeated_blocks(network) or [network]:
        part.compile(backend=backend)


def _repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the outermost blocks that follow each other and are of one class."""
    for container in network.modules():
        blocks = list(container.children())
        is_sequence = isinstance(container, nn.Sequential | nn.ModuleList)
        if is_sequence and len(blocks) > 1 and len({type(block) for block in blocks}) == 1:
            return blocks
    return []
