"""What one machine does with one configuration, measured by `jobs/plan.py --measure` and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from pipeline.errors import ConfigError
from shards.format.codecs import DEFAULT_CODEC
from shards.format.documents import read_document
from shards.format.files import write_atomically
from shards.schema import Positive, Range

Rate: TypeAlias = Annotated[float, Range(1e-9, 1e12)]
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class MachineProfile:
    """Rates of one GPU (or of the CPU, where there is none), one CPU core, and the shards' storage."""

    device: str
    """Name of the GPU or CPU, and torch's version."""
    date: str
    """Of the measurement, year first."""
    crop_px: Positive
    """Side of the HR crop that was measured."""
    extractor: str
    """Architecture, layer, and the way to the grid."""
    networks: str
    """Of the step: generator and discriminators."""
    step_batch: Positive
    """Images of the step that was timed."""
    step_images_per_second: Rate
    """Of a training step that is given its semantics, images/s."""
    extractor_images_per_second: Rate
    """Of the semantic extractor, crops/s."""
    loader_images_per_second: Rate
    """One loader process that reads, checks and cuts images alone, crops/s."""
    decode_images_per_second: Mapping[str, Rate]
    """One CPU core that decodes cached features, crops/s, by codec."""
    feature_bytes: Mapping[str, Rate]
    """Mean size of a cached feature, by codec."""
    read_mb_per_second: Rate
    """Storage of the shards, in 10^6 bytes/s."""

    def save(self, path: Path) -> None:
        """Write the profile as JSON."""
        write_atomically(path, (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode("ascii"))

    def require(self, *, crop_px: int, extractor: str, networks: str) -> None:
        """Refuse a profile of another configuration.

        Raises:
            ConfigError: Lists what differs, with both values.
        """
        needed = {"crop_px": crop_px, "extractor": extractor, "networks": networks}
        differing = [
            f"{name}: the profile has {getattr(self, name)!r}, the run needs {value!r}"
            for name, value in needed.items()
            if getattr(self, name) != value
        ]
        if differing:
            raise ConfigError(
                "the profile was measured for something else:\n  "
                + "\n  ".join(differing)
                + "\n  Measure again with --measure, or give another file with --profile"
            )


def load_profile(path: Path) -> MachineProfile:
    """Read a profile.

    Raises:
        InputError: It cannot be read, or is none.
    """
    try:
        profile = read_document(path, MachineProfile, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read the profile {path}: {error.strerror}; measure it with --measure") from error
    measured = set(profile.feature_bytes) & set(profile.decode_images_per_second)
    if DEFAULT_CODEC not in measured or measured != {*profile.feature_bytes, *profile.decode_images_per_second}:
        raise ConfigError(
            f"{path} has the sizes of {', '.join(profile.feature_bytes)} and the rates of "
            f"{', '.join(profile.decode_images_per_second)}; both of the same codecs, {DEFAULT_CODEC} among them, are "
            "needed; measure again with --measure"
        )
    return profile
