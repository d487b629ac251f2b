"""The page of a comparison, opened in a browser as a person opens it: from the disk, and used."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import set_screen
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select
from synthetic_comparison import synthetic_comparison

from pipeline.experiments.page.page import render_comparison

TITLES = ("P", "P+SeD", "No discriminator", "P as large as SeD", "P+SeD, random extractor", "U", "U+SeD")
EMPTY_CHARTS = """
document.querySelectorAll('details').forEach((one) => one.open = true);
return [...document.querySelectorAll('.chart svg:not(.key), .strip > svg')].filter((svg) => {
  const marks = [...svg.querySelectorAll('.line, .symbol, .whisker, line.axis')];  // an empty chart has ticks too
  return svg.getBoundingClientRect().width < 100 || !marks.some((mark) => mark.getBoundingClientRect().width > 0);
}).length
"""
NUM_CHARTS = "return document.querySelectorAll('.chart svg:not(.key), .strip > svg').length"
CLIP = "return getComputedStyle(document.querySelector('.stage img.left')).clipPath"
VISIBLE = """
return [...document.querySelectorAll('[data-compare]')].map((photo) => [...photo.querySelectorAll('.stage img')]
  .filter((image) => getComputedStyle(image).visibility === 'visible').map((image) => image.alt.split(': ')[1]))
"""
DETAILS = """
return [...document.querySelector('.details').querySelectorAll('div')]
  .filter((tile) => getComputedStyle(tile).display !== 'none').map((tile) => tile.textContent)
"""
OPACITIES = """
return Object.fromEntries([...document.querySelectorAll('.plane g[data-series]')]
  .map((arm) => [arm.dataset.series, getComputedStyle(arm).opacity]))
"""
NATURAL_WIDTHS = "return [...document.images].map((image) => image.naturalWidth)"
PAGE_WIDTH = "return document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "report.html").write_bytes(render_comparison(synthetic_comparison(folder, TITLES, num_seeds=3)))
    return folder / "report.html"


def test_every_chart_and_picture_is_drawn(opened: Chrome) -> None:
    assert opened.execute_script(EMPTY_CHARTS) == 0
    # The plane and two validations, whole and enlarged; accuracy and share; by two metrics a strip per arm and a scale.
    assert opened.execute_script(NUM_CHARTS) == 2 + 2 * 2 + 2 + 2 * len(TITLES)
    widths = opened.execute_script(NATURAL_WIDTHS)
    assert len(widths) >= 3 * 9 * 2
    assert min(widths) > 0


def test_divider_moves(opened: Chrome) -> None:
    before = opened.execute_script(CLIP)
    opened.find_element(By.CSS_SELECTOR, ".stage input[type=range]").send_keys(Keys.ARROW_RIGHT * 10)
    assert opened.execute_script(CLIP) != before


def test_chosen_arms_are_shown_in_all_photos_and_details(opened: Chrome) -> None:
    assert opened.execute_script(VISIBLE) == [["P", "P+SeD"]] * 3
    assert opened.execute_script(DETAILS) == ["bicubic", "P", "P+SeD", "HR"]
    choose(opened, "right", "U+SeD")
    choose(opened, "left", "No discriminator")
    assert opened.execute_script(VISIBLE) == [["No discriminator", "U+SeD"]] * 3
    assert opened.execute_script(DETAILS) == ["bicubic", "No discriminator", "U+SeD", "HR"]
    choose(opened, "left", "bicubic")
    assert opened.execute_script(DETAILS) == ["bicubic", "U+SeD", "HR"]
    opened.find_element(By.ID, "all-arms").click()
    assert opened.execute_script(DETAILS) == ["bicubic", *TITLES, "HR"]


def choose(browser: Chrome, side: str, method: str) -> None:
    Select(browser.find_element(By.CSS_SELECTOR, f"select[data-side={side}]")).select_by_visible_text(method)


def test_name_in_a_legend_shows_its_arm_alone(opened: Chrome) -> None:
    assert set(opened.execute_script(OPACITIES).values()) == {"1"}
    entry = next(item for item in opened.find_elements(By.CSS_SELECTOR, ".plane .legend li") if item.text == "U+SeD")
    entry.send_keys(Keys.ENTER)
    opacities = opened.execute_script(OPACITIES)
    assert [title for title, opacity in opacities.items() if opacity == "1"] == ["U+SeD"]
    entry.send_keys(Keys.ENTER)
    assert set(opened.execute_script(OPACITIES).values()) == {"1"}


@pytest.mark.parametrize("width_px", [390, 768, 1280])
def test_page_is_as_wide_as_the_screen(opened: Chrome, width_px: int) -> None:
    set_screen(opened, width_px, 800)
    assert opened.execute_script(EMPTY_CHARTS) == 0  # which opens what is folded
    assert opened.execute_script(PAGE_WIDTH) <= width_px
