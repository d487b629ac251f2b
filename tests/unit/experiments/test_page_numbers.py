"""Numbers of a comparison: what the tables and the first sentences say, and what is proven best."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from synthetic_comparison import synthetic_comparison

from pipeline.experiments.page.answer import answer_of
from pipeline.experiments.page.looks import looks_of
from pipeline.experiments.page.numbers import Amount, proven_best, seed_rows, short_count, short_flops, table_rows
from pipeline.experiments.results import ComparisonResults, Verdict
from pipeline.metrics import METRICS
from pipeline.metrics.bootstrap import Interval

GMSD, PSNR = METRICS["gmsd"], METRICS["psnr_y"]


@pytest.fixture
def results(tmp_path: Path) -> ComparisonResults:
    return synthetic_comparison(tmp_path)


def verdict(low: float, high: float, text: str) -> Verdict:
    return Verdict(Interval((low + high) / 2, low, high, 19), text)


@pytest.mark.parametrize(
    ("differences", "best"),
    [
        ({"a": (-3, -1, "better"), "b": (1, 2, "worse")}, "a"),
        ({"a": (-3, -1.5, "better, by less than the margin"), "b": (-1, 0.5, "not proven")}, "a"),
        ({"a": (-3, -1, "better"), "b": (-2, 1, "not proven")}, None),  # they overlap
        ({"a": (-3, -1, "better"), "b": (-2, -1, "better")}, None),
        ({"a": (-3, -1, "not proven"), "b": (1, 2, "not proven")}, None),  # such as with one seed
        ({"a": (1, 3, "worse"), "b": (2, 4, "worse, by less than the margin")}, "baseline"),
        ({"a": (1, 3, "worse"), "b": (-1, 1, "equivalent")}, None),
        ({}, None),
    ],
)
def test_best_is_proven_against_every_arm_and_the_baseline(
    differences: dict[str, tuple[float, float, str]], best: str | None
) -> None:
    verdicts = {name: verdict(*one) for name, one in differences.items()} | {"lost": Verdict(None, "not proven")}
    assert proven_best(GMSD, verdicts, "baseline") == best
    mirrored = {name: verdict(-high, -low, text) for name, (low, high, text) in differences.items()}
    assert proven_best(PSNR, mirrored, "baseline") == best


def test_table_has_the_primary_metric_first_and_marks_what_is_proven(results: ComparisonResults) -> None:
    results = dataclasses.replace(results, metrics=[PSNR, GMSD])
    rows = table_rows(results, looks_of(results))
    assert [row.label for row in rows] == ["bicubic", "P", "P+SeD", "P, shuffled semantics"]
    _, baseline, best, shuffled = rows
    interval = results.intervals["arm1"]["gmsd"]
    assert interval is not None
    assert best.numbers[0].mean == f"{interval.mean:.4f}"
    assert best.numbers[0].interval == f"{interval.low:.4f} to {interval.high:.4f}"
    assert best.numbers[0].difference.startswith("-0.00")
    assert best.numbers[0].verdict == "better"
    assert best.numbers[0].is_best
    assert baseline.numbers[0].difference == baseline.numbers[0].verdict == ""
    assert shuffled.numbers[0].verdict == "equivalent"
    assert not shuffled.numbers[0].is_best
    assert (baseline.parameters, best.parameters) == (Amount("2.77M", ""), Amount("5.53M", "2x"))
    assert (baseline.flops, best.flops) == (Amount("13 PFLOP", ""), Amount("26 PFLOP", "2x"))


def test_arm_without_a_metric_has_none_and_hides_nobody_elses(results: ComparisonResults) -> None:
    *arms, last = results.arms
    last = dataclasses.replace(last, values={"psnr_y": last.values["psnr_y"]}, num_parameters=0, flops=float("nan"))
    results = dataclasses.replace(
        results,
        arms=[*arms, last],
        intervals=results.intervals | {"arm2": {"gmsd": None}},
        differences=results.differences | {"arm2": {"gmsd": Verdict(None, "not measured")}},
    )
    looks = looks_of(results)
    row = table_rows(results, looks)[-1]
    assert [(number.mean, number.verdict) for number in row.numbers] == [("none", "not measured"), ("none", "")]
    assert (row.parameters, row.flops) == (Amount("0", ""), Amount("unknown", ""))
    assert table_rows(results, looks)[2].numbers[0].is_best
    assert [seed.means[0] for seed in seed_rows(results, looks)["P, shuffled semantics"]] == ["none", "none"]
    assert answer_of(results, looks).findings[-1].arms == [("P, shuffled semantics", "")]


def test_mean_of_a_seed_is_over_finite_values_and_says_how_many(results: ComparisonResults) -> None:
    values = results.arms[0].values["gmsd"].copy()
    values[0] = (0.25, np.nan, np.inf)
    values[1] = np.nan
    first = dataclasses.replace(results.arms[0], values=results.arms[0].values | {"gmsd": values})
    results = dataclasses.replace(results, arms=[first, *results.arms[1:]])
    rows = seed_rows(results, looks_of(results))["P"]
    assert [row.seed for row in rows] == ["0", "1"]
    assert [row.means[0] for row in rows] == ["0.2500 (1 of 3 images)", "none"]


def test_answer_groups_the_arms_by_verdict(results: ComparisonResults) -> None:
    answer = answer_of(results, looks_of(results))
    assert answer.about.startswith("By GMSD (lower is better), compared with P, over 2 seeds and 3 images")
    assert "a margin of 0.0040:" in answer.about
    assert [finding.verdict for finding in answer.findings] == ["Better", "Equivalent"]
    ((label, difference),) = answer.findings[0].arms
    assert label == "P+SeD"
    number = table_rows(results, looks_of(results))[2].numbers[0]
    assert difference == f"{number.difference} ({number.difference_interval})"
    assert answer.cautions == []


def test_answer_goes_from_better_to_worse(results: ComparisonResults) -> None:
    texts = ["worse", "not proven", "better, by less than the margin", "unheard of", "equivalent", "better"]
    arms = [results.arms[0], *(dataclasses.replace(results.arms[1], name=text, title=text) for text in texts)]
    differences = {text: {"gmsd": Verdict(None, text)} for text in texts}
    results = dataclasses.replace(results, arms=arms, differences=differences)
    assert [finding.verdict for finding in answer_of(results, looks_of(results)).findings] == [
        *("Better, by less than the margin", "Better", "Equivalent", "Not proven", "Worse", "Unheard of")
    ]


def test_answer_of_one_seed_or_image_says_what_is_not_known(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path, num_seeds=1)
    (caution,) = answer_of(results, looks_of(results)).cautions
    assert caution.startswith("One seed: ")


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (950, "950"), (2_765_568, "2.77M"), (1.5e9, "1.5G")])
def test_parameters_are_short(count: int, text: str) -> None:
    assert short_count(count) == text


@pytest.mark.parametrize(("flops", "text"), [(0, "0 FLOP"), (1.234e15, "1.23 PFLOP"), (float("inf"), "unknown")])
def test_flops_are_short(flops: float, text: str) -> None:
    assert short_flops(flops) == text


def test_twenty_arms_look_different_and_not_by_colour_alone(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path)
    arms = [dataclasses.replace(results.arms[0], name=f"arm{number}", title="same") for number in range(20)]
    looks = looks_of(dataclasses.replace(results, arms=arms, baseline="arm3"))
    assert list(looks) == [f"arm{number}" for number in range(20)]
    assert len({look.label for look in looks.values()}) == 20
    assert len({(look.colour, look.symbol) for look in looks.values()}) == 20
    assert [name for name, look in looks.items() if look.is_baseline] == ["arm3"]
    for colour in {look.colour for look in looks.values()}:  # arms of one colour differ in symbol and pattern
        same = [look for look in looks.values() if look.colour == colour]
        assert len({look.symbol for look in same}) == len({look.dash for look in same}) == len(same)


def test_title_of_a_picture_that_is_no_arms_gets_the_arms_name(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path, titles=("HR", "P+SeD"))
    assert [look.label for look in looks_of(results).values()] == ["HR (arm0)", "P+SeD"]
