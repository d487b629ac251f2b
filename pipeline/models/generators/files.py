"""Weight files of generators: anyone's are read, ours are written in names that other tools read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.generators.contract import Generator, GeneratorArchitecture, build_generator
from pipeline.models.generators.options import GENERATORS, FromFileOptions, GeneratorOptions
from pipeline.weights.files import read_metadata, read_weights, strip_wrappers, write_weights
from pipeline.weights.initial import InitialWeights, read_initial_weights
from pipeline.weights.limits import check_size, memory_limit
from pipeline.weights.strict import check_fit, find_misfit, load_strictly
from shards.errors import InputError


def start_generator(options: GeneratorOptions, crop_px: int) -> tuple[Generator, InitialWeights]:
    """Build a generator to train on HR crops, with its initial weights where the options name a file, else random ones.

    Returns:
        The network, and the weights that it was given.

    Raises:
        ConfigError: The options do not fit together or to the crops; see `build_generator`.
        CheckpointError: The file is unreadable, or of another network.
    """
    generator = build_generator(options, crop_px)
    weights = initial_generator_weights(options, generator)
    weights.load_into(generator)
    return generator, weights


_TRAINING_ONLY = {"drop_path_rate", "gradient_checkpointing"}
"""Options without which a trained network is the same: no file tells them."""


def resolve_generator(options: GeneratorOptions) -> GeneratorOptions:
    """Return the options of the network to train, where its file of initial weights may decide (`from_file`).

    The network that the options describe is trained if the file fits it, else the one that the file holds. With a file
    that is not there yet the options stay as they are.

    Raises:
        CheckpointError: The file is unreadable, of no known architecture, or there is none and nothing else says what
            to train.
    """
    file = options.initial_file
    is_open = isinstance(options, FromFileOptions)
    if not options.from_file or file is None or not (file.exists() or is_open):
        return options
    state = _read_initial(file)
    if not is_open and _fits(options, state):
        return options
    try:
        found = _options_in(file, state)
    except InputError as error:
        raise CheckpointError(f"generator.initial_weights: {file}: {error}") from error
    shared = vars(options).keys() & vars(found).keys() & _TRAINING_ONLY
    kept = {"initial_weights": file, "from_file": True} | {name: vars(options)[name] for name in shared}
    return replace(found, **cast(Any, kept))


def _read_initial(file: Path) -> dict[str, Tensor]:
    try:
        return read_weights(file)
    except CheckpointError as error:
        raise CheckpointError(f"generator.initial_weights: {error}") from error


def _fits(options: GeneratorOptions, state: Mapping[str, Tensor]) -> bool:
    with torch.device("meta"):
        network = build_generator(options)
    return not find_misfit(network, GENERATORS[options.architecture].import_state(state))


def initial_generator_weights(options: GeneratorOptions, generator: Generator) -> InitialWeights:
    """Read what a generator starts from, and check it against the network, which may be on the `meta` device.

    Raises:
        CheckpointError: The file is unreadable, or of another network.
    """
    if options.initial_file is None:
        return InitialWeights()
    try:
        return read_initial_weights(
            generator,
            options.initial_file,
            GENERATORS.of(generator).import_state,
            partial=options.initial_weights_partial,
            option="generator.initial_weights",
        )
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_what_it_holds(options.initial_file)}") from error


def _what_it_holds(file: Path) -> str:
    """Return a line on the network in a file that does not fit, and how to train that one; empty if there is none."""
    try:
        found = _options_in(file, read_weights(file))
    except InputError:
        return ""
    return f"\n  the file holds {found.architecture} x{found.scale}; --generator.from-file trains that network"


def load_generator_weights(generator: Generator, state: Mapping[str, Any]) -> None:
    """Load anyone's weights of its architecture into a generator; it changes only if everything fits.

    Args:
        generator: Bare.
        state: Tensors by name, in any naming that the architecture knows, wrapped (`params_ema`, `module.`) or not.

    Raises:
        CheckpointError: Tensors are missing, unexpected or of another shape; lists them.
    """
    load_strictly(generator, GENERATORS.of(generator).import_state(strip_wrappers(state)))


def recognise_generator(state: Mapping[str, Any], scale: int | None = None) -> GeneratorOptions:
    """Read architecture and options off the names and shapes of a state dict.

    Args:
        state: Tensors by name, wrapped or not.
        scale: Upscaling factor, where it is known. Names alone do not tell an RRDBNet for x3 from one for x2 whose
            pixels are not unshuffled; without a scale the latter is assumed.

    Raises:
        CheckpointError: It is of no registered architecture, or its tensors do not fit together.
    """
    tensors = strip_wrappers(state)
    if empty := [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items() if tensor.numel() == 0]:
        raise CheckpointError(
            f"{len(empty)} tensors of the state dict hold no numbers ({', '.join(empty[:4])}); no network has such; "
            "use another copy of the file"
        )
    for architecture in GENERATORS:
        options = _options_of(architecture, tensors, scale)
        if options is not None:
            return options
    # Imported by the registry already, which has asked all architectures.
    from pipeline.models.generators.spandrel.architecture import refuse_untested

    refuse_untested(tensors)
    names = ", ".join(list(tensors)[:4]) or "no tensors"
    raise CheckpointError(
        f"the state dict is of no generator known here ({', '.join(GENERATORS.names)}); its names begin with {names}; "
        "a discriminator or another architecture cannot upscale images"
    )


def _options_of(
    architecture: GeneratorArchitecture[Any], state: Mapping[str, Tensor], scale: int | None
) -> GeneratorOptions | None:
    try:
        return architecture.recognise(state, scale)
    except CheckpointError:
        raise
    except (LookupError, ValueError, ArithmeticError, ConfigError) as error:
        raise CheckpointError(
            f"the state dict looks like the generator {architecture.name}, but its sizes do not fit together "
            f"({error}); use a file that holds the whole network"
        ) from error


def load_generator(path: Path | str) -> Generator:
    """Build and load the generator that a weight file holds, whoever trained it.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        CheckpointError: The file cannot be read, or is of no registered architecture.
    """
    state = read_weights(path)
    try:
        generator = build_generator(_options_in(path, state))
        load_generator_weights(generator, state)
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return generator.eval()


def _options_in(path: Path | str, state: Mapping[str, Tensor]) -> GeneratorOptions:
    """Return the options of the network that a weight file holds, which fits them."""
    scale = re.fullmatch(r"[1-9][0-9]?", read_metadata(path).get("scale", ""), re.ASCII)
    options = recognise_generator(state, scale=int(scale[0]) if scale else None)
    _check_sizes(options, state)
    return options


def _check_sizes(options: GeneratorOptions, state: Mapping[str, Tensor]) -> None:
    """Check a network against its file before it is built: a few sizes of a small file can make it huge.

    Raises:
        CheckpointError: The file does not hold the network, or the network is larger than the limit.
    """
    architecture: GeneratorArchitecture[Any] = GENERATORS[options.architecture]
    try:
        with torch.device("meta"):  # sizes alone
            network = architecture.build(options)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"the state dict looks like the generator {architecture.name}, but it cannot be built with its sizes "
            f"({str(error).splitlines()[0][:200]})"
        ) from error
    check_fit(network, architecture.import_state(state))
    num_bytes = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    check_size(num_bytes, memory_limit(), f"its network ({architecture.name}) has parameters and buffers")


def save_generator(path: Path | str, generator: nn.Module, metadata: Mapping[str, str] | None = None) -> None:
    """Write a generator as safetensors, with ModelSpec metadata, in names that spandrel and its users read.

    Args:
        path: Target; replaced whole or left alone.
        generator: Bare, of a registered architecture.
        metadata: More text to keep with it; wins over the defaults.

    Raises:
        ValueError: The network is of no registered architecture.

    References:
        ModelSpec 1.0.1, https://github.com/Stability-AI/ModelSpec.
    """
    architecture = GENERATORS.of(generator)
    scale = str(generator.scale)
    defaults = {
        "modelspec.architecture": architecture.modelspec,
        "modelspec.implementation": "https://github.com/chaiNNer-org/spandrel",
        "modelspec.title": f"{type(generator).__name__} x{scale}",
        "scale": scale,
    }
    write_weights(path, architecture.export_state(generator), defaults | dict(metadata or {}))
