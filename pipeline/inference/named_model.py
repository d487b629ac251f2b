"""Any model a user can name: a weight file, a run folder, or a registered version."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint import CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.errors import CheckpointError
from pipeline.inference.model_names import check_model_exists
from pipeline.models.generators import Generator, build_generator, load_generator
from pipeline.tracking import registry
from pipeline.tracking.names import SCHEME
from pipeline.weights.files import read_metadata
from pipeline.weights.strict import load_strictly
from shards.format.storage import parse_local_path


@dataclass(frozen=True)
class NamedModel:
    """A loaded generator.

    Attributes:
        generator: In evaluation mode, on the CPU, in float32.
        scale: Its upscaling factor.
        weights: The file it was loaded from.
        run: The run folder it belongs to, where one was named.
    """

    generator: Generator
    scale: int
    weights: Path
    run: RunFolder | None


def open_model(name: str, *, unfinished: bool = False) -> NamedModel:
    """Load the generator that a user names.

    Args:
        name: A `.safetensors` or `.pth` file (ours, BasicSR's, Real-ESRGAN's, KAIR's, SeD's), a run folder, or
            `models:/NAME@ALIAS`.
        unfinished: Take a run's newest checkpoint, its moving average, where that is newer than its export.

    Raises:
        CheckpointError: It does not exist, is unfinished or damaged, or its architecture is unknown.
    """
    check_model_exists(name)
    if name.startswith(SCHEME):
        weights = registry.fetch(name)
    else:
        weights = parse_local_path(name)
        if weights.is_dir():
            return _open_run(name, RunFolder(weights), unfinished=unfinished)
    generator = load_generator(weights)
    return NamedModel(generator, generator.scale, weights, None)


def _open_run(name: str, run: RunFolder, *, unfinished: bool) -> NamedModel:
    exported = _exported_position(run)
    store = CheckpointStore(run.checkpoints)
    if unfinished and (exported is None or store.newest_position() > exported):
        found = store.newest_weights("average")
        if found is not None:
            generator = build_generator(run.read_config().train.generator).eval()
            load_strictly(generator, found[1])
            return NamedModel(generator, generator.scale, found[0], run)
    if not run.generator.is_file():
        raise CheckpointError(
            f"{name} holds no {run.generator.relative_to(run.path)} yet; a run writes it at its end. "
            f"Resume it: jobs/train_sed.py {name}"
        )
    generator = load_generator(run.generator)
    return NamedModel(generator, generator.scale, run.generator, run)


def _exported_position(run: RunFolder) -> int | None:
    """Return how many images the export had seen; None without one."""
    if not run.generator.is_file():
        return None
    # An export of another program is taken as the end of the run.
    images_seen = read_metadata(run.generator).get("images_seen", "")
    return int(images_seen) if images_seen.isdecimal() else sys.maxsize
