"""Rewrites the corrupt shards of a dataset from its photos."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from shards.errors import InputError
from shards.format.manifest import Manifest
from shards.format.storage import StoragePath
from shards.write.dataset import write
from shards.write.execution import Executor
from shards.write.generations import read_generations
from shards.write.plan import Plan
from shards.write.sources import SourceFile, list_folders, name_sources


def find_photos(
    folder: StoragePath, source: Sequence[Path], lq_source: Sequence[Path] = ()
) -> tuple[tuple[Plan, ...], tuple[SourceFile, ...]]:
    """Return a dataset's plans, and the photos that they were made from.

    Args:
        folder: Dataset with its plans intact.
        source: Folders of photos, in the order given when the dataset was written.
        lq_source: Folders of their LQ images, for paired shards.

    Raises:
        InputError: A plan or a photo is missing, or there is not one folder of LQ images for each of photos.
    """
    plans = read_generations(folder)
    if not plans:
        raise InputError(f"{folder} has no plan.json to repair by; run jobs/shard.py with the original settings")
    if len(lq_source) != (0 if plans[0].settings.has_recipe else len(source)):
        raise InputError(
            f"--repair-lq names {len(lq_source)} folder(s), --repair {len(source)}; the shards in {folder} are "
            f"{plans[0].settings.degradation}: give one folder of LQ images for each of photos if they are paired, "
            "else none"
        )
    files = _find_files(source, lq_source, plans[0].settings.scale)
    missing = {photo.name for plan in plans for photo in plan.photos}
    missing -= {file.name for file in files if file.reject is None}
    if missing:
        raise InputError(
            f"--repair {' '.join(map(str, source))} lacks {len(missing)} of the shards' photos, such as "
            f"{min(missing)}; give the folders that the shards were made from, in the same order"
        )
    return plans, files


def _find_files(source: Sequence[Path], lq_source: Sequence[Path], scale: int) -> tuple[SourceFile, ...]:
    photos, lqs = list_folders(source, flag="--repair"), list_folders(lq_source, flag="--repair-lq")
    return name_sources(photos, lqs, scale)


def repair(
    folder: StoragePath,
    plans: Sequence[Plan],
    files: Sequence[SourceFile],
    broken_files: Collection[str],
    executor: Executor,
) -> Manifest:
    """Rewrite corrupt shards and the manifest.

    Args:
        folder: The dataset.
        plans: From `find_photos`.
        files: From `find_photos`.
        broken_files: Names of damaged or missing files in the folder.
        executor: Where the shards are written.

    Returns:
        The manifest, as written.

    Raises:
        ShardError: A photo has changed since, or storage failed.
    """
    shards = {shard.name for plan in plans for shard in plan.shards}
    broken = shards & {Path(file).stem for file in broken_files}
    executor.say(f"rewriting {len(broken)} of {len(shards)} shards")
    for name in broken:
        (folder / f"{name}.json").unlink(missing_ok=True)
    return write(plans, folder, files, executor)
