"""Reads torch files and TorchScript archives without running anything.

Three formats share one description, a pickle: the zip that `torch.save` writes, the stream that it wrote before torch
1.6, and TorchScript (OpenAI's CLIP), whose modules become plain containers and whose program is never read. The
unpickler here resolves tensors and containers and refuses every other name. Every size that a file declares is compared
with the bytes that it holds, or with `pipeline.weights.limits`, before memory is allocated for it.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.weights.limits import check_size, description_limit, memory_limit

_DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
# Harmless parts of training checkpoints, none of which is a tensor with a name.
_IGNORED = {
    *(("collections", "Counter"), ("_codecs", "encode"), ("torch", "device"), ("torch", "Tensor")),
    *(("torch.nn.parameter", "Parameter"), ("torch.serialization", "_get_layout")),
    *((module, name) for module in ("builtins", "__builtin__") for name in ("set", "bytearray", "complex")),
}
# torch's magic number 0x1950a86a20f9469cfc6c, pickled with protocol 2.
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MAX_DIMENSIONS = 64
_MAX_SIDE = 2**40
_MAX_DEPTH = 64
_MAX_NAME_LENGTH = 1000


class _Table(dict[Any, Any]):
    """A dictionary of the file. Entries under keys other than text or numbers name no tensor and are dropped.

    Hashing a key of nested tuples may take for ever.
    """

    def __init__(self, items: Any = ()) -> None:
        super().__init__()
        for key, value in _sequence(items):
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) in {str, int}:
            super().__setitem__(key, value)


class _Module:
    """Any scripted module: its attributes without its methods."""

    def __init__(self) -> None:
        self.attributes: dict[Any, Any] = {}


class _Ignored:
    """Takes the place of what is no tensor, and takes whatever is put into it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


@dataclass(frozen=True)
class _Storage:
    content: Tensor
    """Bytes."""
    dtype: torch.dtype


# The unpickler in C reserves memory for whatever memo index a file names; the one in Python has a dictionary.
_PythonUnpickler: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]

_PLAIN_OPERATIONS = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.GLOBAL, pickle.STACK_GLOBAL),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2),
    *(pickle.LONG, pickle.LONG1, pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING),
    *(pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.UNICODE, pickle.BINUNICODE),
    *(pickle.SHORT_BINUNICODE, pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1),
    *(pickle.TUPLE2, pickle.TUPLE3, pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.PUT, pickle.BINPUT),
    *(pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINPERSID),
)


class _Reader(_PythonUnpickler):
    """Resolves tensors and containers and refuses every other name and operation.

    Args:
        stream: The pickle.
        load_storage: Returns the bytes of a storage by its key and its number of bytes.
    """

    def __init__(self, stream: io.BytesIO, load_storage: Callable[[str, int], Tensor]) -> None:
        super().__init__(stream, encoding="utf-8", errors="backslashreplace")
        self._load_storage = load_storage
        self._num_expanded_bytes = 0

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._rebuild
        if (module, name) == ("torch._utils", "_rebuild_tensor_v3"):
            return self._rebuild_untyped
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return _first
        if module == "torch.jit._pickle":
            return _first
        if (module, name) in (("collections", "OrderedDict"), ("torch", "Size")):
            return _Table if name == "OrderedDict" else _sequence
        if module in ("torch", "torch.storage", "torch.cuda") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) in _IGNORED:
            return _Ignored
        raise pickle.UnpicklingError(f"it requires {module[:80]}.{name[:80]}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, numel, *rest = _sequence(pid)
        is_typed = isinstance(dtype, torch.dtype) and type(key) is str and type(numel) is int
        if not is_typed or numel < 0 or any(view is not None for view in rest):
            raise pickle.UnpicklingError("it refers to something that is no storage of a tensor")
        return _Storage(self._load_storage(key, numel * dtype.itemsize), dtype)

    def _rebuild(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
        return self._rebuild_untyped(storage, offset, size, stride, None, None, storage.dtype)

    def _rebuild_untyped(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
        dtype, shape = rest[2], [*_sequence(size), *_sequence(stride), offset]
        if len(shape) > 2 * _MAX_DIMENSIONS + 1 or not all(type(n) is int and 0 <= n < _MAX_SIDE for n in shape):
            raise ValueError("the shape of a tensor is no list of sizes")
        if not isinstance(dtype, torch.dtype):
            raise TypeError("the dtype of a tensor is none")
        elements = storage.content.view(dtype)
        numel = math.prod(size)
        if numel > elements.numel():
            # One element may stand for many (stride 0), and will take memory once the tensor is copied.
            self._num_expanded_bytes += numel * dtype.itemsize
            check_size(self._num_expanded_bytes, memory_limit(), "it declares tensors")
        return torch.as_strided(elements, tuple(size), tuple(stride), offset)  # checks the bounds

    def _load_empty_table(self) -> None:
        self.append(_Table())

    def _load_table(self) -> None:
        items = self.pop_mark()
        self.append(_Table(list(zip(items[::2], items[1::2], strict=True))))

    def _load_call(self) -> None:
        arguments = _sequence(self.stack.pop())
        self.stack[-1] = self.stack[-1](*arguments)

    def _load_state(self) -> None:
        # Attributes of anything but modules, such as the versions in `_metadata`, are no tensors.
        state, built = self.stack.pop(), self.stack[-1]
        if isinstance(built, _Module) and isinstance(state, _Table):
            built.attributes.update(state)

    def _load_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _load_items(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, (_Table, _Ignored)):
            raise TypeError("it sets an item of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key] = value

    def _load_element(self) -> None:
        self._extend([self.stack.pop()])

    def _load_elements(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(values)

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("it uses an operation that no weight file needs")

    dispatch: ClassVar[dict[int, Any]] = {
        **dict.fromkeys(_PythonUnpickler.dispatch, _refuse),
        **{operation[0]: _PythonUnpickler.dispatch[operation[0]] for operation in _PLAIN_OPERATIONS},
        pickle.EMPTY_DICT[0]: _load_empty_table,
        pickle.DICT[0]: _load_table,
        pickle.REDUCE[0]: _load_call,
        pickle.NEWOBJ[0]: _load_call,
        pickle.BUILD[0]: _load_state,
        pickle.SETITEM[0]: _load_item,
        pickle.SETITEMS[0]: _load_items,
        pickle.APPEND[0]: _load_element,
        pickle.APPENDS[0]: _load_elements,
    }


def _sequence(value: Any) -> tuple[Any, ...] | list[Any]:
    """Return a tuple or list as it is; a tensor would be iterated over too, element by element."""
    if type(value) not in {tuple, list}:
        raise TypeError(f"it has a {type(value).__name__} in the place of a list")
    return value


def _first(value: Any, *_: Any) -> Any:
    return value


def is_torch_archive(names: list[str]) -> bool:
    """Return whether a zip with these entries is one of torch's."""
    return any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names)


def is_legacy_file(start: bytes) -> bool:
    """Return whether a file that starts so is one that `torch.save` wrote before torch 1.6."""
    return start.startswith(_LEGACY_START)


def read_archive(path: Path) -> Any:
    """Read a zip of `torch.save` or of TorchScript.

    Returns:
        What was saved; of a scripted module all its tensors by their dotted names.

    Raises:
        CheckpointError: It declares more than the limit.
        pickle.UnpicklingError: It requires more than tensors and containers.
        Exception: It is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        check_size(sum(entry.file_size for entry in archive.infolist()), memory_limit(), "it declares contents")
        description = next(name for name in archive.namelist() if is_torch_archive([name]))
        root = description.partition("/")[0]
        check_size(archive.getinfo(description).file_size, description_limit(), "it describes its tensors in a pickle")
        if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in archive.infolist()):
            raise pickle.UnpicklingError("it is compressed in a way that torch never uses")
        if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") != b"little":
            raise pickle.UnpicklingError("it was written on a big-endian machine")
        storages: dict[str, Tensor] = {}

        def load_storage(key: str, num_bytes: int) -> Tensor:
            if key not in storages:
                content = bytearray(archive.read(f"{root}/data/{key}"))
                storages[key] = torch.frombuffer(content, dtype=torch.uint8) if content else _no_bytes()
            return _part(storages[key], num_bytes)

        tree = _Reader(io.BytesIO(archive.read(description)), load_storage).load()
    return _tensors_of(tree) if isinstance(tree, _Module) else tree


def read_legacy(path: Path) -> Any:
    """Read a file that `torch.save` wrote before torch 1.6: four pickles, then the storages one after another.

    Raises:
        CheckpointError: Its description is larger than the limit.
        pickle.UnpicklingError: It requires more than tensors and containers.
        Exception: It is damaged.
    """
    with path.open("rb") as file:
        head = io.BytesIO(file.read(description_limit()))
        storages: dict[str, Tensor] = {}
        num_bytes_left = path.stat().st_size

        def load_storage(key: str, num_bytes: int) -> Tensor:
            nonlocal num_bytes_left
            if key not in storages:
                num_bytes_left -= num_bytes
                if num_bytes_left < 0:
                    raise EOFError("it declares more bytes of tensors than it has")
                storages[key] = torch.empty(num_bytes, dtype=torch.uint8)
            return _part(storages[key], num_bytes)

        _, _, system, tree, keys = (_Reader(head, load_storage).load() for _ in range(5))
        if system.get("little_endian") is False:
            raise pickle.UnpicklingError("it was written on a big-endian machine")
        file.seek(head.tell())
        _fill(file, keys, storages)
    return tree


def _fill(file: BufferedReader, keys: Any, storages: dict[str, Tensor]) -> None:
    if type(keys) is not list or not all(type(key) is str for key in keys) or {*keys} != storages.keys():
        raise ValueError("its list of storages is not that of its tensors")
    for key in keys:
        content = storages[key]
        buffer: Any = content.numpy()
        (numel,) = struct.unpack("<q", file.read(8))
        # The number of elements, whose size only the tensors know.
        is_right = numel == 0 if not content.numel() else numel > 0 and content.numel() % numel == 0
        if not is_right or file.readinto(buffer) != content.numel():
            raise EOFError("its tensors end before they should")


def _part(storage: Tensor, num_bytes: int) -> Tensor:
    if num_bytes > storage.numel():
        raise EOFError(f"a tensor needs {num_bytes} bytes of a storage that has {storage.numel()}")
    return storage[:num_bytes]


def _no_bytes() -> Tensor:
    return torch.empty(0, dtype=torch.uint8)


def _tensors_of(tree: _Module) -> dict[str, Tensor]:
    """Return all tensors of a tree of modules, which may refer to itself."""
    tensors: dict[str, Tensor] = {}
    waiting, seen = [("", tree, 0)], {id(tree)}
    while waiting:
        prefix, module, depth = waiting.pop()
        for attribute, value in module.attributes.items():
            name = f"{prefix}{attribute}"
            if isinstance(value, Tensor):
                tensors[name] = value
            elif isinstance(value, _Module) and id(value) not in seen:
                if depth == _MAX_DEPTH or len(name) > _MAX_NAME_LENGTH:
                    raise CheckpointError("its modules are nested deeper than any network's")
                seen.add(id(value))
                waiting.append((f"{name}.", value, depth + 1))
    return tensors
