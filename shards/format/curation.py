"""Rules by which photos and sub-images are removed from a dataset, and the scores that they are applied to.

A score is a whole number of thousandths, at most `MAX_SCORE`, so that equal pixels have equal scores on every machine.
A photo carries its scores as text: its own, then those of each sub-image in the order of its grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int, UInt16

from shards.errors import InputError
from shards.format.rejects import ScoreReason
from shards.schema import Pattern

SCORE_NAMES = ("sharpness", "blockiness", "flat_share", "complexity")
"""The columns of a table of scores; `shards.write.scores` defines them."""
MAX_SCORE = 65_535
"""Larger scores are stored as this one, 65.535."""
MIN_SCORED_PX = 64
"""Smaller sub-images have too few pixels for a score."""
HASH_BITS = 256
MAX_NEAR_BITS = 64
"""Unrelated photos differ in 98 bits or more of 256 (3,403 pairs measured)."""

Scores: TypeAlias = UInt16[np.ndarray, "rows 4"]
"""Thousandths: the photo's row first, then one row for each sub-image."""
PackedScores: TypeAlias = Annotated[str, Pattern("([0-9a-f]{16})+", "16 lower-case hex digits for each row of scores")]
"""Scores as text, each four big-endian numbers of 16 bits."""
PerceptualHash: TypeAlias = Annotated[str, Pattern("[0-9a-f]{64}", "64 lower-case hex digits")]
DIGITS_PER_ROW = 16


class _Rule(NamedTuple):
    """One bound on one score."""

    option: str
    score: int
    is_minimum: bool
    reason: ScoreReason


# In this order: a flat image has no sharpness that could be measured, so that it is flat is the first reason.
_RULES = (
    _Rule("max_flat_share", 2, False, "flat"),
    _Rule("min_complexity", 3, True, "low-complexity"),
    _Rule("min_sharpness", 0, True, "blurred"),
    _Rule("max_blockiness", 1, False, "blocky"),
)
SCORE_REASONS: tuple[ScoreReason, ...] = tuple(rule.reason for rule in _RULES)


@dataclass(frozen=True)
class ScoreRules:
    """Bounds on the scores of a photo, or of a sub-image; without a bound nothing is removed."""

    min_sharpness: float | None = None
    """Second differences of neighbouring pixels per difference across two pixels: 0 is smooth, noise is above 1.
    Reason: blurred."""
    max_blockiness: float | None = None
    """Difference of neighbouring pixels at the borders of JPEG's blocks (8 px), per difference elsewhere: 1 is none.
    Reason: blocky."""
    max_flat_share: float | None = None
    """Share, 0 to 1, of cells of 8x8 px in which neighbouring pixels differ by less than one level of 255 on average.
    Reason: flat."""
    min_complexity: float | None = None
    """Mean difference of neighbouring pixels in levels of 255. Reason: low-complexity."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: Lists every fault.
        """
        faults = [
            f"{name}={value} must be from 0 to {_most(name):g}"
            for name, value in self.bounds.items()
            if not 0 <= value <= _most(name)
        ]
        if faults:
            raise InputError("; ".join(faults))

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are set, by the option's name."""
        found = {option.name: getattr(self, option.name) for option in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def broken(self, scores: Scores) -> Int[np.ndarray, " rows"]:
        """Return for each row of scores the number in `SCORE_REASONS` of the first rule that it breaks, or -1."""
        first = np.full(len(scores), -1)
        for number, rule in reversed([*enumerate(_RULES)]):
            bound = getattr(self, rule.option)
            if bound is not None:
                values = scores[:, rule.score] / 1000
                first[values < bound if rule.is_minimum else values > bound] = number
        return first

    def describe(self, reason_number: int, row: UInt16[np.ndarray, " 4"]) -> str:
        """Return what of a row of scores breaks a rule, such as `sharpness 0.21 is below min_sharpness=0.4`."""
        rule = _RULES[reason_number]
        side = "below" if rule.is_minimum else "above"
        value = row[rule.score] / 1000
        return f"{SCORE_NAMES[rule.score]} {value:.3f} is {side} {rule.option}={getattr(self, rule.option):g}"

    def excess(self, reason_number: int, row: UInt16[np.ndarray, " 4"]) -> float:
        """Return by how much a row of scores breaks a rule."""
        rule = _RULES[reason_number]
        return abs(row[rule.score] / 1000 - getattr(self, rule.option))


def _most(option: str) -> float:
    return 1.0 if option == "max_flat_share" else MAX_SCORE / 1000


@dataclass(frozen=True)
class CurationRules:
    """What is removed from a dataset for what it looks like, and counted by reason; nothing by default."""

    photo: ScoreRules = field(default_factory=ScoreRules)
    """A photo that breaks one of these is rejected."""
    sub_image: ScoreRules = field(default_factory=ScoreRules)
    """A sub-image that breaks one of these is dropped; its photo keeps the others."""
    near_duplicate_bits: int | None = None
    """Reject a photo whose perceptual hash of 256 bits differs in at most this many, 0 to 64, from that of a photo that
    is used, or of an evaluation image. Of near-duplicates the largest is used."""
    record_scores: bool = False
    """Record scores and hashes in the plan without any rule, to choose bounds by."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            InputError: `near_duplicate_bits` is out of range.
        """
        bits = self.near_duplicate_bits
        if bits is not None and not 0 <= bits <= MAX_NEAR_BITS:
            raise InputError(f"near_duplicate_bits={bits} must be from 0 to {MAX_NEAR_BITS}")

    @property
    def needs_scores(self) -> bool:
        """Whether photos and sub-images are scored."""
        return self.record_scores or bool(self.photo.bounds or self.sub_image.bounds)

    @property
    def needs_hashes(self) -> bool:
        """Whether photos are hashed."""
        return self.record_scores or self.near_duplicate_bits is not None

    def to_plain(self) -> dict[str, Any]:
        """Return the options that are set."""
        plain = {
            "photo": self.photo.bounds or None,
            "sub_image": self.sub_image.bounds or None,
            "near_duplicate_bits": self.near_duplicate_bits,
            "record_scores": self.record_scores or None,
        }
        return {name: value for name, value in plain.items() if value is not None}


def pack_scores(scores: Scores) -> str:
    """Return scores as text, see `PackedScores`."""
    return scores.astype(">u2").tobytes().hex()


def unpack_scores(text: str) -> Scores:
    """Return the scores that `pack_scores` made a text of."""
    return np.frombuffer(bytes.fromhex(text), ">u2").astype(np.uint16).reshape(-1, len(SCORE_NAMES))


def dropped_sub_images(scores: str | None, rules: CurationRules) -> dict[int, int]:
    """Return the numbers of a photo's sub-images that break a rule, each with the rule's number in `SCORE_REASONS`.

    Args:
        scores: The photo's; None where it has none.
        rules: Those of its dataset.
    """
    if scores is None or not rules.sub_image.bounds:
        return {}
    broken = rules.sub_image.broken(unpack_scores(scores)[1:])
    return {int(number): int(broken[number]) for number in np.flatnonzero(broken >= 0)}


def count_dropped(photos: Iterable[str | None], rules: CurationRules) -> dict[str, int]:
    """Count the dropped sub-images of photos by reason; reasons without any are absent.

    Args:
        photos: Scores of each.
        rules: Those of their dataset.
    """
    counts = np.zeros(len(SCORE_REASONS), int)
    for scores in photos:
        for number in dropped_sub_images(scores, rules).values():
            counts[number] += 1
    return {reason: int(count) for reason, count in zip(SCORE_REASONS, counts, strict=True) if count}
