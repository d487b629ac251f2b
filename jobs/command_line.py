"""The command line that all jobs share: a preset and dotted flags, or plain arguments; help with examples.

A job without any argument runs its part of the demo. Bad flags end the process with exit code 2 and the nearest valid
name, `--help` with 0. Nothing here imports torch, ray or mlflow, and a job imports its own work after parsing, so
that `--help` and a mistyped flag return at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, cast

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from pipeline.config.architectures import architecture_flag, follow_architecture_flags, values_flag
from pipeline.config.presets import PresetFolder
from shards.format.storage import StoragePath, parse_local_path, parse_path
from shards.secrets import argument_without_secrets

T = TypeVar("T")

PRESETS = PresetFolder(Path(__file__).parent / "presets")
DEFAULT_PRESET = "demo"


@dataclass(frozen=True)
class Call(Generic[T]):
    """A parsed command line."""

    preset: str
    config: T
    """The preset's values with the flags applied."""
    dry_run: bool


@dataclass(frozen=True)
class CommandLine:
    """The command line of one job."""

    program: str
    """As a user types it, such as `python jobs/shard.py`."""
    summary: str
    """What the job does, in a sentence or two."""
    examples: tuple[str, ...]
    """Arguments worth copying, each optionally with `# why`."""

    def parse(self, type_: type[T], argv: list[str]) -> T:
        """Parse plain arguments into a dataclass whose fields all have defaults."""
        shown, given = _hide_secrets(argv)
        types = _flag_types(given)
        return tyro.cli(type_, args=shown, prog=self.program, description=self._describe(), registry=types)

    def parse_preset(self, argv: list[str], load: Callable[[str], T]) -> Call[T]:
        """Take an optional preset as the first argument, then flags that override its values.

        Args:
            argv: Arguments without the program's name.
            load: Returns the values of a preset by its name or path.

        Raises:
            ConfigError: The preset is unknown or has faults.
        """
        is_given = bool(argv) and not argv[0].startswith("-")
        preset, flags = (argv[0], argv[1:]) if is_given else (DEFAULT_PRESET, argv)
        shipped = ", ".join(PRESETS.names())
        preset_line = f"PRESET: {preset} here. Shipped: {shipped}; or a .toml or .json file, or a run folder."
        description = f"{self._describe()}\n\n{preset_line}"
        config, dry_run = apply_flags(load(preset), flags, f"{self.program} [PRESET]", description)
        return Call(preset, config, dry_run)

    def _describe(self) -> str:
        return "\n".join([self.summary, "", "examples:", *(f"  {self.program} {line}" for line in self.examples)])


def apply_flags(default: T, flags: list[str], prog: str, description: str) -> tuple[T, bool]:
    """Apply dotted flags to a configuration.

    Args:
        default: The values to override; `--help` shows them.
        flags: Such as `--data.crop-px 128` and `--dry-run`.
        prog: Command as a user types it.
        description: First lines of `--help`.

    Returns:
        The configuration, and whether `--dry-run` was given.

    Raises:
        ConfigError: A flag is an option of another architecture than the one in use.
    """
    default = follow_architecture_flags(default, flags)
    config_type = Annotated[type(default), tyro.conf.arg(name="")]
    dry_run_type = Annotated[
        bool, tyro.conf.arg(help="Print what the job would do, without writing anything."), tyro.conf.FlagCreatePairsOff
    ]
    job_type = dataclasses.make_dataclass(
        "Job",
        [("config", config_type), ("dry_run", dry_run_type, dataclasses.field(default=False))],
        frozen=True,
    )
    shown, given = _hide_secrets(flags)
    job = tyro.cli(
        cast(Any, job_type),
        default=job_type(config=default),
        args=shown,
        prog=prog,
        description=description,
        registry=_flag_types(given),
    )
    return job.config, job.dry_run


def _hide_secrets(flags: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the flags in a form that tyro's errors may show, and the given URLs by that form."""
    shown = [argument_without_secrets(flag) for flag in flags]
    return shown, {_value_of(hidden): _value_of(flag) for hidden, flag in zip(shown, flags, strict=True)}


def _value_of(flag: str) -> str:
    return flag.partition("=")[2] if flag.startswith("--") else flag


def _flag_types(given: Mapping[str, str]) -> ConstructorRegistry:
    """Return the rules by which flags become values of types that tyro does not know.

    Args:
        given: URLs with their secrets, by the form that tyro sees.
    """

    def path_of(word: str) -> StoragePath:
        return parse_path(given.get(word, word))

    def storage_path_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[StoragePath] | None:
        if info.type not in (StoragePath, StoragePath | None):
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH|URL",
            instance_from_str=lambda words: path_of(words[0]),
            is_instance=lambda value: value is None or isinstance(value, StoragePath),
            str_from_instance=lambda value: [str(value)],
        )

    # tyro would make a flag of every key that the preset has, such as `--data.mix.s3://bucket/faces`.
    def shares_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Mapping[StoragePath, float]] | None:
        if info.type != Mapping[StoragePath, float]:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="PATH|URL SHARE ...",
            instance_from_str=lambda words: {path_of(folder): share for folder, share in _shares(words)},
            is_instance=lambda value: isinstance(value, Mapping),
            str_from_instance=lambda value: [
                word for folder, share in value.items() for word in (str(folder), str(share))
            ],
        )

    def local_path_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
        if info.type is not Path:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda words: parse_local_path(words[0]),
            is_instance=lambda value: isinstance(value, Path),
            str_from_instance=lambda value: [str(value)],
        )

    def local_paths_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[tuple[Path, ...]] | None:
        # Of a sequence of one path each, tyro would not show why one is refused.
        if info.type != tuple[Path, ...]:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="[PATH [PATH ...]]",
            instance_from_str=lambda words: tuple(map(parse_local_path, words)),
            is_instance=lambda value: isinstance(value, tuple) and all(isinstance(path, Path) for path in value),
            str_from_instance=lambda value: list(map(str, value)),
        )

    registry = ConstructorRegistry()
    registry.primitive_rule(local_path_rule)
    registry.primitive_rule(local_paths_rule)
    registry.primitive_rule(storage_path_rule)
    registry.primitive_rule(shares_rule)
    registry.primitive_rule(architecture_flag)
    registry.primitive_rule(values_flag)
    return registry


def _shares(words: list[str]) -> Iterator[tuple[str, float]]:
    """Yield pairs of a folder and its share."""
    if len(words) % 2:
        raise ValueError(f"expected pairs of a folder and its share, got {len(words)} words")
    for folder, share in zip(words[::2], words[1::2], strict=True):
        yield folder, float(share)
