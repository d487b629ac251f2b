"""Weight files: reading them without executing anything, and naming their content by a hash.

Guarantees: no pickle runs code. safetensors is plain data; torch's files go through its `weights_only`
reader; a TorchScript archive (OpenAI's CLIP) through a reader that knows tensors and containers and nothing
else. Whatever wants more is refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.weights.torchscript_archive import is_torchscript_archive, read_torchscript_archive

_WRAPPERS = ("params_ema", "params-ema", "params", "model_state_dict", "state_dict", "model", "net")
# What the readers raise for a file that is cut off or full of other bytes.
_DAMAGE = (
    *(SafetensorError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError),
    *(ValueError, TypeError, LookupError, AttributeError),
)
_PREFIXES = ("module.", "_orig_mod.", "netG.", "netD.", "generator.", "discriminator.")


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read the state dict of a weight file, whoever wrote it.

    Args:
        path: `.safetensors`, a torch file (`.pth`, `.pt`, `.ckpt`) or a TorchScript archive.

    Returns:
        Tensors on the CPU by name, unwrapped (`params_ema` before `params`) and without `module.`,
        `_orig_mod.`.

    Raises:
        CheckpointError: Missing, truncated, without tensors, or a pickle that wants to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file; give the path of a .safetensors, .pth or .pt file")
    try:
        loaded = _read(path)
    except CheckpointError:
        raise
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read as weights ({reason}); the file is damaged or truncated, copy it again"
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, reading it would run code or it is no weight file ({_first_reason(error)}); "
            "convert it to .safetensors where you trust it"
        ) from error
    state = strip_wrappers(loaded)
    if not state:
        raise CheckpointError(f"{path}: holds no tensors; expected a state dict or one under params_ema or params")
    return state


def read_metadata(path: Path | str) -> dict[str, str]:
    """Read the text metadata of a safetensors file; empty for any other kind of file.

    Raises:
        CheckpointError: The file claims to be safetensors and is not.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error}); copy it again") from error


def strip_wrappers(loaded: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a state dict's tensors from under what a trainer, DDP or `torch.compile` wrapped around them."""
    for name in _WRAPPERS:
        if isinstance(loaded.get(name), Mapping):
            return strip_wrappers(loaded[name])
    if len(loaded) == 1 and isinstance(only := next(iter(loaded.values())), Mapping):
        return strip_wrappers(only)
    state = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    return _strip_prefixes(state)


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Name a state dict by its content.

    Args:
        state: Tensors by name, on any device.

    Returns:
        SHA-256, in hex, over name, dtype, shape and little-endian bytes of each tensor, sorted by name.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(header).encode() + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_torchscript_archive(path):
        return read_torchscript_archive(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a state dict; export the weights alone")
    return loaded


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {name.replace("._orig_mod.", "."): tensor for name, tensor in state.items()}
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _strip_prefixes({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return state


def _first_reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line or "not an allowed" in line]
    return (named or lines or [type(error).__name__])[0]
