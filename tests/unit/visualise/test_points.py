"""Points of a photo: in pixels or percent, and what is none."""

from __future__ import annotations

import pytest

from pipeline.inference.visualise.points import parse_point
from shards.errors import InputError


@pytest.mark.parametrize(
    ("text", "pixel"),
    [
        ("0,0", (0, 0)),
        ("30,20", (20, 30)),
        (" 30 , 20 ", (20, 30)),
        ("50%,25%", (25, 100)),
        ("100%,100%", (99, 199)),
        ("200,50%", (50, 199)),
        ("12.7,0.2", (0, 12)),
    ],
)
def test_point_is_row_and_column_of_a_photo(text: str, pixel: tuple[int, int]) -> None:
    assert parse_point(text).pixel_of(100, 200) == pixel


@pytest.mark.parametrize("text", ["", "3", "3,4,5", "a,b", "-1,3", "nan,3", "inf,3", "3%%,4", "3;4"])
def test_point_when_it_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"such as 120,80 or 25%,50%; got"):
        parse_point(text)


@pytest.mark.parametrize("text", ["201,0", "0,101", "101%,0"])
def test_point_when_outside_names_the_size(text: str) -> None:
    with pytest.raises(InputError, match=f"--queries {text} is outside of the photo, which has 200x100 px"):
        parse_point(text).pixel_of(100, 200)
