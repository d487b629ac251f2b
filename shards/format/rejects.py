"""Inputs that are not used, and why; what was lost or assumed of those that are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RejectReason = Literal["truncated", "not-an-image", "too-small", "too-large", "unreadable", "transparent", "duplicate"]

PhotoNote = Literal["colour-space", "depth", "frames", "profile", "transparency"]
"""What the pixels in the shards do not show of a photo, or what was assumed of it."""

NOTE_TEXTS: dict[PhotoNote, str] = {
    "colour-space": "converted to sRGB from another colour space",
    "depth": "reduced to 8 bits",
    "frames": "only the first frame or page is used",
    "profile": "colour profile unreadable, taken as sRGB",
    "transparency": "composited on white",
}


@dataclass(frozen=True)
class Reject:
    """An input that is not used, and why."""

    path: str
    """`FOLDER/PATH`."""
    reason: RejectReason
    detail: str
