"""A run folder that somebody else has written is sent as far as it is one: no file but the run's, and no wait."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import photo, tiny_preset
from mlflow import MlflowClient
from PIL import Image

from jobs import sync
from jobs.terminal import EXIT_FAULTS, run_job
from pipeline.checkpoint.run_folder import RunFolder, RunStatus
from pipeline.tracking import RunDescription, keep_description, known_run_id, read_description
from pipeline.tracking.wandb_tracker import WandbTracker

MAX_SECONDS = 5.0
# These numbers arrive, whatever else is in the folder.
GOOD = '{"images_seen": 4, "generator/pixel": 0.5}\n{"images_seen": 8, "generator/pixel": 0.25}\n'
POINTS = [(4, 0.5), (8, 0.25)]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that no server has seen, with an empty outbox."""
    folder = RunFolder(tmp_path / "given" / "run")
    (folder.mlflow / "outbox").mkdir(parents=True)
    folder.write_config(tiny_preset(folder.path))
    folder.metrics.write_text(GOOD)
    return folder


def sent(store: str, run: RunFolder, code: int = 0) -> tuple[list[str], list[tuple[int, float]]]:
    """Send a run; return the artifacts and the points that MLflow has then."""
    began_s = time.monotonic()
    assert run_job(sync.main, [str(run.path)]) == code
    assert time.monotonic() - began_s < MAX_SECONDS
    client = MlflowClient(store)
    run_id = known_run_id(run.mlflow) or ""
    artifacts = [item.path for item in client.list_artifacts(run_id)]
    return artifacts, [(point.step, point.value) for point in client.get_metric_history(run_id, "generator/pixel")]


@pytest.mark.parametrize("names", ["absolute", "relative", "link", "folder", "nul", "long", "huge"])
def test_file_outside_of_the_run_folder_is_not_sent(
    names: str, store: str, run: RunFolder, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    secret, entry = tmp_path / "id_rsa", run.mlflow / "outbox" / "x.file"
    secret.write_text("secret")
    (run.path / "link").symlink_to(secret)
    content = {
        "absolute": os.fsencode(secret),
        "relative": b"../../../../../id_rsa",
        "link": b"../../../link",
        "folder": b"../../../..",
        "nul": b"a\0b",
        "long": b"a/" * 20_000,
    }
    if names == "huge":
        with entry.open("wb") as stream:
            stream.truncate(2**40)
    else:
        entry.write_bytes(content[names])
    (run.mlflow / "outbox" / "config.json.file").write_text("../../../config.json")
    assert sent(store, run) == (["config.json"], POINTS)
    assert list((run.mlflow / "outbox").iterdir()) == []
    assert [f"{entry} names no file of {run.path}, and is not sent"] == warnings()


def bomb() -> bytes:
    """A PNG of 3.6 gigapixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"  # Pillow would start Ghostscript


@pytest.mark.parametrize(
    "content", [bomb(), POSTSCRIPT, b"", b"fifo", b"device"], ids=["bomb", "postscript", "empty", "fifo", "device"]
)
def test_picture_that_is_none_is_passed_over(content: bytes, store: str, run: RunFolder) -> None:
    outbox = run.mlflow / "outbox"
    if content == b"fifo":
        os.mkfifo(outbox / "000000000002+x.png")
    elif content == b"device":
        (outbox / "000000000002+x.png").symlink_to("/dev/zero")
    else:
        (outbox / "000000000002+x.png").write_bytes(content)
    Image.fromarray(photo(0, 16, 16)).save(outbox / "000000000004+Set5%2Fbaby.png")
    shutil.copyfile(outbox / "000000000004+Set5%2Fbaby.png", outbox / f"{'9' * 100}+far.png")
    assert sent(store, run) == (["images"], POINTS)
    pictures = [item.path for item in MlflowClient(store).list_artifacts(known_run_id(run.mlflow) or "", "images")]
    assert {path.split("+")[0] for path in pictures} == {"images/Set5~baby"}


@pytest.mark.parametrize("position", [10**30, 2**63, -1, 1.5, True, "4"])
def test_line_at_no_position_costs_no_other(position: object, store: str, run: RunFolder) -> None:
    line = json.dumps({"images_seen": position, "generator/pixel": 9.0})
    run.metrics.write_text(f"{GOOD}{line}\n")
    assert sent(store, run) == ([], POINTS)


@pytest.mark.parametrize("unix_s", [1e300, 1e12, -1.0, "x", None])
def test_time_that_is_none_costs_no_number(unix_s: object, store: str, run: RunFolder) -> None:
    run.machine.write_text(json.dumps({"images_seen": 4, "unix_s": unix_s, "speed/images_per_second": 2.0}) + "\n")
    description = RunDescription("tests", "run", started_unix_s=3.0)
    keep_description(run.tracking, description)
    file = run.tracking / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"started_unix_s": unix_s}))
    assert sent(store, run) == ([], POINTS)
    metrics = MlflowClient(store).get_run(known_run_id(run.mlflow) or "").data.metrics
    assert metrics["speed/images_per_second"] == 2.0


# MLflow takes minutes to refuse the third.
@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"../../x\0y", b"a" * 100_000, b"", b"fifo"],
    ids=["no-text", "path", "long", "empty", "fifo"],
)
def test_id_that_is_none_is_not_asked_for(
    content: bytes, store: str, run: RunFolder, warnings: Callable[[], list[str]]
) -> None:
    file = run.mlflow / "run_id"
    if content == b"fifo":
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    assert sent(store, run) == ([], POINTS)
    assert set(warnings()) == {f"{file} holds no ID of a run in MLflow, and is not used"}


def unreadable(path: Path, kind: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as stream:
            stream.truncate(2**40)


@pytest.mark.parametrize("kind", ["fifo", "device", "sparse"])
def test_documents_that_are_no_files_are_as_if_they_were_not_there(kind: str, run: RunFolder) -> None:
    began_s = time.monotonic()
    unreadable(run.status, kind)
    unreadable(run.tracking / "run.json", kind)
    assert run.read_status() is None
    assert read_description(run.tracking) is None
    assert time.monotonic() - began_s < MAX_SECONDS


def test_metrics_file_of_a_terabyte_is_refused(store: str, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run.metrics.unlink()
    unreadable(run.metrics, "sparse")
    assert run_job(sync.main, [str(run.path)]) == EXIT_FAULTS
    assert "metrics.jsonl cannot be read: has 1,099,511,627,776 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "sent_before",
    [{"run_id": "../../x", "last": 4, "names": []}, {"run_id": "a", "last": "4", "names": 5}, [], "x", {"last": -2}],
)
def test_what_wandb_was_sent_is_typed(
    sent_before: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "sent.json").write_text(json.dumps(sent_before))
    # W&B takes no / in the name of a project.
    tracker = WandbTracker(RunDescription("team/tests: 1", "run"), tmp_path / "wandb")
    tracker.open()
    tracker.end("FINISHED")
    kept: dict[str, Any] = json.loads((tmp_path / "wandb" / "sent.json").read_text())
    assert kept["last"] == -1
    assert kept["run_id"] not in {"../../x", "a"}
    (warning,) = warnings()
    assert "W&B gets this run as a new one" in warning


def test_status_of_a_run_is_read_back(run: RunFolder) -> None:
    run.write_status(RunStatus("finished", 4, 4))
    assert run.read_status() == RunStatus("finished", 4, 4)
