"""Photos to a dataset: survey, plan, write what is missing, publish the manifest last.

Killed at any moment and called again, it keeps finished shards and the photos that were cut already, and the files are
byte for byte those of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from shards.config import ShardConfig
from shards.errors import ShardError
from shards.format.files import clean_stale
from shards.format.manifest import Manifest
from shards.format.rejects import Reject, count_notes, describe_notes
from shards.format.sidecars import ShardEntry
from shards.format.storage import StoragePath
from shards.write.curation import curate, describe_scores, hashes_of
from shards.write.execution import Executor
from shards.write.generations import extend, is_finished, publish, read_generations
from shards.write.missing import finished_entries, missing_tasks, require_all
from shards.write.plan import Plan, make_plan, settings_of, write_plan
from shards.write.sources import SourceFile, paths_of
from shards.write.spool import Spool
from shards.write.survey import (
    MAX_SPOOLED_PIXELS,
    Photo,
    SurveyTask,
    check_rejects,
    count_reasons,
    excluded_pixels,
    reject_duplicates,
    reject_folders,
    survey,
)
from shards.write.tasks import ShardTask, shard_tasks, write_shard

# Photos per survey task; a photo that is cut as well takes long enough for a task of its own.
_SURVEY_BATCH = 8
STATUS_FILE = "status.json"

# A worker's own memory, and the bytes per pixel of a photo while it is decoded, downscaled and cut.
_WORKER_BYTES = 300 * 2**20
_BYTES_PER_PIXEL = 24


def survey_and_plan(
    config: ShardConfig,
    sources: Sequence[SourceFile],
    excluded: Sequence[SourceFile],
    executor: Executor,
    *,
    cut: bool = True,
) -> tuple[Plan, ...]:
    """Survey every photo and plan the shards.

    Args:
        config: Settings.
        sources: Photos to use.
        excluded: Evaluation images; a photo with the pixels of one of them is rejected.
        executor: Where the survey runs.
        cut: Cut and spool photos on the way if the configuration says so; `write` picks them up. If False, nothing is
            written.

    Returns:
        The plan of every generation: those of the output folder, and one more if there are new photos.

    Raises:
        InputError: Too many photos are rejected, or an evaluation image cannot be decoded.
        ShardError: The output was started with other settings or photos, or storage failed.
    """
    before = read_generations(config.output)
    settings = settings_of(config)
    rules = settings.curation
    # Evaluation images may have any size.
    template = SurveyTask((), 1, config.max_pixels, {}, needs_hashes=rules.near_duplicate_bits is not None)
    evaluation_images = survey_all(excluded, template, executor, "reading evaluation images")
    evaluation = excluded_pixels(evaluation_images)
    known = {photo.name: photo for plan in before for photo in plan.photos}
    # With another size limit or another decoder a photo may be accepted or rejected differently.
    reusable = known if before and before[0].settings == settings else {}
    seen = _generations_of_inputs(before)
    is_new = any(file.name not in seen for file in sources)
    spool = _spool_for(config, before) if cut and is_new else None
    template = SurveyTask(
        files=(),
        min_side_px=config.sub_image_px,
        max_pixels=config.max_pixels,
        known=reusable,
        alpha=config.alpha,
        spool=spool,
        scale=config.scale,
        scored=settings if rules.needs_scores else None,
        needs_hashes=rules.needs_hashes,
    )
    max_rejects = config.max_reject_fraction * len(sources)
    with _storage_errors(config.output):
        surveyed = survey_all(sources, template, executor, "surveying photos", max_rejects=max_rejects)
    photos, rejects = reject_duplicates(surveyed, evaluation, known.keys())
    if config.keep_together == "folder":
        photos, others = reject_folders(photos, surveyed, evaluation)
        rejects += others
    photos, removed = curate(photos, settings, hashes_of(evaluation_images), seen, executor)
    rejects += removed
    check_rejects(photos, rejects, config.max_reject_fraction)
    return extend(config.output, make_plan(config, photos, rejects))


def _generations_of_inputs(plans: Sequence[Plan]) -> dict[str, int]:
    """Return the generation of every photo and reject by name."""
    return {
        name: plan.generation
        for plan in plans
        for name in (*(photo.name for photo in plan.photos), *(reject.path for reject in plan.rejects))
    }


def _spool_for(config: ShardConfig, before: Sequence[Plan]) -> Spool | None:
    # Cut nothing for an output that will be refused: other settings, or an unfinished generation that must not grow.
    settings = settings_of(config)
    fits = not before or (before[0].settings == settings and is_finished(config.output, before[-1]))
    return Spool.beside(config.output.resolve(), settings) if config.spool and fits else None


def survey_all(
    files: Sequence[SourceFile],
    template: SurveyTask,
    executor: Executor,
    description: str,
    *,
    max_rejects: float = float("inf"),
) -> list[Photo | Reject]:
    """Survey files in small batches.

    Args:
        files: Files to survey.
        template: Limits, known photos and spool of every task; its files are replaced.
        executor: Where the survey runs.
        description: Of the stage, for the progress display.
        max_rejects: Stop early once more files than this are rejected: the dataset will be refused anyway.

    Returns:
        Results, in order of completion.
    """
    if not files:
        return []
    results: list[Photo | Reject] = []
    status, memory_bytes, batch = None, 0, _SURVEY_BATCH
    if template.spool:
        template.spool.folder.mkdir(parents=True, exist_ok=True)
        status, batch = template.spool.folder / STATUS_FILE, 1
        memory_bytes = _WORKER_BYTES + _BYTES_PER_PIXEL * MAX_SPOOLED_PIXELS
    tasks = (_with_files(template, files[start : start + batch]) for start in range(0, len(files), batch))
    with executor.progress(description, len(files), "images", status=status) as progress:
        for task, found in executor.map(survey, tasks, memory_bytes=memory_bytes):
            results += found
            num_rejects = sum(isinstance(result, Reject) for result in found)
            size_bytes = sum(result.size_bytes for result in found if isinstance(result, Photo))
            progress.advance(len(task.files), size_bytes=size_bytes, num_rejects=num_rejects)
            if progress.num_rejects > max_rejects:
                break
    return results


def _with_files(template: SurveyTask, files: Sequence[SourceFile]) -> SurveyTask:
    # A task carries what is known of its own files, not of all.
    known = {file.name: template.known[file.name] for file in files if file.name in template.known}
    return replace(template, files=tuple(files), known=known)


def describe(plans: Sequence[Plan], sources: Sequence[SourceFile]) -> str:
    """Return a summary of the plans, a few lines of text."""
    rejects = [reject for plan in plans for reject in plan.rejects]
    counts = ", ".join(f"{count} {reason}" for reason, count in count_reasons(rejects).items())
    lines = [
        f"{sum(len(plan.photos) for plan in plans)} of {sum(file.is_hr for file in sources)} photos, "
        f"{sum(plan.num_samples for plan in plans)} sub-images, {sum(len(plan.shards) for plan in plans)} shard(s), "
        f"about {sum(plan.predicted_bytes for plan in plans) / 2**20:.1f} MiB",
        *(
            f"generation {plan.generation}: {len(plan.photos)} of these photos, {len(plan.shards)} shard(s)"
            for plan in plans
            if len(plans) > 1
        ),
        *_folder_lines(plans),
        *describe_notes(count_notes(photo.notes for plan in plans for photo in plan.photos), "photo(s)"),
        *(describe_scores([photo for plan in plans for photo in plan.photos], plans[0].settings) if plans else ()),
        f"rejected: {len(rejects)}{f' ({counts})' if counts else ''}",
        *(f"  {reject.path}: {reject.reason} ({reject.detail})" for reject in rejects[:10]),
    ]
    if len(rejects) > 10:
        lines.append(f"  ... and {len(rejects) - 10} more, all listed in the manifest")
    return "\n".join(lines)


def _folder_lines(plans: Sequence[Plan]) -> list[str]:
    """Return how large shards become where folders are kept together."""
    if not plans or plans[0].settings.keep_together == "photo":
        return []
    folders = {photo.folder for plan in plans for photo in plan.photos}
    largest = max((shard.predicted_bytes for plan in plans for shard in plan.shards), default=0)
    return [f"{len(folders)} folder(s) kept together; the largest shard has about {largest / 2**20:.1f} MiB"]


def write(plans: Sequence[Plan], folder: StoragePath, sources: Sequence[SourceFile], executor: Executor) -> Manifest:
    """Write what is missing of a dataset, and publish it.

    Args:
        plans: Every generation.
        folder: Output; created if it does not exist.
        sources: Where the plans' photos are.
        executor: Where the shards are written.

    Returns:
        The manifest, as written.

    Raises:
        ShardError: Storage failed.
    """
    paths = paths_of(sources)
    tasks = [task for plan in plans for task in shard_tasks(plan, folder.resolve(), paths)]
    spool = Spool.beside(folder.resolve(), plans[0].settings)
    with _storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clean_stale(folder)
        for plan in plans:
            write_plan(folder, plan)
        entries = _write_shards(tasks, folder.resolve(), sum(len(plan.rejects) for plan in plans), executor, spool)
        manifest = publish(folder, plans, entries)
        if spool:
            spool.clear()
    size_mib = manifest.size_bytes / 2**20
    executor.say(f"{folder}: {manifest.num_samples} samples, {size_mib:.1f} MiB, manifest {manifest.digest[:12]}")
    return manifest


@contextlib.contextmanager
def _storage_errors(folder: StoragePath) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"storage failed: {error.strerror or error}; at {error.filename or folder}; make room or "
            "choose another folder, and rerun the same command: finished shards are kept"
        ) from error


def _write_shards(
    tasks: Sequence[ShardTask], folder: StoragePath, num_rejects: int, executor: Executor, spool: Spool | None
) -> dict[str, ShardEntry]:
    entries = finished_entries(folder, tasks)
    if entries:
        executor.say(f"reusing {len(entries)} of {len(tasks)} shards")
    missing = missing_tasks(tasks, entries)
    if not missing:
        return entries
    num_images = sum(task.shard.num_samples for task in missing)
    memory_bytes = _WORKER_BYTES + _BYTES_PER_PIXEL * max(task.max_photo_pixels for task in missing)
    with executor.progress("writing shards", num_images, "images", status=folder / STATUS_FILE) as progress:
        progress.num_rejects = num_rejects
        pending = Counter(piece.photo.content_sha256 for task in missing for piece in task.shard.pieces)
        for task, entry in executor.map(write_shard, _largest_first(missing), memory_bytes=memory_bytes):
            progress.advance(entry.num_samples, size_bytes=entry.size_bytes)
            if spool:
                _drop_spooled(task, pending, spool)
    clean_stale(folder)  # what killed workers left
    return require_all(folder, tasks)


def _drop_spooled(task: ShardTask, pending: Counter[str], spool: Spool) -> None:
    """Delete the spooled photos of a finished shard that no other shard needs."""
    for piece in task.shard.pieces:
        content = piece.photo.content_sha256
        pending[content] -= 1
        if not pending[content]:
            spool.drop(content)


def _largest_first(tasks: Sequence[ShardTask]) -> list[ShardTask]:
    # A long task started last would keep one worker busy while the others idle.
    def num_pixels(task: ShardTask) -> int:
        return sum(piece.photo.height_px * piece.photo.width_px for piece in task.shard.pieces)

    return sorted(tasks, key=num_pixels, reverse=True)
