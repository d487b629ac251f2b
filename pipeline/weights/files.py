"""Weight files: read without executing anything, written whole, hashed.

Guarantees: reading runs no code, whatever the file; what it declares is compared with what it holds and with
`pipeline.weights.limits` before memory is allocated; and it ends with tensors or in a `CheckpointError`. The format
is recognised by the content, not by the name: files are renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.errors import CheckpointError, ConfigError
from pipeline.weights import not_weights, torch_files
from pipeline.weights.limits import check_size, description_limit, memory_limit
from shards.format.files import write_atomically
from shards.format.names import as_text

# Averaged weights before raw ones, as every tool of the field prefers them.
_WRAPPERS = ("params_ema", "params-ema", "params", "model_state_dict", "state_dict", "model", "net")
# What the readers raise for a truncated file, or for one that holds something else.
_DAMAGE = (
    *(SafetensorError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, MemoryError),
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, StopIteration),
)
_MAX_WRAPPERS = 8
_MAX_NAME_LENGTH = 1000
_PREFIXES = ("module.", "_orig_mod.", "netG.", "netD.", "generator.", "discriminator.")


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read the state dict of a weight file, whoever wrote it.

    Args:
        path: `.safetensors`, a torch file (`.pth`, `.pt`, `.ckpt`) or a TorchScript archive.

    Returns:
        Tensors on the CPU by name, unwrapped (`params_ema` before `params`), without the prefixes that DDP
        (`module.`), `torch.compile` (`_orig_mod.`) and trainers (`netG.`) add.

    Raises:
        CheckpointError: The file is missing, truncated, no weight file at all, without tensors or larger than the
            limit, or it requires more than tensors and containers.
    """
    path = Path(path)
    _check_is_file(path)
    try:
        _check_kind(path)
        state = strip_wrappers(_read(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except ConfigError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: {_first_line(error)}, which is more than tensors and may run code; get the weights as "
            ".safetensors, or a file that holds the state dict alone"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or _first_line(error)}") from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path}: cannot be read as weights ({_first_line(error)}); the file is damaged or truncated: "
            "copy or download it again"
        ) from error
    if not state:
        raise CheckpointError(f"{path}: holds no tensors; expected a state dict, alone or under params_ema or params")
    return state


def read_metadata(path: Path | str) -> dict[str, str]:
    """Return the text metadata of a safetensors file; empty for any other kind of file.

    Raises:
        CheckpointError: It is a safetensors file and damaged.
    """
    path = Path(path)
    try:
        if not _is_safetensors(path):
            return {}
        _check_header(path)
        with _utf8_path(path) as named, safe_open(named, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError, CheckpointError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({_first_line(error)}); copy it again") from error


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file whose header was checked, or that this program wrote.

    Raises:
        OSError: It cannot be opened.
        SafetensorError: It is damaged.
    """
    with _utf8_path(path) as named:
        return load_file(named)


@contextlib.contextmanager
def _utf8_path(path: Path) -> Iterator[Path]:
    """Yield a path of a file that safetensors opens: it refuses one whose bytes are no UTF-8."""
    if str(path) == as_text(str(path)):
        yield path
        return
    with path.open("rb") as file:
        yield Path(f"/dev/fd/{file.fileno()}")


def write_weights(path: Path | str, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a state dict as safetensors with text metadata; the file is replaced whole or left alone.

    Args:
        path: Target; its folder is made.
        state: Tensors by name, on any device.
        metadata: Text by name; the ModelSpec version is added. No date is: equal content has equal bytes.

    Raises:
        OSError: The file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    defaults = {"modelspec.sai_model_spec": "1.0.1"}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _with_sorted_metadata(save(tensors, metadata=defaults | dict(metadata))))


def strip_wrappers(loaded: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict without what a trainer, DDP or `torch.compile` wrapped around them.

    Raises:
        CheckpointError: It is wrapped in itself, or deeper than any trainer does.
    """
    for _ in range(_MAX_WRAPPERS):
        wrapped = _wrapped(loaded)
        if wrapped is None:
            state = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
            if any(len(name) > _MAX_NAME_LENGTH for name in state):
                raise CheckpointError(f"a tensor's name has more than {_MAX_NAME_LENGTH} letters, as no network's has")
            return _strip_prefixes(state)
        loaded = wrapped
    raise CheckpointError(f"its state dict is nested more than {_MAX_WRAPPERS} deep; give the state dict alone")


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


def _wrapped(loaded: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the state dict that an entry holds; None where `loaded` is the state dict itself."""
    for name in _WRAPPERS:
        if isinstance(loaded.get(name), Mapping):
            return loaded[name]
    only = next(iter(loaded.values())) if len(loaded) == 1 else None
    return only if isinstance(only, Mapping) else None


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f"{path} {not_weights.describe_folder(path)}")
    if not path.exists():
        raise CheckpointError(f"{path}: no such weight file; give the path of a .safetensors, .pth or .pt file")
    if not path.is_file():
        raise CheckpointError(f"{path} is a device or a pipe, not a file; give a .safetensors, .pth or .pt file")


def _check_kind(path: Path) -> None:
    if (kind := not_weights.describe(path)) is not None:
        raise CheckpointError(kind)


def _read(path: Path) -> Mapping[str, Any]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if not torch_files.is_torch_archive(names):
            raise CheckpointError(not_weights.describe_zip(names))
        loaded = torch_files.read_archive(path)
    elif _is_legacy(path):
        loaded = torch_files.read_legacy(path)
    else:
        _check_header(path)
        loaded = load_safetensors(path)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"holds a {type(loaded).__name__}, not a state dict; export the weights alone")
    return loaded


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{" and not zipfile.is_zipfile(path)


def _is_legacy(path: Path) -> bool:
    with path.open("rb") as file:
        return torch_files.is_legacy_file(file.read(32))


def _check_header(path: Path) -> None:
    """Compare the header of a safetensors file with the file and the limits.

    Raises:
        CheckpointError: The header alone, or the data, would be larger.
        struct.error: The file is shorter than a header.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        if file.read(1) != b"{":
            raise ValueError("it is neither safetensors nor a torch file")
    if header_bytes > size - 8:
        raise ValueError(f"its header should have {header_bytes} bytes, and the file has {size}")
    check_size(header_bytes, description_limit(), "its header describes tensors in a text")
    check_size(size, memory_limit(), "it holds tensors")


def _with_sorted_metadata(content: bytes) -> bytes:
    """Return a safetensors file with its metadata in the order of names; the library's order is random."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data is aligned
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _strip_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {name.replace("._orig_mod.", "."): tensor for name, tensor in state.items()}
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _strip_prefixes({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return state


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
