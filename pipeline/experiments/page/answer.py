"""The answer to the experiment's question: one sentence for each verdict by the primary metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.experiments.page.looks import Look
from pipeline.experiments.page.numbers import difference_text, differences_by, plain
from pipeline.experiments.results import ComparisonResults
from pipeline.metrics.bootstrap import CONFIDENCE

_ORDER = ("better", "equivalent", "not proven", "worse")


@dataclass(frozen=True)
class Finding:
    """The arms of one verdict: label, and the difference with its interval."""

    verdict: str
    arms: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What the page says first.

    Attributes:
        about: What is compared with what, and by what.
        findings: From better to worse.
        cautions: What the numbers cannot say.
    """

    about: str
    findings: Sequence[Finding]
    cautions: Sequence[str]


def answer_of(results: ComparisonResults, looks: Mapping[str, Look]) -> Answer:
    """Return the answer by the primary metric."""
    metric, grouped = results.primary, dict[str, list[tuple[str, str]]]()
    verdicts = differences_by(results, metric)
    for name in looks:
        if name == results.baseline:
            continue
        verdict = verdicts.get(name)
        text, difference = (verdict.text, difference_text(metric, verdict)) if verdict else ("not measured", "")
        grouped.setdefault(text, []).append((looks[name].label, difference))
    return Answer(
        _about(results, looks),
        [Finding(text.capitalize(), grouped[text]) for text in sorted(grouped, key=_rank)],
        _cautions(results),
    )


def _rank(verdict: str) -> int:
    """Return the place of a verdict; those of other words come last."""
    return next((place for place, begin in enumerate(_ORDER) if verdict.startswith(begin)), len(_ORDER))


def _about(results: ComparisonResults, looks: Mapping[str, Look]) -> str:
    metric = results.primary
    unit = f" {metric.unit}" if metric.unit else ""
    return (
        f"By {metric.label} ({metric.direction}), compared with {looks[results.baseline].label}, over "
        f"{_count(len(results.seeds), 'seed')} and {_count(len(results.images), 'image')}, with {CONFIDENCE:.0%} "
        f"intervals and a margin of {plain(metric, results.margin)}{unit}:"
    )


def _cautions(results: ComparisonResults) -> list[str]:
    cautions = []
    if len(results.seeds) == 1:
        cautions.append("One seed: the intervals are of these runs, and do not know how far another seed would fall.")
    if len(results.images) == 1:
        cautions.append("One image: the intervals are of this image, and do not know how far another would fall.")
    return cautions


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
