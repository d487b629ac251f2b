"""What a run leaves in MLflow, looked at in MLflow's own UI as a person does: run, charts, pictures, registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import open_browser, set_screen
from harness import changed, prepare_tiny_data
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from servers import open_mlflow
from sessions import run_session

from jobs.ui import page
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.inference.promotion import parse_rule, promote
from pipeline.tracking import known_run_id

_WAIT_S = 60
MODEL = "looked-at"
RUN = "run"
EXPERIMENT = "tests"
# MLflow's own: a page without users looks for the current one, and its tables and layouts warn about themselves.
MLFLOWS_OWN = ("users/current", "AG Grid", "ResizeObserver loop")
PICTURES = """
return [...document.images].filter(
  (image) => image.src.includes('get-artifact?path=images') && image.naturalWidth > 0).length
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        set_screen(opened, 1920, 1600)
        yield opened


@pytest.fixture(scope="module")
def run_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small run, trained, validated and promoted, in a store of its own."""
    folder = tmp_path_factory.mktemp("looked_at")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.chdir(folder)
        preset = prepare_tiny_data(folder)
        run_session(changed(preset, report=replace(preset.train.report, validate_every_images=8)), Path(RUN))
        promote(RUN, MODEL, [folder / "validation"], parse_rule("psnr_y", "psnr_y=-0.5"), force=True)
        yield known_run_id(RunFolder(Path(RUN)).mlflow) or ""


@pytest.fixture(scope="module")
def server(run_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import mlflow

    with open_mlflow(mlflow.get_tracking_uri(), tmp_path_factory.mktemp("server")) as server:
        yield server.uri


@pytest.fixture
def show(browser: Chrome, server: str) -> Iterator[Callable[..., None]]:
    """Open a page and wait for texts on it; afterwards the browser's console has nothing but MLflow's own."""

    def open_page(path: str, *texts: str) -> None:
        browser.get("about:blank")
        browser.get(f"{server}/#/{path}")
        wait_until(browser, lambda: all(text in body(browser) for text in texts), f"not all of {texts}")

    yield open_page
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert [message for message in messages if not any(own in message for own in MLFLOWS_OWN)] == []


def wait_until(browser: Chrome, holds: Callable[[], bool], message: str = "") -> None:
    WebDriverWait(browser, _WAIT_S).until(lambda _: holds(), message)


def body(browser: Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def test_page_of_the_run_has_its_facts(show: Callable[..., None], run_id: str) -> None:
    facts = ("Finished", "shards (", "image_manifest", MODEL, "generator/pixel", "validation/psnr_y", "schedule.total")
    show(f"experiments/1/runs/{run_id}", RUN, *facts)


def test_charts_of_the_run_are_drawn(show: Callable[..., None], browser: Chrome, run_id: str) -> None:
    show(f"experiments/1/runs/{run_id}/model-metrics", "discriminator", "generator", "gradient", "speed", "validation")
    WebDriverWait(browser, _WAIT_S).until(
        lambda _: len(browser.find_elements(By.CSS_SELECTOR, ".scatterlayer path")) > 1
    )


def test_pictures_of_the_run_form_grids_with_a_slider(show: Callable[..., None], browser: Chrome, run_id: str) -> None:
    set_screen(browser, 1920, 5000)  # cards are drawn when they are seen
    keys = ("validation/photo0", "discriminator/decisions", "discriminator/attention")
    show("experiments/1/runs?compareRunsMode=CHART&workflowType=machine_learning", RUN, *keys)
    wait_until(browser, lambda: bool(browser.find_elements(By.CSS_SELECTOR, "[role=slider]")))
    wait_until(browser, lambda: browser.execute_script(PICTURES) >= 1, "no picture is shown")


def test_address_that_the_ui_job_prints_shows_the_registry(
    show: Callable[..., None], browser: Chrome, server: str
) -> None:
    show(page(server).partition("#/")[2], "Model registry", EXPERIMENT)
    show("experiments", "Prompts")  # MLflow's own start, which `jobs.ui.MODE` speaks of
    assert "Model registry" not in body(browser)
    browser.find_element(By.XPATH, "//*[text()='Model training']").click()
    show("models", "Model registry", MODEL)


def test_registry_has_the_version_with_its_aliases_and_card(show: Callable[..., None]) -> None:
    show("models", MODEL, "champion")
    show(f"models/{MODEL}/versions/1", "champion", "best-psnr_y", RUN, "PSNR-Y", "Results", "Training", "Licences")
