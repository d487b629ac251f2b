"""Options of architectures that a registry names: how a configuration reads, writes and overrides them.

A field annotated with the base of a registry's options (`GeneratorOptions`) holds the options class of the entry that
its `architecture` names, one registered from outside the package included.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import cattrs
import tyro
from tyro.constructors import PrimitiveConstructorSpec, PrimitiveTypeInfo

from pipeline.errors import ConfigError
from pipeline.registry import ArchitectureOptions, RegisteredName
from shards.format.storage import parse_local_path

T = TypeVar("T")


def add_architectures(converter: cattrs.Converter, *, drops_foreign: bool) -> None:
    """Register the hooks by which a converter reads and writes fields annotated with a base of options.

    Args:
        converter: Changed in place.
        drops_foreign: Drop keys that only another architecture has. Run folders of earlier versions hold
            the options of all architectures in one table; in a preset such a key is a fault.
    """

    def structure(raw: object, base: type[ArchitectureOptions]) -> ArchitectureOptions:
        options = _options_of(raw, base)
        given = cast("Mapping[str, object]", raw)
        if drops_foreign:
            foreign = set(_field_names(*map(base.registry.options, base.registry.names))) - set(_field_names(options))
            given = {key: value for key, value in given.items() if key not in foreign}
        return converter.structure(given, options)

    converter.register_structure_hook(RegisteredName, _structure_name)
    converter.register_unstructure_hook(RegisteredName, str)
    converter.register_structure_hook_func(_is_base, structure)
    converter.register_unstructure_hook_func(_is_base, converter.unstructure)
    converter.register_structure_hook(int | tuple[int, ...], _structure_int_or_ints)


def architecture_flag(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[RegisteredName] | None:
    """Tell tyro the choices of a flag that names an entry of a registry."""
    kind = info.type
    if not (isinstance(kind, type) and issubclass(kind, RegisteredName)):
        return None
    names = kind.registry.names
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}",
        choices=names,
        instance_from_str=lambda words: kind(words[0]),
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [str(value)],
    )


def values_flag(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Mapping[str, Any]] | None:
    """Tell tyro how a flag fills a table whose values may be anything: by words such as `depths=[6,6]`."""
    if info.type != Mapping[str, Any]:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE ...",
        instance_from_str=lambda words: dict(map(_parse_value, words)),
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [f"{name}={json.dumps(entry)}" for name, entry in value.items()],
    )


def _parse_value(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not (name and equals):
        raise ValueError(f"expected NAME=VALUE, got {word!r}")
    try:
        return name, json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return name, text


def follow_architecture_flags(config: T, argv: Sequence[str]) -> T:
    """Replace options by those of the architecture that a flag names, such as `--generator.architecture swinir`.

    Values of options that both architectures have are kept; what only the new one requires becomes a required flag.
    An unknown name is left to the command-line parser, which lists the choices, unless there is advice on it.
    `--generator.initial-weights FILE`, as the only flag of the generator, asks for the network that the file holds.

    Raises:
        ConfigError: A flag is an option of another architecture than the one in use, or an unknown name is refused.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(cast("Any", config)):
        options = getattr(config, field.name)
        if isinstance(options, ArchitectureOptions):
            name = _last_value(argv, f"--{field.name}.architecture")
            if name is not None and options.registry.has_advice(name):
                options.registry.check(name)
            if name in options.registry.names and name != options.architecture:
                options = changes[field.name] = _switched(options, name)
            if _may_follow_file(options) and (file := _only_file(field.name, argv)) is not None:
                of_file: dict[str, Any] = {"initial_weights": file, "from_file": True}
                options = changes[field.name] = dataclasses.replace(options, **of_file)
            _refuse_foreign_flags(field.name, options, argv)
    return dataclasses.replace(cast("Any", config), **changes) if changes else config


def _may_follow_file(options: ArchitectureOptions) -> bool:
    """Return whether a file alone selects its network: one that is taken in part keeps the preset's."""
    # Here, since jobs that train nothing read their presets without any network's options.
    from pipeline.models.generators.options import FromFileOptions, GeneratorOptions

    if not isinstance(options, GeneratorOptions) or isinstance(options, FromFileOptions):
        return False
    return not options.initial_weights_partial


def _only_file(table: str, argv: Sequence[str]) -> Path | None:
    """Return the file of initial weights where a command line says nothing else of a network."""
    flag = f"--{table}.initial-weights"
    own = {_flag_name(word) for word in argv if word.startswith(f"--{table}.")}
    file = _last_value(argv, flag)
    return parse_local_path(file) if own == {flag} and file and file != "random" else None


def _refuse_foreign_flags(table: str, options: ArchitectureOptions, argv: Sequence[str]) -> None:
    own = set(_field_names(type(options)))
    for architecture in options.registry.names:
        for name in _field_names(options.registry.options(architecture)):
            flag = f"--{table}.{name}".replace("_", "-")
            if name not in own and flag in map(_flag_name, argv):
                raise ConfigError(
                    f"{flag} is an option of {architecture}, but {table}.architecture is {options.architecture}; "
                    f"drop the flag or add --{table}.architecture {architecture}"
                )


def _flag_name(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def _switched(old: ArchitectureOptions, name: str) -> ArchitectureOptions:
    # Unchecked, because the flags that follow may be what makes the values fit together; tyro builds it again, checked.
    new = old.registry.options(name)
    options = object.__new__(new)
    # Where several architectures share their options, the sizes of one mean nothing to another.
    known = set(_field_names(*new.__bases__ if type(old) is new else [type(old)]))
    # What cannot be set of options was never chosen, but checks between tables need a scale.
    chosen = [field.name for field in dataclasses.fields(old) if field.init or field.name == "scale"]
    kept = {field: getattr(old, field) for field in chosen} | {"architecture": type(old.architecture)(name)}
    for field in dataclasses.fields(new):
        default = tyro.MISSING if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        object.__setattr__(options, field.name, kept[field.name] if field.name in known & kept.keys() else default)
    return options


def _last_value(argv: Sequence[str], flag: str) -> str | None:
    found = None
    for index, word in enumerate(argv):
        if _flag_name(word) == flag.replace("_", "-"):
            _, equals, value = word.partition("=")
            found = value if equals else next(iter(argv[index + 1 :]), None)
    return found


def _is_base(kind: object) -> bool:
    return isinstance(kind, type) and ArchitectureOptions in kind.__bases__


def _options_of(raw: object, base: type[ArchitectureOptions]) -> type[ArchitectureOptions]:
    names = ", ".join(base.registry.names)
    if not isinstance(raw, Mapping):
        raise ConfigError(f"expected a table, got {raw!r}")
    if "architecture" not in raw and base.unnamed is not None and raw.get("initial_weights", "random") != "random":
        return base.unnamed
    if "architecture" not in raw:
        raise ConfigError(f"required field missing: architecture, one of {names}")
    if not isinstance(raw["architecture"], str):
        raise ConfigError(f"architecture must be one of {names}; got {raw['architecture']!r}")
    return base.registry.options(raw["architecture"])


def _field_names(*kinds: type[ArchitectureOptions]) -> Iterator[str]:
    return (field.name for kind in kinds for field in dataclasses.fields(kind))


def _structure_name(value: object, kind: type[RegisteredName]) -> RegisteredName:
    if not isinstance(value, str):
        raise ConfigError(f"expected a name, got {value!r}")
    kind.registry.check(value)
    return kind(value)


def _structure_int_or_ints(value: object, _: object) -> int | tuple[int, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values or any(isinstance(entry, bool) or not isinstance(entry, int) for entry in values):
        raise ConfigError(f"expected a whole number or a list of them, got {value!r}")
    whole = cast("tuple[int, ...]", tuple(values))
    return whole if isinstance(value, list | tuple) else whole[0]
