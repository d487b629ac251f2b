"""How a generator of spandrel is built from its hyperparameters, recognised in files, and written.

What the files of an architecture do not tell cannot be chosen: an export is read back by anyone as the same network.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from spandrel import ImageModelDescriptor
from torch import Tensor

from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.generators.contract import GeneratorArchitecture, check_rgb
from pipeline.models.generators.options import GENERATORS, GeneratorName
from pipeline.models.generators.spandrel.network import (
    SpandrelGenerator,
    find_unreached,
    freeze,
    network_class,
    whole_state,
)
from pipeline.models.generators.spandrel.options import (
    PREFIX,
    TESTED,
    SpandrelOptions,
    Tested,
    how_to_try,
    tested_names,
    usable_names,
)
from pipeline.models.generators.spandrel.reading import SizesOnly, attempt, describe, find_id

_SCALES = ("scale", "upscale", "upscaling_factor", "up_scale")
_CHANNELS = {
    "in_ch",
    "in_channels",
    "in_chans",
    "inp_channels",
    "input_channels",
    "n_colors",
    "num_in_ch",
    "num_out_ch",
    "out_ch",
    "out_channels",
    "output_channels",
}
_REQUIRED = inspect.Parameter.empty
_TRAINING_ONLY = {"drop_rate", "attn_drop_rate", "drop_path_rate", "drop_path", "dropout"}
"""Hyperparameters without which a trained network is the same."""
_TOLERANCE = 0.02  # of a ratio that a whole number of channels was made from
_PROBE_SIDE_PX = 16


class SpandrelArchitecture(GeneratorArchitecture[SpandrelOptions]):
    """One architecture of spandrel; files have the network's own names.

    Args:
        name: As spandrel calls it.
        tested: What is known of it.
    """

    options = SpandrelOptions
    is_one_graph = False  # most of them compute tables for the size of the input

    def __init__(self, name: str, tested: Tested) -> None:
        self.name = f"{PREFIX}{name}"
        self.modelspec = name.lower()
        self._network = network_class(name)
        self.network = self._network
        self.precisions = ("float32", "bf16", "fp16") if tested.has_fp16 else ("float32", "bf16")
        self._tested = tested
        self._parameters = inspect.signature(self._network.bare).parameters
        self._scale = next(filter(self._parameters.__contains__, _SCALES), "")

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The hyperparameters that a configuration may set, with spandrel's defaults; `_REQUIRED`: it has none."""
        return {
            name: parameter.default
            for name, parameter in self._parameters.items()
            if name not in {*_CHANNELS, self._scale}
            and (parameter.default is _REQUIRED or not callable(parameter.default))
        }

    def build(self, options: SpandrelOptions) -> SpandrelGenerator:
        """See `GeneratorArchitecture`."""
        is_sketch = torch.get_default_device().type == "meta"
        given = self._arguments(options)
        # Whatever mode the caller is in: the network is probed with gradients.
        with torch.inference_mode(mode=False), torch.enable_grad():
            with torch.random.fork_rng(devices=[]), torch.device("cpu"), SizesOnly():
                sketch = attempt(lambda: self._network(**given))
            found = self._read_back(sketch, options)
            sketch.to("meta")
            side_px = _PROBE_SIDE_PX + found.size_requirements.get_padding(_PROBE_SIDE_PX, _PROBE_SIDE_PX)[0]
            unreached = attempt(lambda: find_unreached(sketch, side_px))
        arguments = {**_hyperparameters(found), **given}
        network = sketch if is_sketch else attempt(lambda: self._network(**arguments))
        freeze(network, unreached, self._tested.derived)
        network.adopt(options.scale, found.size_requirements)
        return network

    def recognise(self, state: Mapping[str, Tensor], scale: int | None) -> SpandrelOptions | None:
        """See `GeneratorArchitecture`."""
        identifier = find_id(state)
        if identifier is None or not self._network.bare.__module__.startswith(f"spandrel.architectures.{identifier}."):
            return None
        found = describe(state, identifier)
        if type(found.model) is not self._network.bare:
            return None
        check_rgb(self, found.input_channels, found.output_channels)
        defaults = self.hyperparameters
        read = {name: _plain(value) for name, value in _hyperparameters(found).items() if name in defaults}
        return SpandrelOptions(
            architecture=GeneratorName(self.name),
            scale=found.scale,
            hyperparameters={name: value for name, value in read.items() if value != _plain(defaults[name])},
        )

    def import_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `GeneratorArchitecture`. What the network computes itself is dropped."""
        for prefix in self._tested.prefixes:
            inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            state = inside or state
        patterns = [pattern for pattern in (self._tested.ignored, self._tested.derived) if pattern]
        return {name: value for name, value in state.items() if not any(re.match(one, name) for one in patterns)}

    def export_state(self, network: SpandrelGenerator) -> dict[str, Tensor]:
        """See `GeneratorArchitecture`."""
        return whole_state(network, self._tested.derived, self._tested.tables)

    def _arguments(self, options: SpandrelOptions) -> dict[str, Any]:
        """Return the arguments of the constructor that are not left to spandrel's defaults."""
        known, given = self.hyperparameters, dict(options.hyperparameters)
        if unknown := sorted(given.keys() - known.keys()):
            near = difflib.get_close_matches(unknown[0], known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ValueError(f"it has no hyperparameter {', '.join(map(repr, unknown))}; {hint}")
        if missing := [name for name, default in known.items() if default is _REQUIRED and name not in given]:
            raise ValueError(f"hyperparameters.{missing[0]} is required: spandrel has no default for it")
        if known.get("upsampler") == "" and options.scale > 1:
            given = {"upsampler": "pixelshuffle", **given}  # the default of these is for denoising, x1
        channels = {
            name: 3 for name in _CHANNELS & self._parameters.keys() if self._parameters[name].default is _REQUIRED
        }
        scale = {self._scale: options.scale} if self._scale else {}  # of a fixed one, `_read_back` refuses any other
        return {**channels, **given, **scale}

    def _read_back(self, sketch: SpandrelGenerator, options: SpandrelOptions) -> ImageModelDescriptor[Any]:
        """Let spandrel read the files that this network will have, and refuse a network that it takes for another."""
        state = whole_state(sketch, "", self._tested.tables)
        if empty := [name for name, tensor in state.items() if tensor.numel() == 0]:
            raise ValueError(f"{empty[0]} would hold no numbers: the sizes are too small for this architecture")
        identifier = find_id(state)
        found = None if identifier is None else describe(state, identifier)
        if found is None or type(found.model) is not self._network.bare:
            raise ValueError("spandrel would not recognise files of these sizes; use others")
        if found.scale != options.scale:
            raise ValueError(f"spandrel would take files of these sizes for x{found.scale}, not x{options.scale}")
        if found.size_requirements.square:
            raise ValueError("it takes square images alone")
        for name, value in options.hyperparameters.items():
            read = _hyperparameters(found).get(name)
            if name not in _TRAINING_ONLY and not _is_same(value, read):
                raise ValueError(
                    f"hyperparameters.{name}={value!r} leaves no trace in a weight file, and every reader of the "
                    f"export takes {_plain(read)!r}; leave {name} out, or give that value"
                )
        return found


def refuse_untested(state: Mapping[str, Tensor]) -> None:
    """Refuse a state dict of an architecture that spandrel reads and that is not used here.

    Raises:
        CheckpointError: Names it, those that are tested, and how to try it.
    """
    identifier = find_id(state)
    if identifier is None:
        return
    try:
        network_class(identifier)
        hint = how_to_try(identifier)
    except ConfigError:
        hint = f"those tested here are {tested_names()}"
    raise CheckpointError(
        f"it holds a network {identifier}, which spandrel reads, but which is not tested here as a generator of "
        f"this variant; {hint}"
    )


def _hyperparameters(found: ImageModelDescriptor[Any]) -> dict[str, Any]:
    """Return the arguments that spandrel built a network with, which it notes in it."""
    return vars(found.model)["hyperparameters"]


def _plain(value: Any) -> Any:
    """Return a hyperparameter as a preset holds it: lists for tuples, whole numbers for sizes that are whole."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_same(given: Any, read: Any) -> bool:
    one, other = _plain(given), _plain(read)
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=_TOLERANCE)
    return one == other


# All are built before one is registered: a wrong name in the environment registers none.
for _entry in [SpandrelArchitecture(name, TESTED.get(name, Tested("", ""))) for name in usable_names()]:
    GENERATORS.add(_entry)
