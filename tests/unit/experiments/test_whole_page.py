"""The page of a comparison as one file: complete, from nowhere else, names as text, whatever the results are."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from harness import ROOT, photo
from synthetic_comparison import over_images, synthetic_comparison

from pipeline.experiments.page.page import GENERATOR, render_comparison
from pipeline.experiments.results import ComparisonResults


def rendered(results: ComparisonResults) -> str:
    return " ".join(render_comparison(results).decode().split())


def text_of(page: str) -> str:
    """The page without pictures, which may hold any letters."""
    return re.sub(r'"data:[^"]*"', '""', page)


def test_page_has_every_part_and_nothing_from_outside(tmp_path: Path) -> None:
    page = rendered(synthetic_comparison(tmp_path))
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "Differences to P",
        "Numbers",
        "Perception and distortion",
        "Photos",
        "Training",
        "How it was made",
    ]
    assert set(re.findall(r'(?:src|href)="([^#"][^"]{,4})', page)) == {"data:"}
    assert "http" not in text_of(page).replace("http-equiv", "")
    assert f'<meta name="generator" content="{GENERATOR}">' in page[:400]
    assert text_of(page).count("data-compare") == 3 + 1  # the photos, and the script
    assert "<strong>Better</strong>: P+SeD" in page


def test_names_are_text(tmp_path: Path) -> None:
    titles = ("<b>P</b>", 'P"+SeD & <script>alert(1)</script>')
    results = synthetic_comparison(tmp_path, titles, photos={"<i>set/a<img>": photo(1, 60, 60)})
    results = dataclasses.replace(results, title="<u>title", question="1 < 2 & </style>")
    page = text_of(rendered(results))
    for raw in ("<b>P", "<script>alert", 'P"+SeD', "<i>set", "a<img>", "<u>", "2 & </style>", "<b>experiment"):
        assert raw not in page
    for escaped in ("&lt;b&gt;P&lt;/b&gt;", "P&#34;+SeD &amp; &lt;script&gt;", "a&lt;img&gt;", "&lt;u&gt;title"):
        assert escaped in page


def extreme(results: ComparisonResults, value: float) -> ComparisonResults:
    """The results with a value that is not finite for every image of the last arm, and one for each of the others."""
    arms = []
    for at, arm in enumerate(results.arms):
        values = {name: rows.copy() for name, rows in arm.values.items()}
        for rows in values.values():
            rows[:, slice(None) if at == len(results.arms) - 1 else slice(1)] = value
        arms.append(dataclasses.replace(arm, values=values, interpolated={0.0: {}, 1.0: {}}))
    finite = {arm.name: {name: over_images(rows) for name, rows in arm.values.items()} for arm in arms}
    return dataclasses.replace(results, arms=arms, intervals=finite)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_in_no_number(tmp_path: Path, value: float) -> None:
    page = text_of(rendered(extreme(synthetic_comparison(tmp_path), value)))
    body = page[page.index("<body>") : page.index("<script>")]
    assert not re.search(r"\b(nan|inf)\b", body)
    assert "none" in body
    assert "(2 of 3 images)" in body
    assert "Without P, shuffled semantics, which lacks a value." in body


@pytest.mark.parametrize(("num_seeds", "num_images"), [(1, 1), (1, 3), (10, 1)])
def test_few_seeds_and_images_are_cautioned(tmp_path: Path, num_seeds: int, num_images: int) -> None:
    photos = {f"set/{number}": photo(number, 50, 60) for number in range(num_images)}
    page = rendered(synthetic_comparison(tmp_path, ("P", "P+SeD"), num_seeds, photos))
    assert ("One seed:" in page) == (num_seeds == 1)
    assert ("One image:" in page) == (num_images == 1)
    assert page.count("<svg") > 10


def test_experiment_of_which_only_values_are_left_still_has_a_page(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path)
    bare = [dataclasses.replace(arm, runs={0: tmp_path / "gone"}, interpolated={}) for arm in results.arms]
    page = rendered(
        dataclasses.replace(
            results, arms=bare, pictures=tmp_path / "gone", differences={}, bicubic={}, metrics=[results.primary]
        )
    )
    assert "Not shown: the experiment has no distortion metric." in page
    assert "photo0.png cannot be read" in page
    assert "No curves of P+SeD: its runs have no reports." in page
    assert "<strong>Not measured</strong>: P+SeD; P, shuffled semantics" in page
    assert 'id="differences"' not in page


def test_twenty_arms_and_ten_seeds_fit(tmp_path: Path) -> None:
    titles = [f"arm with a long title, number {number}" for number in range(20)]
    photos = {f"set/{number}": photo(number, 40, 40) for number in range(2)}
    page = rendered(synthetic_comparison(tmp_path, titles, 10, photos))
    assert page.count('class="strip"') == 2 * 20  # two metrics; 19 arms and a scale each
    assert text_of(page).count('<th scope="rowgroup"') == 20
    assert "nan" not in text_of(page)


def test_same_results_give_the_same_page(tmp_path: Path) -> None:
    results = synthetic_comparison(tmp_path)
    assert render_comparison(results) == render_comparison(results)


def test_templates_are_part_of_the_package() -> None:
    packaged = re.search(r'^"pipeline.experiments.page" = \["(.*)"\]$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert packaged
    room = ROOT / "pipeline" / "experiments" / "page"
    others = {path for path in room.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert others == set(room.glob(packaged[1]))
