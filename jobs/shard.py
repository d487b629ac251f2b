"""Write shards of a folder of photos, with Ray.

Surveys the photos, plans every shard, writes what is missing, and publishes the manifest last. Kill it at any
moment and run the same command again: finished shards are kept, and the output is byte for byte that of an
undisturbed run. Run it again with more photos in the source: they get shards of their own, as a new generation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from jobs.ray_tasks import RaySession, ray_session
from jobs.sample_photos import prepare_training_photos, prepare_validation_photos
from jobs.terminal import Progress, run_job, say
from pipeline.presets import parse_job
from shards.config import ShardConfig
from shards.errors import ShardError
from shards.files import check_writable, clean_stale
from shards.generations import extend, publish, read_generations
from shards.manifest import Manifest
from shards.plan import Plan, make_plan, settings_of, write_plan
from shards.sidecars import ShardEntry, find_all_finished
from shards.sources import SourceFile, discover
from shards.storage import StoragePath
from shards.survey import (
    Photo,
    Reject,
    SurveyTask,
    check_rejects,
    count_reasons,
    excluded_pixels,
    reject_duplicates,
    survey,
)
from shards.writing import ShardTask, shard_tasks, write_shard

_SURVEY_BATCH = 8
STATUS_FILE = "status.json"

# A worker's own memory, and bytes a pixel of a photo while it is decoded, cut and made smaller.
_WORKER_BYTES = 300 * 2**20
_BYTES_PER_PIXEL = 24


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/shard.py --help`."""
    description = "Write shards of a folder of photos, with Ray; run again, it finishes what is missing."
    config, dry_run = parse_job(argv, "shards", "python jobs/shard.py", description)
    prepare_training_photos(config.source)
    prepare_validation_photos(config.exclude)
    sources = discover(config.source)
    excluded = discover(config.exclude, flag="--exclude")
    if not dry_run:
        check_writable(config.output)
    read_generations(config.output)  # refuses a folder of something else before any work
    with ray_session() as session:
        say(f"using {session.description}")
        plans = survey_and_plan(config, sources, excluded, session)
        say(describe(plans, sources))
        if dry_run:
            say(f"dry run: nothing was written to {config.output}")
            return 0
        write(plans, config.output, sources, session)
    return 0


def survey_and_plan(
    config: ShardConfig,
    sources: tuple[SourceFile, ...],
    excluded: tuple[SourceFile, ...],
    session: RaySession,
) -> tuple[Plan, ...]:
    """Look at every photo and plan the shards.

    Args:
        config: Settings.
        sources: Photos to use.
        excluded: Evaluation images whose duplicates are not used.
        session: Where to do it.

    Returns:
        The plan of every generation: those of the output, and one more if there are new photos.

    Raises:
        InputError: Too many photos are rejected, or an evaluation image cannot be decoded.
        ShardError: The output was begun with other settings or photos.
    """
    before = read_generations(config.output)
    # Evaluation images are taken whatever they look like.
    lenient = replace(config, alpha="composite")
    evaluation = survey_all(excluded, 1, lenient, {}, session, "reading evaluation images")
    known = {photo.name: photo for plan in before for photo in plan.photos}
    # Another limit or another decoder may judge a photo differently.
    reusable = known if before and before[0].settings == settings_of(config) else {}
    surveyed = survey_all(sources, config.sub_image_px, config, reusable, session, "surveying photos")
    photos, rejects = reject_duplicates(surveyed, excluded_pixels(evaluation), known.keys())
    check_rejects(photos, rejects, config.max_reject_fraction)
    return extend(config.output, make_plan(config, photos, rejects))


def survey_all(
    files: tuple[SourceFile, ...],
    min_side_px: int,
    config: ShardConfig,
    known: dict[str, Photo],
    session: RaySession,
    description: str,
) -> list[Photo | Reject]:
    """Survey files in small batches; returns results in any order."""
    if not files:
        return []

    def known_in(batch: tuple[SourceFile, ...]) -> dict[str, Photo]:
        return {file.name: known[file.name] for file in batch if file.name in known}

    batches = [files[start : start + _SURVEY_BATCH] for start in range(0, len(files), _SURVEY_BATCH)]
    tasks = (SurveyTask(batch, min_side_px, config.max_pixels, known_in(batch), config.alpha) for batch in batches)
    results: list[Photo | Reject] = []
    with Progress(description, len(files), "images") as progress:
        for task, batch in session.map(survey, tasks):
            results += batch
            num_rejects = sum(isinstance(result, Reject) for result in batch)
            progress.advance(len(task.files), num_rejects=num_rejects)
    return results


def describe(plans: Sequence[Plan], sources: Sequence[SourceFile]) -> str:
    """Return the plans in a few lines for people."""
    rejects = [reject for plan in plans for reject in plan.rejects]
    counts = ", ".join(f"{count} {reason}" for reason, count in count_reasons(rejects).items())
    lines = [
        f"{sum(len(plan.photos) for plan in plans)} of {len(sources)} photos, "
        f"{sum(plan.num_samples for plan in plans)} sub-images, {sum(len(plan.shards) for plan in plans)} shard(s), "
        f"about {sum(plan.predicted_bytes for plan in plans) / 2**20:.1f} MiB",
        *(
            f"generation {plan.generation}: {len(plan.photos)} of these photos, {len(plan.shards)} shard(s)"
            for plan in plans
            if len(plans) > 1
        ),
        f"rejected: {len(rejects)}{f' ({counts})' if counts else ''}",
        *(f"  {reject.path}: {reject.reason} ({reject.detail})" for reject in rejects[:10]),
    ]
    if len(rejects) > 10:
        lines.append(f"  ... and {len(rejects) - 10} more, all listed in the manifest")
    return "\n".join(lines)


def write(plans: Sequence[Plan], folder: StoragePath, sources: Iterable[SourceFile], session: RaySession) -> Manifest:
    """Write what is missing of a dataset, and publish it.

    Args:
        plans: What to write, every generation.
        folder: Output; made if need be.
        sources: Where the plans' photos are.
        session: Where to do it.

    Returns:
        The manifest, as written.

    Raises:
        ShardError: Storage failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clean_stale(folder)
        for plan in plans:
            write_plan(folder, plan)
        manifest = publish(folder, plans, _write_shards(plans, folder.resolve(), sources, session))
    except OSError as error:
        raise ShardError(
            f"storage failed: {error.strerror or error}; at {error.filename or folder}; make room or "
            "choose another folder, and run the same command again: finished shards are kept"
        ) from error
    size_mib = manifest.size_bytes / 2**20
    say(f"{folder}: {manifest.num_samples} samples, {size_mib:.1f} MiB, manifest {manifest.digest[:12]}")
    return manifest


def _write_shards(
    plans: Sequence[Plan], folder: StoragePath, sources: Iterable[SourceFile], session: RaySession
) -> dict[str, ShardEntry]:
    paths = {file.name: file.path for file in sources}
    tasks = [task for plan in plans for task in shard_tasks(plan, folder, paths)]
    headers = {task.shard.name: task.header for task in tasks}
    entries = find_all_finished(folder, headers)
    if entries:
        say(f"reusing {len(entries)} of {len(tasks)} shards")
    missing = [task for task in tasks if task.shard.name not in entries]
    if not missing:
        return entries
    _write_missing(missing, folder, sum(len(plan.rejects) for plan in plans), session)
    # What lies there counts, not what a worker said: nothing may take a shard away before the manifest names it.
    entries = find_all_finished(folder, headers)
    if len(entries) < len(tasks):
        gone = min(task.shard.name for task in tasks if task.shard.name not in entries)
        raise ShardError(f"{folder / gone} was written and is gone or changed; run the same command again")
    return entries


def _write_missing(missing: list[ShardTask], folder: StoragePath, num_rejects: int, session: RaySession) -> None:
    num_images = sum(task.shard.num_samples for task in missing)
    memory_bytes = _WORKER_BYTES + _BYTES_PER_PIXEL * max(task.max_photo_pixels for task in missing)
    with Progress("writing shards", num_images, "images", status=folder / STATUS_FILE) as progress:
        progress.num_rejects = num_rejects
        for _, entry in session.map(write_shard, _largest_first(missing), memory_bytes=memory_bytes):
            progress.advance(entry.num_samples, size_bytes=entry.size_bytes)
    clean_stale(folder)  # of workers that were killed on the way


def _largest_first(tasks: list[ShardTask]) -> list[ShardTask]:
    # A long task begun last would keep one worker busy while the others idle.
    def num_pixels(task: ShardTask) -> int:
        return sum(piece.photo.height_px * piece.photo.width_px for piece in task.shard.pieces)

    return sorted(tasks, key=num_pixels, reverse=True)


if __name__ == "__main__":
    sys.exit(run_job(main))
