"""Preset files: complete sets of values that flags override.

A preset may name a `base` and state only what differs from it. A run folder's `config.json` is a preset too. Which
dataclass a preset fills is the caller's choice, so a job that needs one table reads and checks only that table.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config.plain import structure
from pipeline.errors import ConfigError
from shards.format.storage import StoragePath, parse_local_path, read_whole
from shards.schema import KeyPath, SchemaError, parse_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_SUFFIXES = {".toml", ".json"}
_MAX_BYTES = 2**22

LAUNCH_TABLE = "launch"
"""The table of a run folder's `config.json` that records the launcher's decisions; not a setting, so it is not read."""


@dataclass(frozen=True)
class PresetFolder:
    """The presets that ship with the project, by name; any other preset by the path of its file."""

    path: Path
    kind: str = "preset"
    """What a file of the folder is called, in errors."""

    def names(self) -> list[str]:
        """Return the names of the shipped presets."""
        return sorted(path.stem for path in self.path.glob("*.toml"))

    def find(self, name_or_path: str) -> Path:
        """Return the file of a preset given by name, path, or run folder.

        Raises:
            ConfigError: There is no such preset; names the nearest.
        """
        given = parse_local_path(name_or_path) if name_or_path else Path()
        if given.is_dir() and (given / "config.json").is_file():
            return given / "config.json"
        if given.suffix in _SUFFIXES:
            if given.is_file():
                return given
            raise ConfigError(f"{self.kind} file {given} does not exist; known {self.kind}s: {', '.join(self.names())}")
        if name_or_path in self.names():
            return self.path / f"{name_or_path}.toml"
        near = difflib.get_close_matches(name_or_path, self.names(), 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"unknown {self.kind} {name_or_path!r}{hint}\n  known {self.kind}s: {', '.join(self.names())}\n"
            "  or give a .toml or .json file"
        )

    def load(
        self,
        name_or_path: str,
        type_: type[T],
        *,
        table: str = "",
        changes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> T:
        """Read a preset with its bases, and check it.

        Args:
            name_or_path: A shipped preset's name, a file, or a run folder.
            type_: Dataclass to fill.
            table: The only table to read, such as `shards`; empty: the whole document.
            changes: Documents that say what differs from the preset, each from the one before, by the name that errors
                give them.

        Raises:
            ConfigError: A file is missing or malformed, or has faults; lists them all, each with its file.
        """
        path = self.find(name_or_path)
        changed = reversed([*(changes or {}).items()])
        files: list[tuple[Path | str, Mapping[str, Any]]] = [*changed, *self._chain(path)]
        merged: dict[str, Any] = {}
        for _, document in reversed(files):
            merged = _merge(merged, document)
        if table and not isinstance(merged.get(table), Mapping):
            raise ConfigError(f"{self.kind} {path} has no table [{table}]; got {', '.join(merged) or 'an empty file'}")

        def file_of(key_path: KeyPath) -> str:
            stated_in = next((file for file, document in files if _states(document, key_path)), path)
            return "" if stated_in == path else str(stated_in)

        return structure(
            merged[table] if table else merged,
            type_,
            str(path),
            table=table,
            file_of=file_of,
            from_run_folder=path.suffix == ".json",
        )

    def _chain(self, path: Path) -> list[tuple[Path, dict[str, Any]]]:
        """Read a file, its base, the base's base, and so on."""
        files: list[tuple[Path, dict[str, Any]]] = []
        seen: list[Path] = []
        while True:
            document = _read(path, self.kind)
            base = document.pop("base", None)
            files.append((path, document))
            seen.append(path.resolve())
            if base is None:
                return files
            path = self._find_base(base, path)
            if path.resolve() in seen:
                chain = " -> ".join(str(file) for file in (*(file for file, _ in files), path))
                raise ConfigError(f"{self.kind} bases form a cycle: {chain}; remove one `base`")

    def _find_base(self, base: object, path: Path) -> Path:
        if not isinstance(base, str):
            raise ConfigError(
                f"{self.kind} {path}: base={base!r} must be the name of a {self.kind}, or a file beside this one"
            )
        try:
            given = parse_local_path(base) if base else Path()
            return self.find(str(path.parent / given) if given.suffix in _SUFFIXES else base)
        except ConfigError as error:
            raise ConfigError(f"base of {self.kind} {path}: {error}") from None


def load_resolved(path: StoragePath, type_: type[T]) -> T:
    """Read and check a file that states every value itself, such as a run folder's `config.json`.

    Raises:
        ConfigError: The file is missing or malformed, or has faults; lists them all.
    """
    return structure(_read(path, "preset"), type_, str(path), from_run_folder=True)


def _read(path: StoragePath, kind: str) -> dict[str, Any]:
    try:
        text = read_whole(path, _MAX_BYTES).decode("utf-8")
        document = parse_json(text) if path.name.endswith(".json") else tomllib.loads(text)
    except (OSError, SchemaError, ValueError, RecursionError) as error:  # TOML of a huge integer is a ValueError
        raise ConfigError(f"{kind} {path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{kind} {path} must hold tables; got {type(document).__name__}")
    if path.name.endswith(".json"):
        document.pop(LAUNCH_TABLE, None)
    return document


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base's tables with the changes in them.

    A table that names another `architecture` replaces the base's: the options of one network mean nothing to another.
    """
    is_other = {"architecture"} <= base.keys() & changes.keys() and base["architecture"] != changes["architecture"]
    merged = {} if is_other else dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged


def _states(document: Any, path: KeyPath) -> bool:
    """Return whether a file itself holds a key."""
    for key in path:
        if isinstance(key, str) and not (isinstance(document, Mapping) and key in document):
            return False
        if isinstance(key, int):
            return True  # an array is never merged: it is all of one file
        document = document[key]
    return True
