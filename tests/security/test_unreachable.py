"""Every job on a store, server, database or cluster that is not there, or says nothing: one message, in seconds.

The addresses hold a password, which no message shows.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs
from harness import prepare_tiny_data, write_preset
from safetensors.torch import save_file

from jobs.terminal import EXIT_BAD_INPUT, EXIT_FAULTS, run_job
from pipeline.config.schema import Preset
from pipeline.models.generators import build_generator

CANARY = "c4n4ry-p4ssw0rd"
MAX_SECONDS = 20.0  # twice what it takes on a machine that does nothing else


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return prepare_tiny_data(tmp_path_factory.mktemp("unreachable"))


@pytest.fixture
def words(preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the arguments below stand for."""
    # A client keeps the endpoint of its first use in the process: that of another test.
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
    generator = build_generator(preset.train.generator)
    save_file(generator.state_dict(), tmp_path / "model.safetensors", {"scale": "4"})
    return {
        "PRESET": str(write_preset(preset, tmp_path / "preset.json")),
        "SET": str(preset.train.report.validation_sets[0]),
        "SET/HR": str(preset.train.report.validation_sets[0] / "HR"),
    }


@pytest.fixture
def ends_in_a_message(
    words: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """Run a job under variables that lead nowhere; checks code, screen, time, and the words of the message."""

    def check(job: str, arguments: str, *named: str, **environment: str) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        main = importlib.import_module(f"jobs.{job}").main
        argv = [words.get(word, word) for word in arguments.split()]
        began_s = time.monotonic()
        code = run_job(main, argv)
        text = "".join(capsys.readouterr())
        assert CANARY not in text
        assert code in (EXIT_FAULTS, EXIT_BAD_INPUT), text
        assert "error: " in text
        assert "Traceback" not in text
        assert all(word in text for word in named), text
        assert len(text.splitlines()) < 12, text
        assert time.monotonic() - began_s < MAX_SECONDS, text

    return check


def store_url(scheme: str, port: int) -> str:
    """A store at the port, with a password where its URL can hold one."""
    return "s3://bucket/data" if scheme == "s3" else f"{scheme}://me:{CANARY}@127.0.0.1:{port}/data"


STORE_JOBS = [
    ("shard", "PRESET --output {url}"),
    ("shard", "PRESET --output {url} --dry-run"),
    ("verify", "{url}"),
    ("plan", "PRESET --data.shards {url}"),
    ("cache_features", "PRESET --shards {url}"),
    ("cache_features", "PRESET --shards {url} --dry-run"),
    ("cache_features", "PRESET --output {url}"),
    ("train_sed", "PRESET --data.shards {url}"),
    ("train_sed", "PRESET --data.shards {url} --dry-run"),
    ("train_sed", "PRESET --semantics.cache {url} --semantics.source cached --dry-run"),
]
TRACKING_JOBS = [
    ("promote", "model.safetensors --name x --sets SET"),
    ("upscale", "models:/x@champion SET/HR out"),
    ("evaluate", "models:/x@champion --sets SET"),
]


@pytest.mark.parametrize(("job", "arguments"), STORE_JOBS)
@pytest.mark.parametrize("scheme", ["s3", "ftp", "http"])
def test_job_when_its_store_is_not_there(
    scheme: str, job: str, arguments: str, closed_port: int, ends_in_a_message: Callable[..., None]
) -> None:
    dead, url = f"127.0.0.1:{closed_port}", store_url(scheme, closed_port)
    ends_in_a_message(job, arguments.format(url=url), dead, "refused", AWS_ENDPOINT_URL=f"http://{dead}")


@pytest.mark.parametrize("scheme", ["s3", "ftp", "http"])
def test_job_when_its_store_says_nothing(scheme: str, silent_port: int, ends_in_a_message: Callable[..., None]) -> None:
    silent, url = f"127.0.0.1:{silent_port}", store_url(scheme, silent_port)
    ends_in_a_message("verify", url, silent, "timed out", AWS_ENDPOINT_URL=f"http://{silent}")


@pytest.mark.parametrize(("job", "arguments"), TRACKING_JOBS)
@pytest.mark.parametrize(
    "uri", ["http://me:{canary}@{dead}", "postgresql://me:{canary}@{dead}/db", "sqlite:////proc/none/mlflow.db"]
)
def test_job_when_its_server_or_database_is_not_there(
    uri: str, job: str, arguments: str, closed_port: int, ends_in_a_message: Callable[..., None]
) -> None:
    address = uri.format(dead=f"127.0.0.1:{closed_port}", canary=CANARY)
    ends_in_a_message(job, arguments, address.rpartition("@")[2], MLFLOW_TRACKING_URI=address)


def test_job_when_its_server_says_nothing(silent_port: int, ends_in_a_message: Callable[..., None]) -> None:
    silent = f"127.0.0.1:{silent_port}"
    ends_in_a_message(*TRACKING_JOBS[0], silent, "timed out", MLFLOW_TRACKING_URI=f"http://me:{CANARY}@{silent}")


@pytest.mark.parametrize(
    ("job", "arguments"),
    [
        ("shard", "PRESET --output elsewhere"),
        ("shard", "PRESET --output elsewhere --dry-run"),
        ("cache_features", "PRESET"),
    ],
)
def test_job_when_its_cluster_is_not_there(
    job: str, arguments: str, closed_port: int, ends_in_a_message: Callable[..., None]
) -> None:
    dead = f"127.0.0.1:{closed_port}"
    ends_in_a_message(job, arguments, dead, "refused", RAY_ADDRESS=f"me:{CANARY}@{dead}")
