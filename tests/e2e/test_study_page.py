"""A study's page in a browser, answered by simulated people with keys and clicks, saved, and scored."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import open_browser, set_screen
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from studies import write_pictures

from pipeline.experiments.study import StudyOptions, write_study
from pipeline.experiments.study_file import Ballot, Study, read_ballot, read_study
from pipeline.experiments.votes import score_votes

STRENGTHS = {"SeD-arm": 2.0, "plain-arm": 0.0, "pixel-arm": -2.0}
NUM_QUESTIONS, NUM_REPEATS = 45, 18
SOURCES = "return [...document.querySelectorAll('.picture img')].map((image) => image.src)"
SIZES = "return [...document.querySelectorAll('.picture img')].map((image) => [image.width, image.height])"
DATA = "return JSON.parse(document.getElementById('study').textContent)"
# Numbers people 1, 2, ... instead of at random, so that a test asks the same questions on every run.
NUMBERED = "let people = 0; crypto.getRandomValues = (bytes) => (people++, bytes.map(() => people));"
# Answers everything that is left: uniforms decide, as strengths by source say.
ANSWER = """
const [strengths, uniforms] = arguments;
while (!document.getElementById("ask").hidden) {
  const [left, , right] = [...document.querySelectorAll(".picture img")].map((image) => strengths[image.src]);
  const key = uniforms.pop() < 1 / (1 + Math.exp(right - left)) ? "1" : "2";
  document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    options = StudyOptions(side_px=32, num_questions=NUM_QUESTIONS, repeat_share=0.4)
    return write_study(folder / "out", *write_pictures(folder / "pictures", list(STRENGTHS), 15), options=options)


@pytest.fixture(scope="module")
def study(page: Path) -> Study:
    return read_study(page.with_name("study.json"))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """A new profile: nobody has voted in it."""
    with open_browser(tmp_path / "profile") as opened:
        (tmp_path / "saved").mkdir()
        saving = {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
        opened.execute_cdp_cmd("Browser.setDownloadBehavior", saving)
        yield opened
        assert opened.get_log("browser") == []


def open_page(browser: Chrome, page: Path) -> dict[str, str]:
    """Open the page; returns the arm's name of every picture by its source."""
    set_screen(browser, 1280, 900)
    browser.get(page.as_uri())
    names = read_study(page.with_name("study.json")).arms
    images = browser.execute_script(DATA)["images"]
    return {uri: names[identifier] for image in images for identifier, uri in image["results"].items()}


def press(browser: Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def saved(folder: Path, count: int) -> list[Path]:
    """The saved files, once there are so many."""
    deadline = time.monotonic() + 20
    while len(files := sorted((folder / "saved").glob("votes-*.json"))) < count:
        assert time.monotonic() < deadline, files
        time.sleep(0.05)
    return files


def counted(browser: Chrome) -> str:
    return browser.find_element(By.ID, "count").text


def answer(browser: Chrome, of_source: dict[str, str], strengths: dict[str, float], seed: int) -> None:
    uniforms = np.random.default_rng(seed).random(NUM_QUESTIONS + NUM_REPEATS).tolist()
    browser.execute_script(ANSWER, {source: strengths[arm] for source, arm in of_source.items()}, uniforms)


def test_simulated_voters_are_scored_as_they_prefer(browser: Chrome, page: Path, tmp_path: Path) -> None:
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NUMBERED})
    of_source = open_page(browser, page)
    people = [STRENGTHS] * 4 + [dict.fromkeys(STRENGTHS, 0.0)]
    for number, strengths in enumerate(people):
        answer(browser, of_source, strengths, seed=number)
        press(browser, "e")
        files = saved(tmp_path, number + 1)
        if number + 1 < len(people):
            browser.find_element(By.CSS_SELECTOR, "[data-do=next]").click()
    ballots = {ballot.voter: ballot for ballot in map(read_ballot, files)}
    assert len(ballots) == len(people), "every person has another number"
    scores = score_votes(page.with_name("study.json"), files)
    assert list(scores.arms) == list(STRENGTHS)
    guessing = browser.find_element(By.ID, "voter").text
    assert [one.voter for one in scores.voters if one.is_at_chance] == [guessing]
    assert f"{guessing}  63" in scores.text
    # Without the one who guesses, the true preference is the others' preference.
    consistent = [path for path in files if guessing not in path.name]
    for arm, score in score_votes(page.with_name("study.json"), consistent).arms.items():
        assert score.low <= STRENGTHS[arm] <= score.high


def test_questions_are_placed_at_random_and_repeated_with_sides_exchanged(
    browser: Chrome, page: Path, study: Study, tmp_path: Path
) -> None:
    answer(browser, open_page(browser, page), STRENGTHS, seed=0)
    press(browser, "e")
    ballot = read_ballot(saved(tmp_path, 1)[0])
    asked = [choice for choice in ballot.choices if not choice.repeat]
    repeats = [choice for choice in ballot.choices if choice.repeat]
    assert (len(asked), len(repeats)) == (NUM_QUESTIONS, NUM_REPEATS)
    assert {(choice.image, choice.left, choice.right) for choice in repeats} <= {
        (choice.image, choice.right, choice.left) for choice in asked
    }
    assert not any(choice.repeat for choice in ballot.choices[: NUM_QUESTIONS // 2])
    left = [choice.left < choice.right for choice in asked]
    assert 0.2 < np.mean(left) < 0.8
    assert [choice.image for choice in asked] != sorted(choice.image for choice in asked)


def test_keyboard_alone_answers_shows_the_original_and_saves(browser: Chrome, page: Path, tmp_path: Path) -> None:
    open_page(browser, page)
    first = browser.execute_script(SOURCES)
    cover = browser.find_element(By.CSS_SELECTOR, "[data-do=original] img")
    assert cover.value_of_css_property("visibility") == "hidden"
    press(browser, "h")
    assert cover.value_of_css_property("visibility") == "visible"
    press(browser, "1")
    assert browser.execute_script(SOURCES) != first
    assert cover.value_of_css_property("visibility") == "hidden"
    press(browser, "2", Keys.ARROW_LEFT, Keys.ARROW_RIGHT, "s", "e")
    assert counted(browser) == f"5 of {NUM_QUESTIONS + NUM_REPEATS} answered"
    choices = read_ballot(saved(tmp_path, 1)[0]).choices
    assert [choice.chosen for choice in choices] == ["left", "right", "left", "right", "neither"]
    assert [choice.original_shown for choice in choices] == [True, False, False, False, False]


def test_pointer_works_alone(browser: Chrome, page: Path, tmp_path: Path) -> None:
    open_page(browser, page)
    for name in ("original", "right", "neither", "left", "save"):
        browser.find_element(By.CSS_SELECTOR, f"[data-do={name}]").click()
    choices = read_ballot(saved(tmp_path, 1)[0]).choices
    assert [(choice.chosen, choice.original_shown) for choice in choices] == [
        ("right", True),
        ("neither", False),
        ("left", False),
    ]


def test_choices_stay_in_the_browser_until_the_study_goes_on(browser: Chrome, page: Path, tmp_path: Path) -> None:
    open_page(browser, page)
    press(browser, *"121s")
    voter, next_question = browser.find_element(By.ID, "voter").text, browser.execute_script(SOURCES)
    browser.refresh()
    assert browser.find_element(By.ID, "voter").text == voter
    assert counted(browser).startswith("4 of ")
    assert browser.execute_script(SOURCES) == next_question
    press(browser, "2", "e")
    ballot: Ballot = read_ballot(saved(tmp_path, 1)[0])
    assert [choice.chosen for choice in ballot.choices] == ["left", "right", "left", "neither", "right"]


def test_voter_cannot_see_which_arm_is_which(browser: Chrome, page: Path, study: Study) -> None:
    open_page(browser, page)
    document = browser.execute_script("return document.documentElement.outerHTML")
    stored = json.dumps(browser.execute_script("return {...localStorage}"))
    for name in (*STRENGTHS, *(image.name for image in study.images)):
        assert name not in document
        assert name not in stored


@pytest.mark.parametrize(("width_px", "sides"), [(60, 32), (390, 64), (1280, 64)])
def test_pictures_are_enlarged_by_a_whole_number_that_fits(
    browser: Chrome, page: Path, width_px: int, sides: int
) -> None:
    open_page(browser, page)
    set_screen(browser, width_px, 800)
    browser.refresh()
    assert browser.execute_script(SIZES) == [[sides, sides]] * 3
    rendering: Any = browser.find_element(By.CSS_SELECTOR, ".picture img").value_of_css_property("image-rendering")
    assert rendering == "pixelated"
    if width_px >= 390:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width_px
