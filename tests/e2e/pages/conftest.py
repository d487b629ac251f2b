"""A page under test, as each file's fixture `page` writes it, in a browser whose console stays silent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import open_browser, set_screen
from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(browser: Chrome, page: Path) -> Chrome:
    """The page, just opened on a desktop's screen."""
    set_screen(browser, 1280, 900)
    browser.get(page.as_uri())
    return browser


@pytest.fixture(autouse=True)
def console_is_silent(browser: Chrome) -> Iterator[None]:
    yield
    assert browser.get_log("browser") == []
