"""Removes photos by the rules of curation: near-duplicates, and photos whose scores break a rule.

Sub-images are not removed here: which of them break a rule follows from their scores, wherever a plan is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from shards.format.curation import (
    HASH_BITS,
    SCORE_NAMES,
    SCORE_REASONS,
    count_dropped,
    dropped_sub_images,
    unpack_scores,
)
from shards.format.rejects import Reject
from shards.format.settings import ImageSettings
from shards.write.execution import Executor, Progress
from shards.write.perceptual_hash import HashIndex
from shards.write.survey import Photo

Split = tuple[list[Photo], list[Reject]]
"""Photos to use, and the others."""

_NEAR = f" of {HASH_BITS} bits from "
_EVALUATION = "the evaluation image "
_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


def curate(
    photos: Sequence[Photo],
    settings: ImageSettings,
    evaluation: Mapping[str, str],
    generations: Mapping[str, int],
    executor: Executor,
) -> Split:
    """Split photos by whether a rule removes them.

    Args:
        photos: Photos with distinct pixels.
        settings: Their dataset's.
        evaluation: Perceptual hashes of evaluation images by name.
        generations: Generation of every photo and reject of an earlier run by name; what is decided about these does
            not change when photos are added.
        executor: Shows the progress of comparing hashes, which is done here.
    """
    bits, together = settings.curation.near_duplicate_bits, settings.keep_together == "folder"
    rejects: list[Reject] = []
    if bits is not None:
        photos, near = _reject_near_evaluation(photos, evaluation, bits, together=together)
        rejects += near
    photos, broken = _reject_by_scores(photos, settings)
    rejects += broken
    if bits is not None:
        with executor.progress("comparing photos", len(photos), "photos") as progress:
            photos, near = _reject_near_duplicates(photos, generations, bits, progress, together=together)
        rejects += near
    return list(photos), rejects


def _reject_by_scores(photos: Sequence[Photo], settings: ImageSettings) -> Split:
    found = {photo.name: _broken_rule(photo, settings) for photo in photos}
    rejects = [reject for reject in found.values() if reject is not None]
    return [photo for photo in photos if found[photo.name] is None], rejects


def _broken_rule(photo: Photo, settings: ImageSettings) -> Reject | None:
    rules = settings.curation
    if photo.scores is None:
        return None
    scores = unpack_scores(photo.scores)
    number = int(rules.photo.broken(scores[:1])[0])
    if number >= 0:
        return Reject(photo.name, SCORE_REASONS[number], rules.photo.describe(number, scores[0]))
    num_sub_images = len(scores) - 1
    if len(dropped_sub_images(photo.scores, rules)) < num_sub_images:
        return None
    counts = ", ".join(f"{count} {reason}" for reason, count in count_dropped([photo.scores], rules).items())
    return Reject(photo.name, "no-sub-images", f"rules drop all {num_sub_images} sub-images: {counts}")


def _reject_near_evaluation(
    photos: Sequence[Photo], evaluation: Mapping[str, str], bits: int, *, together: bool
) -> Split:
    """Reject photos that are like an evaluation image, with `together` all photos of their folders."""
    index, names = HashIndex(len(evaluation)), list(evaluation)
    for name in names:
        index.add(evaluation[name])
    rejects: dict[str, Reject] = {}
    for photo in photos:
        if near := _nearest(index.distances(_hash_of(photo)), bits):
            detail = f"{near.distance}{_NEAR}{_EVALUATION}{names[near.number]}"
            rejects[photo.name] = Reject(photo.name, "near-duplicate", detail)
    if together:
        frames = {photo.folder: photo.name for photo in photos if photo.name in rejects}
        for photo in photos:
            if photo.folder in frames:
                detail = f"its folder holds {frames[photo.folder]}, a near-duplicate of an evaluation image"
                rejects.setdefault(photo.name, Reject(photo.name, "same-folder", detail))
    return [photo for photo in photos if photo.name not in rejects], list(rejects.values())


def _reject_near_duplicates(
    photos: Sequence[Photo], generations: Mapping[str, int], bits: int, progress: Progress, *, together: bool
) -> Split:
    """Keep the largest of photos that are like each other, of equal ones the first by name.

    With `together`, frames of one folder are not compared: neighbouring frames of a video are like each other.
    """

    def order(photo: Photo) -> tuple[int, int, str]:
        newest = len(generations)  # no generation has a higher number, since each has a photo or a reject
        return generations.get(photo.name, newest), -photo.height_px * photo.width_px, photo.name

    index, kept, folders = HashIndex(len(photos)), list[Photo](), np.empty(len(photos), np.int64)
    folder_numbers = {folder: number for number, folder in enumerate(sorted({photo.folder for photo in photos}))}
    rejects: list[Reject] = []
    for photo in sorted(photos, key=order):
        progress.advance(1)
        folder, distances = folder_numbers[photo.folder], index.distances(_hash_of(photo))
        if together:
            distances[folders[: len(kept)] == folder] = HASH_BITS
        if near := _nearest(distances, bits):
            detail = f"{near.distance}{_NEAR}{kept[near.number].name}"
            rejects.append(Reject(photo.name, "near-duplicate", detail))
            continue
        index.add(_hash_of(photo))
        folders[len(kept)] = folder
        kept.append(photo)
    return kept, rejects


class _Near(NamedTuple):
    number: int
    distance: int


def _nearest(distances: np.ndarray, bits: int) -> _Near | None:
    """Return the first of the nearest, if it is near enough."""
    number = int(distances.argmin()) if len(distances) else 0
    return _Near(number, int(distances[number])) if len(distances) and distances[number] <= bits else None


def _hash_of(photo: Photo) -> str:
    if photo.perceptual_hash is None:
        raise RuntimeError(f"{photo.name} was surveyed without a hash")
    return photo.perceptual_hash


def hashes_of(surveyed: Iterable[Photo | Reject]) -> dict[str, str]:
    """Return the perceptual hashes of images by name, of those that have one."""
    return {
        image.name: image.perceptual_hash for image in surveyed if isinstance(image, Photo) and image.perceptual_hash
    }


def near_name(reject: Reject) -> str:
    """Return the name of the image that a near-duplicate is like."""
    return reject.detail.partition(_NEAR)[2].removeprefix(_EVALUATION)


def describe_scores(photos: Sequence[Photo], settings: ImageSettings) -> list[str]:
    """Return lines about the scores of photos: what rules drop, and how the scores are distributed."""
    tables = [unpack_scores(photo.scores) for photo in photos if photo.scores is not None]
    if not tables:
        return []
    sub_images = np.concatenate([table[1:] for table in tables])
    counts = count_dropped((photo.scores for photo in photos), settings.curation)
    listed = f" ({', '.join(f'{count} {reason}' for reason, count in counts.items())})" if counts else ""
    return [
        f"dropped sub-images of these photos: {sum(counts.values())} of {len(sub_images)}{listed}",
        f"scores at {', '.join(f'{quantile:.0%}' for quantile in _QUANTILES)} of these photos and their sub-images:",
        *_quantile_lines("photo", np.concatenate([table[:1] for table in tables])),
        *_quantile_lines("sub-image", sub_images),
    ]


def _quantile_lines(unit: str, scores: np.ndarray) -> list[str]:
    quantiles = np.quantile(scores, _QUANTILES, axis=0, method="nearest") / 1000
    return [
        f"  {unit} {name}: {' '.join(f'{value:.3f}' for value in quantiles[:, column])}"
        for column, name in enumerate(SCORE_NAMES)
    ]
