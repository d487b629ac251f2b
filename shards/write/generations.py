"""A dataset grows in generations: new photos get shards of their own, and no byte of the older shards changes.

Every generation is planned from its own photos alone, names the one before by fingerprint, and numbers its shards on
from there. So the files are a pure function of the settings and of the photos of each generation. The manifest lists
the shards of all generations; the manifests of older generations are kept as `manifest-000.json` and so on, byte for
byte what they were, so that what was trained on them can still be named and read.

Inputs used once may not change: a run with other settings, or with missing or changed photos, is refused with the
differences listed, instead of mixing two datasets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from shards.errors import ShardError
from shards.format.curation import count_dropped
from shards.format.manifest import MANIFEST_FILE, Generation, Manifest, plan_file, read_manifest, write_manifest
from shards.format.outputs import check_output_folder
from shards.format.rejects import Reject, count_notes
from shards.format.sidecars import ShardEntry, read_sidecar
from shards.format.storage import StoragePath
from shards.write.plan import SHARD_PREFIX, Plan, plan_generation, read_plan
from shards.write.survey import Photo

OUTPUT_NAMES = re.compile(rf"\..*|{SHARD_PREFIX}-\d{{6}}\.(tar|json)|(manifest|plan)(-\d{{3,}})?\.json|status\.json")


def read_generations(folder: StoragePath) -> tuple[Plan, ...]:
    """Return the plans that a folder was written from, oldest first; none for a new folder.

    Raises:
        ShardError: A plan is damaged, or of another dataset.
        InputError: The folder holds files that are not shards of this format.
    """
    plans: list[Plan] = []
    while (folder / plan_file(len(plans))).exists():
        plan = read_plan(folder, len(plans))
        expected = plans[-1].fingerprint if plans else ""
        if (plan.generation, plan.previous) != (len(plans), expected):
            raise ShardError(f"{folder / plan.file_name} is of another dataset; restore the one that belongs here")
        plans.append(plan)
    if not plans:
        check_output_folder(folder, (), OUTPUT_NAMES)
    later = sorted(path.name for path in folder.glob("plan-*.json"))[max(0, len(plans) - 1) :]
    if later:
        raise ShardError(f"{folder} has {later[0]} but no {plan_file(len(plans))}; restore it from a backup")
    return tuple(plans)


def extend(folder: StoragePath, wanted: Plan) -> tuple[Plan, ...]:
    """Fit the plan of all of today's photos to what a folder holds already.

    Args:
        folder: Output, new or written before.
        wanted: Plan of all photos, as of a new dataset.

    Returns:
        The plans to finish, oldest first: those of the folder, and one more if there are new photos.

    Raises:
        ShardError: Settings differ, photos are missing or changed, or there are new ones before the last generation
            is finished; lists the differences. Nothing was changed.
    """
    before = read_generations(folder)
    if not before:
        _refuse(folder, _orphan_differences(folder, wanted))
        return (wanted,)
    old, new = _inputs(before), _inputs([wanted])
    differences = [
        *_setting_differences(before[0].settings.to_plain(), wanted.settings.to_plain()),
        *_input_differences(old, new),
    ]
    added = sorted(new.keys() - old.keys())
    if added and (differences or not is_finished(folder, before[-1])):
        unfinished = f"; finish generation {before[-1].generation} without them first"
        differences.append(f"{_list(added, 'added')}{'' if differences else unfinished}")
    _refuse(folder, differences)
    return (*before, _next_generation(before[-1], wanted, frozenset(added))) if added else before


def _next_generation(last: Plan, wanted: Plan, added: frozenset[str]) -> Plan:
    return plan_generation(
        last.settings,
        [photo for photo in wanted.photos if photo.name in added],
        [reject for reject in wanted.rejects if reject.path in added],
        generation=last.generation + 1,
        previous=last.fingerprint,
        first_shard=last.first_shard + len(last.shards),
    )


def is_finished(folder: StoragePath, last: Plan) -> bool:
    """Return whether every shard of a folder exists, up to the last generation's."""
    return (folder / MANIFEST_FILE).is_file() and read_manifest(folder).fingerprint == last.fingerprint


def _refuse(folder: StoragePath, differences: Sequence[str] | Iterator[str]) -> None:
    listed = "\n  ".join(differences)
    if listed:
        raise ShardError(
            f"{folder} was started with other settings or inputs:\n  {listed}\n"
            "  restore those, or choose a new output folder; nothing was changed"
        )


def _orphan_differences(folder: StoragePath, plan: Plan) -> Iterator[str]:
    # A damaged plan was deleted: the remaining shards must still belong to this one.
    for path in sorted(folder.glob(f"{SHARD_PREFIX}-*.json")):
        try:
            fingerprint = read_sidecar(path).header.get("fingerprint")
        except ShardError:
            continue  # a shard with a damaged sidecar is not finished; it is written again
        if fingerprint != plan.fingerprint:
            yield f"{plan.file_name} is gone, and {path.name} is of another plan"
            return


def _setting_differences(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"


def _input_differences(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    missing = sorted(old.keys() - new.keys())
    changed = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
    for names, what in ((missing, "missing"), (changed, "changed")):
        if names:
            yield _list(names, what)


def _list(names: Sequence[str], what: str) -> str:
    return f"{len(names)} input(s) {what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"


def _inputs(plans: Sequence[Plan]) -> dict[str, Photo | Reject]:
    photos = {photo.name: photo for plan in plans for photo in plan.photos}
    return photos | {reject.path: reject for plan in plans for reject in plan.rejects}


def manifests_of(plans: Sequence[Plan], entries: Mapping[str, ShardEntry]) -> list[Manifest]:
    """Return the manifest of every generation, oldest first.

    Args:
        plans: All generations.
        entries: What was written, by the shards' names.
    """
    manifests: list[Manifest] = []
    shards: tuple[ShardEntry, ...] = ()
    generations: tuple[Generation, ...] = ()
    for plan in plans:
        own = tuple(entries[shard.name] for shard in plan.shards)
        shards += own
        generations += (Generation(plan.fingerprint, len(own), sum(entry.num_samples for entry in own)),)
        known = manifests[-1].rejects if manifests else ()
        rejects = tuple(sorted((*known, *plan.rejects), key=lambda reject: reject.path))
        notes = count_notes(photo.notes for earlier in plans[: len(generations)] for photo in earlier.photos)
        dropped = count_dropped(
            (photo.scores for earlier in plans[: len(generations)] for photo in earlier.photos), plan.settings.curation
        )
        manifests.append(Manifest(plan.fingerprint, plan.settings, shards, rejects, generations, notes, dropped))
    return manifests


def publish(folder: StoragePath, plans: Sequence[Plan], entries: Mapping[str, ShardEntry]) -> Manifest:
    """Write the manifests; call it when every shard is there.

    Returns:
        The last one, written last.
    """
    *older, last = manifests_of(plans, entries)
    for manifest in older:
        write_manifest(folder, manifest, kept=True)
    write_manifest(folder, last)
    return last
