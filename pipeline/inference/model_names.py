"""Names of models: a weight file, a run folder, or a registered version. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import CheckpointError
from pipeline.tracking.names import SCHEME
from shards.errors import InputError
from shards.format.storage import parse_local_path

BICUBIC = "bicubic"
"""Upscaling without a model, in tables of models."""

HR = "HR"
"""The ground truth, next to pictures of models."""

_RUN_FILES = ("config.json", "metrics.jsonl", "export/*", "checkpoints/*/*")


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


def run_folder(name: str) -> Path:
    """Return the run folder that a user names as a model, where a file is not enough.

    Raises:
        CheckpointError: There is nothing of that name.
        InputError: It is a file or a registered version, which hold one network.
    """
    check_model_exists(name)
    if name.startswith(SCHEME) or not parse_local_path(name).is_dir():
        raise InputError(f"{name} is the weights of one network; name the folder of its run, which has them all")
    return parse_local_path(name)


def model_files(names: Iterable[str]) -> list[Path]:
    """Return the local files and folders that named models are read from, those in a run folder included."""
    paths = [parse_local_path(name) for name in names if not name.startswith(SCHEME)]
    return [*paths, *(file for path in paths for pattern in _RUN_FILES for file in path.glob(pattern))]


def label_models(names: Sequence[str]) -> dict[str, str]:
    """Return models by short labels for tables and figures, in their order.

    A label is a run folder's name, a file's without its ending, or a registered name with its alias; where that is not
    distinct, all labels are that much more of the path.

    Raises:
        CheckpointError: A local model does not exist.
        InputError: A model is given twice.
    """
    for name in names:
        check_model_exists(name)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{', '.join(twice)} is given twice; a model is not compared with itself")
    parts = [_parts(name) for name in names]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len({BICUBIC, HR, *labels}) == len(names) + 2:
            return dict(zip(labels, names, strict=True))
    return {name: name for name in names}


def _parts(name: str) -> tuple[str, ...]:
    if name.startswith(SCHEME):
        return (name.removeprefix(SCHEME),)
    path = parse_local_path(name)
    return path.absolute().parts if path.is_dir() else path.absolute().with_suffix("").parts
