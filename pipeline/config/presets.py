"""Preset files and the flags that override them.

A preset is complete: a flag changes a value, never supplies a missing one. Every fault of a file is listed at once,
with its path and the nearest valid name. A run folder's `config.json` is a preset too.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import cattrs
import tyro
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.v import format_exception
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from pipeline.config.architectures import add_architectures, architecture_flag, follow_architecture_flags
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from shards.errors import InputError
from shards.format.storage import RemotePath, StoragePath, parse_path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

PRESET_DIR = Path(__file__).resolve().parents[2] / "jobs" / "presets"
DEFAULT_PRESET = "demo"

_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
_RUN_FOLDER_CONVERTER = cattrs.Converter(forbid_extra_keys=True)


def _structure_path(value: object, _: type) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"expected a path, got {value!r}")
    return Path(value)


def _structure_storage_path(value: object, _: type) -> StoragePath:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"expected a path or a URL, got {value!r}")
    return parse_path(value)


def _structure_number(value: object, type_: type) -> Any:
    """Take a number as written; "12" and true are not numbers, and 1.5 is no int."""
    if isinstance(value, bool) or not isinstance(value, (int, float) if type_ is float else int):
        raise ConfigError(f"expected {type_.__name__}, got {value!r}")
    return type_(value)


def _structure_exact(value: object, type_: type) -> Any:
    if not isinstance(value, type_):
        raise ConfigError(f"expected {'true or false' if type_ is bool else type_.__name__}, got {value!r}")
    return value


for _converter in (_CONVERTER, _RUN_FOLDER_CONVERTER):
    _converter.register_structure_hook(Path, _structure_path)
    _converter.register_unstructure_hook(Path, str)
    _converter.register_structure_hook(StoragePath, _structure_storage_path)
    _converter.register_unstructure_hook(RemotePath, str)
    for _number in (int, float):
        _converter.register_structure_hook(_number, _structure_number)
    for _exact in (bool, str):
        _converter.register_structure_hook(_exact, _structure_exact)
    add_architectures(_converter, drops_foreign=_converter is _RUN_FOLDER_CONVERTER)


def preset_names() -> list[str]:
    """Return the names of the presets that come with the project."""
    return sorted(path.stem for path in PRESET_DIR.glob("*.toml"))


def find_preset(name_or_path: str) -> Path:
    """Return the file of a preset given by name, by path, or by run folder.

    Raises:
        ConfigError: There is no such preset; names the nearest.
    """
    given = Path(name_or_path)
    if given.is_dir() and (given / "config.json").is_file():
        return given / "config.json"
    if given.suffix in {".toml", ".json"}:
        if given.is_file():
            return given
        raise ConfigError(f"preset file {given} does not exist; known presets: {', '.join(preset_names())}")
    if name_or_path in preset_names():
        return PRESET_DIR / f"{name_or_path}.toml"
    near = difflib.get_close_matches(name_or_path, preset_names(), 1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"unknown preset {name_or_path!r}{hint}\n  known presets: {', '.join(preset_names())}\n"
        "  or give a .toml or .json file"
    )


def load_preset(name_or_path: str) -> Preset:
    """Read and check a whole preset.

    Raises:
        ConfigError: The file is missing, is no TOML/JSON, or has faults; all are listed.
    """
    path = find_preset(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"preset {path} cannot be read: {error}") from error
    return structure(raw, Preset, str(path), from_run_folder=path.suffix == ".json")


def structure(raw: object, type_: type[T], where: str, *, from_run_folder: bool = False) -> T:
    """Build a dataclass from plain data, strictly.

    Args:
        raw: Tables as dicts.
        type_: Dataclass to build.
        where: Where the data come from, for the error.
        from_run_folder: Drop the options of other architectures, which run folders of earlier versions hold.

    Raises:
        ConfigError: Lists every unknown key, missing field and bad value, with its path.
    """
    try:
        return (_RUN_FOLDER_CONVERTER if from_run_folder else _CONVERTER).structure(raw, type_)
    except (cattrs.BaseValidationError, InputError) as error:
        lines = (
            cattrs.transform_error(error, "$", _explain)
            if isinstance(error, cattrs.BaseValidationError)
            else [str(error)]
        )
        raise ConfigError(f"{where}: {len(lines)} problem(s)\n  " + "\n  ".join(lines)) from None


def to_plain(config: Any) -> Any:
    """Turn a configuration into plain data, the inverse of `structure`."""
    return _CONVERTER.unstructure(config)


def _explain(error: BaseException, type_: type | None) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in dataclasses.fields(cast(Any, error.cl))]
        return "; ".join(_explain_key(key, known) for key in sorted(error.extra_fields))
    if isinstance(error, InputError) or "not in literal" in str(error):
        return str(error).replace("typing.", "")
    return format_exception(error, type_)


def _explain_key(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return f"unknown key {key!r}, " + (f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}")


def split_preset(argv: list[str]) -> tuple[str, list[str]]:
    """Split arguments into the preset (the first, if it is no flag; else the demo) and the rest."""
    if argv and not argv[0].startswith("-"):
        return argv[0], argv[1:]
    return DEFAULT_PRESET, argv


def apply_flags(default: T, argv: list[str], prog: str, description: str) -> tuple[T, bool]:
    """Apply dotted flags to a configuration.

    Args:
        default: The preset's values; they are what `--help` shows.
        argv: Flags such as `--data.crop-px 128` and `--dry-run`.
        prog: Command as a user types it.
        description: First lines of `--help`.

    Returns:
        The configuration, and whether `--dry-run` was given. Bad flags end the process with exit code 2 and the
        nearest valid name; `--help` with 0.
    """
    default = follow_architecture_flags(default, argv)
    config_type = Annotated[type(default), tyro.conf.arg(name="")]
    dry_run_type = Annotated[
        bool, tyro.conf.arg(help="Say what would be done, and touch nothing."), tyro.conf.FlagCreatePairsOff
    ]
    job_type = dataclasses.make_dataclass(
        "Job",
        [("config", config_type), ("dry_run", dry_run_type, dataclasses.field(default=False))],
        frozen=True,
    )
    job = tyro.cli(
        cast(Any, job_type),
        default=job_type(config=default),
        args=argv,
        prog=prog,
        description=description,
        registry=_flag_types(),
    )
    return job.config, job.dry_run


def _flag_types() -> ConstructorRegistry:
    """Return how flags become values, where tyro does not know it by itself."""

    def storage_path_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[StoragePath] | None:
        if info.type != StoragePath:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH|URL",
            instance_from_str=lambda words: parse_path(words[0]),
            is_instance=lambda value: isinstance(value, StoragePath),
            str_from_instance=lambda value: [str(value)],
        )

    registry = ConstructorRegistry()
    registry.primitive_rule(storage_path_rule)
    registry.primitive_rule(architecture_flag)
    return registry


def parse_job(argv: list[str], section: str, prog: str, description: str) -> tuple[Any, bool]:
    """Read a job's command line: an optional preset, then flags over one table of it.

    Args:
        argv: Arguments without the program's name.
        section: Table of the preset: `shards` or `train`.
        prog: Command as a user types it, for `--help`.
        description: First lines of `--help`.

    Returns:
        The table as its dataclass, and whether `--dry-run` was given.

    Raises:
        ConfigError: The preset is unknown or has faults.
    """
    name, flags = split_preset(argv)
    preset = load_preset(name)
    usage = f"{description}\n\nPreset: {name} (first argument; known: {', '.join(preset_names())})"
    return apply_flags(getattr(preset, section), flags, f"{prog} [PRESET]", usage)
