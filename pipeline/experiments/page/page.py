"""The page: what it shows, and the templates that lay it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.experiments.page import plane
from pipeline.experiments.page.answer import Answer, answer_of
from pipeline.experiments.page.curves import curves_of_arms
from pipeline.experiments.page.forest import Forest, forest_of
from pipeline.experiments.page.looks import Look, looks_of
from pipeline.experiments.page.numbers import Row, SeedRow, ordered_metrics, seed_rows, table_rows
from pipeline.experiments.page.panels import Panels, panels_of
from pipeline.experiments.page.plane import Planes, planes_of
from pipeline.experiments.results import ComparisonResults
from pipeline.inference.html_report.columns import Column, column_of
from pipeline.inference.html_report.curves import Curves
from pipeline.inference.html_report.templating import fill_template

GENERATOR = "sed-trainer comparison"
"""In the head of the page, by which it is recognised."""


@dataclass(frozen=True)
class Page:
    """Everything on the page.

    Attributes:
        results: What it is about.
        looks: Of the arms, by name.
        answer: By the primary metric.
        forest: Differences by the primary metric; None without any.
        other_forests: Those by the other metrics.
        columns: Of the tables; the primary metric's is the first.
        rows: Bicubic and the arms.
        seeds: The means of every run, by the label of its arm.
        planes: The perception-distortion figures, or why there are none.
        panels: Pictures.
        curves: Of validations and training.
    """

    results: ComparisonResults
    looks: Mapping[str, Look]
    answer: Answer
    forest: Forest | None
    other_forests: Sequence[Forest]
    columns: Sequence[Column]
    rows: Sequence[Row]
    seeds: Mapping[str, Sequence[SeedRow]]
    planes: Planes | str
    panels: Panels
    curves: Curves


def render_comparison(results: ComparisonResults) -> bytes:
    """Return the page of a comparison as one HTML file that requires no other.

    Pictures or reports that are missing are named on the page; nothing else of an experiment may be.
    """
    looks = looks_of(results)
    metrics = ordered_metrics(results)
    forests = [forest_of(results, looks, metric) for metric in metrics]
    page = Page(
        results=results,
        looks=looks,
        answer=answer_of(results, looks),
        forest=forests[0],
        other_forests=[forest for forest in forests[1:] if forest is not None],
        columns=[column_of(metric) for metric in metrics],
        rows=table_rows(results, looks),
        seeds=seed_rows(results, looks),
        planes=planes_of(results, looks),
        panels=panels_of(results, looks),
        curves=curves_of_arms(results, looks),
    )
    return fill_template(
        "comparison.html.jinja",
        generator=GENERATOR,
        room="pipeline.experiments.page",
        folder="templates",
        page=page,
        frame=plane,
    )
