"""Named implementations of one contract: generators, discriminators, losses, metrics, degradation operations."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from shards.errors import ConfigError


class Named(Protocol):
    """Anything that a registry holds."""

    @property
    def name(self) -> str:
        """The name that configurations use."""
        ...


EntryT = TypeVar("EntryT", bound=Named)


class Registry(Generic[EntryT]):
    """Looks up implementations by the names that configurations use.

    Adding an implementation is one file and one line where its room's registry is built; `add` does the same from
    outside the package.

    Args:
        kind: What the entries are, for error messages.
        entries: Implementations of this package.
        modules: Modules of this package by the name of the implementation that each of them adds. They are imported
            when their implementation is first looked up, so that a command line knows the names without importing
            what torch is needed for.
    """

    def __init__(self, kind: str, entries: Iterable[EntryT] = (), modules: Mapping[str, str] | None = None) -> None:
        self._kind = kind
        self._modules = dict(modules or {})
        self._entries: dict[str, EntryT] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: EntryT) -> EntryT:
        """Register an implementation and return it.

        Raises:
            ValueError: The name is taken.
        """
        if entry.name in self._entries:
            raise ValueError(f"a {self._kind} named {entry.name!r} is registered already")
        self._entries[entry.name] = entry
        return entry

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of registration."""
        return tuple(dict.fromkeys((*self._modules, *self._entries)))

    def __iter__(self) -> Iterator[EntryT]:
        return (self[name] for name in self.names)

    def __getitem__(self, name: str) -> EntryT:
        """Return the implementation of a name.

        Raises:
            ConfigError: There is none; lists the nearest names, or all.
        """
        self.check(name)
        if name not in self._entries:
            importlib.import_module(self._modules[name])
        return self._entries[name]

    def check(self, name: str) -> None:
        """Check that a name has an implementation, without importing it.

        Raises:
            ConfigError: It has none; lists the nearest names, or all.
        """
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self.names)}"
            raise ConfigError(f"no {self._kind} is named {name!r}; {hint}")
