"""The results of an experiment: what was measured of each arm, and how the arms compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray

from pipeline.metrics import Metric
from pipeline.metrics.bootstrap import Interval


@dataclass(frozen=True)
class ArmResults:
    """What was measured of one arm.

    Attributes:
        name: Its key in the experiment file.
        title: For people.
        num_parameters: Of the discriminators; 0 without one.
        flops: Of training, over the whole run.
        runs: Run folder by seed.
        values: By metric name, of the final averaged weights; a metric that was not computed is missing.
        interpolated: Of the first seed: by the share of the arm's weights (0 to 1) against those of its start, and by
            metric; may be empty.
    """

    name: str
    title: str
    num_parameters: int
    flops: float
    runs: Mapping[int, Path]
    values: Mapping[str, Float[ndarray, "seeds images"]]
    interpolated: Mapping[float, Mapping[str, Float[ndarray, " images"]]]


@dataclass(frozen=True)
class Verdict:
    """One arm against the baseline, by one metric.

    Attributes:
        interval: Of the paired difference, arm minus baseline; None where there is none.
        text: In words, such as "equivalent"; begins with "better" or "worse" just where that is proven.
    """

    interval: Interval | None
    text: str


@dataclass(frozen=True)
class ComparisonResults:
    """The results of a whole experiment.

    Attributes:
        title: Of the experiment.
        question: A paragraph.
        baseline: Name of the arm that the others are compared with.
        primary: The metric that answers the question.
        metrics: All of them, the primary one included.
        margin: Differences by the primary metric up to it do not matter; in its unit, at least 0.
        seeds: Rows of an arm's values.
        images: `SET/NAME`, columns of an arm's values.
        bicubic: Values of bicubic upscaling by metric name.
        arms: In the order of the experiment file.
        intervals: By arm and metric, of the mean over seeds and images.
        differences: By arm, the baseline excluded, and metric.
        pictures: Folder of `ARM/SET/NAME.png`, made by the first seed, with `HR` and `bicubic` beside the arms.
        origin: How it was made, by heading: command, commit, device, date.
    """

    title: str
    question: str
    baseline: str
    primary: Metric
    metrics: Sequence[Metric]
    margin: float
    seeds: Sequence[int]
    images: Sequence[str]
    bicubic: Mapping[str, Float[ndarray, " images"]]
    arms: Sequence[ArmResults]
    intervals: Mapping[str, Mapping[str, Interval | None]]
    differences: Mapping[str, Mapping[str, Verdict]]
    pictures: Path
    origin: Mapping[str, str]
