"""Tables: means by the rule for values without order, and the best of each column by its direction."""

from __future__ import annotations

import math

import pytest

from pipeline.inference.html_report.columns import HIGH_FREQUENCY_ENERGY, column_of, columns_of
from pipeline.inference.html_report.tables import means_of, table_of
from pipeline.metrics import METRICS

PSNR, GMSD = (column_of(METRICS[name]) for name in ("psnr_y", "gmsd"))


def best_rows(column, values: dict[str, float | None]) -> list[str]:
    table = table_of("set", [column], {method: {column.name: value} for method, value in values.items()})
    return [method for method, (cell,) in table.rows.items() if cell.is_best]


@pytest.mark.parametrize(
    ("column", "values", "best"),
    [
        (PSNR, {"bicubic": 26.0, "a": 28.5, "b": 27.0}, ["a"]),
        (GMSD, {"bicubic": 0.1, "a": 0.3, "b": 0.2}, ["bicubic"]),
        (HIGH_FREQUENCY_ENERGY, {"bicubic": 0.2, "a": 0.9, "b": 1.2}, ["a"]),
        (HIGH_FREQUENCY_ENERGY, {"bicubic": 0.2, "a": 0.7, "b": 1.2}, ["b"]),
        (PSNR, {"bicubic": 26.0, "a": 28.501, "b": 28.499}, ["a", "b"]),  # both are shown as 28.50 dB
        (PSNR, {"bicubic": None, "a": 28.5}, []),  # nothing to be better than
        (PSNR, {"bicubic": None, "a": 28.5, "b": 27.0}, ["a"]),
    ],
)
def test_best_of_a_column_is_marked(column, values: dict[str, float | None], best: list[str]) -> None:
    assert best_rows(column, values) == best


def test_means_leave_out_what_is_no_finite_number() -> None:
    columns = columns_of([METRICS["psnr_y"]])
    assert [column.name for column in columns] == ["psnr_y", "high_frequency_energy"]
    photos = [
        {"bicubic": {"psnr_y": 20.0, "high_frequency_energy": math.nan}},
        {"bicubic": {"psnr_y": 30.0, "high_frequency_energy": math.nan}},
        {"bicubic": {"psnr_y": math.inf, "high_frequency_energy": math.nan}},
    ]
    means = means_of(photos, columns)
    assert means == {"bicubic": {"psnr_y": 25.0, "high_frequency_energy": None}}
    assert [cell.text for cell in table_of("set", columns, means).rows["bicubic"]] == ["25.00 dB", "none"]
