"""Other projects' checkpoints in, and files that other projects read out.

Guarantees: a state dict is taken whole or refused with the full list of what is missing, unexpected or
misshapen; a P+SeD or U+SeD state dict in the reference's layout comes back from `to_reference_state_dict`
unchanged; a file is either written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.models.discriminators.base import Discriminator
from pipeline.models.discriminators.image import ImageDiscriminator
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d
from pipeline.models.generators.compact import SRVGGNetCompact
from pipeline.models.generators.inference import infer_generator
from pipeline.models.generators.rrdb import RRDBNet
from pipeline.models.generators.swinir.network import SwinIR
from pipeline.models.generators.swinir.windows import relative_position_index, shifted_window_mask
from pipeline.models.key_layouts import legacy_spectral_norm, rrdb_from_any, rrdb_to_kair, sed_name
from pipeline.weights.files import read_metadata, read_weights, strip_wrappers
from shards.format.files import write_atomically

_NUM_FAULTS_SHOWN = 4  # of each kind
_ARCHITECTURES = {RRDBNet: "esrgan", SwinIR: "swinir", SRVGGNetCompact: "realesrgan-compact"}


def load_reference_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights of the reference, or of any project that shares its networks, into one of ours.

    Generators: our own keys, Real-ESRGAN's and BasicSR's, KAIR's and SeD's, the first ESRGAN release's;
    SwinIR's, whose index buffers are checked for their names and then recomputed. Discriminators: SeD's and
    Real-ESRGAN's, with either kind of spectral norm. Wrappers (`params_ema`, `params`, `module.`,
    `_orig_mod.`) come off by themselves.

    Args:
        module: One of this package's networks; changed in place, and only if everything fits.
        state_dict: Tensors by name, of any floating dtype.

    Raises:
        CheckpointError: Keys are missing, unexpected or misshapen; lists them.
    """
    given = _to_our_layout(module, strip_wrappers(state_dict))
    wanted = module.state_dict()
    missing = [f"missing {name} {tuple(wanted[name].shape)}" for name in wanted if name not in given]
    unexpected = [f"unexpected {name} {tuple(given[name].shape)}" for name in given if name not in wanted]
    misshapen = [
        f"misshapen {name}: got {tuple(given[name].shape)}, needs {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if missing or unexpected or misshapen:
        raise CheckpointError(
            f"the weights do not fit {type(module).__name__}. Of its {len(wanted)} entries: {len(missing)} missing, "
            f"{len(misshapen)} misshapen; of the {len(given)} given: {len(unexpected)} unexpected. Use the weights of "
            "this architecture or build the network with their sizes\n  "
            + "\n  ".join(_sample(missing, unexpected, misshapen))
        )
    module.load_state_dict(given)


def _sample(*kinds: list[str]) -> list[str]:
    """Return a few faults of each kind, so that a long list of one does not hide the others."""
    shown = [fault for faults in kinds for fault in faults[:_NUM_FAULTS_SHOWN]]
    hidden = sum(map(len, kinds)) - len(shown)
    return [*shown, f"and {hidden} more"] if hidden else shown


def to_reference_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Return a network's state in the layout of the SeD release; the inverse of `load_reference_state_dict`.

    P, P+SeD, U and U+SeD get SeD's keys with the first kind of spectral norm; RRDBNet those of KAIR and SeD;
    SwinIR its index buffers; SRVGGNetCompact stays as it is.

    Raises:
        ValueError: The reference has no such network (the image-wise discriminator).
    """
    state = module.state_dict()
    if isinstance(module, Discriminator) and not isinstance(module, ImageDiscriminator):
        return {theirs: state[ours] for ours, theirs in _sed_names(module).items()}
    if isinstance(module, RRDBNet):
        return rrdb_to_kair(state)
    if isinstance(module, SwinIR):
        return state | _swinir_buffers(module)
    if isinstance(module, SRVGGNetCompact):
        return state
    raise ValueError(f"the reference has no layout for {type(module).__name__}; save its own state_dict instead")


def load_generator(path: Path | str) -> nn.Module:
    """Build and load the generator that a weight file holds, whoever trained it.

    Returns:
        RRDBNet, SwinIR or SRVGGNetCompact in evaluation mode, on the CPU, in float32.

    Raises:
        CheckpointError: The file cannot be read, or is of no architecture that this package knows.
    """
    state = read_weights(path)
    scale = read_metadata(path).get("scale", "")
    try:
        generator = infer_generator(state, scale=int(scale) if scale.isdigit() else None)
        load_reference_state_dict(generator, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return generator.eval()


def save_generator(path: Path | str, module: nn.Module, metadata: Mapping[str, str] | None = None) -> None:
    """Write a generator as safetensors, with ModelSpec metadata, in keys that spandrel and its users read.

    Args:
        path: Target; replaced whole or left alone.
        module: RRDBNet, SwinIR or SRVGGNetCompact, unwrapped.
        metadata: More text to keep with it; wins over the defaults.

    Raises:
        ValueError: `module` is no generator of this package.

    References:
        ModelSpec 1.0.1, https://github.com/Stability-AI/ModelSpec.
    """
    architecture = _ARCHITECTURES.get(type(module))
    if architecture is None:
        raise ValueError(f"save_generator takes a bare RRDBNet, SwinIR or SRVGGNetCompact; got {type(module).__name__}")
    state = to_reference_state_dict(module) if isinstance(module, SwinIR) else module.state_dict()
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    scale = str(module.scale)
    defaults = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "https://github.com/chaiNNer-org/spandrel",
        "modelspec.title": f"{type(module).__name__} x{scale}",
        "modelspec.date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "scale": scale,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, metadata=defaults | dict(metadata or {})))


def _to_our_layout(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(module, Discriminator):
        return _discriminator_to_ours(module, state)
    if isinstance(module, RRDBNet):
        return rrdb_from_any(state)
    if isinstance(module, SwinIR):
        buffers = _swinir_buffers(module)
        return {name: tensor for name, tensor in state.items() if name not in buffers}
    return state


def _discriminator_to_ours(module: Discriminator, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if state.keys() == module.state_dict().keys() or isinstance(module, ImageDiscriminator):
        return state
    ours = {theirs: ours for ours, theirs in _sed_names(module).items()}
    return {ours.get(name, name): tensor for name, tensor in legacy_spectral_norm(state).items()}


def _sed_names(module: Discriminator) -> dict[str, str]:
    normalised = {f"{name}.weight" for name, child in module.named_modules() if isinstance(child, SpectralNormConv2d)}
    return {name: sed_name(name, is_normalised=name in normalised) for name in module.state_dict()}


def _swinir_buffers(module: SwinIR) -> dict[str, Tensor]:
    """Build the buffers that official files carry and strict readers ask for."""
    side = -(-module.training_size_px // module.window_px) * module.window_px
    mask = shifted_window_mask(side, side, module.window_px)
    index = relative_position_index(module.window_px)
    buffers: dict[str, Tensor] = {}
    for name, block in module.named_modules():
        if name.endswith(".attn"):
            buffers[f"{name}.relative_position_index"] = index
        elif getattr(block, "shift_px", 0):
            buffers[f"{name}.attn_mask"] = mask
    return buffers
