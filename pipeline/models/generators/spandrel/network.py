"""A network of spandrel as a generator: under its own names, so that every reader of its files reads ours.

The class is spandrel's with ours before it, instead of a module around it: parameters, checkpoints and exports have the
bare names. spandrel's own descriptor is not called: it clamps, and takes no gradient.
"""

from __future__ import annotations

import copy
import functools
import importlib
import re
from collections.abc import Collection
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from spandrel import SizeRequirements
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import ConfigError
from pipeline.models.generators.contract import Generator
from pipeline.models.generators.spandrel.options import UNTESTED

_MODULES = {"RealPLKSR": "PLKSR"}
"""The module of spandrel that an architecture is in, where that has another name."""


class SpandrelGenerator(Generator):
    """What every network of spandrel gets: sizes that it accepts, and training that nothing in it disturbs.

    BatchNorm keeps its statistics, in training too: those of a batch would depend on how the batch is split.

    Attributes:
        bare: The class of spandrel.
    """

    bare: ClassVar[type[nn.Module]]

    def adopt(self, scale: int, sizes: SizeRequirements) -> None:
        """Complete a network that was built by the constructor of its bare class.

        Args:
            scale: Upscaling factor.
            sizes: Of the inputs that it takes, LQ px.

        Raises:
            ValueError: The bare network means something else by one of our attributes.
        """
        if vars(self).get("scale", scale) != scale:
            raise ValueError(f"the network's own `scale` is {self.scale}, and not the upscaling factor {scale}")
        self.scale = scale
        self._sizes = sizes
        self.smallest_side_px = max(sizes.minimum, sizes.multiple_of)
        self.size_multiple_px = sizes.multiple_of
        self.train()

    def train(self, mode: bool = True) -> SpandrelGenerator:
        """Set the mode of all modules but BatchNorm, which is always evaluated."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.training = False
        return self

    def forward(self, lq: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 height width"]:
        """Upscale a batch of RGB images in [0, 1], of any size; the output is not clamped.

        Raises:
            ValueError: `lq` is not a batch of RGB images, or (checked in evaluation mode, on the CPU) not finite.
        """
        self.check_input(lq)
        height, width = lq.shape[-2:]
        sr = self.bare.forward(self, self._padded(lq))
        return sr[..., : height * self.scale, : width * self.scale]

    def _padded(self, lq: Tensor) -> Tensor:
        """Return a copy, because some networks write into their input, with sides that the network takes."""
        height, width = lq.shape[-2:]
        right, bottom = self._sizes.get_padding(width, height)
        # Mirrored as far as the image reaches, then repeated, as spandrel does.
        mirrored = (0, min(right, width - 1), 0, min(bottom, height - 1))
        repeated = (0, right - mirrored[1], 0, bottom - mirrored[3])
        lq = F.pad(lq, mirrored, mode="reflect") if any(mirrored) else lq.clone()
        return F.pad(lq, repeated, mode="replicate") if any(repeated) else lq


@functools.cache
def network_class(name: str) -> type[SpandrelGenerator]:
    """Return the generator class of an architecture of spandrel.

    Raises:
        ConfigError: spandrel has none of that name.
    """
    module = f"spandrel.architectures.{_MODULES.get(name, name)}"
    try:
        bare = vars(importlib.import_module(module))[name]
    except (ModuleNotFoundError, KeyError) as error:
        raise ConfigError(
            f"spandrel has no architecture {name!r} that could be a generator; correct {UNTESTED} in the environment"
        ) from error
    content = {"bare": bare, "__module__": __name__, "__doc__": f"{name} of spandrel as a generator."}
    return cast("type[SpandrelGenerator]", type(name, (SpandrelGenerator, bare), content))


def freeze(network: SpandrelGenerator, unreached: Collection[str], derived: str) -> None:
    """Make buffers of the parameters that training does not reach: DDP waits for their gradients, ZeRO fails on them.

    Args:
        network: Changed in place.
        unreached: Names of parameters.
        derived: Pattern of those that the network overwrites when it is evaluated. They leave its state dict:
            an evaluation must not change what is hashed and saved.
    """
    for name in unreached:
        parent, _, own = name.rpartition(".")
        module = network.get_submodule(parent)
        value = module.get_parameter(own)
        delattr(module, own)
        is_derived = bool(derived) and re.match(derived, name) is not None
        module.register_buffer(own, value.detach(), persistent=not is_derived)


def find_unreached(network: SpandrelGenerator, side_px: int) -> list[str]:
    """Return the parameters that get no gradient.

    Args:
        network: On the `meta` device, where a pass costs nothing; it keeps no gradient.
        side_px: Of a square input, LQ px, that the bare network takes.
    """
    lq = torch.zeros(1, 3, side_px, side_px, device="meta")
    network.bare.forward(network.train(), lq).sum().backward()
    unreached = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    network.zero_grad(set_to_none=True)
    return unreached


@torch.no_grad()
def whole_state(network: SpandrelGenerator, derived: str, tables: Collection[str]) -> dict[str, Tensor]:
    """Return the state dict as other programs expect it.

    Args:
        network: Not changed.
        derived: Pattern of the tensors that it computes when it is evaluated; see `freeze`.
        tables: Names of buffers to add.
    """
    evaluated = cast("SpandrelGenerator", copy.deepcopy(network).eval()) if derived else network
    if derived:
        evaluated(torch.zeros(1, 3, 1, 1, device=next(evaluated.parameters()).device))
    added: dict[str, Any] = {
        name: buffer
        for name, buffer in evaluated.named_buffers()
        if name in tables or (derived and re.match(derived, name))
    }
    return {**evaluated.state_dict(), **added}
