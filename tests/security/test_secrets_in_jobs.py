"""Every job with a password in each place that takes a URL: it is used, and stands in no output, file or database."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from harness import BIN, job, job_environment, run_command, tiny_preset, write_photos, write_preset
from password_store import PasswordStore, password_store

from jobs.terminal import EXIT_BAD_INPUT, EXIT_FAULTS

CANARY = "c4n4ry-p4ssw0rd"
USER = "canary-user"
EXPERIMENT = """
title = "Tiny"
question = "Is one better?"
baseline = "plain"
primary = "psnr_y"
margin = 0.5
metrics = ["psnr_y"]
seeds = [1]
[budgets.cpu]
preset = "preset.json"
[arms.plain]
title = "P"
train.discriminator.semantic = false
[arms.sed]
title = "P+SeD"
"""
REFUSED = (EXIT_FAULTS, EXIT_BAD_INPUT)


@contextlib.contextmanager
def tracking_server(folder: Path) -> Iterator[str]:
    """A real MLflow server, by an address with user and password; it lets everybody in."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    store, files = f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")
    command = [str(BIN / "mlflow"), "server", "--backend-store-uri", store, "--artifacts-destination", files]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = job_environment(folder) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield f"http://{USER}:{CANARY}@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address: str) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{address.rpartition('@')[2]}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise AssertionError("the MLflow server does not start")


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its files: its sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Jobs:
    """Runs jobs as a user would; none may show the password."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = environment

    def __call__(
        self, name: str, *arguments: str, codes: Collection[int] = (0,), says: str = "", **environment: str
    ) -> None:
        """Run one job, which must end with one of some exit codes."""
        done = run_command(["python", job(f"{name}.py"), *arguments], self.folder, **self.environment | environment)
        text = done.stdout + done.stderr
        assert CANARY not in text, f"{name}: {text}"
        assert "Traceback" not in text, text
        assert done.returncode in codes, f"{name}: {text}"
        assert says in " ".join(text.split()), f"{name}: {text}"


def run_all_jobs(run: Jobs, store: PasswordStore, preset: str, tracking: str) -> None:
    """Shards to champion, each job with a password in what it reads and writes."""
    shards, features = store.url("shards"), store.url("features")
    run("shard", preset, "--output", shards)
    run("verify", shards, says="is intact")
    run("plan", preset, "--data.shards", shards)
    run("preview", shards, "--output", "preview.png", codes=REFUSED, says="is a URL")
    run("preview", "--shardz", shards, codes=REFUSED, says="Unrecognized options")
    run("cache_features", preset, "--shards", shards, "--output", features)
    remote = ("--data.shards", shards, "--semantics.cache", features)
    run("train_sed", preset, *remote, "--dry-run")
    wait_for(tracking)
    run("train_sed", preset, *remote, "--schedule.total-images", "12")
    # The record has no password, and says so; with it the run resumes.
    more = ("--schedule.total-images", "24")
    run(
        "train_sed",
        "run",
        *more,
        codes=REFUSED,
        says="530",
        MLFLOW_TRACKING_URI=tracking.replace(f"{USER}:{CANARY}@", ""),
    )
    run("train_sed", "run", *remote, *more, says="resuming at 12 images")
    run("evaluate", "run", "--sets", "validation", "--output", "numbers.json")
    run("report", "run", "--sets", "validation", "--output", "report.html")
    run("visualise", "run", "--sets", "validation", says="and in MLflow")
    run("sync", "run", says="mlflow has all of it")
    run("promote", "run", "--name", "canary", "--sets", "validation", "--force", says="is champion")
    run("compare", "experiment.toml", "--shards", shards, "--output", "compared", says="(baseline)")
    run("ui", says="has a UI of its own")
    run("upscale", "models:/canary@champion", "validation/HR", "large")


def run_against_unreachable(run: Jobs, preset: str) -> None:
    """The same with stores, servers and a cluster that are unreachable."""
    closed = f"{USER}:{CANARY}@127.0.0.1:9"
    for scheme in ("ftp", "http", "s3"):
        run("verify", f"{scheme}://{closed}/shards", codes=REFUSED, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    run("shard", preset, "--output", f"ftp://{closed}/shards", codes=REFUSED)
    run(
        "shard",
        preset,
        "--output",
        "elsewhere",
        codes=REFUSED,
        says="Ray cluster unreachable",
        RAY_ADDRESS=f"ray://{closed}",
    )
    for uri in (f"http://{closed}", f"postgresql://{closed}/mlflow", f"sqlite:////proc/no.db?password={CANARY}"):
        run("upscale", "models:/canary@champion", "validation/HR", "l", codes=REFUSED, MLFLOW_TRACKING_URI=uri)
        run("promote", "run", "--name", "canary", "--sets", "validation", codes=REFUSED, MLFLOW_TRACKING_URI=uri)
        run("sync", "run", codes=REFUSED, MLFLOW_TRACKING_URI=uri)
        run("ui", codes=REFUSED, MLFLOW_TRACKING_URI=uri)
    run("compare", "experiment.toml", "--shards", f"ftp://{closed}/shards", "--output", "unreached", codes=REFUSED)


def files_with_the_canary(*folders: Path) -> list[Path]:
    """Return the files that hold the password, databases included."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 50
    return [path for path in files if CANARY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_password_in_a_url_is_used_and_is_in_no_output_file_or_database(tmp_path: Path, ray_folder: Path) -> None:
    write_photos(tmp_path / "photos", [(160, 176), (128, 200)])
    write_photos(tmp_path / "validation" / "HR", [(64, 72), (60, 50)])
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    preset = str(write_preset(tiny_preset(tmp_path), tmp_path / "preset.json"))
    with password_store(USER, CANARY) as store, tracking_server(tmp_path / "server") as tracking:
        run = Jobs(tmp_path, MLFLOW_TRACKING_URI=tracking, HOME=str(tmp_path), RAY_TMPDIR=str(ray_folder))
        run_all_jobs(run, store, preset, tracking)
        run_against_unreachable(run, preset)
        assert store.num_logins > 10
    assert files_with_the_canary(tmp_path, ray_folder) == []
    assert [name for name, content in store.objects.items() if CANARY.encode() in content] == []
