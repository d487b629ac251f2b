"""A password in a URL is used, and is seen nowhere: not in messages, records or what a run leaves on disk."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import sys
from pathlib import Path

import mlflow
import pytest
from harness import tiny_preset
from mlflow.utils.credentials import get_default_host_creds

from jobs.command_line import PRESETS, apply_flags
from jobs.compare import EXPERIMENTS
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.plain import to_plain
from pipeline.config.presets import load_resolved
from pipeline.config.schema import Preset
from pipeline.experiments.execution import Commands, Layout, carry_out, task_of
from pipeline.experiments.experiment import Budget, Experiment
from pipeline.experiments.plan import Choices, plan
from pipeline.tracking.environment import prepare
from pipeline.tracking.source import source_tags
from shards.errors import InputError
from shards.format.manifest import read_manifest
from shards.format.remote import RemotePath
from shards.format.storage import parse_path
from shards.secrets import command_without_secrets, without_secrets

CANARY = "c4n4ry-p4ssw0rd"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (f"s3://me:{CANARY}@bucket/shards", "s3://bucket/shards"),
        (
            f"cannot reach postgresql+psycopg2://me:{CANARY}@db:5432/mlflow now",
            "cannot reach postgresql+psycopg2://db:5432/mlflow now",
        ),
        (f"https://me:p@{CANARY}@host/x", "https://host/x"),
        (f"'https://host/shards?token={CANARY}&a=1'", "'https://host/shards'"),
        (
            f"retries exceeded with url: /api?access_token={CANARY}&b=2",
            "retries exceeded with url: /api?access_token=***&b=2",
        ),
        ("ordinary text, a@b.example and x?y", "ordinary text, a@b.example and x?y"),
    ],
)
def test_text_is_shown_without_secrets(text: str, seen: str) -> None:
    assert without_secrets(text) == seen


# What a shell has to quote, and characters that end a URL in a text.
@pytest.mark.parametrize("start", ["", "'", '"', "a b", "a/", "?"])
@pytest.mark.parametrize("form", ["ftp://me:{}@host/shards", "--data.shards=ftp://me:{}@host/shards"])
def test_command_in_a_record_has_no_secret_whatever_its_characters(
    start: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["jobs/train_sed.py", "demo", "--data.shards", form.format(start + CANARY), "a b"])
    shown = form.format("").replace("me:@", "")
    assert source_tags()["mlflow.source.name"] == f"python jobs/train_sed.py demo --data.shards {shown} 'a b'"


def test_command_of_a_query_has_no_secret() -> None:
    assert command_without_secrets(["verify", f"https://host/shards?sig='{CANARY}"]) == "verify https://host/shards"


def test_experiment_trains_with_the_password_that_its_files_do_not_have(tmp_path: Path) -> None:
    given = {
        "--data.shards": f"ftp://me:{CANARY}@host/shards",
        "--semantics.cache": f"ftp://me:{CANARY}@host/features",
        "--data.mix": f"ftp://me:{CANARY}@host/more",
    }
    budget = Budget("demo", train={"data": {"mix": {given["--data.mix"]: 0.25, "here": 0.5}}})
    budget = dataclasses.replace(budget, train={**budget.train, "semantics": {"cache": given["--semantics.cache"]}})
    experiment = dataclasses.replace(EXPERIMENTS.load("demo", Experiment), budgets={"cpu": budget})
    shards = parse_path(given["--data.shards"])
    (run, *_) = plan(experiment, Choices(tmp_path, "cpu", shards=shards), PRESETS).runs
    task = task_of(run, Layout(tmp_path), Commands(["train"], ["evaluate"]), 1, is_start=False)
    settings = Layout(tmp_path).preset(run)
    assert list(task.train[:2]) == ["train", str(settings)]
    assert CANARY not in settings.read_text() + "".join(task.measure)
    trained, _ = apply_flags(load_resolved(settings, Preset).train, list(task.train[2:]), "train", "")
    assert trained == run.preset.train
    reason = carry_out(dataclasses.replace(task, train=[sys.executable, "-c", "raise SystemExit(3)", *task.train[2:]]))
    assert "ended with exit code 3" in (reason or "")
    assert CANARY not in (reason or "")


def test_remote_path_connects_with_the_secret_and_shows_none() -> None:
    path = parse_path(f"ftp://me:{CANARY}@127.0.0.1:9/shards")
    assert isinstance(path, RemotePath)
    for inner in (path, path / "manifest.json", pickle.loads(pickle.dumps(path))):
        assert CANARY in inner.url
        assert CANARY not in f"{inner} {inner!r} {inner.name} {inner.stem}"
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert CANARY not in f"{caught.value} {caught.value.__cause__!r}"


def test_run_folder_records_the_url_without_the_secret(tmp_path: Path) -> None:
    preset = tiny_preset(tmp_path)
    data = dataclasses.replace(preset.train.data, shards=parse_path(f"https://me:{CANARY}@host/shards?sig={CANARY}"))
    preset = dataclasses.replace(preset, train=dataclasses.replace(preset.train, data=data))
    folder = RunFolder(tmp_path)
    folder.write_config(preset)
    assert CANARY not in folder.config.read_text() + json.dumps(to_plain(preset))
    assert json.loads(folder.config.read_text())["train"]["data"]["shards"] == "https://host/shards"


def test_password_of_a_tracking_server_is_where_mlflow_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://me:{CANARY}%21@host:5000/path")
    prepare()
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://host:5000/path"
    credentials = get_default_host_creds(mlflow.get_tracking_uri())
    assert (credentials.username, credentials.password) == ("me", f"{CANARY}!")
