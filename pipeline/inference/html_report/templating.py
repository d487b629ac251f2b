"""Fills the templates of a page; those of this room, such as charts and sliders, serve every page."""

from __future__ import annotations

import jinja2

from pipeline.inference.html_report import charts, embedding
from pipeline.metrics.bootstrap import CONFIDENCE
from shards.format.names import as_text

_ROOM, _FOLDER = "pipeline.inference.html_report", "page"


def fill_template(template: str, *, generator: str, room: str = _ROOM, folder: str = _FOLDER, **names: object) -> bytes:
    """Return a page as one HTML file; names are inserted as text, never as HTML.

    Args:
        template: File name of the page's template.
        generator: By which the file is recognised as ours.
        room: Package of the page.
        folder: Inside it, with the page's own templates.
        **names: What the templates and their macros see.
    """
    loaders = [jinja2.PackageLoader(room, folder), jinja2.PackageLoader(_ROOM, _FOLDER)]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(charts=charts, embedding=embedding, generator=generator, confidence=CONFIDENCE, **names)
    return as_text(environment.get_template(template).render()).encode()
