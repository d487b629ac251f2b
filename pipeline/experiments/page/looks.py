"""How each arm is named and drawn, the same in every chart and table of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.experiments.results import ArmResults, ComparisonResults
from pipeline.inference.html_report.charts import GRAY, NUM_COLOURS, SYMBOLS
from pipeline.inference.model_names import BICUBIC, HR

_COLOURS = [colour for colour in range(NUM_COLOURS) if colour != GRAY]
_NUM_DASHES = 4


@dataclass(frozen=True)
class Look:
    """An arm on the page.

    Attributes:
        label: Of the arm; no two have the same.
        colour: Number of its colour.
        dash: Number of its line's pattern.
        symbol: Number of its symbol.
        is_baseline: Whether the others are compared with it.
    """

    label: str
    colour: int
    dash: int
    symbol: int
    is_baseline: bool


def looks_of(results: ComparisonResults) -> dict[str, Look]:
    """Return the looks by name: the baseline gray with a circle, the others by their place among the others.

    Of 20 arms no two have the same colour and symbol, and neighbours differ in both, so that no arm is told apart by
    its colour alone.
    """
    labels = _labels(results.arms)
    others = [arm.name for arm in results.arms if arm.name != results.baseline]
    looks = {name: _look(labels[name], at) for at, name in enumerate(others)}
    looks[results.baseline] = Look(labels[results.baseline], GRAY, dash=0, symbol=0, is_baseline=True)
    return {arm.name: looks[arm.name] for arm in results.arms}


def _look(label: str, at: int) -> Look:
    lap, colour = divmod(at, len(_COLOURS))
    symbol = 1 + (colour + lap) % (len(SYMBOLS) - 1)  # moved on in every lap, or a symbol would be of one colour alone
    return Look(label, _COLOURS[colour], dash=lap % _NUM_DASHES, symbol=symbol, is_baseline=False)


def _labels(arms: Sequence[ArmResults]) -> dict[str, str]:
    """Return the titles, with the name where a title is not distinct."""
    counts = Counter([*(arm.title for arm in arms), BICUBIC, HR])
    return {arm.name: arm.title if counts[arm.title] == 1 else f"{arm.title} ({arm.name})" for arm in arms}
