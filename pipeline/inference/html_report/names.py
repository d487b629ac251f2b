"""Short names of models, for people: no two alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.tracking.names import SCHEME
from shards.errors import InputError
from shards.format.storage import parse_local_path

BICUBIC, HR = "bicubic", "HR"


def short_names(models: Sequence[str]) -> dict[str, str]:
    """Return each model by a short name: its folder, its file without the ending, or its registered name.

    Where two would be alike, the folders above are added until they differ.

    Args:
        models: As users name them.

    Raises:
        InputError: One is given twice.
    """
    parts = {model: _parts(model) for model in models}
    if len(set(parts.values())) < len(models):
        raise InputError(f"a model is given twice; got {', '.join(models)}; name each once")
    return {_shortest(own, parts): model for model, own in parts.items()}


def _parts(model: str) -> tuple[str, ...]:
    if model.startswith(SCHEME):
        return (model.removeprefix(SCHEME),)
    path = parse_local_path(model).resolve()
    return (path if path.is_dir() else path.with_suffix("")).parts


def _shortest(own: tuple[str, ...], parts: Mapping[str, tuple[str, ...]]) -> str:
    others = [other for other in parts.values() if other != own]
    for count in range(1, len(own)):
        ending = own[-count:]
        if ending not in {(BICUBIC,), (HR,)} and all(other[-count:] != ending for other in others):
            return Path(*ending).as_posix()
    return Path(*own).as_posix()
