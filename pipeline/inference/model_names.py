"""Names of models: a weight file, a run folder, or a registered version. Nothing here imports torch."""

from __future__ import annotations

from pipeline.errors import CheckpointError
from pipeline.tracking.names import SCHEME
from shards.format.storage import parse_local_path


def check_model_exists(name: str) -> None:
    """Check that a local name is a file or folder; a registered version is not looked up.

    Raises:
        CheckpointError: It is neither.
    """
    if name.startswith(SCHEME):
        return
    path = parse_local_path(name)
    if not path.is_dir() and not path.is_file():
        raise CheckpointError(
            f"no such model: {name}; give a .safetensors or .pth file, a run folder, or models:/NAME@ALIAS"
        )
