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
from shards.write.sources import SourceFile, discover


def find_photos(folder: StoragePath, source: Sequence[Path]) -> tuple[tuple[Plan, ...], tuple[SourceFile, ...]]:
    """Return a dataset's plans, and the photos that they were made from.

    Args:
        folder: Dataset with its plans intact.
        source: Folders of photos, in the order given when the dataset was written.

    Raises:
        InputError: A plan or a photo is missing.
    """
    plans = read_generations(folder)
    if not plans:
        raise InputError(f"{folder} has no plan.json to repair by; run jobs/shard.py with the original settings")
    files = discover(source, flag="--repair")
    missing = {photo.name for plan in plans for photo in plan.photos} - {file.name for file in files}
    if missing:
        raise InputError(
            f"--repair {' '.join(map(str, source))} lacks {len(missing)} of the shards' photos, such as "
            f"{min(missing)}; give the folders that the shards were made from, in the same order"
        )
    return plans, files


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
