"""A study with people: a page that shows two arms' results side by side and asks which looks better.

The page is one HTML file that requires no network and no other file. It does not contain the arms' names: voters, and
whoever reads its source, see identifiers that only `study.json`, written beside it, translates. Each browser draws a
voter's number, which decides the order of the questions and which result is on the left. A share of the questions
comes again with sides exchanged, so that `pipeline.experiments.votes` can tell how consistent a voter is.

Of every image one square window is shown, where the arms' results differ most: a rule that favours none of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.data.evaluation import read_image
from pipeline.errors import InputError, refuse
from pipeline.experiments.study_file import STUDY_FILE, STUDY_FORMAT, VOTES_FORMAT, Study, StudyImage
from pipeline.inference.html_report.details import evenly_spread, where_most_varied
from pipeline.inference.html_report.embedding import png_uri
from pipeline.inference.html_report.templating import fill_template
from shards.format.documents import digest_of
from shards.format.files import check_writable, write_atomically
from shards.format.outputs import check_output_files, head_of
from shards.format.png import pixels_sha256

PAGE_FILE = "study.html"
GENERATOR = "sed-trainer study"
_HEAD_BYTES = 400


@dataclass(frozen=True)
class StudyOptions:
    """What voters are asked.

    Attributes:
        question: Above the pictures.
        num_questions: That a voter answers, without repeats; fewer where images and arms give fewer.
        repeat_share: Of these questions, how many come again with sides exchanged; in [0, 0.5].
        side_px: Of the windows; smaller where an image is.
        enlargement: On a screen that is wide enough; whole, so that all pixels are alike.
        max_images: Images that are shown, evenly spread over the names; each adds about 90 kB for every arm.
    """

    question: str = "Which picture looks better?"
    num_questions: int = 60
    repeat_share: float = 0.2
    side_px: int = 192
    enlargement: int = 2
    max_images: int = 30

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: Lists every value that cannot be used.
        """
        values = {
            "num_questions": (self.num_questions, 1),
            "side_px": (self.side_px, 16),
            "enlargement": (self.enlargement, 1),
            "max_images": (self.max_images, 1),
        }
        faults = [
            f"{name}={value} must be {least} or above" for name, (value, least) in values.items() if value < least
        ]
        if not 0 <= self.repeat_share <= 0.5:
            faults.append(f"repeat_share={self.repeat_share} must be from 0 to 0.5")
        refuse(faults)


@dataclass(frozen=True)
class _Shown:
    """An image with its windows' pixels: the original's, and by arm."""

    image: StudyImage
    original: UInt8[ndarray, "side side 3"]
    results: Mapping[str, UInt8[ndarray, "side side 3"]]


def write_study(
    folder: Path,
    arms: Mapping[str, Mapping[str, Path]],
    originals: Mapping[str, Path],
    *,
    options: StudyOptions | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the page of a study, and the file that translates its votes.

    Equal pictures have an equal study, whose votes stay readable; arms may be in any order.

    Args:
        folder: Where `study.html` and `study.json` are written; made if it is missing.
        arms: Result of every image, by arm and image; at least two arms.
        originals: HR images, by the same names.
        options: What voters are asked.
        overwrite: Replace another study, whose votes cannot be read any more.

    Returns:
        The page.

    Raises:
        InputError: Arms have other images than the originals, or of another size; nothing differs; a file cannot be
            read or written, or is of another study.
    """
    options = options or StudyOptions()
    _check_images(arms, originals)
    paths = {
        name: {arm: arms[arm][name] for arm in sorted(arms)}
        for name in evenly_spread(sorted(originals), options.max_images)
    }
    windows = [_most_different(name, originals[name], results, options.side_px) for name, results in paths.items()]
    shown = [one for one in windows if one is not None]
    if not shown:
        raise InputError(f"all results of {', '.join(arms)} are equal in every pixel; give arms that differ")
    study = _study_of(shown, options)
    page, key = folder / PAGE_FILE, folder / STUDY_FILE
    inputs = [*originals.values(), *(path for images in arms.values() for path in images.values())]
    check_output_files([page, key], inputs, is_own=lambda path: _is_of(study, path), overwrite=overwrite)
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(key, (json.dumps(asdict(study), indent=1) + "\n").encode())
    write_atomically(page, _render(study, shown, options))
    return page


def _check_images(arms: Mapping[str, Mapping[str, Path]], originals: Mapping[str, Path]) -> None:
    """Check that every arm has a result of every image, and of no other."""
    if len(arms) < 2:
        raise InputError(f"a study compares at least two arms; got {', '.join(arms) or 'none'}")
    if not originals:
        raise InputError("a study shows at least one image; got none")
    for arm, results in arms.items():
        if missing := sorted(originals.keys() - results.keys()):
            raise InputError(f"arm {arm!r} has no result of {_some(missing)}; every arm shows the same images")
        if unknown := sorted(results.keys() - originals.keys()):
            raise InputError(f"arm {arm!r} has a result of {_some(unknown)}, of which there is no HR image")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _most_different(name: str, original: Path, results: Mapping[str, Path], side_px: int) -> _Shown | None:
    """Return the window of an image where the results differ most; None where they do not differ."""
    hr = read_image(original).pixels
    pictures = {arm: read_image(path).pixels for arm, path in results.items()}
    for arm, picture in pictures.items():
        if picture.shape != hr.shape:
            sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]} px" for image in (picture, hr))
            raise InputError(f"{results[arm]} and its HR image {original} have different sizes: {sizes}")
    windows = where_most_varied([*pictures.values()], count=1, largest_side_px=side_px)
    if not windows:
        return None
    window = windows[0]
    image = StudyImage(name, window.top_px, window.left_px, window.side_px)
    return _Shown(image, window.cut(hr), {arm: window.cut(picture) for arm, picture in pictures.items()})


def _study_of(shown: Sequence[_Shown], options: StudyOptions) -> Study:
    pixels = [[pixels_sha256(picture) for picture in (one.original, *one.results.values())] for one in shown]
    arms, images = list(shown[0].results), tuple(one.image for one in shown)
    content = {
        "options": asdict(options),
        "arms": arms,
        "images": [asdict(image) for image in images],
        "pixels": pixels,
    }
    study = digest_of(content)
    identifiers = {hashlib.sha256(f"{study} {arm}".encode()).hexdigest()[:12]: arm for arm in arms}
    # Sorted by the identifiers, which tell nothing, as the page is.
    return Study(STUDY_FORMAT, study, options.question, dict(sorted(identifiers.items())), images)


def _is_of(study: Study, path: Path) -> bool:
    """Return whether a file is an earlier page or key of this study."""
    return study.study.encode() in head_of(path, _HEAD_BYTES)


def _render(study: Study, shown: Sequence[_Shown], options: StudyOptions) -> bytes:
    """Return the page as one HTML file that needs no other."""
    return fill_template(
        "study.html.jinja",
        generator=GENERATOR,
        room="pipeline.experiments",
        folder="study_page",
        study=study,
        data=_data(study, shown, options),
    )


def _data(study: Study, shown: Sequence[_Shown], options: StudyOptions) -> dict[str, Any]:
    """Return what the page's script reads."""
    num_pairs = len(shown) * len(study.arms) * (len(study.arms) - 1) // 2
    num_questions = min(options.num_questions, num_pairs)
    images = [
        {
            "side_px": one.image.side_px,
            "original": png_uri(one.original),
            "results": {identifier: png_uri(one.results[arm]) for identifier, arm in study.arms.items()},
        }
        for one in shown
    ]
    return {
        "study": study.study,
        "votes_format": VOTES_FORMAT,
        "arms": list(study.arms),
        "num_questions": num_questions,
        "num_repeats": round(options.repeat_share * num_questions),
        "enlargement": options.enlargement,
        "images": images,
    }
