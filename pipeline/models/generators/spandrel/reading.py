"""What spandrel reads off a state dict: the architecture, its hyperparameters, and the images that it takes.

spandrel builds a network of the sizes that it finds. Here that network has sizes alone, and no more layers than the
state dict can have: a few names in a small file could otherwise ask for any amount of memory and time.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from spandrel import MAIN_REGISTRY, ImageModelDescriptor
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T")

# Layers without weights between those with some, and layers that are counted from another number than 0.
_LAYERS_PER_NUMBER, _MORE_LAYERS = 4, 8
_TENSORS_PER_ENTRY, _MORE_TENSORS = 4, 1000
_FAILURES = (LookupError, ArithmeticError, AssertionError, RuntimeError, TypeError, AttributeError)
"""What spandrel raises where names or sizes do not fit together, besides ValueError."""


class SizesOnly(TorchFunctionMode):
    """In this block weights have sizes alone: no memory, no random values.

    Other tensors that a constructor makes, such as index tables, are on torch's default device.

    Args:
        max_tensors: Largest number of weights.

    Raises:
        ValueError: A network has more.
    """

    def __init__(self, max_tensors: int = 2**20) -> None:
        super().__init__()
        self._tensors_left = max_tensors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass calls on, with the devices that let code of others work with tensors without values."""
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            # The rates of stochastic depth, which are read one by one.
            return func(*args, **kwargs | {"device": "cpu"})
        if func is torch.empty:
            self._tensors_left -= 1
            if self._tensors_left < 0:
                raise ValueError("its network would be larger than the file")
            return func(*args, **kwargs | {"device": "meta"})
        if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves((args, kwargs))):
            args, kwargs = tree_map(_without_values, (args, kwargs))
        return func(*args, **kwargs)


def _without_values(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, Tensor) else leaf


def find_id(state: Mapping[str, Tensor]) -> str | None:
    """Return the architecture of spandrel whose names a state dict has; None where it has none's."""
    found = (entry for entry in MAIN_REGISTRY.architectures("detection") if entry.detect(dict(state)))
    return next((str(entry.architecture.id) for entry in found), None)


def describe(state: Mapping[str, Tensor], identifier: str) -> ImageModelDescriptor[Any]:
    """Let spandrel read a state dict.

    Args:
        state: As the file names it.
        identifier: From `find_id`.

    Returns:
        Its description; the network in it has sizes alone.

    Raises:
        ValueError: Names and sizes do not fit together, or it is no network from image to image.
    """
    check_numbers(state)
    max_tensors = _TENSORS_PER_ENTRY * len(state) + _MORE_TENSORS
    with warnings.catch_warnings(), torch.device("meta"), SizesOnly(max_tensors):
        warnings.filterwarnings("ignore", message=".*is a no-op.*", category=UserWarning)  # loading: it has no values
        descriptor = attempt(lambda: MAIN_REGISTRY[identifier].architecture.load(dict(state)))
    if not isinstance(descriptor, ImageModelDescriptor):
        raise ValueError("it takes a mask beside the image")
    return descriptor


def attempt(call: Callable[[], T]) -> T:
    """Return what a call of spandrel returns.

    Raises:
        ValueError: In place of any other exception that misfits raise there.
    """
    try:
        return call()
    except _FAILURES as error:
        lines = [line.strip() for line in str(error).splitlines()] or [""]
        raise ValueError(f"{type(error).__name__}: {' '.join(lines[:2])[:200]}") from error


def check_numbers(state: Mapping[str, Tensor]) -> None:
    """Check that the layers of a state dict are numbered without large gaps.

    Raises:
        ValueError: They are not. A single huge number must not make anybody build that many layers.
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in state:
        for found in re.finditer(r"(?<![^.])([0-9]{1,9})(?=\.)", name):
            numbers[name[: found.start()]].add(int(found[1]))
    for parent, found in numbers.items():
        if max(found) >= _LAYERS_PER_NUMBER * len(found) + _MORE_LAYERS:
            raise ValueError(f"the numbers of the {len(found)} layers {parent}N have gaps")
