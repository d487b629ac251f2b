"""Any model a user can name: a weight file, a run folder, or a registered version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.errors import CheckpointError
from pipeline.models.generators import Generator, load_generator
from pipeline.tracking import registry
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


def open_model(name: str) -> NamedModel:
    """Load the generator that a user names.

    Args:
        name: A `.safetensors` or `.pth` file (ours, BasicSR's, Real-ESRGAN's, KAIR's, SeD's), a run folder, or
            `models:/NAME@ALIAS`.

    Raises:
        CheckpointError: It does not exist, is unfinished or damaged, or its architecture is unknown.
    """
    run = None
    if name.startswith(registry.SCHEME):
        weights = registry.fetch(name)
    elif (path := parse_local_path(name)).is_dir():
        run = RunFolder(path)
        weights = run.generator
        if not weights.is_file():
            raise CheckpointError(
                f"{name} holds no {weights.relative_to(run.path)} yet; a run writes it at its end. "
                f"Resume it: jobs/train_sed.py {name}"
            )
    else:
        weights = path
        if not weights.is_file():
            raise CheckpointError(
                f"no such model: {name}; give a .safetensors or .pth file, a run folder, or models:/NAME@ALIAS"
            )
    generator = load_generator(weights)
    return NamedModel(generator, generator.scale, weights, run)
