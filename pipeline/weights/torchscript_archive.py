"""Reads the tensors of a TorchScript archive without running anything.

OpenAI publishes CLIP as TorchScript. Such a file is a zip: `data.pkl` describes the tree of modules, `data/N` holds
the bytes. The description is a pickle; the unpickler here resolves tensors and containers and refuses every other
name. Modules become plain containers, and the program in the archive is never read.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}


class _Module:
    """Any scripted module: its attributes without its methods."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Reader(pickle.Unpickler):
    """Resolves tensors and containers of one archive and refuses every other name."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":
            return lambda values, *_: values
        raise pickle.UnpicklingError(f"the archive requires {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def is_torchscript_archive(path: Path) -> bool:
    """Return whether `path` is a zip that holds a TorchScript program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript_archive(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a TorchScript archive.

    Returns:
        Parameters, buffers and tensor attributes by their dotted name.

    Raises:
        pickle.UnpicklingError: The archive requires more than tensors and containers.
        zipfile.BadZipFile: The archive is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/", 1)[0]
        tree = _Reader(archive, root).load()
    if not isinstance(tree, _Module):
        raise pickle.UnpicklingError(f"the archive holds a {type(tree).__name__}, not a scripted module")
    tensors: dict[str, Tensor] = {}
    _collect(tree, "", tensors)
    return tensors


def _collect(node: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    for name, value in vars(node).items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", tensors)


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    # Safe on hostile sizes: torch itself refuses a view outside its storage.
    return torch.as_strided(storage, size, stride, offset).clone()
