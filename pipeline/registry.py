"""Registries and the options of their entries; the registry class lives in `shards`, where operations register."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.errors import ConfigError
from shards.registry import Registry

__all__ = ["ArchitectureOptions", "RegisteredName", "Registry"]


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

    registry: ClassVar[Registry[Any]]
    """The registry that `architecture` names an entry of; each entry has its options class as `options`."""

    architecture: str

    def __post_init__(self) -> None:
        """Check that the options are those of their architecture."""
        own = getattr(type(self), "architecture", self.architecture)
        if self.architecture != own:
            raise ConfigError(f"{type(self).__name__} are the options of {own!r}, not of {self.architecture!r}")


def unregistered(setting: str, name: str, registry: Registry[Any]) -> list[str]:
    """Return a fault if the registry has no implementation of that name."""
    try:
        registry[name]
    except ConfigError as error:
        return [f"{setting}={name!r}: {error}"]
    return []
