"""Reads what was measured of every run, and compares the arms."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.experiments.execution import Layout
from pipeline.experiments.measured_file import read_measured_file
from pipeline.experiments.plan import Plan, PlannedRun
from pipeline.experiments.results import ArmResults, ComparisonResults, Verdict
from pipeline.experiments.statistics import compare_arms, hierarchical_interval
from pipeline.metrics import Metric
from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.choice import find_metric
from pipeline.run.cost import Cost
from shards.errors import InputError
from shards.format.files import write_atomically

BICUBIC = "bicubic_"


@dataclass(frozen=True)
class Measured:
    """The measurements of one run.

    Attributes:
        images: `SET/NAME`, in the order of the sets.
        values: One for each image, by result; see `pipeline.inference.evaluate.result_names`.
    """

    images: tuple[str, ...]
    values: Mapping[str, Float[ndarray, " images"]]


def read_measured(run: PlannedRun, layout: Layout) -> Measured:
    """Read a finished run's document.

    Raises:
        InputError: It is none that `jobs/evaluate.py` wrote.
    """
    sets = read_measured_file(layout.measured(run)).sets
    rows = {f"{name}/{image}": row for name, one in sets.items() for image, row in one.images.items()}
    names = dict.fromkeys(name for row in rows.values() for name in row)
    values = {name: np.array([_number(row.get(name)) for row in rows.values()]) for name in names}
    return Measured(tuple(rows), values)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def compare_all(plan: Plan, costs: Mapping[str, Cost], origin: Mapping[str, str]) -> ComparisonResults:
    """Compare the arms of a plan whose runs are all measured.

    Args:
        plan: What was carried out.
        costs: By arm.
        origin: How it was made, for people.

    Raises:
        InputError: Runs were measured on different images.
    """
    experiment, layout = plan.experiment, Layout(plan.folder)
    measured = {run.name: read_measured(run, layout) for run in plan.runs}
    first = next(iter(measured.values()))
    if other := [name for name, one in measured.items() if one.images != first.images]:
        raise InputError(
            f"{', '.join(other)}: measured on other images than {plan.runs[0].name}; delete their documents"
        )
    computed = set.intersection(*(set(one.values) for one in measured.values()))
    metrics = [one for one in map(find_metric, experiment.metrics) if {one.name, BICUBIC + one.name} <= computed]
    arms = [
        ArmResults(
            name,
            arm.title,
            costs[name].discriminator_parameters,
            costs[name].flops,
            {run.seed: run.preset.train.run_dir for run in plan.of_arm(name)},
            _stacked([measured[run.name] for run in plan.of_arm(name)], metrics),
            {},
        )
        for name, arm in experiment.arms.items()
    ]
    primary = find_metric(experiment.primary)
    if primary not in metrics:
        raise InputError(f"the primary metric {primary.name} was not computed: needs {primary.missing()}")
    return ComparisonResults(
        title=experiment.title,
        question=experiment.question,
        baseline=experiment.baseline,
        primary=primary,
        metrics=metrics,
        margin=experiment.margin,
        seeds=[run.seed for run in plan.of_arm(experiment.baseline)],
        images=first.images,
        bicubic={metric.name: first.values[BICUBIC + metric.name] for metric in metrics},
        arms=arms,
        intervals={
            arm.name: {name: hierarchical_interval(of_arm) for name, of_arm in arm.values.items()} for arm in arms
        },
        differences=_differences(experiment.baseline, primary, experiment.margin, metrics, arms),
        pictures=layout.pictures,
        origin=origin,
    )


def _stacked(of_seeds: Sequence[Measured], metrics: Sequence[Metric]) -> dict[str, Float[ndarray, "seeds images"]]:
    return {metric.name: np.stack([one.values[metric.name] for one in of_seeds]) for metric in metrics}


def _differences(
    baseline: str, primary: Metric, margin: float, metrics: Sequence[Metric], arms: Sequence[ArmResults]
) -> dict[str, dict[str, Verdict]]:
    (reference,) = (arm for arm in arms if arm.name == baseline)

    def against(arm: ArmResults, metric: Metric) -> Verdict:
        given = margin if metric.name == primary.name else None
        comparison = compare_arms(metric, arm.values[metric.name], reference.values[metric.name], margin=given)
        return Verdict(comparison.interval, comparison.verdict)

    return {arm.name: {metric.name: against(arm, metric) for metric in metrics} for arm in arms if arm is not reference}


def write_numbers(results: ComparisonResults, document: Path, table: Path) -> None:
    """Write the results as a JSON document, and every image's values as CSV: a line for each arm, seed and image."""
    write_atomically(document, (json.dumps(_document(results), indent=1, allow_nan=False) + "\n").encode())
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    names = [metric.name for metric in results.metrics]
    writer.writerow(["arm", "seed", "image", *names])
    for arm in results.arms:
        for row, seed in enumerate(results.seeds):
            for column, image in enumerate(results.images):
                writer.writerow(
                    [arm.name, seed, image, *(repr(float(arm.values[name][row, column])) for name in names)]
                )
    write_atomically(table, lines.getvalue().encode(errors="backslashreplace"))


def _document(results: ComparisonResults) -> dict[str, Any]:
    return {
        "title": results.title,
        "baseline": results.baseline,
        "primary": results.primary.name,
        "margin": results.margin,
        "seeds": list(results.seeds),
        "images": len(results.images),
        "arms": {
            arm.name: {
                "title": arm.title,
                "discriminator_parameters": arm.num_parameters,
                "flops": arm.flops,
                "means": {name: _ends(interval) for name, interval in results.intervals[arm.name].items()},
                "differences": {
                    name: {**_ends(verdict.interval), "verdict": verdict.text}
                    for name, verdict in results.differences.get(arm.name, {}).items()
                },
            }
            for arm in results.arms
        },
        "origin": dict(results.origin),
    }


def _ends(interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {"mean": None, "low": None, "high": None}
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def text_table(results: ComparisonResults) -> str:
    """Return the answer as lines for a terminal: the primary metric, each arm against the baseline."""
    primary = results.primary
    width = max(len(arm.title) for arm in results.arms)
    lines = [f"{primary.label}, {primary.direction}; margin {results.margin:g}"]
    for arm in results.arms:
        interval = results.intervals[arm.name].get(primary.name)
        mean = "none" if interval is None else f"{interval.mean:.{primary.decimals}f}"
        lines.append(f"  {arm.title:<{width}}  {mean}  {_against(results, arm.name)}".rstrip())
    return "\n".join(lines)


def _against(results: ComparisonResults, arm: str) -> str:
    verdict = results.differences.get(arm, {}).get(results.primary.name)
    if verdict is None:
        return "(baseline)"
    if verdict.interval is None:
        return verdict.text
    places, interval = results.primary.decimals + 1, verdict.interval
    return f"{interval.mean:+.{places}f} ({interval.low:+.{places}f} to {interval.high:+.{places}f}): {verdict.text}"


def finished_export(run: PlannedRun) -> Path:
    """Return the weights that a finished run is measured by: the moving average at its end, never a best one."""
    return RunFolder(run.preset.train.run_dir).generator
