"""Configuration dataclasses from plain data (TOML, JSON) and back; every fault of a document is listed at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from cattrs.errors import BaseValidationError

from pipeline.errors import ConfigError
from shards.errors import InputError, shown
from shards.format.remote import RemotePath
from shards.format.storage import StoragePath, parse_local_path, parse_path
from shards.schema import KeyPath, explained, listed, strict_converter

T = TypeVar("T")

CONVERTER = strict_converter()
RUN_FOLDER_CONVERTER = strict_converter()
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
    except (BaseValidationError, InputError) as error:
        root: KeyPath = (table,) if table else ()
        raise ConfigError(listed(explained(error, root, type_), where, file_of)) from None


def to_plain(config: Any) -> Any:
    """Turn a configuration into plain data, the inverse of `structure`."""
    return CONVERTER.unstructure(config)


def _structure_path(value: object, _: type) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"expected a path, got {value!r}")
    return parse_local_path(value)


def _structure_storage_path(value: object, _: type) -> StoragePath:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"expected a path or a URL, got {value!r}")
    return parse_path(value)


def _structure_optional_storage_path(value: object, type_: type) -> StoragePath | None:
    return None if value is None else _structure_storage_path(value, type_)


def _structure_index_or_name(value: object, _: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"expected a whole number or a name, got {shown(value)}")
    return value


def _structure_number_or_auto(value: object, _: Any) -> int | str:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number or 'auto', got {shown(value)}")
    return value


for _converter in (CONVERTER, RUN_FOLDER_CONVERTER):
    _converter.register_structure_hook(Path, _structure_path)
    _converter.register_unstructure_hook(Path, str)
    _converter.register_structure_hook(StoragePath, _structure_storage_path)
    _converter.register_structure_hook(StoragePath | None, _structure_optional_storage_path)
    _converter.register_unstructure_hook(RemotePath, str)
    _converter.register_structure_hook(int | str, _structure_index_or_name)
    _converter.register_structure_hook(int | Literal["auto"], _structure_number_or_auto)
