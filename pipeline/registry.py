"""Registries and the options of their entries; the registry class lives in `shards`, where operations register.

Nothing here imports torch, and a registry imports an implementation when it is first looked up, so that
`--help` and a mistyped flag do not wait for the networks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from pipeline.errors import ConfigError
from shards.registry import Named, Registry

__all__ = ["ArchitectureOptions", "Architectures", "RegisteredName", "Registry"]


class RegisteredName(str):
    """The name of an entry of one registry, as configurations hold it; a flag of this type lists the choices."""

    __slots__ = ()
    registry: ClassVar[Registry[Any]]


@dataclass(frozen=True, kw_only=True)
class ArchitectureOptions:
    """Options of one entry of a registry of architectures.

    Each registry has one direct subclass, which configurations name as the type of a field; the options class of the
    entry called `architecture` fills the field.
    """

    registry: ClassVar[Architectures[Any]]
    """The registry that `architecture` names an entry of."""
    unnamed: ClassVar[type[ArchitectureOptions] | None] = None
    """Options of a table that names no architecture but a file of initial weights; None where it has to."""

    architecture: str

    def __post_init__(self) -> None:
        """Check that the options are those of their architecture."""
        own = getattr(type(self), "architecture", self.architecture)
        if self.architecture != own:
            raise ConfigError(f"{type(self).__name__} are the options of {own!r}, not of {self.architecture!r}")


class Architecture(Named, Protocol):
    """What a registry of architectures holds."""

    options: type[Any]
    network: type[Any]


ArchitectureT = TypeVar("ArchitectureT", bound=Architecture)


class Architectures(Registry[ArchitectureT]):
    """A registry whose entries have options, which are known before the entry is imported."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self._options: dict[str, type[ArchitectureOptions]] = {}
        self._advice: dict[str, Callable[[str], str]] = {}

    def announce(self, options: type[ArchitectureOptions], module: str, names: Iterable[str] = ()) -> None:
        """Name an architecture of this package by its options, or several that share theirs.

        Args:
            options: Its `architecture` has the name as its default, unless several share it.
            module: Adds the architectures; it is imported when a network of theirs is first needed.
            names: Of those that share the options.
        """
        for name in tuple(names) or (options.architecture,):
            self._options[name] = options
            self._modules[name] = module

    def advise(self, prefix: str, advice: Callable[[str], str]) -> None:
        """Say what to do about an unknown name that begins with `prefix`; `advice` is given the rest of it."""
        self._advice[prefix] = advice

    def has_advice(self, name: str) -> bool:
        """Return whether there is advice on names of this kind."""
        return name.startswith(tuple(self._advice))

    def check(self, name: str) -> None:
        """See `Registry`; with the advice on names of this kind, if there is any."""
        try:
            super().check(name)
        except ConfigError as error:
            for prefix, advice in self._advice.items():
                if name.startswith(prefix):
                    raise ConfigError(f"{error}\n  {advice(name.removeprefix(prefix))}") from None
            raise

    def add(self, entry: ArchitectureT) -> ArchitectureT:
        """Register an architecture and return it.

        Raises:
            ValueError: The name is taken.
        """
        if self._options.get(entry.name, entry.options) is not entry.options:
            raise ValueError(f"a {self._kind} named {entry.name!r} is registered already")
        return super().add(entry)

    def options(self, name: str) -> type[ArchitectureOptions]:
        """Return the options class of a name.

        Raises:
            ConfigError: There is no such architecture; lists the nearest names, or all.
        """
        return self._options[name] if name in self._options else self[name].options

    def of(self, network: object) -> ArchitectureT:
        """Return the architecture of a bare network.

        Raises:
            ValueError: The network's class is of no registered architecture.
        """
        for entry in self:
            if type(network) is entry.network:
                return entry
        known = ", ".join(entry.network.__name__ for entry in self)
        raise ValueError(
            f"expected a bare {self._kind} ({known}), got {type(network).__name__}; unwrap it, or register it"
        )


def imported_on_first_use(package: str, names: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose modules import torch, so that importing the package does not.

    Args:
        package: Its `__name__`.
        names: What it exports, by the module that defines it.
    """
    homes = {name: module for module, exported in names.items() for name in exported}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return find


def unregistered(setting: str, name: str, registry: Registry[Any]) -> list[str]:
    """Return a fault if the registry has no implementation of that name."""
    try:
        registry.check(name)
    except ConfigError as error:
        return [f"{setting}={name!r}: {error}"]
    return []
