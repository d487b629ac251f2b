"""Surveys every photo before any shard is written: its hashes and size, or why it cannot be used.

The survey decodes each photo whole, so a plan already knows what every shard will hold. Given a spool it cuts and
encodes the photo's sub-images as well, while it has the pixels. Photos that a spool holds already, from a run that was
stopped, are not decoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, TypeAlias

from PIL import Image

from shards.errors import InputError
from shards.format.curation import PackedScores, PerceptualHash, dropped_sub_images, pack_scores, unpack_scores
from shards.format.photos import DecodedPhoto, DecodeError, read_file, read_photo
from shards.format.png import Pixels, pixels_sha256
from shards.format.rejects import CURATION_REASONS, PhotoNote, Reject
from shards.format.settings import ImageSettings
from shards.schema import Count, Range, Sha256
from shards.write.cutting import CutPhoto, positions_in
from shards.write.perceptual_hash import perceptual_hash
from shards.write.scores import score_photo
from shards.write.sources import SourceFile
from shards.write.spool import Spool

MAX_SPOOLED_PIXELS = 2**24
"""Larger photos are cut when their shard is written, by a task that has reserved the memory."""


PhotoSide: TypeAlias = Annotated[int, Range(1, 10**6)]


@dataclass(frozen=True)
class GivenLq:
    """The LQ image of a photo of paired shards."""

    name: str
    """`FOLDER/PATH`."""
    sha256: Sha256
    """Of the file's bytes."""
    pixels_sha256: Sha256
    """Of the decoded pixels."""


@dataclass(frozen=True)
class Photo:
    """A photo that can be used."""

    name: str
    """`FOLDER/PATH`."""
    sha256: Sha256
    """Of the file's bytes."""
    size_bytes: Count
    height_px: PhotoSide
    """As decoded, EXIF rotation applied."""
    width_px: PhotoSide
    pixels_sha256: Sha256
    """Of the decoded pixels."""
    notes: tuple[PhotoNote, ...] = ()
    """What was lost or assumed when it was decoded, or its given LQ, sorted."""
    lq: GivenLq | None = None
    """Its LQ image in paired shards."""
    scores: PackedScores | None = None
    """Its own and those of its sub-images, where the dataset has rules on scores or records them."""
    perceptual_hash: PerceptualHash | None = None
    """Where the dataset has a rule on near-duplicates, or records hashes."""

    @property
    def folder(self) -> str:
        """Name of the folder that it is in."""
        return self.name.rpartition("/")[0]

    @property
    def content_sha256(self) -> str:
        """Hash of what its sub-images are cut from: of its file, and of its given LQ where there is one."""
        return content_sha256(self.sha256, self.lq.sha256 if self.lq else None)

    def to_plain(self) -> dict[str, Any]:
        """Return a plan's entry; it says nothing of notes, given LQ, scores and hash where there are none."""
        plain = asdict(self) | {"notes": list(self.notes)}
        optional = ("notes", "lq", "scores", "perceptual_hash")
        return {key: value for key, value in plain.items() if value or key not in optional}


def content_sha256(sha256: str, lq_sha256: str | None) -> str:
    """Return the hash of a photo's file, or of a pair of files, from their own."""
    return sha256 if lq_sha256 is None else hashlib.sha256(f"{sha256}/{lq_sha256}".encode("ascii")).hexdigest()


def parse_photo(content: Mapping[str, Any]) -> Photo:
    """Parse what `Photo.to_plain` returned.

    Raises:
        TypeError: A key is missing or unknown.
    """
    lq = content.get("lq")
    return Photo(**{**content, "notes": tuple(content.get("notes", ())), "lq": lq and GivenLq(**lq)})


def _without(plain: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name != key}


@dataclass(frozen=True)
class SurveyTask:
    """Photos to survey in one task, and the limits that apply to them."""

    files: tuple[SourceFile, ...]
    min_side_px: int
    max_pixels: int
    known: Mapping[str, Photo]
    """Photos of an earlier survey by name; one whose bytes are the same is not decoded again."""
    alpha: Literal["composite", "reject"] = "composite"
    spool: Spool | None = None
    """Where to store the sub-images of usable photos; None to cut none."""
    scale: int = 1
    """How many times smaller a given LQ image must be."""
    scored: ImageSettings | None = None
    """Settings of a dataset whose rules need scores: what sub-images there are, and which rules not to cut what they
    remove. None to score nothing."""
    needs_hashes: bool = False
    """Whether photos get a perceptual hash."""


def survey(task: SurveyTask) -> list[Photo | Reject]:
    """Survey some photos, in order.

    Raises:
        OSError: Storage failed; worth a retry. A file that is missing or may not be read is a reject instead.
        ShardError: This machine would encode other bytes than the one that planned.
    """
    return [_survey_one(file, task) for file in task.files]


def _survey_one(file: SourceFile, task: SurveyTask) -> Photo | Reject:
    if file.reject is not None:
        return file.reject
    try:
        return _use(file, task)
    except DecodeError as error:
        return Reject(file.name, error.reason, error.detail)


def _use(file: SourceFile, task: SurveyTask) -> Photo:
    """Return a photo that can be used, and cut it if there is a spool.

    Raises:
        DecodeError: It cannot be used, or its given LQ cannot.
    """
    data, lq_data = _read(file, task)
    sha256 = hashlib.sha256(data).hexdigest()
    lq_sha256 = None if lq_data is None else hashlib.sha256(lq_data).hexdigest()
    found = _find_known(file.name, content_sha256(sha256, lq_sha256), task)
    if found is not None:
        return found if file.lq is None or found.lq is None else replace(found, lq=replace(found.lq, name=file.lq.name))
    pixels, notes = read_photo(data, max_pixels=task.max_pixels, alpha=task.alpha)
    height_px, width_px, _ = pixels.shape
    if min(height_px, width_px) < task.min_side_px:
        detail = f"{width_px}x{height_px} px is smaller than a sub-image of {task.min_side_px} px"
        raise DecodeError("too-small", detail)
    photo, lq_pixels = Photo(file.name, sha256, len(data), height_px, width_px, pixels_sha256(pixels), notes), None
    photo = _measure(photo, pixels, task)
    if file.lq is not None and lq_data is not None and lq_sha256 is not None:
        lq_pixels, lq_notes = _decode_lq(file.lq, lq_data, photo, task)
        given = GivenLq(file.lq.name, lq_sha256, pixels_sha256(lq_pixels))
        photo = replace(photo, lq=given, notes=tuple(sorted({*notes, *lq_notes})))
    if task.spool and height_px * width_px <= MAX_SPOOLED_PIXELS and not _is_removed(photo, task):
        cut = CutPhoto(pixels, task.spool.settings, lq_pixels)
        dropped = dropped_sub_images(photo.scores, task.spool.settings.curation)
        task.spool.keep(photo.content_sha256, _without(photo.to_plain(), "name"), cut, dropped)
    return photo


def _measure(photo: Photo, pixels: Pixels, task: SurveyTask) -> Photo:
    """Add the scores and the hash that a dataset's rules need."""
    if not (task.scored or task.needs_hashes):
        return photo
    luma = Image.fromarray(pixels).convert("L")
    scores = None
    if task.scored:
        positions = positions_in(photo.height_px, photo.width_px, task.scored)
        scores = pack_scores(score_photo(luma, positions, task.scored.sub_image_px))
    return replace(photo, scores=scores, perceptual_hash=perceptual_hash(luma) if task.needs_hashes else None)


def _is_removed(photo: Photo, task: SurveyTask) -> bool:
    """Return whether a rule on the scores of photos removes it: then it is not worth cutting."""
    if photo.scores is None or task.scored is None:
        return False
    return bool(task.scored.curation.photo.broken(unpack_scores(photo.scores)[:1])[0] >= 0)


def _read(file: SourceFile, task: SurveyTask) -> tuple[bytes, bytes | None]:
    """Return the bytes of a photo, and of its given LQ."""
    data = read_file(file.path, max_pixels=task.max_pixels)
    if file.lq is None:
        return data, None
    with _naming_lq(file.lq):
        return data, read_file(file.lq.path, max_pixels=task.max_pixels)


def _find_known(name: str, content: str, task: SurveyTask) -> Photo | None:
    """Return a photo of the same bytes that was surveyed before."""
    known = task.known.get(name)
    if known is not None and known.content_sha256 == content:
        return known
    facts = task.spool.facts(content) if task.spool else None
    return None if facts is None else parse_photo({**facts, "name": name})


def _decode_lq(lq: SourceFile, data: bytes, photo: Photo, task: SurveyTask) -> DecodedPhoto:
    with _naming_lq(lq):
        decoded = read_photo(data, max_pixels=task.max_pixels, alpha=task.alpha)
    height_px, width_px, _ = decoded.pixels.shape
    if (height_px * task.scale, width_px * task.scale) != (photo.height_px, photo.width_px):
        raise DecodeError(
            "lq-size",
            f"{photo.width_px}x{photo.height_px} px is not {task.scale} times the {width_px}x{height_px} px of its LQ "
            f"{lq.name}",
        )
    return decoded


@contextlib.contextmanager
def _naming_lq(lq: SourceFile) -> Iterator[None]:
    """Say that it is the LQ of a photo that cannot be used."""
    try:
        yield
    except DecodeError as error:
        raise DecodeError(error.reason, f"its LQ {lq.name}: {error.detail}") from error


def reject_duplicates(
    surveyed: Iterable[Photo | Reject], excluded: Mapping[str, str], earlier: Collection[str] = ()
) -> tuple[list[Photo], list[Reject]]:
    """Split a survey into photos with distinct pixels, and rejects.

    Args:
        surveyed: Results of `survey`, in any order.
        excluded: Names of evaluation images by the SHA-256 of their pixels.
        earlier: Names of photos that the dataset holds already.

    Returns:
        Photos and rejects. Of equal photos an earlier one is kept, else the first by name.
    """
    photos: dict[str, Photo] = {}
    rejects: list[Reject] = []
    for result in sorted(surveyed, key=lambda result: (_name_of(result) not in earlier, _name_of(result))):
        if isinstance(result, Reject):
            rejects.append(result)
        elif result.pixels_sha256 in excluded:
            detail = f"same pixels as the evaluation image {excluded[result.pixels_sha256]}"
            rejects.append(Reject(result.name, "duplicate", detail))
        elif result.pixels_sha256 in photos:
            detail = f"same pixels as {photos[result.pixels_sha256].name}"
            rejects.append(Reject(result.name, "duplicate", detail))
        else:
            photos[result.pixels_sha256] = result
    return list(photos.values()), rejects


def reject_folders(
    photos: Sequence[Photo], surveyed: Iterable[Photo | Reject], excluded: Mapping[str, str]
) -> tuple[list[Photo], list[Reject]]:
    """Split photos by whether their folder holds an evaluation image: frames of one video show the same scene.

    Args:
        photos: Photos to use.
        surveyed: Results of `survey` for all photos.
        excluded: Names of evaluation images by the SHA-256 of their pixels.
    """
    seen: dict[str, Photo] = {}
    for photo in surveyed:
        if isinstance(photo, Photo) and photo.pixels_sha256 in excluded:
            seen.setdefault(photo.folder, photo)
    kept = [photo for photo in photos if photo.folder not in seen]
    return kept, [_same_folder(photo, seen[photo.folder], excluded) for photo in photos if photo.folder in seen]


def _same_folder(photo: Photo, frame: Photo, excluded: Mapping[str, str]) -> Reject:
    detail = f"its folder holds {frame.name}, with the pixels of the evaluation image {excluded[frame.pixels_sha256]}"
    return Reject(photo.name, "same-folder", detail)


def _name_of(result: Photo | Reject) -> str:
    return result.path if isinstance(result, Reject) else result.name


def excluded_pixels(surveyed: Iterable[Photo | Reject]) -> dict[str, str]:
    """Return names of evaluation images by the SHA-256 of their pixels.

    Raises:
        InputError: One cannot be decoded, so that a duplicate of it would go unseen.
    """
    names: dict[str, str] = {}
    for result in surveyed:
        if isinstance(result, Reject):
            raise InputError(
                f"--exclude image {result.path} cannot be decoded ({result.reason}: {result.detail}), "
                "so duplicates of it would go unseen; repair or remove it"
            )
        names[result.pixels_sha256] = result.name
    return names


def check_rejects(photos: Sequence[Photo], rejects: Sequence[Reject], max_reject_fraction: float) -> None:
    """Check that enough photos remain. What rules of curation remove is meant to go, and counts for no fraction.

    Raises:
        InputError: None remains, or more than the fraction was rejected; counts them by reason.
    """
    num_inputs = len(photos) + len(rejects)
    unusable = [reject for reject in rejects if reject.reason not in CURATION_REASONS]
    is_too_many = len(unusable) > max_reject_fraction * num_inputs
    if photos and not is_too_many:
        return
    counted = unusable if is_too_many else rejects
    counts = ", ".join(f"{count} {reason}" for reason, count in count_reasons(counted).items())
    first = counted[0]
    if not is_too_many and len(unusable) < len(rejects):
        raise InputError(
            f"no photo remains of {num_inputs} ({counts}); the first is {first.path}: {first.reason} ({first.detail}); "
            "loosen the rules of shards.curation; nothing was written"
        )
    raise InputError(
        f"{len(counted)} of {num_inputs} photos are rejected ({counts}), more than max_reject_fraction="
        f"{max_reject_fraction} allows; the first is {first.path}: {first.reason} ({first.detail}); "
        "clean the source folder, choose a smaller sub_image_px, or raise the limit; nothing was written"
    )


def count_reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """Count rejects by reason, reasons sorted."""
    counts: dict[str, int] = {}
    for reject in rejects:
        counts[reject.reason] = counts.get(reject.reason, 0) + 1
    return dict(sorted(counts.items()))
