"""The document that `jobs/evaluate.py` wrote of a run, typed where it is read: its names become paths of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shards.errors import InputError
from shards.format.documents import read_document
from shards.schema import Count, FileName, Positive, SchemaError, Sha256

_MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class MeasuredSet:
    """The results on one set, by the names of `pipeline.inference.evaluate.result_names`.

    Attributes:
        mean: Over the finite values; None where there is none.
        interval: Its ends.
        images: Values of each image; None where one is not finite.
    """

    mean: Mapping[str, float | None]
    interval: Mapping[str, tuple[float, float] | None]
    images: Mapping[FileName, Mapping[str, float | None]]


@dataclass(frozen=True)
class MeasuredFile:
    """The whole document."""

    model: str
    weights_sha256: Sha256
    scale: Positive
    protocol: str
    sets: Mapping[FileName, MeasuredSet]
    not_computed: Mapping[str, str] = field(default_factory=dict)
    photo_notes: Mapping[str, Count] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @property
    def computed(self) -> set[str]:
        """The names of its results."""
        return {name for one in self.sets.values() for name in one.mean}


def read_measured_file(path: Path) -> MeasuredFile:
    """Read the document of one model.

    Raises:
        InputError: It is none that `jobs/evaluate.py` wrote.
    """
    try:
        return read_document(path, MeasuredFile, _MAX_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; delete it and rerun the command") from None
    except SchemaError as error:
        raise InputError(f"{path} is no evaluation: {error}\n  delete it and rerun the same command") from None
