"""Charts: axes that a person reads without thinking, and points where their values are."""

from __future__ import annotations

import re

import pytest

from pipeline.inference.html_report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Series,
    draw,
    linear_axis,
    logarithmic_axis,
    short_count,
)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0.0, 0.5, 1.0]),
        (0, 100, [0.0, 50.0, 100.0]),
        (27.25, 28.6, [27.0, 27.5, 28.0, 28.5, 29.0]),
        (-0.3, 0.9, [-0.5, 0.0, 0.5, 1.0]),
        (5, 5, [2.0, 4.0, 6.0, 8.0]),
        (0, 0, [-0.5, 0.0, 0.5]),
    ],
)
def test_linear_axis_has_round_ticks_around_the_values(low: float, high: float, ticks: list[float]) -> None:
    axis = linear_axis(low, high)
    assert list(axis.ticks) == ticks
    assert axis.low <= low <= high <= axis.high


def test_logarithmic_axis_has_powers_of_ten() -> None:
    axis = logarithmic_axis(0.03, 2.0)
    assert list(axis.ticks) == pytest.approx([0.01, 0.1, 1, 10])
    assert axis.fraction(0.1) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (800, "800"), (12_000, "12k"), (1_500_000, "1.5M")])
def test_counts_are_short(count: int, text: str) -> None:
    assert short_count(count) == text


def test_points_lie_where_their_values_are() -> None:
    series = Series("real", [(0, 0.0), (50, 0.5), (100, 1.0)], colour=0)
    drawing = draw(Chart("accuracy", "share", [series], limits=(0, 1), levels=[("chance", 0.5)]))
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    middle = (left + right) / 2, (top + bottom) / 2
    expected = [(left, bottom), middle, (right, top)]
    (line,) = drawing.lines
    assert list(line.dots) == expected
    numbers = [float(number) for number in re.findall(r"[\d.]+", line.path)]
    assert list(zip(numbers[::2], numbers[1::2], strict=True)) == expected
    assert drawing.levels == [middle[1]]
    assert line.last == "1"
    assert dict(drawing.y_ticks) == {bottom: "0.0", middle[1]: "0.5", top: "1.0"}
    assert [label for _, label in drawing.x_ticks] == ["0", "50", "100"]


def test_bands_cover_the_chart_and_say_what_all_lines_are_there() -> None:
    lines = [Series("pixel", [(100, 0.02), (200, 0.01)], 0), Series("adversarial", [(200, 0.7)], 1)]
    drawing = draw(Chart("losses", "loss", lines, may_be_logarithmic=True))
    assert drawing.is_logarithmic
    first, second = drawing.bands
    assert first.left == LEFT
    assert first.left + first.width == pytest.approx(second.left)
    assert second.left + second.width == pytest.approx(WIDTH - RIGHT)
    assert first.text == "100 images\npixel: 0.02"
    assert second.text == "200 images\npixel: 0.01\nadversarial: 0.7"


def test_axis_is_linear_where_a_value_is_negative_or_all_are_near() -> None:
    for values in ((-0.1, 5.0), (0.4, 0.9)):
        series = Series("loss", [(10, values[0]), (20, values[1])], 0)
        assert not draw(Chart("losses", "loss", [series], may_be_logarithmic=True)).is_logarithmic


def test_spread_is_an_area_inside_the_axis_and_symbols_stand_on_the_line() -> None:
    points = [(10.0 * number, 1.0) for number in range(1, 13)]
    series = Series("arm", points, 0, spread=[(0.0, 2.0)] * 12, symbol=1)
    (line,) = draw(Chart("psnr", "dB", [series])).lines
    numbers = [float(number) for number in re.findall(r"[\d.]+", line.area)]
    assert len(numbers) == 2 * 2 * 12
    assert (max(numbers[1::2]), min(numbers[1::2])) == (HEIGHT - BOTTOM, TOP)
    assert line.area.endswith("Z")
    assert line.dots == ()
    assert len(line.symbols) == 6
    assert line.symbols[0][0] == WIDTH - RIGHT  # the last point has one
    assert {y for _, y in line.symbols} == {(TOP + HEIGHT - BOTTOM) / 2}
