"""The report of a real tiny run, opened in a browser as a person opens it: from the disk, and used."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import set_screen
from harness import model_file, prepare_tiny_data
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select
from sessions import run_session

import jobs.report

CLIPS = "return [...document.querySelectorAll('.stage img.left')].map((image) => getComputedStyle(image).clipPath)"
SHOWN = """
return [...document.querySelectorAll('[data-compare]')].map((photo) => ['left', 'right'].map(
  (side) => [...photo.querySelectorAll(`.stage img.${side}`)].map((image) => image.alt.split(': ')[1]).join()))
"""
VISIBLE = """
return [...document.querySelectorAll('.stage img')]
  .filter((image) => getComputedStyle(image).visibility === 'visible').map((image) => image.alt)
"""
NATURAL_WIDTHS = "return [...document.images].map((image) => image.naturalWidth)"
PAGE_WIDTH = "return document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a finished run next to another model."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.chdir(folder)
        run_session(prepare_tiny_data(folder), folder / "run")
        models = [model_file(folder / "other.safetensors"), "run"]
        assert jobs.report.main([*models, "--sets", "validation", "--output", "page/report.html"]) == 0
    return folder / "page" / "report.html"


def test_page_has_every_part_and_every_picture(opened: Chrome) -> None:
    headings = [heading.text for heading in opened.find_elements(By.CSS_SELECTOR, "h2")]
    assert headings == ["Numbers", "Photos", "Training", "Attention of the discriminator", "How it was made"]
    rows = [row.text for row in opened.find_elements(By.CSS_SELECTOR, "#numbers tbody th")]
    assert rows == ["bicubic", "other", "run"]
    widths = opened.execute_script(NATURAL_WIDTHS)
    # Two photos of four pictures each, details of them, one where 50 px leave no place for two; three of attention.
    assert len(widths) == 2 * 4 + 2 * 4 + 3
    assert min(widths) > 0


def test_curves_have_the_runs_values(opened: Chrome) -> None:
    titles = [caption.text for caption in opened.find_elements(By.CSS_SELECTOR, ".chart figcaption")]
    assert titles == [
        "Generator's losses",
        "Discriminator's losses",
        "Discriminator's accuracy",
        "Generator's gradient by loss term",
        "Validation: PSNR-Y, higher is better",
        "Validation: SSIM-Y, higher is better",
    ]
    hovers = opened.find_elements(By.CSS_SELECTOR, ".chart .band title")
    texts = [hover.get_attribute("textContent") for hover in hovers]
    assert any(text.startswith("24 images\nreal: ") for text in texts)
    assert "chance 0.5" in [entry.text for entry in opened.find_elements(By.CSS_SELECTOR, ".legend li")]


def test_divider_follows_arrow_keys_and_pointer(opened: Chrome) -> None:
    first, other = opened.execute_script(CLIPS)
    assert first == other
    stage = opened.find_element(By.CSS_SELECTOR, ".stage")
    divider = stage.find_element(By.CSS_SELECTOR, "input[type=range]")
    divider.send_keys(Keys.ARROW_LEFT * 10)
    assert divider.get_attribute("value") == "40"
    moved, untouched = opened.execute_script(CLIPS)
    assert moved != first
    assert untouched == first
    width_px = stage.size["width"]
    drag = ActionChains(opened).move_to_element(stage).click_and_hold()
    drag.move_by_offset(width_px // 4, 5).release().move_by_offset(20, 0).perform()
    assert float(divider.get_attribute("value")) == pytest.approx(75, abs=1)
    assert opened.execute_script(CLIPS)[0] not in {first, moved}


def test_choice_of_pictures_holds_for_all_photos(opened: Chrome) -> None:
    assert opened.execute_script(SHOWN) == [["other", "run"]] * 2
    choose(opened, "right", "HR")
    assert opened.execute_script(SHOWN) == [["other", "HR"]] * 2
    choose(opened, "left", "bicubic")
    assert opened.execute_script(SHOWN) == [["bicubic", "HR"]] * 2
    assert sorted(opened.execute_script(VISIBLE)) == [
        f"photo{number}: {method}" for number in (0, 1) for method in ("HR", "bicubic")
    ]
    choose(opened, "left", "HR")  # which is on the right: both change places
    assert opened.execute_script(SHOWN) == [["HR", "bicubic"]] * 2


def choose(browser: Chrome, side: str, method: str) -> None:
    Select(browser.find_element(By.CSS_SELECTOR, f"select[data-side={side}]")).select_by_visible_text(method)


@pytest.mark.parametrize("width_px", [390, 768, 1280])
def test_page_is_as_wide_as_the_screen(opened: Chrome, width_px: int) -> None:
    set_screen(opened, width_px, 800)
    assert opened.execute_script(PAGE_WIDTH) <= width_px
