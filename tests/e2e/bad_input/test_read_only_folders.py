"""Jobs whose outputs, or tracking database, are in a folder that they may read and not write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Main, model_file
from mlflow import MlflowClient
from permissions import write_protected
from untrained_runs import write_run

import jobs.cache_features
import jobs.compare
import jobs.draw_shapes
import jobs.evaluate
import jobs.plan
import jobs.preview
import jobs.promote
import jobs.report
import jobs.shard
import jobs.sync
import jobs.train_sed
import jobs.upscale
import jobs.visualise
from jobs.terminal import run_job

REFUSAL = "cannot write to the output folder; got Permission denied; at locked"
JOBS: dict[str, tuple[Main, list[str]]] = {
    "shard": (jobs.shard.main, ["--source", "{data}/photos", "--output", "locked/shards", "--exclude"]),
    "cache_features": (jobs.cache_features.main, ["{data}/preset.json", "--output", "locked/features"]),
    "train": (jobs.train_sed.main, ["{data}/preset.json", "--run-dir", "locked/run"]),
    "train resumed": (jobs.train_sed.main, ["{data}/preset.json", "--run-dir", "locked"]),
    "evaluate": (jobs.evaluate.main, ["model", "--sets", "{data}/validation", "--output", "locked/a.json"]),
    "evaluate with pictures": (
        jobs.evaluate.main,
        ["model", "--sets", "{data}/validation", "--output", "a.json", "--picture", "locked/a.png"],
    ),
    "upscale": (jobs.upscale.main, ["model", "{data}/photos", "locked/out"]),
    "upscale one": (jobs.upscale.main, ["model", "{data}/photos/photo0.png", "locked/a.png"]),
    "preview": (jobs.preview.main, ["{data}/shards", "--output", "locked/a.png"]),
    "report": (jobs.report.main, ["model", "--sets", "{data}/validation", "--output", "locked/a.html"]),
    "compare": (
        jobs.compare.main,
        ["--shards", "{data}/shards", "--sets", "{data}/validation", "--output", "locked/compared"],
    ),
    "visualise": (
        jobs.visualise.main,
        ["run", "--sets", "{data}/validation", "--output", "locked/seen"],
    ),
    "plan": (jobs.plan.main, ["{data}/preset.json", "--measure", "--profile", "locked/profile.json"]),
    "draw_shapes": (jobs.draw_shapes.main, ["--output", "locked/shapes"]),
}


@pytest.fixture
def locked(here: Path) -> Iterator[Path]:
    """A folder without the permission to write, beside a model and a run."""
    model_file(here / "model")
    write_run(here / "run")
    (here / "locked").mkdir()
    with write_protected(here / "locked"):
        yield here / "locked"


@pytest.mark.parametrize("name", JOBS)
def test_job_whose_output_is_in_a_read_only_folder_is_refused(
    refuse: Callable[..., None], locked: Path, prepared: Path, name: str
) -> None:
    main, arguments = JOBS[name]
    refuse(main, [argument.format(data=prepared) for argument in arguments], REFUSAL)


@pytest.mark.parametrize("exists", [False, True])
def test_promotion_into_a_database_that_cannot_be_written_is_refused(
    refuse: Callable[..., None], here: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    folder, model = here / "database", model_file(here / "model")
    folder.mkdir()
    uri = f"sqlite:///{folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if exists:
        MlflowClient(uri).search_experiments()
    arguments = [model, "--name", "x", "--sets", str(prepared / "validation")]
    with write_protected(folder):
        refuse(jobs.promote.main, arguments, f"{folder}/mlflow.db", "nothing was promoted")


@pytest.mark.parametrize("number", [1, 2])
def test_run_that_cannot_be_written_is_not_sent_and_does_not_keep_others_from_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")
    for name in ("locked", "free"):
        write_run(here / name)
    with write_protected(here / "locked"):
        assert run_job(jobs.sync.main, ["locked", "free"][:number]) == 1
    text = capsys.readouterr().err
    assert "locked/.lock could not be written: Permission denied" in text
    assert "give this user the permission" in text
    assert ("free: " in text) == (number == 2)


def test_file_that_this_user_cannot_use_is_named(refuse: Callable[..., None], locked: Path) -> None:
    def write(_: list[str]) -> int:
        (locked / "a.json").write_text("{}")
        return 0

    refuse(write, [], f"{locked}/a.json cannot be used: Permission denied; give this user the permission")
