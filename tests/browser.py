"""A headless Chromium for pages of this project, as Debian's packages chromium and chromium-driver install it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start Chromium with a new profile; skip the test where there is none."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        # A browser is a package of the system, which root installs; `.ci/run` does, and ends where it cannot.
        pytest.skip(f"requires {' and '.join(missing)}; make browser installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    try:
        yield browser
    finally:
        browser.quit()


def set_screen(browser: webdriver.Chrome, width_px: int, height_px: int) -> None:
    """Show pages as a screen of this size does; below 500 px, which no window of Chromium is, as a phone."""
    metrics = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": width_px < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
