"""Inputs that are not used, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RejectReason = Literal["truncated", "not-an-image", "too-small", "too-large", "unreadable", "transparent", "duplicate"]


@dataclass(frozen=True)
class Reject:
    """An input that is not used, and why."""

    path: str
    """`FOLDER/PATH`."""
    reason: RejectReason
    detail: str
