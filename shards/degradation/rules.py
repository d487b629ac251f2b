"""Rules that fields of recipes and of drawn parameters obey; each failure names the field, the rule and the value."""

from __future__ import annotations

import math

from shards.errors import InputError

Range = tuple[float, float]
_TOLERANCE = 1e-9


def require(holds: bool, field: str, value: object, rule: str) -> None:
    """Raise an `InputError` unless a field obeys its rule."""
    if not holds:
        raise InputError(f"{field} must be {rule}; got {value}")


def require_finite(field: str, value: float, *, low: float, high: float) -> None:
    """Require a finite number from `low` to `high`."""
    require(math.isfinite(value) and low <= value <= high, field, value, f"from {low:g} to {high:g}")


def require_probability(field: str, value: float) -> None:
    """Require a number in [0, 1]."""
    require(0 <= value <= 1, field, value, "a probability in [0, 1]")


def require_range(field: str, value: Range, *, least: float) -> None:
    """Require [low, high] with `least` <= low <= high."""
    require(least <= value[0] <= value[1], field, list(value), f"[low, high] with {least} <= low <= high")


def require_mixture(table: object, names: tuple[str, ...]) -> None:
    """Require that the fields `NAME_probability` are the chances of one draw: each in [0, 1], 1 in sum."""
    values = {f"{name}_probability": getattr(table, f"{name}_probability") for name in names}
    for field, value in values.items():
        require_probability(field, value)
    total = sum(values.values())
    require(abs(total - 1) <= _TOLERANCE, " + ".join(values), f"{total:g}", "1 in sum")
