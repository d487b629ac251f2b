"""Weight files: read without executing anything, written whole, hashed.

Guarantees: reading runs no code. safetensors holds plain data; torch files go through torch's `weights_only` reader;
a TorchScript archive (OpenAI's CLIP) goes through a reader that resolves tensors and containers only. A file that
requires anything else is refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.weights.torchscript_archive import is_torchscript_archive, read_torchscript_archive
from shards.format.files import write_atomically

# Averaged weights before raw ones, as every tool of the field prefers them.
_WRAPPERS = ("params_ema", "params-ema", "params", "model_state_dict", "state_dict", "model", "net")
# What the readers raise for a truncated file, or for one that holds something else.
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
        Tensors on the CPU by name, unwrapped (`params_ema` before `params`), without the prefixes that DDP
        (`module.`), `torch.compile` (`_orig_mod.`) and trainers (`netG.`) add.

    Raises:
        CheckpointError: The file is missing, truncated or without tensors, or its pickle would run code.
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
            f"{path}: cannot be read as weights ({reason}); the file is damaged or truncated: copy or download it again"
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: reading it would run code, or it is not a weight file ({_first_reason(error)}); "
            "if you trust it, convert it to .safetensors"
        ) from error
    state = strip_wrappers(loaded)
    if not state:
        raise CheckpointError(f"{path}: holds no tensors; expected a state dict, alone or under params_ema or params")
    return state


def read_metadata(path: Path | str) -> dict[str, str]:
    """Return the text metadata of a safetensors file; empty for any other kind of file.

    Raises:
        CheckpointError: The file is named .safetensors, but cannot be read as such.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error}); copy it again") from error


def write_weights(path: Path | str, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a state dict as safetensors with text metadata; the file is replaced whole or left alone.

    Args:
        path: Target; its folder is made.
        state: Tensors by name, on any device.
        metadata: Text by name; the ModelSpec version and the date (UTC) are added.

    Raises:
        OSError: The file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    defaults = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, metadata=defaults | dict(metadata)))


def strip_wrappers(loaded: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict without what a trainer, DDP or `torch.compile` wrapped around them."""
    for name in _WRAPPERS:
        if isinstance(loaded.get(name), Mapping):
            return strip_wrappers(loaded[name])
    if len(loaded) == 1 and isinstance(only := next(iter(loaded.values())), Mapping):
        return strip_wrappers(only)
    state = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    return _strip_prefixes(state)


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Hash the content of a state dict; feature caches and checkpoints identify weights by it.

    Args:
        state: Tensors by name, on any device.

    Returns:
        SHA-256 in hex over name, dtype, shape and little-endian bytes of each tensor, sorted by name.
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
