"""Configuration dataclasses from plain data (TOML, JSON) and back; every fault of a document is listed at once."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import cattrs
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.v import format_exception

from pipeline.errors import ConfigError
from shards.errors import InputError
from shards.format.storage import RemotePath, StoragePath, parse_local_path, parse_path

T = TypeVar("T")

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value stands in a document: the keys of its tables, then its own."""

CONVERTER = cattrs.Converter(forbid_extra_keys=True)
RUN_FOLDER_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
"""Reads what run folders of earlier versions hold; `pipeline.config.schema` adds the hooks of the networks to both."""


def structure(
    raw: object,
    type_: type[T],
    where: str,
    *,
    table: str = "",
    file_of: Callable[[KeyPath], str] = lambda _: "",
    from_run_folder: bool = False,
) -> T:
    """Build a dataclass from plain data, strictly.

    Args:
        raw: Tables as dicts, arrays as lists.
        type_: The dataclass.
        where: The document's name, for errors.
        table: Name of the table that `raw` is; empty: the whole document.
        file_of: Name of the file that a fault is in, where that is another than `where`, else empty.
        from_run_folder: Drop the options of other architectures, which run folders of earlier versions hold.

    Raises:
        ConfigError: Lists every unknown key, missing field and bad value, with its path.
    """
    try:
        return (RUN_FOLDER_CONVERTER if from_run_folder else CONVERTER).structure(raw, type_)
    except (cattrs.BaseValidationError, InputError) as error:
        root: KeyPath = (table,) if table else ()
        lines = [_line(path, text, file_of(path)) for path, text in _faults(error, root, type_)]
        raise ConfigError(f"{where}: {len(lines)} problem(s)\n  " + "\n  ".join(lines)) from None


def to_plain(config: Any) -> Any:
    """Turn a configuration into plain data, the inverse of `structure`."""
    return CONVERTER.unstructure(config)


def _line(path: KeyPath, text: str, file: str) -> str:
    place = "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return f"{text} @ {place}" + (f" in {file}" if file else "")


def _faults(error: BaseException, path: KeyPath, type_: Any) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in dataclasses.fields(cast(Any, error.cl))]
        for key in sorted(error.extra_fields):
            yield (*path, key), _unknown_key(key, known)
    elif isinstance(error, cattrs.ClassValidationError):
        inside, others = error.group_exceptions()
        for inner, note in inside:
            yield from _faults(inner, (*path, note.name), note.type)
        for inner in others:
            yield from _faults(inner, path, None)
    elif isinstance(error, cattrs.IterableValidationError):
        inside, _ = error.group_exceptions()
        for inner, note in inside:
            yield from _faults(inner, (*path, note.index), note.type)
    elif isinstance(error, InputError) or "not in literal" in str(error):
        yield path, str(error).replace("typing.", "")
    else:
        yield path, format_exception(error, type_)


def _unknown_key(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return f"unknown key {key!r}, " + (f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}")


def _structure_path(value: object, _: type) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"expected a path, got {value!r}")
    return parse_local_path(value)


def _structure_storage_path(value: object, _: type) -> StoragePath:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"expected a path or a URL, got {value!r}")
    return parse_path(value)


def _structure_number(value: object, type_: type) -> Any:
    # Strictly: "12" and true are not numbers, and 1.5 is not an int.
    if isinstance(value, bool) or not isinstance(value, (int, float) if type_ is float else int):
        raise ConfigError(f"expected {type_.__name__}, got {value!r}")
    return type_(value)


def _structure_exact(value: object, type_: type) -> Any:
    if not isinstance(value, type_):
        raise ConfigError(f"expected {'true or false' if type_ is bool else type_.__name__}, got {value!r}")
    return value


for _converter in (CONVERTER, RUN_FOLDER_CONVERTER):
    _converter.register_structure_hook(Path, _structure_path)
    _converter.register_unstructure_hook(Path, str)
    _converter.register_structure_hook(StoragePath, _structure_storage_path)
    _converter.register_unstructure_hook(RemotePath, str)
    for _number in (int, float):
        _converter.register_structure_hook(_number, _structure_number)
    for _exact in (bool, str):
        _converter.register_structure_hook(_exact, _structure_exact)
