"""Turns plain data of unknown origin (JSON, TOML) into frozen dataclasses: every value is typed and bounded here.

The one parser of everything that this project reads from a file that others may have written: manifests,
sidecars, records, plans, recipes, checkpoints, presets. A field's annotation is its schema: the type, and in
`Annotated` its range or its pattern.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import cattrs
from cattrs.cols import is_namedtuple, namedtuple_dict_structure_factory
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override
from cattrs.v import format_exception

from shards.errors import InputError, shown

T = TypeVar("T")
Hook: TypeAlias = Callable[[Any, Any], Any]
KeyPath: TypeAlias = tuple[str | int, ...]
"""The place of a value in a document: the keys of its tables, then its own."""

MAX_DEPTH = 32
"""Levels of lists and tables in a document; ours have at most 10."""
_MAX_SHOWN_FAULTS = 20
_INT64 = 2**63


class SchemaError(InputError):
    """Plain data violate their schema; lists the faults with their paths."""


@dataclass(frozen=True)
class Range:
    """Inclusive range of a number."""

    least: float
    most: float = _INT64 - 1

    def fault(self, value: Any) -> str | None:
        """Return what is wrong with a value, if anything."""
        return None if self.least <= value <= self.most else f"must be from {self.least:,} to {self.most:,}"


@dataclass(frozen=True)
class Pattern:
    """Form of a text."""

    regex: str
    words: str
    """What it means, for errors."""

    def fault(self, value: str) -> str | None:
        """Return what is wrong with a value, if anything."""
        return None if re.fullmatch(self.regex, value) else f"must be {self.words}"


Sha256 = Annotated[str, Pattern(r"[0-9a-f]{64}", "64 lower-case hex digits")]
Seed = Annotated[str, Pattern(r"[0-9a-f]{32}", "32 lower-case hex digits")]
FileStem = Annotated[
    str, Pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", "a plain file name: letters, digits, _ - and inner dots")
]
"""Part of a file name that is joined to a folder: no separator, no dot at the start."""
FileName = Annotated[
    str,
    Pattern(
        r"(?!\.{1,2}\Z)[^/\0\ud800-\udc7f\udd00-\udfff]*", "the name of a file: no separator, and no dot or two alone"
    ),
]
"""Name that a user gave to a file or folder; bytes that are no UTF-8 are as `os.fsdecode` returns them."""
Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]


def parse_json(raw: bytes | str) -> Any:
    """Parse strict JSON: no NaN, no infinity, at most `MAX_DEPTH` levels.

    Raises:
        SchemaError: It is none.
    """
    try:
        value = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise SchemaError(f"not JSON of at most {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise SchemaError(f"not JSON ({error})") from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return value
    raise SchemaError(f"not JSON of at most {MAX_DEPTH} levels")


def _inner(value: Any) -> list[Any]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in children if isinstance(child, (dict, list))]


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def parse(value: object, type_: type[T], where: str) -> T:
    """Build a value of a type from plain data, strictly.

    Args:
        value: Tables as dicts.
        type_: Dataclass, or another type with a schema.
        where: What the data are, for the error.

    Raises:
        SchemaError: Lists unknown keys, missing fields and bad values, each with its path.
    """
    with contextlib.suppress(Exception):  # the slower converter raises it again, with every other fault
        return _FAST_CONVERTER.structure(value, type_)
    return structure_with(_CONVERTER, value, type_, where)


def structure_with(converter: cattrs.Converter, value: object, type_: type[T], where: str) -> T:
    """Do what `parse` does, with a converter of `strict_converter` that knows more types."""
    try:
        return converter.structure(value, type_)
    except (BaseValidationError, InputError, TypeError, ValueError) as error:
        raise SchemaError(listed(explained(error), where)) from None


def explained(error: BaseException, path: KeyPath = (), type_: Any = None) -> Iterator[tuple[KeyPath, str]]:
    """Yield each fault in what a strict converter raised: where it is, and what is wrong."""
    if isinstance(error, ForbiddenExtraKeysError):
        known = list(cast(Any, error.cl).__annotations__)
        for key in sorted(map(str, error.extra_fields)):
            yield (*path, key), _unknown_key(key, known)
    elif isinstance(error, (cattrs.ClassValidationError, cattrs.IterableValidationError)):
        inside, others = error.group_exceptions()
        for inner, note in inside:
            key = note.name if isinstance(note, cattrs.AttributeValidationNote) else note.index
            yield from explained(inner, (*path, key), note.type)
        for inner in others:
            yield from explained(inner, path)
    elif isinstance(error, (InputError, TypeError, ValueError)):
        yield path, str(error)
    else:
        yield path, format_exception(error, type_).replace("typing.", "")


def listed(faults: Iterable[tuple[KeyPath, str]], where: str, file_of: Callable[[KeyPath], str] = lambda _: "") -> str:
    """Return the message of some faults, one per line.

    Args:
        faults: From `explained`.
        where: What the data are.
        file_of: Name of the file that a fault is in, where that is another than `where`, else empty.
    """
    lines = [f"{text} @ {place_of(path)}" + (f" in {file}" if (file := file_of(path)) else "") for path, text in faults]
    more = [f"and {len(lines) - _MAX_SHOWN_FAULTS} more"] if len(lines) > _MAX_SHOWN_FAULTS else []
    return f"{where}: {len(lines)} fault(s)\n  " + "\n  ".join([*lines[:_MAX_SHOWN_FAULTS], *more])


def place_of(path: KeyPath) -> str:
    """Return a key path as text: `$.train.data.crop_px`."""
    return "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def _unknown_key(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {shown(key)}, {hint}"


def strict_converter(*, lists_faults: bool = True) -> cattrs.Converter:
    """Return a converter that takes each value as it is written: "12" and true are not numbers, 1.5 is not an int."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=lists_faults)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(int, _whole_number)
    for exact in (bool, str):
        converter.register_structure_hook(exact, _exactly)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _one_of)
    converter.register_structure_hook_func(_is_table_of_anything, _table)
    # A factory builds its hook once per type.
    converter.register_structure_hook_factory(_is_mapping, lambda kind: _mapping_hook(converter, kind))
    converter.register_structure_hook_factory(_is_tuple, lambda kind: _tuple_hook(converter, kind))
    converter.register_structure_hook_factory(_is_bounded_or_none, lambda kind: _optional_hook(converter, kind))
    converter.register_structure_hook_factory(_is_bounded, lambda kind: _bounded_hook(converter, kind))
    for is_record, make in (
        (dataclasses.is_dataclass, _fill_dataclass),
        (is_namedtuple, namedtuple_dict_structure_factory),
    ):
        converter.register_structure_hook_factory(
            is_record, lambda kind, make=make: _record_hook(make(kind, converter))
        )
    return converter


def _number(value: Any, _: type) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise TypeError(f"expected a finite number, got {shown(value)}")
    return float(value)


def _whole_number(value: Any, _: type) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {shown(value)}")
    if not -_INT64 <= value < _INT64:
        raise TypeError(f"expected a whole number of at most 64 bits, got {shown(value)}")
    return value


def _exactly(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {'true or false' if kind is bool else 'text'}, got {shown(value)}")
    return value


def _one_of(value: Any, kind: Any) -> Any:
    if not any(type(value) is type(allowed) and value == allowed for allowed in get_args(kind)):
        raise TypeError(f"expected one of {', '.join(map(repr, get_args(kind)))}, got {shown(value)}")
    return value


def _is_table_of_anything(kind: Any) -> bool:
    return kind is dict or (get_origin(kind) in (dict, Mapping) and get_args(kind) == (str, Any))


def _table(value: Any, _: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a table, got {shown(value)}")
    return value


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) is Mapping and not _is_table_of_anything(kind)


def _mapping_hook(converter: cattrs.Converter, kind: Any) -> Hook:
    """Return a hook that bounds keys and values; cattrs by itself ignores `Annotated`."""
    key_type, value_type = get_args(kind)
    key_hook, value_hook = converter.get_structure_hook(key_type), converter.get_structure_hook(value_type)

    def structure(value: Any, _: Any) -> dict[Any, Any]:
        return {key_hook(key, key_type): value_hook(inner, value_type) for key, inner in _table(value, kind).items()}

    return structure


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _tuple_hook(converter: cattrs.Converter, kind: Any) -> Hook:
    first, *others = get_args(kind)
    length = None if others == [...] else 1 + len(others)

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or length not in (None, len(value)):
            raise TypeError(f"expected a list{f' of {length}' if length else ''}, got {shown(value)}")
        return tuple(converter.structure(list(value), list[first]))

    return structure


def _is_bounded(kind: Any) -> bool:
    return get_origin(kind) is Annotated and any(isinstance(note, (Range, Pattern)) for note in kind.__metadata__)


def _bounded_hook(converter: cattrs.Converter, kind: Any) -> Hook:
    hook = converter.get_structure_hook(kind.__origin__)
    bounds = [note for note in kind.__metadata__ if isinstance(note, (Range, Pattern))]

    def structure(value: Any, _: Any) -> Any:
        taken = hook(value, kind.__origin__)
        for bound in bounds:
            if fault := bound.fault(taken):
                raise ValueError(f"{fault}; got {shown(taken)}")
        return taken

    return structure


def _is_bounded_or_none(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType) and _bounded_member(kind) is not None


def _bounded_member(kind: Any) -> Any:
    """Return the bounded type of `TYPE | None`; None for other types."""
    members = [member for member in get_args(kind) if member is not NoneType]
    return members[0] if len(members) == 1 and _is_bounded(members[0]) else None


def _optional_hook(converter: cattrs.Converter, kind: Any) -> Hook:
    """Return a hook that bounds what is not None; cattrs by itself ignores `Annotated`."""
    member = _bounded_member(kind)
    hook = converter.get_structure_hook(member)
    return lambda value, _: None if value is None else hook(value, member)


def _fill_dataclass(kind: Any, converter: cattrs.Converter) -> Hook:
    """Return a hook that fills a dataclass; cattrs by itself ignores `Annotated`."""
    plain, bounded = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    hooks: dict[str, Any] = {
        name: override(struct_hook=converter.get_structure_hook(hint))
        for name, hint in bounded.items()
        if hint != plain[name]
    }
    return make_dict_structure_fn(kind, converter, **hooks)


def _record_hook(fill: Hook) -> Hook:
    def structure(value: Any, kind: Any) -> Any:
        return fill(_table(value, kind), kind)

    return structure


_CONVERTER = strict_converter()
_FAST_CONVERTER = strict_converter(lists_faults=False)
