"""Details lie where two pictures differ most, whoever made them."""

from __future__ import annotations

import numpy as np
from harness import photo

from pipeline.inference.html_report.details import where_most_different, where_most_varied
from pipeline.inference.window import Window


def with_squares(image: np.ndarray, *squares: tuple[int, int, int]) -> np.ndarray:
    """The picture with squares of 20 px that differ by some gray levels, each given by its corner."""
    changed = image.astype(int)
    for top, left, difference in squares:
        changed[top : top + 20, left : left + 20] += difference
    return changed.clip(0, 255).astype(np.uint8)


def test_windows_hold_the_largest_differences_in_order() -> None:
    one = np.full((300, 400, 3), 100, np.uint8)
    first, second = where_most_different(one, with_squares(one, (30, 40, 5), (200, 310, 50)))
    assert inside(first, 200, 310)
    assert inside(second, 30, 40)


def inside(window: Window, top_px: int, left_px: int) -> bool:
    return (
        window.top_px <= top_px <= window.top_px + window.side_px - 20
        and window.left_px <= left_px <= window.left_px + window.side_px - 20
    )


def test_windows_have_the_largest_sums_of_all_and_do_not_overlap() -> None:
    one, other = photo(1, 90, 260), photo(2, 90, 260)
    first, second = where_most_different(one, other)
    squares = np.square(one.astype(float) - other).sum(2)
    sums = {
        (top, left): squares[top : top + 64, left : left + 64].sum()
        for top in range(90 - 63)
        for left in range(260 - 63)
    }
    assert (first.top_px, first.left_px) == max(sums, key=sums.__getitem__)
    apart = {place: total for place, total in sums.items() if abs(place[1] - first.left_px) >= 64}
    assert (second.top_px, second.left_px) == max(apart, key=apart.__getitem__)


def test_window_of_a_small_picture_is_its_shorter_side() -> None:
    one, other = photo(1, 40, 50), photo(2, 40, 50)
    (only,) = where_most_different(one, other)
    assert only.side_px == 40
    assert np.array_equal(only.cut(one), one[:, only.left_px : only.left_px + 40])


def test_equal_pictures_have_no_details() -> None:
    assert where_most_different(photo(1, 80, 90), photo(1, 80, 90)) == []


def test_windows_of_several_pictures_are_where_any_of_them_differs() -> None:
    one = np.full((120, 200, 3), 100, np.uint8)
    others = [with_squares(one, (20, 30, 40)), with_squares(one, (80, 150, 60)), one, one]
    first, second = where_most_varied([one, *others], largest_side_px=32)
    assert inside(first, 80, 150)
    assert inside(second, 20, 30)
    assert first.side_px == second.side_px == 32
    assert where_most_varied([one] * 3) == []
