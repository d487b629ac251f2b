"""The page: what it shows, and the templates that lay it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
from numpy import ndarray

from pipeline.inference.attention import STRONGEST
from pipeline.inference.html_report.attention import Attention
from pipeline.inference.html_report.columns import Column
from pipeline.inference.html_report.curves import Curves
from pipeline.inference.html_report.embedding import png_uri
from pipeline.inference.html_report.origin import Origin
from pipeline.inference.html_report.output import GENERATOR
from pipeline.inference.html_report.tables import Table
from pipeline.inference.html_report.templating import fill_template
from pipeline.inference.window import Window


@dataclass(frozen=True)
class Detail:
    """A part of a photo, enlarged: each method's as a data URI, and its place in percent of the photo."""

    letter: str
    side_px: int
    left: float
    top: float
    width: float
    height: float
    uris: Mapping[str, str]


def enlarged(pictures: Mapping[str, UInt8[ndarray, "h w 3"]], windows: Sequence[Window]) -> list[Detail]:
    """Return parts of a photo, enlarged; its pictures by method are all of one size."""
    height_px, width_px = next(iter(pictures.values())).shape[:2]
    return [
        Detail(
            letter="AB"[number],
            side_px=window.side_px,
            left=100 * window.left_px / width_px,
            top=100 * window.top_px / height_px,
            width=100 * window.side_px / width_px,
            height=100 * window.side_px / height_px,
            uris={method: png_uri(window.cut(picture)) for method, picture in pictures.items()},
        )
        for number, window in enumerate(windows)
    ]


@dataclass(frozen=True)
class ComparedPhoto:
    """One photo: each method's picture as a data URI, HR last."""

    set_name: str
    name: str
    width_px: int
    height_px: int
    uris: Mapping[str, str]
    details: Sequence[Detail]
    table: Table


@dataclass(frozen=True)
class RunSection:
    """What a run folder adds for its model.

    Attributes:
        name: Of the model.
        curves: From its metrics file.
        attention: Of its discriminator, or why there is none to show.
    """

    name: str
    curves: Curves
    attention: Attention | str


@dataclass(frozen=True)
class Page:
    """Everything on the page.

    Attributes:
        models: Short names, in the order given.
        scale: Enlargement.
        sets: Their names.
        columns: Of the tables.
        tables: One per set.
        num_photos: That were measured.
        not_computed: Metrics that could not be computed, with what each needs.
        faults: Photos that could not be used, with the reason.
        photos: Those that are shown.
        runs: Of the models that are run folders.
        without_run: Names of the other models.
        origin: How the page was made.
    """

    models: Sequence[str]
    scale: int
    sets: Sequence[str]
    columns: Sequence[Column]
    tables: Sequence[Table]
    num_photos: int
    not_computed: Mapping[str, str]
    faults: Sequence[str]
    photos: Sequence[ComparedPhoto]
    runs: Sequence[RunSection]
    without_run: Sequence[str]
    origin: Origin


def render(page: Page) -> bytes:
    """Return the page as one HTML file that needs no other."""
    return fill_template("page.html.jinja", generator=GENERATOR, page=page, strongest=STRONGEST)
