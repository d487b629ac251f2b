"""The files of a study: the key that translates identifiers to arms, and the votes that the page exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from shards.errors import InputError
from shards.format.storage import read_whole
from shards.schema import Count, Pattern, Positive, Range, SchemaError, Sha256, parse, parse_json

T = TypeVar("T")

STUDY_FILE = "study.json"
STUDY_FORMAT: Literal["sed-trainer study 1"] = "sed-trainer study 1"
VOTES_FORMAT: Literal["sed-trainer votes 1"] = "sed-trainer votes 1"
_MAX_BYTES = 4 * 2**20
"""A choice has about 200 bytes."""

Identifier = Annotated[str, Pattern(r"[0-9a-f]{12}", "12 lower-case hex digits")]
"""Of an arm, as the page and the votes name it."""
Voter = Annotated[str, Pattern(r"[0-9a-f]{16}", "16 lower-case hex digits")]
"""Drawn in the browser; nothing else about a person is stored."""


@dataclass(frozen=True)
class StudyImage:
    """One image of a study, and the window of it that is shown."""

    name: str
    top_px: Count
    left_px: Count
    side_px: Positive


@dataclass(frozen=True)
class Study:
    """The file that translates votes; whoever votes should not have it.

    Attributes:
        format: Of the file.
        study: SHA-256 of what is asked and of all pixels that are shown.
        question: Above the pictures.
        arms: Names by identifier.
        images: A choice names one by its index.
    """

    format: Literal["sed-trainer study 1"]
    study: Sha256
    question: str
    arms: Mapping[Identifier, str]
    images: tuple[StudyImage, ...]


@dataclass(frozen=True)
class Choice:
    """One answer.

    Attributes:
        image: Index of the study's image.
        left: Arm on the left.
        right: Arm on the right.
        chosen: The side, or neither.
        repeat: Whether the voter had answered this question before, with sides exchanged.
        original_shown: Whether the voter looked at the HR image.
        seconds: From the question to the answer.
    """

    image: Count
    left: Identifier
    right: Identifier
    chosen: Literal["left", "right", "neither"]
    repeat: bool
    original_shown: bool
    seconds: Annotated[float, Range(0)]


@dataclass(frozen=True)
class Ballot:
    """The choices of one voter, as the page exports them.

    Attributes:
        format: Of the file.
        study: Which study's page it was.
        voter: Who chose.
        started: When, by the voter's clock.
        choices: In the order of answering.
    """

    format: Literal["sed-trainer votes 1"]
    study: Sha256
    voter: Voter
    started: Annotated[str, Pattern(r"[0-9T:.Z-]{10,40}", "a date and time in ISO 8601")]
    choices: tuple[Choice, ...]


def read_study(path: Path) -> Study:
    """Read the key of a study.

    Raises:
        InputError: It cannot be read or is no such file; lists every fault with its place.
    """
    return _read(path, Study)


def read_ballot(path: Path) -> Ballot:
    """Read exported votes.

    Raises:
        InputError: They cannot be read or are no such file; lists every fault with its place.
    """
    return _read(path, Ballot)


def _read(path: Path, type_: type[T]) -> T:
    try:
        value = parse_json(read_whole(path, _MAX_BYTES))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except SchemaError as error:
        raise InputError(f"{path} is {error}; give the file as it was written") from None
    return parse(value, type_, str(path))
