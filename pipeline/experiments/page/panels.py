"""Pictures of the arms: of some photos the part where the arms differ most, under a divider, with enlarged details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.data.evaluation import read_image
from pipeline.experiments.page.looks import Look
from pipeline.experiments.page.numbers import differences_by, ordered_metrics, plain
from pipeline.experiments.results import ComparisonResults
from pipeline.inference.html_report.columns import column_of
from pipeline.inference.html_report.details import evenly_spread, where_most_varied
from pipeline.inference.html_report.embedding import photo_uri
from pipeline.inference.html_report.page import ComparedPhoto, Detail, enlarged
from pipeline.inference.html_report.tables import Cell, Table
from pipeline.inference.model_names import BICUBIC, HR
from pipeline.inference.window import Window
from shards.errors import InputError

MAX_PHOTOS = 8
MAX_PICTURES = 100
"""Of all photos and methods together: with many arms fewer photos are shown."""
CROP_PX = 256
DETAIL_PX = 40


@dataclass(frozen=True)
class Panels:
    """The pictures of a page.

    Attributes:
        photos: Those shown; all have the same methods: bicubic, the arms, HR.
        left: Number of the method that is left of the divider at first.
        right: Number of the one on its right.
        faults: Photos that cannot be shown, with the reason.
    """

    photos: Sequence[ComparedPhoto]
    left: int
    right: int
    faults: Sequence[str]


def panels_of(results: ComparisonResults, looks: Mapping[str, Look]) -> Panels:
    """Read and cut the pictures of some photos, evenly spread."""
    photos, faults = [], []
    count = min(MAX_PHOTOS, max(1, MAX_PICTURES // (len(looks) + 2)))
    for at in evenly_spread(range(len(results.images)), count):
        try:
            photos.append(_photo(results, looks, at))
        except InputError as error:
            faults.append(str(error))
    names = [BICUBIC, *looks, HR]
    return Panels(photos, names.index(results.baseline), names.index(_rival(results)), faults)


def _rival(results: ComparisonResults) -> str:
    """Return the arm that is best by the primary metric, the baseline excluded."""
    sign = 1.0 if results.primary.is_higher_better else -1.0
    verdicts = differences_by(results, results.primary)
    known = {name: sign * verdict.interval.mean for name, verdict in verdicts.items() if verdict.interval is not None}
    others = [arm.name for arm in results.arms if arm.name != results.baseline]
    return max(known, key=known.__getitem__) if known else others[0]


def _photo(results: ComparisonResults, looks: Mapping[str, Look], at: int) -> ComparedPhoto:
    image = results.images[at]
    labels = {BICUBIC: BICUBIC} | {name: look.label for name, look in looks.items()} | {HR: HR}
    pictures = {label: read_image(results.pictures / name / f"{image}.png").pixels for name, label in labels.items()}
    _check_sizes(image, pictures)
    arms = [look.label for look in looks.values()]
    window = _crop(pictures, arms)
    crops = {label: window.cut(picture) for label, picture in pictures.items()}
    set_name, _, name = image.rpartition("/")
    return ComparedPhoto(
        set_name=set_name,
        name=name,
        width_px=window.side_px,
        height_px=window.side_px,
        uris={label: photo_uri(crop) for label, crop in crops.items()},
        details=_details(crops, arms),
        table=_table(results, looks, at),
    )


def _check_sizes(image: str, pictures: Mapping[str, UInt8[ndarray, "_ _ 3"]]) -> None:
    sizes = {label: f"{picture.shape[1]}x{picture.shape[0]}" for label, picture in pictures.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{label} {size}" for label, size in sizes.items())
        raise InputError(f"{image} is not shown: its pictures differ in size ({listed} px); make them again")


def _crop(pictures: Mapping[str, UInt8[ndarray, "h w 3"]], arms: Sequence[str]) -> Window:
    """Return where the arms differ most; the middle where they do not."""
    if found := where_most_varied([pictures[arm] for arm in arms], 1, CROP_PX):
        return found[0]
    height_px, width_px = pictures[HR].shape[:2]
    side_px = min(CROP_PX, height_px, width_px)
    return Window((height_px - side_px) // 2, (width_px - side_px) // 2, side_px)


def _details(crops: Mapping[str, UInt8[ndarray, "s s 3"]], arms: Sequence[str]) -> list[Detail]:
    return enlarged(crops, where_most_varied([crops[arm] for arm in arms], 2, DETAIL_PX))


def _table(results: ComparisonResults, looks: Mapping[str, Look], at: int) -> Table:
    """Return the numbers of the shown pictures, the first seed's; none is marked, as one photo proves nothing."""
    metrics = ordered_metrics(results)
    values = {BICUBIC: {name: row[at] for name, row in results.bicubic.items()}}
    values |= {looks[arm.name].label: {name: rows[0, at] for name, rows in arm.values.items()} for arm in results.arms}
    rows = {
        label: [Cell(plain(metric, by_metric.get(metric.name)), spread="", is_best=False) for metric in metrics]
        for label, by_metric in values.items()
    }
    return Table(results.images[at], [column_of(metric) for metric in metrics], rows)
