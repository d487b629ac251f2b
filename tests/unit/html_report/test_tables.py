"""Tables: a column per number, and the best of each by its direction."""

from __future__ import annotations

import pytest

from pipeline.inference.evaluation_report import MeansOfSet
from pipeline.inference.html_report.columns import HIGH_FREQUENCY_ENERGY, column_of, columns_of
from pipeline.inference.html_report.tables import table_of
from pipeline.metrics import METRICS
from pipeline.metrics.bootstrap import mean_interval

PSNR, GMSD = (column_of(METRICS[name]) for name in ("psnr_y", "gmsd"))


def row(label: str, **values: float | None) -> MeansOfSet:
    return MeansOfSet(
        label, {name: None if value is None else mean_interval([value]) for name, value in values.items()}
    )


def best_rows(column, values: dict[str, float | None]) -> list[str]:
    table = table_of("set", [column], [row(method, **{column.name: value}) for method, value in values.items()])
    return [method for method, (cell,) in table.rows.items() if cell.is_best]


@pytest.mark.parametrize(
    ("column", "values", "best"),
    [
        (PSNR, {"bicubic": 26.0, "a": 28.5, "b": 27.0}, ["a"]),
        (GMSD, {"bicubic": 0.1, "a": 0.3, "b": 0.2}, ["bicubic"]),
        (HIGH_FREQUENCY_ENERGY, {"bicubic": 0.2, "a": 0.9, "b": 1.2}, ["a"]),
        (HIGH_FREQUENCY_ENERGY, {"bicubic": 0.2, "a": 0.7, "b": 1.2}, ["b"]),
        (PSNR, {"bicubic": 26.0, "a": 28.501, "b": 28.499}, ["a", "b"]),  # both are shown as 28.50
        (PSNR, {"bicubic": None, "a": 28.5}, []),  # nothing to be better than
        (PSNR, {"bicubic": None, "a": 28.5, "b": 27.0}, []),  # without a mean where every photo is perfect
    ],
)
def test_best_of_a_column_is_marked(column, values: dict[str, float | None], best: list[str]) -> None:
    assert best_rows(column, values) == best


def test_table_has_a_column_per_metric_and_the_high_frequency_energy_last() -> None:
    columns = columns_of([METRICS["psnr_y"]])
    assert [column.name for column in columns] == ["psnr_y", "high_frequency_energy"]
    table = table_of("set", columns, [row("bicubic", psnr_y=25.0, high_frequency_energy=None)])
    assert [cell.text for cell in table.rows["bicubic"]] == ["25.00", "none"]
    assert columns[0].label == "PSNR-Y, dB"


def test_mean_over_photos_has_half_its_interval_and_a_single_photo_none() -> None:
    interval = mean_interval([20.0, 30.0, 31.0])
    assert interval is not None
    several, one = MeansOfSet("several", {"psnr_y": interval}), row("one", psnr_y=28.0)
    table = table_of("set", [PSNR], [several, one])
    assert table.rows["several"][0].spread == f"±{(interval.high - interval.low) / 2:.2f}"
    assert table.rows["one"][0].spread == ""


def test_table_at_the_terminal_has_aligned_columns_and_marks_the_best() -> None:
    rows = [row("bicubic", psnr_y=9.5, gmsd=0.5), row("ours", psnr_y=28.25, gmsd=0.25)]
    assert table_of("Set5 (5 photos)", [PSNR, GMSD], rows).text.splitlines() == [
        "Set5 (5 photos)  PSNR-Y, dB  GMSD",
        "bicubic          9.50        0.5000",
        "ours             28.25*      0.2500*",
    ]
