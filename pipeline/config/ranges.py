"""How a section says which of its values are wrong: all of them at once."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.errors import ConfigError


def refuse(faults: Iterable[str | None]) -> None:
    """Refuse a section that has faults; None is no fault.

    Raises:
        ConfigError: There is one; lists them all.
    """
    found = [fault for fault in faults if fault]
    if found:
        raise ConfigError("; ".join(found))


def positive(**values: float) -> list[str]:
    """Return a fault for each value that is not above 0."""
    return [f"{name}={value} must be above 0" for name, value in values.items() if not value > 0]


def not_negative(**values: float) -> list[str]:
    """Return a fault for each value that is below 0."""
    return [f"{name}={value} must be 0 or above" for name, value in values.items() if not value >= 0]
