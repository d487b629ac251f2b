"""Inputs that are not used, and why; what was lost or assumed of those that are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

RejectReason = Literal[
    "truncated", "not-an-image", "too-small", "too-large", "unreadable", "transparent", "duplicate",
    "lq-missing", "lq-size", "hr-missing", "same-folder",
    "blurred", "blocky", "flat", "low-complexity", "no-sub-images", "near-duplicate",
]  # fmt: skip
"""`lq-missing`, `lq-size` and `hr-missing` are of pairs: HR without LQ, HR that is not scale times LQ, LQ without HR.
`same-folder` is a frame of a video that an evaluation image is of. The last six are of the rules of curation;
`no-sub-images` is a photo of which these drop all sub-images."""

ScoreReason = Literal["blurred", "blocky", "flat", "low-complexity"]
"""Which rule on its scores a photo or a sub-image breaks."""

CURATION_REASONS = frozenset({*get_args(ScoreReason), "no-sub-images", "near-duplicate"})
"""Reasons of photos that could be used, and that a rule removes."""

PhotoNote = Literal["colour-space", "depth", "frames", "profile", "transparency"]
"""What decoded pixels do not show of a photo, or what was assumed of it."""

NOTE_TEXTS: dict[PhotoNote, str] = {
    "colour-space": "converted to sRGB from another colour space",
    "depth": "reduced to 8 bits",
    "frames": "only the first frame or page is used",
    "profile": "colour profile unreadable, taken as sRGB",
    "transparency": "transparency composited on white",
}


@dataclass(frozen=True)
class Reject:
    """An input that is not used, and why."""

    path: str
    """`FOLDER/PATH`."""
    reason: RejectReason
    detail: str


def count_notes(photos: Iterable[Iterable[PhotoNote]]) -> dict[str, int]:
    """Count photos by note, notes sorted.

    Args:
        photos: The notes of each.
    """
    return dict(sorted(Counter(note for notes in photos for note in notes).items()))


def describe_notes(counts: Mapping[str, int], unit: str) -> list[str]:
    """Return one line per note, with the number of photos, called by `unit`."""
    return [f"{counts[note]} {unit}: {text}" for note, text in NOTE_TEXTS.items() if counts.get(note)]
