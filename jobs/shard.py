"""Write shards of a folder of photos, with Ray.

Surveys the photos and cuts them on the way, plans every shard, writes what is missing, and publishes the manifest last.
Kill it at any moment and run the same command again: photos that were cut and shards that were finished are kept, and
the output is byte for byte that of an undisturbed run. Run it again with more photos in the source: they get shards of
their own, as a new generation.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from jobs.ray_tasks import RaySession, ray_session
from jobs.sample_photos import prepare_training_photos, prepare_validation_photos
from jobs.terminal import Progress, run_job, say
from pipeline.config.presets import parse_job
from shards.config import ShardConfig
from shards.errors import ShardError
from shards.format.files import check_writable, clean_stale
from shards.format.manifest import Manifest, Reject
from shards.format.sidecars import ShardEntry, find_all_finished
from shards.format.storage import StoragePath
from shards.write.generations import extend, is_finished, publish, read_generations
from shards.write.plan import Plan, make_plan, settings_of, write_plan
from shards.write.sources import SourceFile, discover
from shards.write.spool import Spool
from shards.write.survey import (
    MAX_SPOOLED_PIXELS,
    Photo,
    SurveyTask,
    check_rejects,
    count_reasons,
    excluded_pixels,
    reject_duplicates,
    survey,
)
from shards.write.tasks import ShardTask, shard_tasks, write_shard

# Photos that are looked at in one task; one that is cut as well takes long enough by itself.
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
        plans = survey_and_plan(config, sources, excluded, session, cut=not dry_run)
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
    *,
    cut: bool = True,
) -> tuple[Plan, ...]:
    """Look at every photo and plan the shards.

    Args:
        config: Settings.
        sources: Photos to use.
        excluded: Evaluation images whose duplicates are not used.
        session: Where to do it.
        cut: Cut photos on the way, where the configuration wants it; `write` takes it up. Nothing is written without.

    Returns:
        The plan of every generation: those of the output, and one more if there are new photos.

    Raises:
        InputError: Too many photos are rejected, or an evaluation image cannot be decoded.
        ShardError: The output was begun with other settings or photos, or storage failed.
    """
    before = read_generations(config.output)
    # Evaluation images are taken whatever they look like.
    look = SurveyTask((), 1, config.max_pixels, {})
    evaluation = excluded_pixels(survey_all(excluded, look, session, "reading evaluation images"))
    known = {photo.name: photo for plan in before for photo in plan.photos}
    # Another limit or another decoder may judge a photo differently.
    reusable = known if before and before[0].settings == settings_of(config) else {}
    seen = known.keys() | {reject.path for plan in before for reject in plan.rejects}
    is_new = any(file.name not in seen for file in sources)
    spool = _spool_for(config, before) if cut and is_new else None
    look = SurveyTask((), config.sub_image_px, config.max_pixels, reusable, config.alpha, spool)
    max_rejects = config.max_reject_fraction * len(sources)
    with _explained(config.output):
        surveyed = survey_all(sources, look, session, "surveying photos", max_rejects=max_rejects)
    photos, rejects = reject_duplicates(surveyed, evaluation, known.keys())
    check_rejects(photos, rejects, config.max_reject_fraction)
    return extend(config.output, make_plan(config, photos, rejects))


def _spool_for(config: ShardConfig, before: Sequence[Plan]) -> Spool | None:
    # Nothing is cut for an output that will be refused: one of other settings, or one to finish before it may grow.
    settings = settings_of(config)
    fits = not before or (before[0].settings == settings and is_finished(config.output, before[-1]))
    return Spool.beside(config.output.resolve(), settings) if config.spool and fits else None


def survey_all(
    files: tuple[SourceFile, ...],
    look: SurveyTask,
    session: RaySession,
    description: str,
    *,
    max_rejects: float = float("inf"),
) -> list[Photo | Reject]:
    """Survey files in small batches.

    Args:
        files: Files to look at.
        look: How; its own files do not matter.
        session: Where to do it.
        description: Of the stage, for people.
        max_rejects: Stop when there are more: the rest does not matter any more.

    Returns:
        Results in any order.
    """
    if not files:
        return []
    results: list[Photo | Reject] = []
    status, memory_bytes, batch = None, 0, _SURVEY_BATCH
    if look.spool:
        look.spool.folder.mkdir(parents=True, exist_ok=True)
        status, batch = look.spool.folder / STATUS_FILE, 1
        memory_bytes = _WORKER_BYTES + _BYTES_PER_PIXEL * MAX_SPOOLED_PIXELS
    tasks = (_with_files(look, files[start : start + batch]) for start in range(0, len(files), batch))
    with Progress(description, len(files), "images", status=status) as progress:
        for task, found in session.map(survey, tasks, memory_bytes=memory_bytes):
            results += found
            num_rejects = sum(isinstance(result, Reject) for result in found)
            size_bytes = sum(result.size_bytes for result in found if isinstance(result, Photo))
            progress.advance(len(task.files), size_bytes=size_bytes, num_rejects=num_rejects)
            if progress.num_rejects > max_rejects:
                break
    return results


def _with_files(look: SurveyTask, files: tuple[SourceFile, ...]) -> SurveyTask:
    # A task takes along what is known of its own files, not of all.
    return replace(
        look, files=files, known={file.name: look.known[file.name] for file in files if file.name in look.known}
    )


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
    spool = Spool.beside(folder.resolve(), plans[0].settings)
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clean_stale(folder)
        for plan in plans:
            write_plan(folder, plan)
        manifest = publish(folder, plans, _write_shards(plans, folder.resolve(), sources, session, spool))
        if spool:
            spool.clear()
    size_mib = manifest.size_bytes / 2**20
    say(f"{folder}: {manifest.num_samples} samples, {size_mib:.1f} MiB, manifest {manifest.digest[:12]}")
    return manifest


@contextlib.contextmanager
def _explained(folder: StoragePath) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"storage failed: {error.strerror or error}; at {error.filename or folder}; make room or "
            "choose another folder, and run the same command again: what was finished is kept"
        ) from error


def _write_shards(
    plans: Sequence[Plan],
    folder: StoragePath,
    sources: Iterable[SourceFile],
    session: RaySession,
    spool: Spool | None,
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
    _write_missing(missing, folder, sum(len(plan.rejects) for plan in plans), session, spool)
    # What lies there counts, not what a worker said: nothing may take a shard away before the manifest names it.
    entries = find_all_finished(folder, headers)
    if len(entries) < len(tasks):
        gone = min(task.shard.name for task in tasks if task.shard.name not in entries)
        raise ShardError(f"{folder / gone} was written and is gone or changed; run the same command again")
    return entries


def _write_missing(
    missing: list[ShardTask], folder: StoragePath, num_rejects: int, session: RaySession, spool: Spool | None
) -> None:
    num_images = sum(task.shard.num_samples for task in missing)
    memory_bytes = _WORKER_BYTES + _BYTES_PER_PIXEL * max(task.max_photo_pixels for task in missing)
    with Progress("writing shards", num_images, "images", status=folder / STATUS_FILE) as progress:
        progress.num_rejects = num_rejects
        waiting = Counter(piece.photo.sha256 for task in missing for piece in task.shard.pieces)
        for task, entry in session.map(write_shard, _largest_first(missing), memory_bytes=memory_bytes):
            progress.advance(entry.num_samples, size_bytes=entry.size_bytes)
            if spool:
                _let_go(task, waiting, spool)
    clean_stale(folder)  # of workers that were killed on the way


def _let_go(task: ShardTask, waiting: Counter[str], spool: Spool) -> None:
    """Drop the photos of a finished shard that no other shard waits for."""
    for piece in task.shard.pieces:
        waiting[piece.photo.sha256] -= 1
        if not waiting[piece.photo.sha256]:
            spool.drop(piece.photo.sha256)


def _largest_first(tasks: list[ShardTask]) -> list[ShardTask]:
    # A long task begun last would keep one worker busy while the others idle.
    def num_pixels(task: ShardTask) -> int:
        return sum(piece.photo.height_px * piece.photo.width_px for piece in task.shard.pieces)

    return sorted(tasks, key=num_pixels, reverse=True)


if __name__ == "__main__":
    sys.exit(run_job(main))
