"""Named implementations of one contract: generators, discriminators, losses, metrics, degradation operations."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
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

    Adding an implementation is one file and one line in the list that its room's registry is built from; `add` does
    the same from outside the package.

    Args:
        kind: What the entries are, for error messages.
        entries: The implementations of this package.
    """

    def __init__(self, kind: str, entries: Iterable[EntryT]) -> None:
        self._kind = kind
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
        return tuple(self._entries)

    def __iter__(self) -> Iterator[EntryT]:
        return iter(self._entries.values())

    def __getitem__(self, name: str) -> EntryT:
        """Return the implementation of a name.

        Raises:
            ConfigError: There is none; lists the nearest names, or all.
        """
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self._entries)}"
            raise ConfigError(f"no {self._kind} is named {name!r}; {hint}")
        return self._entries[name]
