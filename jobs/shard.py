"""Write shards of a folder of photos, with Ray.

Surveys the photos, plans every shard, writes what is missing, and publishes the manifest last. Kill it at any
moment and run the same command again: finished shards are kept, and the output is byte for byte that of an
undisturbed run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from jobs.ray_tasks import RaySession, ray_session
from jobs.sample_photos import prepare_training_photos, prepare_validation_photos
from jobs.terminal import Progress, run_job, say
from pipeline.presets import parse_job
from shards.config import ShardConfig
from shards.errors import ShardError
from shards.files import check_writable, clean_stale
from shards.manifest import Manifest, write_manifest
from shards.plan import Plan, check_same_plan, make_plan, read_plan, settings_of, write_plan
from shards.sidecars import ShardEntry
from shards.sources import SourceFile, discover
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
from shards.writing import ShardTask, find_finished_shard, shard_tasks, write_shard

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
    read_plan(config.output)  # refuses a folder of something else before any work
    with ray_session() as session:
        say(f"using {session.description}")
        plan = survey_and_plan(config, sources, excluded, session)
        say(describe(plan, sources))
        if dry_run:
            say(f"dry run: nothing was written to {config.output}")
            return 0
        write(plan, config.output, sources, session)
    return 0


def survey_and_plan(
    config: ShardConfig,
    sources: tuple[SourceFile, ...],
    excluded: tuple[SourceFile, ...],
    session: RaySession,
) -> Plan:
    """Look at every photo and plan the shards.

    Args:
        config: Settings.
        sources: Photos to use.
        excluded: Evaluation images whose duplicates are not used.
        session: Where to do it.

    Returns:
        The plan.

    Raises:
        InputError: Too many photos are rejected, or an evaluation image cannot be decoded.
    """
    evaluation = survey_all(excluded, 1, config.max_pixels, {}, session, "reading evaluation images")
    known = _known_photos(config)
    surveyed = survey_all(sources, config.sub_image_px, config.max_pixels, known, session, "surveying photos")
    photos, rejects = reject_duplicates(surveyed, excluded_pixels(evaluation))
    check_rejects(photos, rejects, config.max_reject_fraction)
    return make_plan(config, photos, rejects)


def _known_photos(config: ShardConfig) -> dict[str, Photo]:
    before = read_plan(config.output)
    # Another limit or another decoder may judge a photo differently.
    if before is None or before["settings"] != settings_of(config):
        return {}
    return {photo["name"]: Photo(**photo) for photo in before["photos"]}


def survey_all(
    files: tuple[SourceFile, ...],
    min_side_px: int,
    max_pixels: int,
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
    tasks = (SurveyTask(batch, min_side_px, max_pixels, known_in(batch)) for batch in batches)
    results: list[Photo | Reject] = []
    with Progress(description, len(files), "images") as progress:
        for task, batch in session.map(survey, tasks):
            results += batch
            num_rejects = sum(isinstance(result, Reject) for result in batch)
            progress.advance(len(task.files), num_rejects=num_rejects)
    return results


def describe(plan: Plan, sources: tuple[SourceFile, ...]) -> str:
    """Return the plan in a few lines for people."""
    counts = ", ".join(f"{count} {reason}" for reason, count in count_reasons(plan.rejects).items())
    lines = [
        f"{len(plan.photos)} of {len(sources)} photos, {plan.num_samples} sub-images, "
        f"{len(plan.shards)} shard(s), about {plan.predicted_bytes / 2**20:.1f} MiB",
        f"rejected: {len(plan.rejects)}{f' ({counts})' if counts else ''}",
        *(f"  {reject.path}: {reject.reason} ({reject.detail})" for reject in plan.rejects[:10]),
    ]
    if len(plan.rejects) > 10:
        lines.append(f"  ... and {len(plan.rejects) - 10} more, all listed in the manifest")
    return "\n".join(lines)


def write(plan: Plan, folder: Path, sources: Iterable[SourceFile], session: RaySession) -> Manifest:
    """Write what is missing of a plan, and publish it.

    Args:
        plan: What to write.
        folder: Output; made if need be.
        sources: Where the plan's photos are.
        session: Where to do it.

    Returns:
        The manifest, as written.

    Raises:
        ShardError: The folder was begun with another plan, or storage failed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_same_plan(folder, plan)
        clean_stale(folder)
        write_plan(folder, plan)
        entries = _write_shards(plan, folder.resolve(), sources, session)
        manifest = Manifest(
            kind="images",
            fingerprint=plan.fingerprint,
            config=plan.settings,
            shards=tuple(entries[shard.name] for shard in plan.shards),
            rejects=plan.rejects,
        )
        write_manifest(folder, manifest)
    except OSError as error:
        raise ShardError(
            f"storage failed: {error.strerror or error}; at {error.filename or folder}; make room or "
            "choose another folder, and run the same command again: finished shards are kept"
        ) from error
    size_mib = manifest.size_bytes / 2**20
    say(f"{folder}: {manifest.num_samples} samples, {size_mib:.1f} MiB, manifest {manifest.digest[:12]}")
    return manifest


def _write_shards(
    plan: Plan, folder: Path, sources: Iterable[SourceFile], session: RaySession
) -> dict[str, ShardEntry]:
    tasks = shard_tasks(plan, folder, {file.name: file.path for file in sources})
    entries = {task.shard.name: entry for task in tasks if (entry := find_finished_shard(task))}
    if entries:
        say(f"reusing {len(entries)} of {len(tasks)} shards")
    missing = [task for task in tasks if task.shard.name not in entries]
    if not missing:
        return entries
    num_images = sum(task.shard.num_samples for task in missing)
    memory_bytes = _WORKER_BYTES + _BYTES_PER_PIXEL * max(task.max_photo_pixels for task in missing)
    with Progress("writing shards", num_images, "images", status=folder / STATUS_FILE) as progress:
        progress.num_rejects = len(plan.rejects)
        for task, entry in session.map(write_shard, _largest_first(missing), memory_bytes=memory_bytes):
            entries[task.shard.name] = entry
            progress.advance(entry.num_samples, size_bytes=entry.size_bytes)
    return entries


def _largest_first(tasks: list[ShardTask]) -> list[ShardTask]:
    # A long task begun last would keep one worker busy while the others idle.
    def num_pixels(task: ShardTask) -> int:
        return sum(piece.photo.height_px * piece.photo.width_px for piece in task.shard.pieces)

    return sorted(tasks, key=num_pixels, reverse=True)


if __name__ == "__main__":
    sys.exit(run_job(main))
